"""The main loop of a worker process, which serves the process that started it until that ends.

Messages are pickled tuples, over a socket that only the two processes have:

    received    ("call", context, folder, log, module, function, parts, arguments),
                ("response", value); a context of None stands for that of the previous call
    sent        ("progress", share, text), ("request", value), ("done", result), ("failed", text)
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
from edgesparse.stages.base.stage import PlanContext, StageContext


def reason_of(error: BaseException, log: Path, context: PlanContext | None = None) -> str:
    """Describe an exception of a stage in a line. Of unexpected ones, by the user's code or
    TensorFlow, the traceback is printed, which goes to `log`."""
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
    faulthandler.enable()  # Logs the location of a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The other process handles Ctrl-C and kills this.
    connection = Connection(descriptor)
    messages: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, messages), daemon=True).start()
    context, pickled, printing_to = None, b"", None
    while True:
        _, sent, folder, log, module, function, parts, arguments = messages.get()
        try:
            # The process outlives the command that started it: its folder and log can change.
            if printing_to != (folder, log):
                os.chdir(folder)
                _print_to(log)
                printing_to = (folder, log)
            # A plan has one context, and so one dataset in memory.
            if sent not in (None, pickled):
                context, pickled = pickle.loads(sent), sent  # noqa: S301 (from this package)
                _prepare(context)
            assert isinstance(context, PlanContext)
            stage_context = StageContext(
                plan=context.of(parts["stage"]),
                progress=lambda share, text: connection.send(("progress", share, text)),
                request=lambda value: _request(connection, messages, value),
                **parts,
            )
            result = getattr(importlib.import_module(module), function)(stage_context, *arguments)
        except BaseException as error:
            reply = ("failed", reason_of(error, Path(log), context))
        else:
            reply = ("done", result)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # The log's disk can be full.
                stream.flush()
        connection.send(reply)


def _print_to(log: str) -> None:
    """Redirect stdout and stderr to a file, also those of libraries in C."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _prepare(context: PlanContext) -> None:
    """Prepare the process for a context: set up TensorFlow, or reset its counters of layer names,
    and import the user's code as it was when the keys were computed."""
    carry(context.inputs.code)
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        tf.keras.backend.clear_session()
    if context.pipeline.train.strategy.devices:
        from edgesparse.methods.training import strategy

        strategy.prepare(context.pipeline.train)


def _receive(connection: Connection, messages: queue.SimpleQueue[tuple[Any, ...]]) -> None:
    """Receive messages, also while a stage runs. When the other process ends, even by kill -9, kill
    this one's process group: itself and everything that it started."""
    try:
        while True:
            messages.put(connection.recv())
    except (EOFError, OSError):
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _request(
    connection: Connection, messages: queue.SimpleQueue[tuple[Any, ...]], value: Any
) -> Any:
    connection.send(("request", value))
    _, response = messages.get()
    if isinstance(response, EdgesparseError):
        raise response
    return response
