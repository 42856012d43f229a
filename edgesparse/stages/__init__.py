"""One file per stage: its name, version and libraries, the inputs of its key, and its work.

A stage reads the folders of its inputs and fills its own folder; it depends on neither the store
nor the graph. To add one: a file here, its name below, and its position in graph/plan.py.
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
    """Return the definition of a stage: KIND in its file."""
    stage_kind: StageKind = import_module(f"edgesparse.stages.{name.replace('-', '_')}").KIND
    return stage_kind
