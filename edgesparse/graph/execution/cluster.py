"""Runs stages on a Dask cluster, with the same stages, keys and store as on this machine.

A Dask worker runs a stage as this machine does, in a child process, so that TensorFlow can crash
without the worker, and stores its artifact. Another worker repeats the stage of a lost one; stored
stages are not repeated. Stages that use devices run on this machine, which has the connections.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.graph import events
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.shared_store import Shared
from edgesparse.graph.store import Store
from edgesparse.graph.versions import library_versions
from edgesparse.spec.errors import EdgesparseError, UsageError, missing_extra
from edgesparse.stages.base.stage import PlanContext, Stage

TRIES = 8
"""Attempts of a stage whose worker, or scheduler, was lost."""
CONNECT_SECONDS, RECONNECT_SECONDS, END_SECONDS = 10.0, 120.0, 10.0
_COUNT_SECONDS = 1.0
_TOPIC = "edgesparse"


@dataclass(frozen=True)
class _Order:
    """A stage for a Dask worker; its plan's context was sent before."""

    stage: Stage
    session: str
    """The client's session; the worker's processes end with it."""
    context: str
    """The name of the context in the worker."""
    root: str
    """The client's store, which a worker can share or not."""
    mark: str
    """A file in it: a worker that has the file shares the store."""
    shared: str | None
    project: str | None
    log: str
    versions: dict[str, str]


class DaskCluster:
    """A connection to a Dask cluster; see executor.Cluster."""

    def __init__(self, address: str) -> None:
        """Connect to a scheduler at an address, or by its file.

        Raises:
            UsageError: Dask is not installed, or no scheduler answers.
        """
        self.address = address
        self._distributed = _library()
        self._lock = threading.Lock()
        self._sent: dict[int, tuple[PlanContext, str]] = {}
        self._listeners: dict[str, Callable[[float, str], None]] = {}
        self._counted = (0.0, 1)
        self._versions = library_versions()
        self._marks: dict[Path, str] = {}
        self._marking = ExitStack()
        self._spent: list[Any] = []
        """Futures that have ended. Dask's client sends messages every 10 ms at most, and releasing
        a future is one: it is sent after the next order."""
        self._stopped = False
        self._session = f"edgesparse-session-{uuid.uuid4().hex[:12]}"
        self._client: Any = self._connected(CONNECT_SECONDS)

    @property
    def interrupted(self) -> bool:
        """Return whether it was closed while stages were running."""
        return self._stopped

    def close(self) -> None:
        """End the connection."""
        with suppress(Exception):  # Its scheduler can be gone already.
            if self._client.status == "running":
                end = self._client.scheduler.unregister_worker_plugin
                self._client.sync(end, name=self._session, callback_timeout=END_SECONDS)
        with suppress(Exception):
            self._client.close()
        self._marking.close()
        self._marks.clear()

    @property
    def count(self) -> int:
        """The number of stages that can run on it in parallel."""
        now = time.monotonic()
        if now - self._counted[0] > _COUNT_SECONDS:
            with suppress(Exception):  # While it reconnects, the last number applies.
                self._counted = (now, max(1, sum(self._client.nthreads().values())))
        return self._counted[1]

    def run_stage(self, stage: Stage, executor: Executor, listener: events.Listener) -> str | None:
        """Run a stage on the cluster; returns the error if it failed."""

        def progress(share: float, text: str) -> None:
            listener(events.StageProgress(stage.label, share, text))

        self._listeners[stage.key] = progress
        lost: Exception | None = None
        try:
            for number in range(TRIES):
                client = self._client
                try:
                    future = client.submit(
                        _run_in_worker,
                        self._order(stage, executor),
                        key=f"{stage.label}-{stage.key[:12]}-{number}-{uuid.uuid4().hex[:6]}",
                        pure=False,
                    )
                    self._spent.clear()
                    error: str | None = future.result()
                    self._spent.append(future)
                    return error
                except Exception as caught:  # Dask raises different errors for lost processes.
                    if self._stopped:
                        return "interrupted"
                    if not self._is_loss(caught):
                        return f"{type(caught).__name__}: {str(caught)[:300]}"
                    lost = caught
                    listener(events.Note(f"{stage.label}: lost its Dask worker; retrying"))
                    self._again(client)
            return f"lost its Dask worker {TRIES} times ({type(lost).__name__}); out of memory?"
        except EdgesparseError as error_of_ours:
            return str(error_of_ours)
        finally:
            self._listeners.pop(stage.key, None)

    def interrupt(self) -> None:
        """Release the running stages, without retries."""
        self._stopped = True
        self.close()

    def _is_loss(self, error: Exception) -> bool:
        from concurrent.futures import CancelledError

        names = {"KilledWorker", "CommClosedError", "FutureCancelledError", "CancelledError"}
        return isinstance(error, CancelledError | OSError) or type(error).__name__ in names

    def _again(self, lost: Any) -> None:
        """Connect again after the scheduler was lost; one thread does it for all."""
        with self._lock:
            if self._client is not lost:
                return
            if lost.status == "running":
                with suppress(Exception):
                    lost.nthreads()
                    return
            with suppress(Exception):
                lost.close(timeout=1)
            self._sent.clear()
            self._client = self._connected(RECONNECT_SECONDS)

    def _connected(self, patience: float) -> Any:
        """Return a client of a scheduler that answers within `patience` seconds."""
        last: Exception | None = None
        until = time.monotonic() + patience
        while True:
            kind = "address" if "://" in self.address else "scheduler_file"
            try:
                if kind == "scheduler_file" and not Path(self.address).is_file():
                    raise OSError("file not found, and not an address such as tcp://host:8786")
                client = self._distributed.Client(
                    **{kind: self.address}, timeout=10, set_as_default=False
                )
                client.subscribe_topic(_TOPIC, self._on_progress)
                client.register_plugin(_session_plugin(self._session), name=self._session)
                return client
            except Exception as error:
                last = error
            if time.monotonic() > until or self._stopped:
                raise UsageError(
                    f"--cluster {self.address}: no answer from a scheduler "
                    f"({type(last).__name__}: {str(last)[:200]})"
                )
            time.sleep(0.5)

    def _on_progress(self, event: Any) -> None:
        """Forward the progress that a worker reports."""
        with suppress(TypeError, ValueError, LookupError):
            key, share, text = event[1]
            tell = self._listeners.get(str(key))
            if tell is not None:
                tell(min(1.0, max(0.0, float(share))), str(text)[:300])

    def _order(self, stage: Stage, executor: Executor) -> _Order:
        store = executor.store
        return _Order(
            stage,
            self._session,
            self._context(executor.context),
            str(store.root.absolute()),
            self._mark(store),
            store.shared.url if store.shared else None,
            str(store.project) if store.project else None,
            str(executor.workers.log.absolute()),
            self._versions,
        )

    def _mark(self, store: Store) -> str:
        """Return a folder that marks the store while this process uses it: a copy of the project
        on another machine, under the same path, lacks it."""
        if store.root not in self._marks:
            self._marks[store.root] = self._marking.enter_context(store.part()).name
        return self._marks[store.root]

    def _context(self, context: PlanContext) -> str:
        """Send a context to all workers, including later ones; returns its name."""
        with self._lock:
            sent = self._sent.get(id(context))
            if sent is None:
                # Plans run one at a time: the context of an earlier one is not needed.
                for _, old in self._sent.values():
                    with suppress(Exception):
                        self._client.unregister_worker_plugin(old)
                self._sent.clear()
                name = f"edgesparse-{uuid.uuid4().hex[:12]}"
                self._client.register_plugin(_context_plugin(pickle.dumps(context)), name=name)
                sent = self._sent[id(context)] = (context, name)
            return sent[1]


def _library() -> Any:
    try:
        import distributed
    except ImportError:
        raise missing_extra("--cluster", "Dask", "cluster") from None
    # Its warnings of lost workers would interrupt the progress display, which reports them.
    logging.getLogger("distributed.client").setLevel(logging.ERROR)
    return distributed


def _context_plugin(pickled: bytes) -> Any:
    from distributed import WorkerPlugin

    class Sent(WorkerPlugin):  # type: ignore[misc]
        """Holds a context in a worker."""

        def __init__(self, content: bytes) -> None:
            self.content = content

    return Sent(pickled)


def _session_plugin(session: str) -> Any:
    from distributed import WorkerPlugin

    class Ending(WorkerPlugin):  # type: ignore[misc]
        """Ends a client's processes when it releases its workers."""

        def __init__(self, session: str) -> None:
            self.session = session

        def teardown(self, worker: Any) -> None:
            from edgesparse.graph.execution.cluster import end_session

            end_session(self.session)

    return Ending(session)


# The code below runs in Dask workers.

_contexts: dict[str, PlanContext] = {}
_pools: dict[str, Workers] = {}
_stores: dict[tuple[str, str | None, str | None], Store] = {}
_setting_up = threading.Lock()


def _run_in_worker(order: _Order) -> str | None:
    """Run a stage in this Dask worker."""
    from distributed import get_worker

    worker = get_worker()
    try:
        executor = _executor(order, worker)
    except EdgesparseError as error:
        return str(error)
    try:
        executor.context.inputs.check()
    except EdgesparseError as error:
        return (
            f"worker {worker.address}: {error}; data and saved models must have the same path on "
            "every worker"
        )
    if executor.store.has(order.stage.key):  # Stored by a worker that was lost afterwards.
        return None

    def tell(event: events.RunEvent) -> None:
        if isinstance(event, events.StageProgress):
            worker.log_event(_TOPIC, (order.stage.key, event.share, event.text))

    return executor.run_stage(order.stage, tell)


def _executor(order: _Order, worker: Any) -> Executor:
    """Return the executor of stages in this worker."""
    with _setting_up:
        differing = _version_differences(order.versions)
        if differing:
            raise EdgesparseError(f"versions differ on worker {worker.address}: {differing}")
        store = _store(order, worker)
        if order.context not in _contexts:
            _contexts.clear()  # An earlier plan's data is not needed in memory.
            plugin = worker.plugins.get(order.context)
            if plugin is None:
                raise EdgesparseError(f"worker {worker.address} did not receive the pipeline")
            _contexts[order.context] = pickle.loads(plugin.content)  # noqa: S301 (from the client)
        name = worker.name if isinstance(worker.name, str) else f"worker-{worker.name}"
        log = Path(order.log)
        log = log.with_stem(f"{log.stem}-{''.join(c if c.isalnum() else '-' for c in name)[-40:]}")
        if not log.parent.is_dir():
            log = Path(worker.local_directory) / log.name
        if order.session not in _pools:
            # End idle pools: their clients can have been killed; others start theirs again.
            for session in [name for name, pool in _pools.items() if pool.idle]:
                end_session(session)
            _pools[order.session] = Workers(log, worker.state.nthreads)
        pool = _pools[order.session]
        if pool.log != log:  # A client's next run.
            pool.log = log
        return Executor(_contexts[order.context], None, store, pool)


def end_session(session: str) -> None:
    """End the processes of a client: TensorFlow takes almost a gigabyte in each."""
    pool = _pools.pop(session, None)
    if pool is not None:
        pool.close()


def _store(order: _Order, worker: Any) -> Store:
    """Return the client's store where this machine shares it, else one that copies from the
    remote store."""
    sees = (Path(order.root) / order.mark).exists()
    if not sees and order.shared is None:
        raise EdgesparseError(
            f"worker {worker.address} has no access to {order.root}; set a store that it can "
            "reach, 'store: s3://bucket/folder' in the pipeline, or start workers on a shared "
            "filesystem"
        )
    root = order.root if sees else str(Path(worker.local_directory) / "edgesparse" / "store")
    key = (root, order.shared, order.project)
    if key not in _stores:
        shared = Shared(order.shared) if order.shared else None
        _stores[key] = Store(Path(root), shared, Path(order.project) if order.project else None)
    return _stores[key]


_own_versions: dict[str, str] = {}


def _version_differences(versions: dict[str, str]) -> str:
    """Describe the versions that differ from the client's, with which results would differ."""
    if not _own_versions:
        _own_versions.update(library_versions())
    names = sorted({*versions, *_own_versions})
    differences = (
        f"{name} {_own_versions.get(name, 'missing')} instead of {versions.get(name, 'none')}"
        for name in names
        if _own_versions.get(name) != versions.get(name)
    )
    return ", ".join(differences)
