"""Model files of a run, beside its results."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from edgesparse.devices.setup.releases import about_model
from edgesparse.measure.benchmark import Candidate
from edgesparse.spec.safe.files import replace_bytes, replace_json
from edgesparse.stages.samples import LABELS, TRANSFORM

FOLDER = "models"


def keep_models(folder: Path, samples: Path, candidates: Iterable[Candidate]) -> None:
    """Link each model into `folder` as VARIANT-RUNTIME.tflite, with a JSON file that describes it,
    and the delegate's library under the name that is in that file. Models that failed are left out.

    Args:
        folder: folder for the models of one device, since storage differs by device.
        samples: folder with labels and transforms.
    """
    models = {
        f"{c.variant}-{c.runtime.name}": c
        for c in candidates
        if c.path is not None and c.error is None
    }
    if not models:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in (LABELS, TRANSFORM):
        with suppress(OSError):
            shutil.copyfile(samples / name, folder / name)
    for name, candidate in models.items():
        assert candidate.path is not None
        target = folder / f"{name}.tflite"
        with suppress(OSError):
            description = about_model(candidate.entry)
            runtime = {**candidate.runtime.model_dump(), **description["runtime"]}
            about = {**description, "variant": candidate.variant, "runtime": runtime}
            replace_json(folder / f"{name}.json", about)
            library = candidate.entry.library
            links = {
                target: candidate.path,
                **({folder / library.name: library} if library else {}),
            }
            for link, source in links.items():
                if not link.exists():
                    _link(source, link)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # The run keeps it when the store drops it.
    except OSError:
        replace_bytes(target, source.read_bytes())


def model_files(folder: Path, variant: str) -> Sequence[Path]:
    """List the model files of a variant in a run."""
    return sorted(p for p in folder.glob(f"{variant}-*.tflite") if _variant_of(p) == variant)


def _variant_of(model: Path) -> str | None:
    with suppress(OSError, ValueError, AttributeError):  # A damaged description: skip the file.
        return str(json.loads(model.with_suffix(".json").read_text()).get("variant"))
    return None
