"""A child process for code that can crash it: TensorFlow's C++ parts and users' code.

TensorFlow's quantizer, for one, crashes on recurrent layers; finished artifacts and other variants
must survive that. The process starts with the first call and serves one after another, so that
TensorFlow is imported once; after a crash it is started again.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from edgesparse.devices.transport.interface import Progress
from edgesparse.spec.code.run_inputs import Name
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.reading.document import Document
from edgesparse.spec.safe.file_access import WRITTEN, Watch, changed
from edgesparse.spec.safe.isolated_python import python
from edgesparse.spec.safe.temporary_folders import TemporaryFolder
from edgesparse.spec.training import Strategy
from edgesparse.stages.base.stage import PlanContext

POLL_SECONDS = 1.0
_LOG_TAIL_BYTES = 1 << 16
_FRAME = re.compile(r'Current thread [^\n]*\n  File "([^"\n]+)", line \d+ in ([^\n]+)')
# Not multiprocessing, which would run a user's script again that lacks a __main__ guard.
_START = "from edgesparse.graph.execution.worker_main import main; main(int(sys.argv[1]))"


class Worker:
    """Runs functions in a child process, one call at a time; a context manager that ends it.

    Everything that a call prints is appended to the file that `log` names when the call begins.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._temporary: TemporaryFolder | None = None
        self._context: PlanContext | None = None
        """The context that the process has already."""
        self._user_code = ""
        """Digest of the user's code that it has imported."""
        self._installed: dict[Name, str] = {}
        """Other code that it has imported, with digests."""
        self._watch: Watch | None = None
        self._watching: tuple[object, ...] = ()
        self._reads: dict[str, str] = {}
        """Files of the project that its code has read, with digests."""
        self._strategy: Strategy | None = None
        """The strategy for which TensorFlow was set up."""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        function: str,
        context: PlanContext,
        parts: dict[str, Any],
        *arguments: Any,
        progress: Progress = lambda _, __: None,
        handle_request: Callable[[Any], Any] | None = None,
        reads: dict[str, str] | None = None,
    ) -> Any:
        """Call `module:function` in the process with a StageContext and `arguments`.

        Args:
            parts: stage, inputs and folder of that StageContext.
            handle_request: serves StageContext.request.
            reads: filled with the project's files that the process has read, with digests.

        Returns:
            The function's result.

        Raises:
            EdgesparseError: it failed, or its process crashed; the message is one line.
        """
        module, _, name = function.partition(":")
        if self._stale(context):
            self.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self._watch is not None:
            self._watch.resume(context.is_tracked)
        elif context.user_code:
            self._watch = Watch(context.watched_folders, context.is_tracked)
            self._watching = _watch_settings(context)
        message = (str(Path.cwd()), str(self.log), module, name, parts, arguments)
        with _masked_log(self.log, context.loaded.document):
            try:
                word, result = self._exchange(context, message, progress, handle_request)
            except (EOFError, ConnectionError):
                raise EdgesparseError(self._crash_text()) from None
            except BaseException:  # Ctrl-C, most likely: only this process receives it.
                self.close()
                raise
        self._context = context if word == "done" else None
        if self._watch is not None:
            # What the process has read stays in its memory, and can shape every later result.
            self._reads = self._watch.reads(context.watched_folders[0])
            self._watch.pause()
        if word == "failed":
            raise EdgesparseError(result)
        if reads is not None:
            reads.update(self._reads)
        return result

    def _exchange(
        self,
        context: PlanContext,
        message: tuple[Any, ...],
        progress: Progress,
        handle_request: Callable[[Any], Any] | None,
    ) -> tuple[str, Any]:
        """Send a call and serve the process until it answers "done" or "failed"."""
        connection = self._connected()
        # A context can be large, and is the same for all stages of a plan.
        sent = None if context is self._context else pickle.dumps(context)
        connection.send(("call", sent, *message))
        self._user_code = context.user_code or self._user_code
        self._installed |= context.inputs.installed
        self._strategy = context.pipeline.train.strategy
        word, *rest = self._received(connection)
        while word not in ("done", "failed"):
            if word == "progress":
                progress(*rest)
            else:
                assert handle_request is not None
                connection.send(("response", _response(handle_request, rest[0])))
            word, *rest = self._received(connection)
        return word, rest[0]

    @property
    def unwatched(self) -> str:
        """A note on reads of the user's code that cannot be tracked; mostly empty."""
        return "" if self._watch is None else self._watch.notice

    def kill(self) -> None:
        """Kill the process, and all that it started, while another thread waits for it."""
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and remove its temporary files."""
        self.kill()
        if self._process is not None:
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        if self._temporary is not None:
            self._temporary.close()
        self._process = self._connection = self._temporary = self._context = None
        if self._watch is not None:
            self._watch.close()
        self._watch, self._reads = None, {}
        self._user_code, self._installed, self._strategy = "", {}, None

    def _stale(self, context: PlanContext) -> bool:
        """Return whether another context needs a new process: imported modules and the set-up of
        TensorFlow cannot be undone."""
        if self._process is None:
            return False
        steady = {name: digest for name, digest in self._reads.items() if digest != WRITTEN}
        if changed(steady, context.watched_folders[0]) is not None:
            return True
        if context is self._context:
            return False
        if self._watch is not None and self._watching != _watch_settings(context):
            return True
        imports_other_code = self._user_code not in ("", context.user_code) or any(
            digest != self._installed.get(name, digest)
            for name, digest in context.inputs.installed.items()
        )
        strategy = context.pipeline.train.strategy
        return imports_other_code or self._strategy not in (None, strategy)

    def _connected(self) -> Connection:
        if self._connection is not None and self._process is not None:
            if self._process.poll() is None:
                return self._connection
            self.close()
        # TensorFlow and users' code leave temporary files behind when they are killed.
        self._temporary = TemporaryFolder()
        ours, theirs = socket.socketpair()
        with theirs, self.log.open("ab") as log:
            environment = {**os.environ, "TMPDIR": str(self._temporary.path)}
            self._process = self._start(theirs.fileno(), log, environment)
        self._connection = Connection(ours.detach())
        return self._connection

    def _start(
        self, descriptor: int, log: IO[bytes], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start the process that serves the socket `descriptor`."""
        # A session of its own: Ctrl-C in the terminal reaches this process only.
        return subprocess.Popen(
            python(_START, descriptor),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=[descriptor],
            start_new_session=True,
        )

    def _received(self, connection: Connection) -> tuple[Any, ...]:
        """The next message. Raises EOFError when there will be none."""
        assert self._process is not None
        while not connection.poll(POLL_SECONDS):
            # A process that the stage started can still hold the socket's other end.
            if self._process.poll() is not None and not connection.poll():
                raise EOFError
        message: tuple[Any, ...] = connection.recv()
        return message

    def _crash_text(self) -> str:
        """Describe why the process ended."""
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGKILL:
            return "its process was killed (SIGKILL), probably out of memory"
        if code < 0:
            name, location = signal.Signals(-code).name, _crash_location(self.log)
            return f"its process crashed ({name}){location} (details in {self.log})"
        return f"its process ended early with exit code {code} (details in {self.log})"


def _response(handle_request: Callable[[Any], Any], value: Any) -> Any:
    try:
        return handle_request(value)
    except EdgesparseError as error:  # The stage fails with it.
        return EdgesparseError(str(error))


def _crash_location(log: Path) -> str:
    """Find the Python function in which a process crashed, as faulthandler has logged it."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        text = file.read().decode(errors="replace")
    frames = _FRAME.findall(text)
    return f" in {'/'.join(Path(frames[-1][0]).parts[-2:])} ({frames[-1][1]})" if frames else ""


@contextmanager
def _masked_log(log: Path, document: Document) -> Iterator[None]:
    """Mask secrets in what is printed during a block: users' code and libraries print addresses
    with tokens and passwords."""
    start = log.stat().st_size if log.exists() else 0
    try:
        yield
    finally:
        # The process appends: it writes behind the shorter text.
        with suppress(OSError), log.open("r+", errors="surrogateescape", newline="") as file:
            file.seek(start)
            text = file.read()
            masked = document.masked(text)
            if masked != text:
                file.seek(start)
                file.write(masked)
                file.truncate()


def _watch_settings(context: PlanContext) -> tuple[object, ...]:
    """Return what decides which folders are watched."""
    return context.watched_folders, tuple(context.inputs.folders)
