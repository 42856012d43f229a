"""Isolated Python child processes: they never import a json.py from the current folder, which can
hold files from the internet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def run_json_module(
    module: str,
    words: Sequence[object],
    what: str,
    timeout_seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `python -m module words` and return the JSON object in its last line of output.

    Args:
        module: the module, which can crash without harm to this process.
        words: its arguments.
        what: the subject of messages, such as a file's name.
        timeout_seconds: limit of its run time.
        environment: variables that differ from this process'.

    Raises:
        UsageError: the object has a message under "wrong".
        EdgesparseError: the module crashes, or takes longer.
    """
    try:
        done = subprocess.run(
            python_module(module, *words),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise EdgesparseError(f"{what}: took longer than {timeout_seconds / 60:.0f} min") from None
    output = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        result = json.loads(output[0])
    except ValueError:
        result = None
    if not isinstance(result, dict):
        # A Python traceback ends with the cause; other output to stderr does not help.
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        cause = f": {clean(last[0])}" if last and done.returncode == 1 else ""
        raise EdgesparseError(f"{what}: its runtime crashed ({done.returncode}){cause}")
    if result.get("wrong"):
        raise UsageError(clean(str(result["wrong"])))
    return result
