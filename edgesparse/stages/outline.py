"""The untrained model as a file: its graph and shapes are what they will be.

Made in seconds, so that what a target will refuse or not exploit can be said before an hour of
training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.spec.pipeline import Scheme
from edgesparse.spec.sparsify import LayerChoice, Magnitude
from edgesparse.stages.stage import KERAS_LIBRARIES, Kind, Work, read_json, write_json
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile, SparsePath

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.sparsity.auto import Resolved


KERNELS = "kernels.json"


def covers(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the result depends on: `model` is its source and digest."""
    return {"model": model}


def run(work: Work) -> None:
    """Leave outline.tflite, in f32, and which kernels the model has."""
    from edgesparse import models
    from edgesparse.sparsity.network import functional, kernels
    from edgesparse.tflite import convert

    model = models.build(work.pipeline.model, work.context.loaded.folder)
    # The data is asked only where the model leaves its sizes open.
    model = functional.functional(
        model, lambda: work.context.dataset.input_shape, models.label(work.pipeline.model)
    )
    nothing = np.zeros((0, 1), np.float32)
    (work.folder / "outline.tflite").write_bytes(convert.convert(model, "f32", nothing))
    found = [
        {"name": k.name, "layer": k.layer, "size": k.size, "reason": k.reason}
        for k in kernels.kernels(model).values()
    ]
    write_json(work.folder / KERNELS, found)


@dataclasses.dataclass(frozen=True)
class KernelInfo:
    """A weight that can be made sparse; `reason` is why it is not, unless it is named."""

    name: str
    layer: str
    size: int
    reason: str

    def matches(self, glob: str) -> bool:
        return fnmatchcase(self.name, glob) or fnmatchcase(self.layer, glob)


def read_kernels(folder: Path) -> list[KernelInfo]:
    """What `run` left; nothing where an earlier version did not know it."""
    path = folder / KERNELS
    return [KernelInfo(**one) for one in read_json(path)] if path.is_file() else []


def read(folder: Path) -> patterns.Outline:
    """What `run` left."""
    return patterns.read_outline((folder / "outline.tflite").read_bytes())


def exploited(step: Magnitude, scheme: Scheme, profiles: Mapping[str, Profile]) -> dict[str, Any]:
    """What `pattern: auto` depends on: what the target exploits, not which target it is, so that
    devices which agree share the training."""
    if step.pattern != "auto":
        return {}
    found = patterns.exploits(profiles.values(), scheme, likely_sparsity(step))
    return {"exploits": dataclasses.asdict(found)}


def likely_sparsity(step: Magnitude) -> float:
    """What may be expected where it is not known yet."""
    return patterns.LIKELY_SPARSITY if isinstance(step.sparsity, str) else step.sparsity


def resolve(work: Work, model: tf.keras.Model, spec: Magnitude) -> Resolved:
    """The step with what `pattern: auto` stands for in this model on this target."""
    from edgesparse.sparsity import auto

    return auto.resolve(model, spec, _choices(work, spec))


def _choices(work: Work, spec: Magnitude) -> Mapping[str, LayerChoice]:
    if "outline" not in work.inputs:
        return {}
    known = work.stage.spec["exploits"]
    found = patterns.Exploits(
        tuple(known["fully_connected"]), tuple(SparsePath(**path) for path in known["paths"])
    )
    return patterns.choose(read(work.inputs["outline"]), found, likely_sparsity(spec))


KIND = Kind("outline", 2, KERAS_LIBRARIES, run)
