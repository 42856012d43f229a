"""The files of a run, kept beside its results under the names of their variants."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from edgesparse.devices.setup.install import about_model
from edgesparse.measure.job import Candidate
from edgesparse.spec.safe.files import replace_bytes, replace_json
from edgesparse.stages.samples import LABELS, TRANSFORM

FOLDER = "models"


def keep_models(folder: Path, samples: Path, candidates: Iterable[Candidate]) -> None:
    """Link each model into `folder` as VARIANT-RUNTIME.tflite, with what is to be known to run it
    beside it. Of a device that gets another file than the one before it has a folder of its own.

    Args:
        folder: of this device's models.
        samples: the folder with labels and transforms.
    """
    found = {f"{c.variant}-{c.runtime.name}": c for c in candidates if c.path is not None}
    if not found:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in (LABELS, TRANSFORM):
        with suppress(OSError):
            shutil.copyfile(samples / name, folder / name)
    for name, candidate in found.items():
        assert candidate.path is not None
        target = folder / f"{name}.tflite"
        with suppress(OSError):
            own = about_model(candidate.entry)
            runtime = {**candidate.runtime.model_dump(), **own["runtime"]}
            about = {**own, "variant": candidate.variant, "runtime": runtime}
            replace_json(folder / f"{name}.json", about)
            if not target.exists():
                _link(candidate.path, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # The store may forget it: the run does not.
    except OSError:
        replace_bytes(target, source.read_bytes())


def kept(folder: Path, variant: str) -> Sequence[Path]:
    """The models of a variant that a run has kept."""
    return sorted(p for p in folder.glob(f"{variant}-*.tflite") if _variant_of(p) == variant)


def _variant_of(model: Path) -> str | None:
    with suppress(OSError, ValueError, AttributeError):  # Damaged: it is nobody's.
        return str(json.loads(model.with_suffix(".json").read_text()).get("variant"))
    return None
