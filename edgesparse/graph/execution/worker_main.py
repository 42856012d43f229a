"""The other end of worker.py: a process that does what it is sent until nobody is there any more.

Messages are pickled tuples, over a socket that only the two processes have:

    to here     ("call", context, folder, log, module, function, parts, arguments),
                ("answer", value); without a context, that of the call before counts
    from here   ("progress", share, text), ("ask", value), ("done", result), ("failed", text)
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgesparse.spec.code.snapshot import carry
from edgesparse.spec.errors import EdgesparseError, summary_of
from edgesparse.stages.base.stage import Context, Work


def reason_of(error: BaseException, log: Path, context: Context | None = None) -> str:
    """One line for what a stage raised. It runs the user's code and TensorFlow: what is no error of
    ours has its traceback printed, which ends in `log`."""
    if isinstance(error, EdgesparseError):
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return str(error)
    traceback.print_exception(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({error.code!r}) (details in {log})"
    damaged = context.damaged_file() if context is not None and _by_tensorflow(error) else None
    return f"{damaged or summary_of(error)} (details in {log})"


def _by_tensorflow(error: BaseException) -> bool:
    return type(error).__module__.startswith("tensorflow.")


def main(descriptor: int) -> None:
    """Serve the process that started this one."""
    faulthandler.enable()  # A crash says in the log where it was.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The other process hears Ctrl-C and ends this.
    connection = Connection(descriptor)
    messages: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, messages), daemon=True).start()
    context, pickled, printing_to = None, b"", None
    while True:
        _, sent, folder, log, module, function, parts, arguments = messages.get()
        try:
            # The process outlives the command that started it: where that is and prints may change.
            if printing_to != (folder, log):
                os.chdir(folder)
                _print_to(log)
                printing_to = (folder, log)
            # One context, and so one dataset in memory, for a whole plan.
            if sent not in (None, pickled):
                context, pickled = pickle.loads(sent), sent  # noqa: S301 (from this package)
                _prepare(context)
            assert isinstance(context, Context)
            work = Work(
                context=context.of(parts["stage"]),
                progress=lambda share, text: connection.send(("progress", share, text)),
                ask=lambda value: _asked(connection, messages, value),
                **parts,
            )
            result = getattr(importlib.import_module(module), function)(work, *arguments)
        except BaseException as error:
            reply = ("failed", reason_of(error, Path(log), context))
        else:
            reply = ("done", result)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # The log's disk may be full.
                stream.flush()
        connection.send(reply)


def _print_to(log: str) -> None:
    """Send stdout and stderr to a file, also what libraries print that are not Python."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _prepare(context: Context) -> None:
    """What must be done before a context is used: TensorFlow is set up, or left as after a start,
    since names of layers count on. The user's code is imported as it was when keys were made."""
    carry(context.inputs.code)
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        tf.keras.backend.clear_session()
    if context.pipeline.train.strategy.devices:
        from edgesparse.methods.training import strategy

        strategy.prepare(context.pipeline.train)


def _receive(connection: Connection, messages: queue.SimpleQueue[tuple[Any, ...]]) -> None:
    """Hear messages, also while TensorFlow works. When the other process is gone, even by kill -9,
    this one ends at once, and all that it started: it leads a group of its own."""
    try:
        while True:
            messages.put(connection.recv())
    except (EOFError, OSError):
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _asked(connection: Connection, messages: queue.SimpleQueue[tuple[Any, ...]], value: Any) -> Any:
    connection.send(("ask", value))
    _, answer = messages.get()
    if isinstance(answer, EdgesparseError):
        raise answer
    return answer
