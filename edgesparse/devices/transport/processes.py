"""Child processes whose output is bounded in time and size: it may come from any device."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

MAX_OUTPUT = 4_000_000
Tell = Callable[[int], None]
MAX_LINE = 2_000_000
_BLOCK = 1 << 16
CLOSE_SECONDS = 10.0


@dataclass(frozen=True)
class Completed:
    """A finished command on the device."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Its last words, for an error message."""
        lines = (self.stderr.strip() or self.stdout.strip() or "no output").splitlines()
        return lines[-1][:300]


class Channel:
    """A running command: lines out, lines in. Lines over MAX_LINE lose their rest."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        # A session of its own: Ctrl-C in the terminal reaches us first, and we end the command.
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(_pipe(self._process.stdout), selectors.EVENT_READ)
        self._lines: list[str] = []
        self._rest = b""
        self._skipping = False
        self._ended = False

    def read_line(self, timeout_seconds: float) -> str | None:
        """The next line, or None when none came in time. Raises EOFError at the end."""
        deadline = time.monotonic() + timeout_seconds
        while not self._lines:
            if self._ended:
                raise EOFError
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                return None
            self._take(os.read(_pipe(self._process.stdout).fileno(), _BLOCK))
        return self._lines.pop(0)

    def _take(self, block: bytes) -> None:
        self._ended = not block
        # Bytes, not text: a block may end within a character.
        *whole, self._rest = (self._rest + block).split(b"\n")
        if self._ended and self._rest:
            whole.append(self._rest)
        for line in whole:
            if not self._skipping:
                self._lines.append(line[:MAX_LINE].decode(errors="replace"))
            self._skipping = False
        if len(self._rest) > MAX_LINE:
            if not self._skipping:
                self._lines.append(self._rest[:MAX_LINE].decode(errors="replace"))
            self._rest, self._skipping = b"", True

    def send(self, text: str) -> None:
        """Write to the command's stdin; nothing happens when it is gone."""
        stdin = _pipe(self._process.stdin)
        try:
            stdin.write(text.encode())
            stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def close(self) -> int:
        """Close stdin, wait for the command to end, and end it if it does not; its exit code."""
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            # What it still says is of no interest, but must not block it.
            self._process.communicate(timeout=CLOSE_SECONDS)
        except (subprocess.TimeoutExpired, ValueError):
            self._process.kill()
            self._process.wait()
        self._selector.close()
        return self._process.returncode


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def run(
    argv: Sequence[str], timeout_seconds: float, environment: Mapping[str, str] | None = None
) -> Completed:
    """Run a command to its end, with at most MAX_OUTPUT bytes of each output kept.

    Raises TimeoutError, and OSError when it cannot be started.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        kept: dict[IO[bytes], bytes] = {_pipe(process.stdout): b"", _pipe(process.stderr): b""}
        deadline = time.monotonic() + timeout_seconds
        try:
            with selectors.DefaultSelector() as selector:
                for pipe in kept:
                    selector.register(pipe, selectors.EVENT_READ)
                while selector.get_map():
                    left = deadline - time.monotonic()
                    ready = selector.select(left) if left > 0 else []
                    if not ready:
                        raise TimeoutError
                    for key, _ in ready:
                        _keep(selector, kept, key.fileobj)
            process.wait(max(0.1, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            process.kill()
            raise TimeoutError from None
        except BaseException:
            process.kill()
            raise
    out, err = (text.decode(errors="replace") for text in kept.values())
    return Completed(process.returncode, out, err)


def _keep(selector: selectors.BaseSelector, kept: dict[IO[bytes], bytes], source: object) -> None:
    for pipe in kept:
        if pipe is source:
            block = os.read(pipe.fileno(), _BLOCK)
            if not block:
                selector.unregister(pipe)
            # Read on, but keep no more: a full pipe would stop the child.
            kept[pipe] += block[: MAX_OUTPUT - len(kept[pipe])]
