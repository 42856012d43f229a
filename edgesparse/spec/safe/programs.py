"""Python processes of our own. They start isolated: a json.py in the current folder, beside a model
from the internet for instance, is imported by none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
    """This process' sys.path with the current folder, where it is in it, behind everything else:
    its modules can be imported, but replace none of Python's or of installed packages."""
    here = os.path.realpath(os.curdir)
    others = [place for place in sys.path if place and os.path.realpath(place) != here]
    return [*others, here] if len(others) < len(sys.path) else others


def python(start: str, *words: object) -> list[str]:
    """The command line of an isolated Python process that runs the code `start`."""
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
    path = json.dumps(import_path())
    return [sys.executable, "-I", *utf8, "-c", _BOOT + start, path, *map(str, words)]


def python_module(name: str, *words: object) -> list[str]:
    """As `python -m name words`, isolated."""
    return python(_MODULE, name, *words)


def run_json_module(
    module: str,
    words: Sequence[object],
    what: str,
    timeout_seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `python -m module words` says in one line of JSON; what the module uses may crash.

    Args:
        what: is run by it, for messages.
        environment: variables that differ from this process'.

    Raises:
        UsageError: it says what is "wrong".
        EdgesparseError: it crashes, or takes longer.
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
    said = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        found = json.loads(said[0])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        # A Python error ends with its cause; what else is printed there tells nothing.
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        cause = f": {clean(last[0])}" if last and done.returncode == 1 else ""
        raise EdgesparseError(f"{what}: its runtime crashed ({done.returncode}){cause}")
    if found.get("wrong"):
        raise UsageError(clean(str(found["wrong"])))
    return found
