"""Walks a plan's graph: what is in the store is not done again, and what does not wait for one
another is done side by side."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from edgesparse.graph import events
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.store import Store
from edgesparse.stages import kind
from edgesparse.stages.base.stage import Stage

_MOST_LANES = 256


def execute(
    stages: Sequence[Stage],
    executor: Executor,
    listener: events.Listener,
    check: Callable[[Stage], None] = lambda _: None,
) -> dict[str, str]:
    """Run every stage whose artifact is missing; each comes after its inputs. A failed stage fails
    what depends on it only.

    As many run at once as this machine, or a cluster, has workers, and beside them one that asks
    devices only; one that measures on this machine runs alone. Whatever stages print goes to the
    workers' logs.

    Args:
        check: called with each stage that is done; what it raises ends all of them.

    Returns:
        Errors by the key of the stage that failed or could not begin; the others are stored.
    """
    # Before anything new is begun: half artifacts of a killed run take room.
    executor.store.sweep()
    walk = _Walk(tuple(stages), executor, events.thread_safe(listener), check)
    # Threads wait only; a cluster may grow while it works.
    lanes = executor.workers.count if executor.cluster is None else _MOST_LANES
    with ThreadPoolExecutor(lanes + 1) as pool:
        try:
            while walk.begin(pool):
                walk.finish()
        except BaseException:  # Ctrl-C, most likely. What goes on hears of it and ends.
            executor.interrupt()
            raise
    return {stage.key: walk.errors[stage.key] for stage in stages if stage.key in walk.errors}


@dataclass
class _Walk:
    """How far it has come. Stages go by their numbers, which are their places in the plan."""

    stages: tuple[Stage, ...]
    executor: Executor
    tell: events.Listener
    check: Callable[[Stage], None]
    errors: dict[str, str] = field(default_factory=dict)
    running: dict[Future[str | None], int] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    """How many of its inputs each stage still waits for."""
    followers: dict[str, list[int]] = field(default_factory=dict)
    """Who waits for a key."""
    behind: dict[int, int] = field(default_factory=dict)
    """How many stages still come after it, one after another."""
    ready: list[int] = field(default_factory=list)
    """Those that wait for nothing any more, and have not been looked at."""
    here: list[tuple[int, int]] = field(default_factory=list)
    """Those to be carried out by a worker; the one with the longest way behind it comes first, so
    that no long way is left over when the others are done."""
    asking: list[tuple[int, int]] = field(default_factory=list)
    """Those that only ask a device."""
    by_key: dict[str, Stage] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)
    """As the how-maniest each was begun."""

    def __post_init__(self) -> None:
        self.by_key = {stage.key: stage for stage in self.stages}
        keys = self.by_key.keys()
        for number, stage in enumerate(self.stages):
            inputs = set(stage.inputs.values()) & keys
            self.missing[number] = len(inputs)
            for key in inputs:
                self.followers.setdefault(key, []).append(number)
        for number in reversed(range(len(self.stages))):
            after = self.followers.get(self.stages[number].key, ())
            self.behind[number] = max((1 + self.behind[other] for other in after), default=0)
        self.ready = [number for number, count in self.missing.items() if not count]

    def begin(self, pool: ThreadPoolExecutor) -> bool:
        """Begin whatever can be; whether there is something to wait for."""
        while self.ready:
            number = heapq.heappop(self.ready)
            if self._settled(number):
                self._release(number)
            else:
                in_child = kind(self.stages[number].name).in_child
                queue = self.here if in_child else self.asking
                heapq.heappush(queue, (-self.behind[number], number))
        for queue in (self.here, self.asking):
            while queue and self._fits(queue[0][1]):
                _, number = heapq.heappop(queue)
                stage = self.stages[number]
                self.tell(events.StageStarted(stage.label, *self._place(number)))
                self.running[pool.submit(self._run, stage)] = number
        return bool(self.running)

    def _run(self, stage: Stage) -> str | None:
        executor = self.executor
        for key in stage.inputs.values():
            # What the shared store has named may be damaged there: then it is made again.
            if not executor.store.ready(key) and key in self.by_key:
                error = self._run(self.by_key[key])
                if error is not None:
                    return f"{self.by_key[key].label}: {error}"
        if executor.cluster is not None and _goes_away(stage):
            return executor.cluster.run_stage(stage, executor, self.tell)
        return executor.run_stage(stage, self.tell)

    def finish(self) -> None:
        """Wait for the next that ends."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            number = self.running.pop(future)
            stage, error = self.stages[number], future.result()
            if error is None:
                self.tell(events.StageDone(stage.label, *self._place(number)))
                self.check(stage)
            else:
                self.errors[stage.key] = f"{stage.label}: {error}"
                self.tell(events.StageFailed(stage.label, stage.variants, error))
            self._release(number)

    def _place(self, number: int) -> tuple[int, int]:
        """As the how-maniest of how many it was begun."""
        return self.begun.setdefault(number, len(self.begun) + 1), len(self.stages)

    def _release(self, number: int) -> None:
        for follower in self.followers.get(self.stages[number].key, ()):
            self.missing[follower] -= 1
            if not self.missing[follower]:
                heapq.heappush(self.ready, follower)

    def _settled(self, number: int) -> bool:
        """Whether nothing is to be done: something before it failed, or it is stored."""
        stage = self.stages[number]
        # The first cause is told, not that something before it is missing.
        blocked = next((self.errors[k] for k in stage.inputs.values() if k in self.errors), None)
        if blocked is not None:
            self.errors[stage.key] = blocked
        elif stored(stage, self.executor.store, self.tell) and (
            stage.key in self.followers or self.executor.store.ready(stage.key)
        ):
            self.tell(events.StageDone(stage.label, *self._place(number), cached=True))
            self.check(stage)
        else:
            return False
        return True

    def _fits(self, number: int) -> bool:
        """Whether it can run beside what runs now."""
        stage, now = self.stages[number], [self.stages[n] for n in self.running.values()]
        if now and any(_measures_here(one, self.executor) for one in (stage, *now)):
            return False
        asks = sum(not kind(one.name).in_child for one in now)
        if not kind(stage.name).in_child:
            return not asks  # One device, one connection: answers come one after another.
        if self.executor.cluster is None:
            return len(now) - asks < self.executor.workers.count
        here = sum(kind(one.name).in_child and not _goes_away(one) for one in now)
        if not _goes_away(stage):
            return here < self.executor.workers.count
        return len(now) - asks - here < min(self.executor.cluster.count, _MOST_LANES)


def stored(stage: Stage, store: Store, listener: events.Listener) -> bool:
    """Whether its artifact is whole and stored; a damaged one is taken away, which is said."""
    wrong = store.wrong(stage.key)
    if wrong is not None:
        text = f"{stage.label}: what is in the store is damaged ({wrong}); it is made again"
        listener(events.Note(text))
        store.discard(stage.key)
    return store.has(stage.key)


def _goes_away(stage: Stage) -> bool:
    """Whether it needs nothing but the store: what asks devices stays where they are connected."""
    return kind(stage.name).in_child and "target" not in stage.spec


def _measures_here(stage: Stage, executor: Executor) -> bool:
    """Whether its result depends on how long something takes on this machine."""
    target = stage.spec.get("target")
    if target is None or target["clock"] != "wall":
        return False
    return executor.devices is not None and executor.devices.host is None
