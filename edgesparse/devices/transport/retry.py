"""What every remote step does when the connection breaks: make it again, and do the step again.

Steps are written so that doing one twice is doing it once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from edgesparse.devices.transport.interface import ConnectionLost

TRIES = 4
RECONNECT_SECONDS = 60.0
"""How long a connection that broke is tried again."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0

Result = TypeVar("Result")


def pauses(seconds: float, stop: threading.Event) -> Iterator[None]:
    """Yield once at once and again after each pause, every one twice as long as the last, until
    `seconds` are over or `stop` is set."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield
        if time.monotonic() + pause > deadline or stop.wait(pause):
            return
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def persistent(step: Callable[[], Result], reconnect: Callable[[], None]) -> Result:
    """The result of a step that is done again, TRIES times in all, after its connection was lost.

    Raises what the last attempt raised, or what `reconnect` raises when the device stays away.
    """
    for _ in range(TRIES - 1):
        try:
            return step()
        except ConnectionLost as error:
            if not error.may_return:
                raise
            reconnect()
    return step()
