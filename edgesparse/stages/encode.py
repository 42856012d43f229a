"""The same model with each weight stored as one runtime on one kind of machine likes it best."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant
from edgesparse.stages.base.artifacts import read_json, save_tflite, write_json
from edgesparse.stages.base.stage import Kind, Work
from edgesparse.tflite.runtimes import storage
from edgesparse.tflite.runtimes.compatibility import Profile


def covers(variant: Variant, runtime: RuntimeInfo, profile: Profile) -> dict[str, Any]:
    """What the result depends on. Of the device only what its runtime does with such weights, so
    that devices which treat them alike share the file."""
    return {
        "storage": variant.storage,
        "runtime": runtime.model_dump(),
        "cells": profile.table(variant.quantize.numbers),
    }


def run(work: Work) -> None:
    """Leave sparse.tflite, model.json, and in storage.json why each weight is stored so."""
    content = (work.inputs["convert"] / "dense.tflite").read_bytes()
    profile = work.context.profiles[work.stage.spec["runtime"]["name"]]
    mode = work.stage.spec["storage"]
    encoded, decisions = storage.store(content, profile, mode)
    # Asked for explicitly and impossible: an error, not a silent dense file.
    if mode == "sparse" and all(decision.form == "dense" for decision in decisions):
        reasons = "; ".join(sorted({decision.reason for decision in decisions}))
        raise EdgesparseError(f"storage: sparse is impossible: {reasons or 'it has no weights'}")
    # Sparse forms have headers and indices: a small model can be smaller without.
    save_tflite(encoded if len(encoded) < len(content) else content, work.folder, "sparse")
    decided = [dataclasses.asdict(decision) for decision in decisions]
    write_json(work.folder / "storage.json", decided)


def read_decisions(folder: Path) -> list[storage.Decision]:
    """Why each weight is stored as it is."""
    return [storage.Decision(**decision) for decision in read_json(folder / "storage.json")]


KIND = Kind("encode", 3, ("numpy", "flatbuffers"), run, loads=False)
