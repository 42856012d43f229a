"""Retries of remote steps after a lost connection. Steps must be idempotent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from edgesparse.devices.transport.interface import ConnectionLost

TRIES = 4
RECONNECT_SECONDS = 60.0
"""How long a lost connection is retried."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0

Result = TypeVar("Result")


def pauses(seconds: float, stop: threading.Event) -> Iterator[None]:
    """Yield immediately, then after pauses that double each time, for `seconds` or until `stop`."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield
        if time.monotonic() + pause > deadline or stop.wait(pause):
            return
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def persistent(step: Callable[[], Result], reconnect: Callable[[], None]) -> Result:
    """Return the result of a step, retried after a lost connection, up to TRIES times in all.

    Raises what the last attempt raised, or what `reconnect` raises where that fails.
    """
    for _ in range(TRIES - 1):
        try:
            return step()
        except ConnectionLost as error:
            if not error.may_return:
                raise
            reconnect()
    return step()
