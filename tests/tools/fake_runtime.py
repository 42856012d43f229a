"""A TFLite runtime whose every inference takes the same time and no CPU: a fixed load for a device.

Its first inference in a process waits until as many processes as there are devices have come that
far: what is tested is that all devices work at the same time.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_INTERPRETER = """
import os, socket, time
import numpy

DETAILS = [{"index": 0, "shape": [1, 4], "dtype": numpy.float32, "quantization": (0.0, 0)}]
meet = os.environ.get("FAKE_MEETING")

def together():
    with socket.socket(socket.AF_UNIX) as meeting:
        meeting.connect(meet)
        assert meeting.recv(1) == b"!"

class Interpreter:
    def __init__(self, **options):
        self.first = True
    def allocate_tensors(self): pass
    def get_input_details(self): return DETAILS
    def get_output_details(self): return DETAILS
    def set_tensor(self, index, value): pass
    def get_tensor(self, index): return numpy.zeros((1, 4), numpy.float32)
    def invoke(self):
        if self.first and meet:
            together()
        self.first = False
        time.sleep(SECONDS)
"""


def make_runtime(folder: Path, meeting: Path | None = None, seconds: float = 0.01) -> Path:
    """A Python that has it as ai-edge-litert 9.9; where its processes meet, and how long an
    inference takes."""
    package = folder / "fake" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(f"SECONDS = {seconds}\n{_INTERPRETER}")
    (folder / "fake" / "ai_edge_litert-9.9.dist-info").mkdir()
    python = folder / "python3"
    where = f"FAKE_MEETING={meeting} " if meeting else ""
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder}/fake {where}exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@contextmanager
def meeting(place: Path, size: int) -> Iterator[list[int]]:
    """Lets processes go on when `size` of them have come; how many met, each time."""
    met: list[int] = []
    listener = socket.socket(socket.AF_UNIX)
    # A socket's path must be short; relative to here it is.
    before = Path.cwd()
    os.chdir(place.parent)
    try:
        listener.bind(place.name)
    finally:
        os.chdir(before)
    listener.listen(size * 2)

    def serve() -> None:
        with suppress(OSError):
            while True:
                guests = [listener.accept()[0] for _ in range(size)]
                met.append(len(guests))
                for guest in guests:
                    guest.sendall(b"!")
                    guest.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield met
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
