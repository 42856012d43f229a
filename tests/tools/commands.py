"""Commands of the program: in this process, as nearly all tests call them, or as users do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.execution.worker import Worker
from tests.tools.forked_worker import ForkedWorker

Done = subprocess.CompletedProcess[str]


@cache
def warm_workers(user_code: bool = False) -> Workers:
    """One TensorFlow for all tests of this process, and one for pipelines with code of their own:
    it is started again for each of them, which the other need not be. Ended with this process."""
    folder, make = ("with-user-code", ForkedWorker) if user_code else ("workers", Worker)
    return Workers(Path(tempfile.gettempdir(), folder, "log.txt"), 1, make)


def close_workers() -> None:
    for user_code in (False, True):
        warm_workers(user_code).close()


def run_program(
    *arguments: str | Path, cwd: Path, timeout: float = 600, **environment: str
) -> Done:
    """The program as a user starts it; a stage at a time, since two tests run at a time already."""
    return subprocess.run(
        [sys.executable, "-m", "edgesparse", *_words(arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def run_cli(*arguments: str | Path, cwd: Path, timeout: float = 600, **environment: str) -> Done:
    """The same without a process of its own, and with a TensorFlow that has been started already.

    What is about signals, processes or terminals needs `run_program`.
    """
    if threading.current_thread() is not threading.main_thread():  # A process has one folder only.
        return run_program(*arguments, cwd=cwd, timeout=timeout, **environment)
    from edgesparse.cli.main import main

    words = _words(arguments)
    workers = None if "--jobs" in arguments else warm_workers(_names_code(words, cwd))
    with (
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as err,
    ):
        with _as_program(cwd, environment, out, err):
            code: object = 0
            try:
                main(words, prog_name="edgesparse", obj=workers)
            except SystemExit as ended:
                code = ended.code or 0
            except Exception:
                traceback.print_exc()
                code = 1
        texts = [_content(stream) for stream in (out, err)]
    # A page that fails is a line only, for a user's sake.
    assert "no page: " not in texts[1], texts[1]
    return subprocess.CompletedProcess(words, code if isinstance(code, int) else 1, *texts)


def _words(arguments: tuple[str | Path, ...]) -> list[str]:
    words = [str(word) for word in arguments]
    return (
        [*words, "--jobs", "1"]
        if words[0] in ("deploy", "run") and "--jobs" not in words
        else words
    )


def _names_code(words: list[str], folder: Path) -> bool:
    """Whether one of these files is a pipeline with code of its own."""
    files = [folder / word for word in words if word.endswith((".yaml", ".yml"))]
    return any(file.is_file() and ".py:" in file.read_text(errors="replace") for file in files)


def _content(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read()


@contextmanager
def _as_program(cwd: Path, environment: dict[str, str], out: TextIO, err: TextIO) -> Iterator[None]:
    """A folder, environment, output and signal handlers for a block."""
    folder, variables = Path.cwd(), os.environ.copy()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    streams, descriptors = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.chdir(cwd)
        os.environ.update(environment)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = out, err
        yield
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)
