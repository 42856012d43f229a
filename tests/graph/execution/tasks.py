"""What test_worker.py has done in a process of its own."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from edgesparse.spec.errors import UsageError


def add(context, first, second):
    context.progress(0.5, "halfway")
    print("said while adding")
    return first + second, os.getpid(), len(context.plan.pipeline.variants)


def prints(context, *texts):
    for text in texts:
        print(text, flush=True)
    os.write(2, b"to stderr as C does\n")


def folder(context):
    return os.getcwd()


def same_context(context):
    """Whether this process has seen this very context before."""
    expected = getattr(same_context, "known", None)
    same_context.known = context.plan
    return expected is context.plan


def asks(context, value):
    return context.request(value)


def fails(context, kind):
    if kind == "ours":
        raise UsageError("p.yaml:3:1: that will not do")
    if kind == "disk":
        raise OSError(28, "No space left on device", "place")
    if kind == "exit":
        sys.exit(3)
    raise ValueError("first line\nsecond line")


def dies(context, how, text=""):
    print(text, flush=True)
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "memory":  # As Linux does when memory runs out.
        os.kill(os.getpid(), 9)
    else:
        os._exit(7)


def waits(context, place):
    """Starts a process of its own, says so, and never ends."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    Path(place).write_text(f"{os.getpid()} {child.pid}")
    context.progress(0.1, "waiting")
    time.sleep(1000)


def meets(context, mine, other):
    """Says that it is here, and goes on when the other is."""
    Path(mine).write_text(str(os.getpid()))
    context.progress(0.5, "here")
    while not Path(other).exists():
        time.sleep(0.01)
    return os.getpid()


def reads(context, path, then=""):
    """Reads a file; `then` is what happens to it."""
    text = Path(path).read_text()
    if then == "changed":
        context.request("read")  # It goes on when that was noticed.
        Path(path).write_text("")
    elif then == "fails":
        raise UsageError("no good")
    return text, os.getpid()
