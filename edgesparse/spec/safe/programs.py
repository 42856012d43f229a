"""Modules of ours that run in a process of their own, since what they use may crash, and say what
they found in one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.text import clean


def asked(
    module: str,
    words: Sequence[object],
    what: str,
    timeout_seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `python -m module words` says.

    Args:
        what: is run by it, for messages.
        environment: variables that differ from this process'.

    Raises:
        UsageError: it says what is "wrong".
        EdgesparseError: it crashes, or takes longer.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
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
        raise EdgesparseError(f"{what}: its runtime crashed ({done.returncode})") from None
    if not isinstance(found, dict):
        raise EdgesparseError(f"{what}: its runtime crashed ({done.returncode})")
    if found.get("wrong"):
        raise UsageError(clean(str(found["wrong"])))
    return found
