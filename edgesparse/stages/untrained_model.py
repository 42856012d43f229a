"""Converts the untrained model, whose graph and shapes are those of the trained one.

Takes seconds, so that operators that a target rejects or does not exploit are known before an hour
of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.spec.pipeline import Numbers
from edgesparse.spec.sparsify import LayerChoice, Magnitude
from edgesparse.stages.base.artifacts import build_model
from edgesparse.stages.base.conversion import to_tflite
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
    """Write untrained.tflite, in f32."""
    import tensorflow as tf

    # The weights do not matter, but the file must be the same from every process.
    tf.keras.utils.set_random_seed(0)
    model = build_model(context)
    nothing = [np.zeros((0, 1), np.float32) for _ in model.inputs]
    (context.folder / "untrained.tflite").write_bytes(to_tflite(model, "f32", nothing))


def read_graph(folder: Path) -> patterns.ModelGraph:
    """Read the graph that `run` wrote."""
    return patterns.read_graph((folder / "untrained.tflite").read_bytes())


def exploited(step: Magnitude, scheme: Numbers, profiles: Mapping[str, Profile]) -> dict[str, Any]:
    """Return the inputs of `pattern: auto`: what the target exploits, not its name, so that devices
    with the same properties share the training."""
    if step.pattern != "auto":
        return {}
    exploits = patterns.exploits(profiles.values(), scheme, likely_sparsity(step))
    return {"exploits": dataclasses.asdict(exploits)}


def likely_sparsity(step: Magnitude) -> float:
    """Return a step's sparsity, or the usual one for `auto`."""
    return patterns.LIKELY_SPARSITY if isinstance(step.sparsity, str) else step.sparsity


def resolve(context: StageContext, model: tf.keras.Model, spec: Magnitude) -> Resolved:
    """Resolve `pattern: auto` of a step for this model and target."""
    from edgesparse.methods.choosing import auto

    return auto.resolve(model, spec, _choices(context, spec))


def _choices(context: StageContext, spec: Magnitude) -> Mapping[str, LayerChoice]:
    if "untrained_model" not in context.inputs:
        return {}
    stored = context.stage.spec["exploits"]
    exploits = patterns.Exploits(
        tuple(stored["fully_connected"]),
        tuple(SparsePath(**path) for path in stored["paths"]),
        tuple((cpu, runtime) for cpu, runtime in stored["delegates"]),
    )
    return patterns.choose(
        read_graph(context.inputs["untrained_model"]), exploits, likely_sparsity(spec)
    )


KIND = StageKind("untrained-model", 1, KERAS_LIBRARIES, run)
