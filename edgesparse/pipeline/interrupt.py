"""Ctrl-C while TensorFlow works: heard at once, obeyed at the next safe place."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code, as shells give it for SIGINT."""
HEARD = b"\nstopping as soon as possible; Ctrl-C once more stops at once\n"


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Hold back SIGINT; yields a function that raises KeyboardInterrupt once it was asked for.

    An exception raised by a signal inside a TensorFlow operation corrupts its memory, so the signal
    only sets a mark. The block calls the function where it is safe, and its end does too. A second
    SIGINT ends the process at once, which the store survives.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked = False
    stderr = os.dup(2)

    def handler(_: int, __: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        # Not through a stream: the signal may have come in the middle of writing to one.
        os.write(stderr, HEARD)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)
        os.close(stderr)
    check()
