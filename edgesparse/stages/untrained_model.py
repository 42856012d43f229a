"""The untrained model as a file: its graph and shapes are what they will be.

Made in seconds, so that what a target will refuse or not exploit can be said before an hour of
training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.spec.pipeline import Numbers
from edgesparse.spec.sparsify import LayerChoice, Magnitude
from edgesparse.stages.base.artifacts import built
from edgesparse.stages.base.stage import KERAS_LIBRARIES, StageContext, StageKind
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile, SparsePath

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.methods.choosing.auto import Resolved


def key_inputs(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the result depends on: `model` is its source and digest."""
    return {"model": model}


def run(context: StageContext) -> None:
    """Leave untrained.tflite, in f32."""
    import tensorflow as tf

    from edgesparse.tflite import convert

    # Its weights say nothing, but the same file comes from every process.
    tf.keras.utils.set_random_seed(0)
    model = built(context)
    nothing = [np.zeros((0, 1), np.float32) for _ in model.inputs]
    (context.folder / "untrained.tflite").write_bytes(convert.convert(model, "f32", nothing))


def read(folder: Path) -> patterns.ModelGraph:
    """What `run` left."""
    return patterns.read_graph((folder / "untrained.tflite").read_bytes())


def exploited(step: Magnitude, scheme: Numbers, profiles: Mapping[str, Profile]) -> dict[str, Any]:
    """What `pattern: auto` depends on: what the target exploits, not which target it is, so that
    devices which agree share the training."""
    if step.pattern != "auto":
        return {}
    found = patterns.exploits(profiles.values(), scheme, likely_sparsity(step))
    return {"exploits": dataclasses.asdict(found)}


def likely_sparsity(step: Magnitude) -> float:
    """What may be expected where it is not known yet."""
    return patterns.LIKELY_SPARSITY if isinstance(step.sparsity, str) else step.sparsity


def resolve(context: StageContext, model: tf.keras.Model, spec: Magnitude) -> Resolved:
    """The step with what `pattern: auto` stands for in this model on this target."""
    from edgesparse.methods.choosing import auto

    return auto.resolve(model, spec, _choices(context, spec))


def _choices(context: StageContext, spec: Magnitude) -> Mapping[str, LayerChoice]:
    if "untrained_model" not in context.inputs:
        return {}
    known = context.stage.spec["exploits"]
    found = patterns.Exploits(
        tuple(known["fully_connected"]), tuple(SparsePath(**path) for path in known["paths"])
    )
    return patterns.choose(read(context.inputs["untrained_model"]), found, likely_sparsity(spec))


KIND = StageKind("untrained-model", 1, KERAS_LIBRARIES, run)
