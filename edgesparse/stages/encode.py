"""The same model with each weight stored as one runtime on one kind of machine likes it best."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant
from edgesparse.stages.base.artifacts import read_json, save_tflite, write_json
from edgesparse.stages.base.stage import StageContext, StageKind
from edgesparse.tflite.runtimes import storage
from edgesparse.tflite.runtimes.compatibility import Profile


def key_inputs(variant: Variant, runtime: RuntimeInfo, profile: Profile) -> dict[str, Any]:
    """Return what the result depends on: of the device only how its runtime executes such weights,
    so that devices on which it does the same share the file."""
    return {
        "storage": variant.storage,
        "runtime": runtime.model_dump(),
        "cells": profile.table(variant.quantize.numbers),
    }


def run(context: StageContext) -> None:
    """Leave sparse.tflite, model.json, and in storage.json why each weight is stored so."""
    content = (context.inputs["convert"] / "dense.tflite").read_bytes()
    profile = context.plan.profiles[context.stage.spec["runtime"]["name"]]
    mode = context.stage.spec["storage"]
    encoded, decisions = storage.store(content, profile, mode)
    # Asked for explicitly and impossible: an error, not a silent dense file.
    if mode == "sparse" and all(decision.form == "dense" for decision in decisions):
        reasons = "; ".join(sorted({decision.reason for decision in decisions}))
        raise EdgesparseError(f"storage: sparse is impossible: {reasons or 'it has no weights'}")
    # Sparse forms have headers and indices: a small model can be smaller without.
    save_tflite(encoded if len(encoded) < len(content) else content, context.folder, "sparse")
    decided = [dataclasses.asdict(decision) for decision in decisions]
    write_json(context.folder / "storage.json", decided)


def read_decisions(folder: Path) -> list[storage.Decision]:
    """Why each weight is stored as it is."""
    return [storage.Decision(**decision) for decision in read_json(folder / "storage.json")]


KIND = StageKind("encode", 3, ("numpy", "flatbuffers"), run, loads=False)
