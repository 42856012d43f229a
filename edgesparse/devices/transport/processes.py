"""Child processes whose output is bounded in time and size: it may come from any device."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from edgesparse.spec.safe.text import clean

MAX_OUTPUT = 4_000_000
Tell = Callable[[int], None]
MAX_LINE = 2_000_000
_BLOCK = 1 << 16
CLOSE_SECONDS = 10.0
STALL_SECONDS = 60.0
"""How long a transfer can stall before it is given up."""
DIGEST_BYTES_PER_SECOND = 1_000_000
"""How fast a slow board computes a sha256, at worst."""


@dataclass(frozen=True)
class Completed:
    """A finished command on the device."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of its stderr, or else of its stdout, for an error message."""
        return last_line(self.stderr.strip() or self.stdout)


def last_line(text: str, default: str = "no output") -> str:
    """Return the last line of a program's output, for an error message."""
    return clean((text.strip() or default).splitlines()[-1], 300)


class Channel:
    """A running command that exchanges lines; lines are cut after MAX_LINE bytes."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        # A new session: Ctrl-C in the terminal reaches this process only, which ends the command.
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
        """Return the next line, or None after the time-out. Raises EOFError at the end."""
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
        # Bytes, not text: a block can end within a character.
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
        """Write to the command's stdin; ignored when the command has ended."""
        stdin = _pipe(self._process.stdin)
        try:
            stdin.write(text.encode())
            stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def close(self) -> int:
        """Close stdin, wait for the command to end, and kill it if it does not; its exit code."""
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        output, deadline = _pipe(self._process.stdout), time.monotonic() + CLOSE_SECONDS
        # Drain its output, which must not block it, within limits of time and size.
        received = 0
        while (left := deadline - time.monotonic()) > 0 and self._selector.select(left):
            count = len(os.read(output.fileno(), _BLOCK))
            received += count
            if not count or received > MAX_OUTPUT:
                break
        left = deadline - time.monotonic() if received <= MAX_OUTPUT else 0.0
        try:
            self._process.wait(max(0.1, left))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        output.close()
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
            # Read on beyond the limit: a full pipe would block the child.
            kept[pipe] += block[: MAX_OUTPUT - len(kept[pipe])]


def feed(argv: Sequence[str], source: IO[bytes], tell: Tell) -> tuple[int, int, bytes]:
    """Run a command with the rest of a file as its stdin.

    Returns:
        The number of bytes sent, the exit code (negative where it stalled and was killed), and its
        stderr, at most MAX_OUTPUT bytes.
    """
    sent = 0
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        stdin, stderr = _pipe(child.stdin), _pipe(child.stderr)
        os.set_blocking(stdin.fileno(), False)
        stderr_text, rest = b"", source.read(_BLOCK)
        patience = STALL_SECONDS
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(stdin, selectors.EVENT_WRITE)
                selector.register(stderr, selectors.EVENT_READ)
                while selector.get_map():
                    ready = selector.select(patience)
                    if not ready:
                        child.kill()
                        break
                    for key, _ in ready:
                        if key.fileobj is stderr:
                            block = os.read(stderr.fileno(), _BLOCK)
                            stderr_text = stderr_text + block[: MAX_OUTPUT - len(stderr_text)]
                            if not block:
                                selector.unregister(stderr)
                            continue
                        try:
                            count = os.write(stdin.fileno(), rest) if rest else 0
                        except BrokenPipeError:
                            count, rest = 0, b""
                        sent += count
                        rest = rest[count:] or (source.read(_BLOCK) if count else b"")
                        tell(sent)
                        if not rest:
                            selector.unregister(stdin)
                            stdin.close()
                            # The device now reads the whole file once more, for its digest.
                            patience += sent / DIGEST_BYTES_PER_SECOND
        except BaseException:
            child.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                stdin.close()
    return sent, child.returncode, stderr_text


def fetch(argv: Sequence[str], mark: bytes, sink: IO[bytes], max_bytes: int, seconds: float) -> str:
    """Write a command's stdout after `mark` into a file; returns its error, or "".

    Raises:
        TimeoutError: no output for STALL_SECONDS, or it took more than `seconds`.
        OverflowError: there were more than `max_bytes`.
    """
    deadline = time.monotonic() + seconds
    before, count, is_marked = b"", 0, False
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as child:
            stdout = _pipe(child.stdout)
            try:
                with selectors.DefaultSelector() as selector:
                    selector.register(stdout, selectors.EVENT_READ)
                    while True:
                        left = min(STALL_SECONDS, deadline - time.monotonic())
                        if left <= 0 or not selector.select(left):
                            raise TimeoutError
                        block = os.read(stdout.fileno(), _BLOCK)
                        if not block:
                            break
                        if not is_marked:
                            before = (before + block)[-MAX_OUTPUT:]
                            _, found_mark, block = before.partition(mark)
                            is_marked = bool(found_mark)
                        if is_marked:
                            count += len(block)
                            if count > max_bytes:
                                raise OverflowError
                            sink.write(block)
            except BaseException:
                child.kill()
                raise
        if not child.returncode:
            return ""
        errors.seek(0)
        return last_line(errors.read(MAX_OUTPUT).decode(errors="replace"))
