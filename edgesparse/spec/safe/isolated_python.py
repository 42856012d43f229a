"""Isolated Python child processes: they never import a json.py from the current folder, which can
hold files from the internet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.text import clean

# Not "-m", which has the current folder first; and the package may have been imported through a
# sys.path that only this process has.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
_MODULE = (
    "import runpy; name = sys.argv.pop(1); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)

_PROGRESS = "progress"


def import_path() -> list[str]:
    """Return sys.path with the current folder, if present, last: its modules can be imported, but
    replace neither Python's nor installed ones."""
    here = os.path.realpath(os.curdir)
    others = [folder for folder in sys.path if folder and os.path.realpath(folder) != here]
    return [*others, here] if len(others) < len(sys.path) else others


def python(start: str, *words: object) -> list[str]:
    """Return the command line of an isolated Python process that runs the code `start`."""
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
    path = json.dumps(import_path())
    return [sys.executable, "-I", *utf8, "-c", _BOOT + start, path, *map(str, words)]


def python_module(name: str, *words: object) -> list[str]:
    """Return the command line of `python -m name words`, isolated."""
    return python(_MODULE, name, *words)


def print_json_reply(call: Callable[[], Mapping[str, Any]], prefix: str = "") -> None:
    """Answer `run_json_module` from the program's side: print what `call` returns as JSON, or the
    message of the error that it raises as "wrong", after `prefix`."""
    try:
        reply = call()
    except (EdgesparseError, OSError, ValueError, RuntimeError) as error:
        reply = {"wrong": f"{prefix}{error}"}
    # A library may have printed half a line before.
    sys.stdout.write("\n" + json.dumps(reply) + "\n")


def print_progress(share: float) -> None:
    """Print the share of the work that is done, for the `progress` of `run_json_module`."""
    sys.stdout.write("\n" + json.dumps({_PROGRESS: share}) + "\n")
    sys.stdout.flush()


def run_json_module(
    module: str,
    words: Sequence[object],
    what: str,
    timeout_seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Run `python -m module words` and return the JSON object in its last line of output.

    Args:
        module: the module, which can crash without harm to this process.
        words: its arguments.
        what: the subject of messages, such as a file's name.
        timeout_seconds: limit of its run time.
        environment: variables that differ from this process'.
        progress: called with each share, 0 to 1, that it prints by `print_progress`.

    Raises:
        UsageError: the object has a message under "wrong".
        EdgesparseError: the module crashes, or takes longer.
    """
    command = python_module(module, *words)
    return run_json(command, what, timeout_seconds, environment=environment, progress=progress)


def run_json(
    command: Sequence[str],
    what: str,
    timeout_seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a command that answers like a module of `run_json_module`."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
        result = _last_object(process, timeout_seconds, progress, what)
        errors.seek(0)
        # A Python traceback ends with the cause; other output to stderr does not help.
        last = [line for line in errors.read().splitlines() if line.strip()][-1:]
    if result is None:
        cause = f": {clean(last[0])}" if last and process.returncode == 1 else ""
        raise EdgesparseError(f"{what}: its runtime crashed ({process.returncode}){cause}")
    if result.get("wrong"):
        raise UsageError(clean(str(result["wrong"])))
    return result


def _last_object(
    process: subprocess.Popen[str],
    timeout_seconds: float,
    progress: Callable[[float], None],
    what: str,
) -> dict[str, Any] | None:
    """Read a program's output to its end; return the JSON object in its last line, if it is one."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(timeout_seconds, expire)
    timer.start()
    last = None
    try:
        assert process.stdout is not None
        for line in filter(str.strip, process.stdout):
            last = _object(line)
            share = last.get(_PROGRESS) if last is not None else None
            if isinstance(share, int | float):
                progress(min(1.0, max(0.0, share)))
        process.wait()
    finally:  # After Ctrl-C, too.
        timer.cancel()
        process.kill()
        process.wait()
    if expired.is_set():
        raise EdgesparseError(f"{what}: took longer than {timeout_seconds / 60:.0f} min")
    return last


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
