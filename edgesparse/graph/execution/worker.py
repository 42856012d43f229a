"""A process for work that can take its process down: TensorFlow's C++ parts, and users' code.

TensorFlow's quantizer, for one, crashes on recurrent layers. What was finished, and the rows of the
other variants, must outlive that. The process is started when it is first needed, does one piece of
work after another, so that TensorFlow is imported once, and is started anew after a crash.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgesparse.devices.transport.interface import Progress
from edgesparse.spec.code.inputs import Name
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.file_access import WRITTEN, Watch, changed
from edgesparse.spec.safe.programs import python
from edgesparse.spec.safe.temporary import TemporaryFolder
from edgesparse.spec.training import Strategy
from edgesparse.stages.base.stage import Context

POLL_SECONDS = 1.0
_LOG_TAIL_BYTES = 1 << 16
_FRAME = re.compile(r'Current thread [^\n]*\n  File "([^"\n]+)", line \d+ in ([^\n]+)')
# Not multiprocessing, which would run a user's script again that lacks a __main__ guard.
_START = "from edgesparse.graph.execution.worker_main import main; main(int(sys.argv[1]))"


class Worker:
    """At most one child process; a context manager that ends it.

    Whatever a call prints there goes to what `log` is when it begins.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._temporary: TemporaryFolder | None = None
        self._context: Context | None = None
        """What the process knows already."""
        self._own_code = ""
        """The user's code that it has imported."""
        self._installed: dict[Name, str] = {}
        """Other code that it has imported, with its digests."""
        self._watch: Watch | None = None
        self._watching: tuple[object, ...] = ()
        self._reads: dict[str, str] = {}
        """Files of the project that its code has read, with their digests."""
        self._strategy: Strategy | None = None
        """How TensorFlow was set up there."""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        function: str,
        context: Context,
        parts: dict[str, Any],
        *arguments: Any,
        progress: Progress = lambda _, __: None,
        answer: Callable[[Any], Any] | None = None,
        reads: dict[str, str] | None = None,
    ) -> Any:
        """`module:function` called there with a Work and `arguments`; its result.

        Args:
            parts: of that Work: its stage, inputs and folder.
            answer: finds what the work asks for; see Work.ask.
            reads: filled with what the process has read in the project; see spec.safe.opened.

        Raises:
            EdgesparseError: it failed, or its process died; the message is one line.
        """
        module, _, name = function.partition(":")
        if self._stale(context):
            self.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self._watch is not None:
            self._watch.resume(context.is_known)
        elif context.own_code:
            self._watch = Watch(context.watched, context.is_known)
            self._watching = _watching(context)
        connection = self._connected()
        try:
            # A plan's context can be large, and is the same from call to call.
            sent = None if context is self._context else pickle.dumps(context)
            about = (str(Path.cwd()), str(self.log), module, name)
            connection.send(("call", sent, *about, parts, arguments))
            self._own_code = context.own_code or self._own_code
            self._installed |= context.inputs.installed
            self._strategy = context.pipeline.train.strategy
            word, *rest = self._received(connection)
            while word not in ("done", "failed"):
                if word == "progress":
                    progress(*rest)
                else:
                    assert answer is not None
                    connection.send(("answer", _answered(answer, rest[0])))
                word, *rest = self._received(connection)
        except (EOFError, ConnectionError):
            raise EdgesparseError(self._death()) from None
        except BaseException:  # Ctrl-C, most likely: it is heard here and reaches the work so.
            self.close()
            raise
        self._context = context if word == "done" else None
        if self._watch is not None:
            # What was read in this process stays in its memory: it counts for all that it does.
            self._reads = self._watch.reads(context.watched[0])
            self._watch.pause()
        if word == "failed":
            raise EdgesparseError(rest[0])
        if reads is not None:
            reads.update(self._reads)
        return rest[0]

    @property
    def unwatched(self) -> str:
        """What the user should know of what is noticed of their code's reading; mostly empty."""
        return "" if self._watch is None else self._watch.notice

    def kill(self) -> None:
        """End the process, and all that it started, while another thread waits for it."""
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process, whatever it does, and leave nothing of it."""
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
        self._own_code, self._installed, self._strategy = "", {}, None

    def _stale(self, context: Context) -> bool:
        """Whether the process cannot serve this context: what Python has imported and how
        TensorFlow was set up stays until the process ends."""
        if self._process is None:
            return False
        steady = {name: digest for name, digest in self._reads.items() if digest != WRITTEN}
        if changed(steady, context.watched[0]) is not None:
            return True
        if context is self._context:
            return False
        if self._watch is not None and self._watching != _watching(context):
            return True
        imports_other_code = self._own_code not in ("", context.own_code) or any(
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
        # TensorFlow and users' code leave theirs behind when they are killed.
        self._temporary = TemporaryFolder()
        ours, theirs = socket.socketpair()
        with theirs, self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches this process only.
            self._process = subprocess.Popen(
                python(_START, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self._temporary.path)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        return self._connection

    def _received(self, connection: Connection) -> tuple[Any, ...]:
        """The next message. Raises EOFError when there will be none."""
        assert self._process is not None
        while not connection.poll(POLL_SECONDS):
            # Something that the work started may still hold the socket's other end.
            if self._process.poll() is not None and not connection.poll():
                raise EOFError
        message: tuple[Any, ...] = connection.recv()
        return message

    def _death(self) -> str:
        """Why the process is gone."""
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGKILL:
            return "its process was killed (SIGKILL): most likely the memory ran out"
        if code < 0:
            name, place = signal.Signals(-code).name, _crashed_in(self.log)
            return f"its process crashed ({name}){place} (details in {self.log})"
        return f"its process ended with code {code} before it was done (details in {self.log})"


def _answered(answer: Callable[[Any], Any], value: Any) -> Any:
    try:
        return answer(value)
    except EdgesparseError as error:  # The work fails with it.
        return EdgesparseError(str(error))


def _crashed_in(log: Path) -> str:
    """Where in Python a process was when it crashed; Python's fault handler has written that."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        text = file.read().decode(errors="replace")
    found = _FRAME.findall(text)
    return f" in {'/'.join(Path(found[-1][0]).parts[-2:])} ({found[-1][1]})" if found else ""


def _watching(context: Context) -> tuple[object, ...]:
    """What decides which folders are watched."""
    return context.watched, tuple(context.inputs.folders)
