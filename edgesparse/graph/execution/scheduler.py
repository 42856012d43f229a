"""Schedules the stages of a plan: stored ones are skipped, independent ones run in parallel."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeVar

from edgesparse.graph import events
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.store import DamagedArtifact, Store
from edgesparse.stages import kind
from edgesparse.stages.base.stage import Stage

_MOST_LANES = 256
Result = TypeVar("Result")


def execute(
    stages: Sequence[Stage],
    executor: Executor,
    listener: events.Listener,
    check: Callable[[Stage], None] = lambda _: None,
    failed: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Run every stage whose artifact is missing, each after its inputs. A failed stage fails only
    the stages that depend on it.

    As many run in parallel as this machine, or a cluster, has workers, and in addition one that
    only uses a device; a stage that measures time on this machine runs alone. Their output goes to
    the workers' logs.

    Args:
        check: called with each finished stage; an exception stops all stages.
        failed: errors of stages that failed before in this run, which are not repeated.

    Returns:
        Errors by the key of a stage that failed or could not start; the others are stored.
    """
    # Before new stages: partial artifacts of a killed run take space.
    executor.store.sweep()
    schedule = _Schedule(tuple(stages), executor, events.thread_safe(listener), check)
    schedule.errors.update(failed or {})
    # The threads only wait; a cluster can grow while it works.
    lanes = executor.workers.count if executor.cluster is None else _MOST_LANES
    with ThreadPoolExecutor(lanes + 1) as pool:
        try:
            while schedule.begin(pool):
                schedule.finish()
        except BaseException:  # Ctrl-C, most likely: stop the running stages.
            executor.interrupt()
            raise
    return {
        stage.key: schedule.errors[stage.key] for stage in stages if stage.key in schedule.errors
    }


def execute_and_read(
    stages: Sequence[Stage],
    executor: Executor,
    listener: events.Listener,
    read: Callable[[dict[str, str]], Result],
    check: Callable[[Stage], None] = lambda _: None,
    failed: Mapping[str, str] | None = None,
) -> Result:
    """Run the stages, then call `read` with their errors; returns its result.

    Artifacts of a shared store are fetched when `read` or `check` needs them: the stage of a
    damaged one then runs again.
    """
    while True:
        try:
            return read(execute(stages, executor, listener, check, failed))
        except DamagedArtifact as damaged:
            # Ends: the stage is stored here now, or fails.
            listener(events.Note(f"damaged artifact: {damaged}"))


@dataclass
class _Schedule:
    """The state of an execution. Stages are identified by their index in the plan."""

    stages: tuple[Stage, ...]
    executor: Executor
    listener: events.Listener
    check: Callable[[Stage], None]
    errors: dict[str, str] = field(default_factory=dict)
    running: dict[Future[str | None], int] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    """The number of inputs that each stage waits for."""
    followers: dict[str, list[int]] = field(default_factory=dict)
    """The stages that wait for a key."""
    behind: dict[int, int] = field(default_factory=dict)
    """The length of the longest chain of stages after each."""
    ready: list[int] = field(default_factory=list)
    """Stages whose inputs are done, not yet queued."""
    here: list[tuple[int, int]] = field(default_factory=list)
    """Stages for workers, those with the longest chain after them first, so that no long chain
    remains when the others are done."""
    asking: list[tuple[int, int]] = field(default_factory=list)
    """Stages that only use a device."""
    by_key: dict[str, Stage] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)
    """The position of each stage in the order of starts."""

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
        """Start the stages that can run; return whether any is running."""
        while self.ready:
            number = heapq.heappop(self.ready)
            if self._is_settled(number):
                self._release(number)
            else:
                in_child = kind(self.stages[number].name).in_child
                queue = self.here if in_child else self.asking
                heapq.heappush(queue, (-self.behind[number], number))
        for queue in (self.here, self.asking):
            while queue and self._fits(queue[0][1]):
                _, number = heapq.heappop(queue)
                stage = self.stages[number]
                self.listener(events.StageStarted(stage.label, *self._progress(number)))
                self.running[pool.submit(self._run, stage)] = number
        return bool(self.running)

    def _run(self, stage: Stage) -> str | None:
        executor = self.executor
        for key in stage.inputs.values():
            # An artifact can be damaged in the shared store: then its stage runs again.
            if not executor.store.ready(key) and key in self.by_key:
                error = self._run(self.by_key[key])
                if error is not None:
                    return f"{self.by_key[key].label}: {error}"
        if executor.cluster is not None and _can_run_on_cluster(stage):
            return executor.cluster.run_stage(stage, executor, self.listener)
        return executor.run_stage(stage, self.listener)

    def finish(self) -> None:
        """Wait for the next stages that end."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            number = self.running.pop(future)
            stage, error = self.stages[number], future.result()
            if error is None:
                self.listener(events.StageDone(stage.label, *self._progress(number)))
                self.check(stage)
            else:
                self.errors[stage.key] = f"{stage.label}: {error}"
                self.listener(events.StageFailed(stage.label, stage.variants, error))
            self._release(number)

    def _progress(self, number: int) -> tuple[int, int]:
        """Return a stage's position in the order of starts, and the number of stages."""
        return self.begun.setdefault(number, len(self.begun) + 1), len(self.stages)

    def _release(self, number: int) -> None:
        for follower in self.followers.get(self.stages[number].key, ()):
            self.missing[follower] -= 1
            if not self.missing[follower]:
                heapq.heappush(self.ready, follower)

    def _is_settled(self, number: int) -> bool:
        """Return whether a stage need not run: it is stored, failed, or a stage before it did."""
        stage = self.stages[number]
        if stage.key in self.errors:
            return True
        # Report the first cause, not the missing input.
        blocked = next((self.errors[k] for k in stage.inputs.values() if k in self.errors), None)
        if blocked is not None:
            self.errors[stage.key] = blocked
        elif is_stored(stage, self.executor.store, self.listener) and (
            stage.key in self.followers or self.executor.store.ready(stage.key)
        ):
            self.listener(events.StageDone(stage.label, *self._progress(number), cached=True))
            self.check(stage)
        else:
            return False
        return True

    def _fits(self, number: int) -> bool:
        """Return whether a stage can run in parallel with the running ones."""
        stage, running = self.stages[number], [self.stages[n] for n in self.running.values()]
        if running and any(_is_timed_here(other, self.executor) for other in (stage, *running)):
            return False
        device_stages = sum(not kind(other.name).in_child for other in running)
        if not kind(stage.name).in_child:
            return not device_stages  # A device has one connection, and measures one job.
        if self.executor.cluster is None:
            return len(running) - device_stages < self.executor.workers.count
        local = sum(
            kind(other.name).in_child and not _can_run_on_cluster(other) for other in running
        )
        if not _can_run_on_cluster(stage):
            return local < self.executor.workers.count
        return len(running) - device_stages - local < min(self.executor.cluster.count, _MOST_LANES)


def is_stored(stage: Stage, store: Store, listener: events.Listener) -> bool:
    """Return whether a stage's artifact is stored and intact; a damaged one is removed."""
    wrong = store.damage(stage.key)
    if wrong is not None:
        text = f"{stage.label}: stored artifact is damaged ({wrong}); running the stage again"
        listener(events.Note(text))
        store.discard(stage.key)
    return store.has(stage.key)


def _can_run_on_cluster(stage: Stage) -> bool:
    """Return whether a stage can run on a cluster: those that use devices run on this machine."""
    return kind(stage.name).in_child and "target" not in stage.spec


def _is_timed_here(stage: Stage, executor: Executor) -> bool:
    """Return whether a stage's result depends on the time of this machine."""
    target = stage.spec.get("target")
    if target is None or target["clock"] != "wall":
        return False
    return executor.devices is not None and executor.devices.host is None
