"""One file per stage: its name, version and libraries, what its key covers, and what it does.

A stage reads the folders of its inputs and fills a folder of its own; it knows neither the store
nor the graph around it. To add one: a file here, its name below, and its place in graph/plan.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesparse.stages.base.stage import StageKind

NAMES = (
    "samples",
    "untrained-model",
    "preflight",
    "train",
    "sensitivity",
    "sparsify",
    "quantize",
    "convert",
    "encode",
    "compile",
    "verify",
)


def kind(name: str) -> StageKind:
    """The stage of that name: its file's KIND."""
    found: StageKind = import_module(f"edgesparse.stages.{name.replace('-', '_')}").KIND
    return found
