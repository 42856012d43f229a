"""Files on the runtimes that are here: one process for each, for all files of all tests."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

RUNTIMES = ("tflite_runtime.interpreter", "ai_edge_litert.interpreter")
if sys.version_info >= (3, 12):
    RUNTIMES = RUNTIMES[1:]  # tflite-runtime has no wheels for this Python.


@cache
def _process(module: str) -> subprocess.Popen[str]:
    """It ends with this process, which closes its input."""
    script = Path(__file__).with_name("run_files.py")
    return subprocess.Popen(
        [sys.executable, str(script), module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def share_within(module: str, path: Path, tolerance: float) -> float:
    """The share of the samples beside `path` that a runtime answers within `tolerance`, which is a
    share of the outputs' range."""
    process = _process(module)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{path}\n")
    answer = json.loads(process.stdout.readline())
    assert "failed" not in answer, (module, path.stem, answer)
    return float(np.mean(np.array(answer["errors"]) <= tolerance))
