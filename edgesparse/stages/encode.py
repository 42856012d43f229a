"""Stores each weight of a model in the best form for a runtime on a kind of machine."""

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
    """Write sparse.tflite, model.json, and storage.json with the reason for each weight's form."""
    content = (context.inputs["convert"] / "dense.tflite").read_bytes()
    profile = context.plan.profiles[context.stage.spec["runtime"]["name"]]
    mode = context.stage.spec["storage"]
    encoded, decisions = storage.store(content, profile, mode)
    # An explicit setting that is impossible is an error, not a silently dense file.
    if mode == "sparse" and all(decision.form == "dense" for decision in decisions):
        reasons = "; ".join(sorted({decision.reason for decision in decisions}))
        raise EdgesparseError(f"storage: sparse is impossible: {reasons or 'no weights'}")
    # Sparse forms have headers and indices: a small model can be smaller without them.
    save_tflite(encoded if len(encoded) < len(content) else content, context.folder, "sparse")
    decided = [dataclasses.asdict(decision) for decision in decisions]
    write_json(context.folder / "storage.json", decided)


def read_decisions(folder: Path) -> list[storage.Decision]:
    """Read the decisions on the storage of each weight."""
    return [storage.Decision(**decision) for decision in read_json(folder / "storage.json")]


KIND = StageKind("encode", 3, ("numpy", "flatbuffers"), run, loads=False)
