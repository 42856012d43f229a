"""What can be said of a model before it is trained: whether it fits the data, and what will not be
done to it.

Made in seconds, so that nobody learns it after an hour of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import ROW_METRICS, Scheme
from edgesparse.stages.base.artifacts import flat, read_json, write_json
from edgesparse.stages.base.stage import DATA_LIBRARIES, TOOLKIT_LIBRARIES, StageContext, StageKind
from edgesparse.tasks.evaluation import ModelTasks

FACTS = "facts.json"
_FEW = 4
INTEGER: tuple[Scheme, ...] = ("int8", "uint8", "int16x8")
"""Schemes whose operators are not those of f32, so that a model may have one that they lack."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of a model is looked into beforehand, since variants ask for it."""

    aware: bool = False
    channels: bool = False
    schemes: tuple[Scheme, ...] = ()


@dataclasses.dataclass(frozen=True)
class KernelInfo:
    """A weight that can be made sparse; `reason` is why it is not, unless it is named."""

    name: str
    layer: str
    size: int
    reason: str

    @property
    def names(self) -> tuple[str, str]:
        """What globs may match."""
        return self.name, self.layer


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a model before it is trained.

    `wrong` is why nothing can be made of it. `unaware` are the layers that quantization-aware
    training leaves out, `rigid` why no layer can lose channels, and `no_scheme` by scheme why it
    cannot be converted to it, where it was asked. `widths` are the layers that have channels.
    `unused` is what of the model's own training takes no part in training, `unused_later` in
    fine-tuning.
    """

    kernels: tuple[KernelInfo, ...] = ()
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    """What task was found, and what counts in training; for `plan`."""
    wrong: str | None = None
    unaware: tuple[str, ...] = ()
    no_aware: str | None = None
    rigid: str | None = None
    widths: tuple[str, ...] = ()
    no_scheme: dict[str, str] = dataclasses.field(default_factory=dict)
    unused: str = ""
    unused_later: str = ""


def key_inputs(
    model: Mapping[str, Any], shared: Mapping[str, Any], gates: Sequence[str], asked: Asked
) -> dict[str, Any]:
    """Return what the result depends on: the model's source and digest, what every training depends
    on (`shared`), and the metrics of gates."""
    return {"model": model, **shared, "gates": list(gates), "asked": dataclasses.asdict(asked)}


def run(context: StageContext) -> None:
    """Leave facts.json."""
    asked = Asked(**context.stage.spec["asked"])
    try:
        facts = _looked_into(context, asked)
    except EdgesparseError as error:
        facts = Facts(wrong=str(error))
    # What the user's code has said may have a value from the environment in it.
    masked = context.plan.loaded.document.masked_in(dataclasses.asdict(facts))
    write_json(context.folder / FACTS, masked)


def _looked_into(context: StageContext, asked: Asked) -> Facts:
    from edgesparse import data, models
    from edgesparse.methods.network import inputs, kernels
    from edgesparse.methods.training import compile_args, custom_training, fitting
    from edgesparse.tflite import convert

    source, dataset, recipe = context.pipeline.model, context.plan.dataset, context.plan.recipe
    compile_args.check(context.plan.train, dataset, recipe)
    _check_gates(context, recipe)
    built, notes = models.build_noted(source, context.plan.loaded.folder)
    inputs.check_layout(built)
    model = flat(built, context)
    inputs.check_ids(model, dataset, recipe.inputs)
    step = custom_training.own_step(built)
    losses = custom_training.lost_losses(built, model, data.representative(dataset, _FEW))
    if not step:  # Which may need no loss.
        fitting.check_losses(model, dataset, context.plan.train, recipe)
    found = tuple(
        KernelInfo(k.name, k.layer, k.size, k.reason) for k in kernels.kernels(model).values()
    )
    doubts = compile_args.doubts(context.plan.train, recipe)
    said = list(recipe.said)
    if context.plan.scaled_by is not None:
        said.append(f"pixels are given as 0 to 255: {context.plan.scaled_by} scales them")
    facts = Facts(
        found,
        (*notes, *doubts),
        said=tuple(said),
        unused=losses or (step if model is not built else ""),
        unused_later=losses or step,
    )
    if asked.aware:
        from edgesparse.methods import quantize_aware

        left, reason = quantize_aware.foreseen(model)
        facts = dataclasses.replace(facts, unaware=left, no_aware=reason)
    if asked.channels:
        from edgesparse.methods import channels

        widths, reason = channels.foreseen(model)
        facts = dataclasses.replace(facts, widths=widths, rigid=reason)
    calibration = data.representative(dataset, 2)
    samples = [calibration[name] for name in recipe.inputs]
    for scheme in asked.schemes:
        try:
            convert.convert(model, scheme, samples)
        except EdgesparseError as error:
            facts.no_scheme[scheme] = str(error)
    return facts


def _check_gates(context: StageContext, recipe: ModelTasks) -> None:
    """Raise UsageError where a gate names no metric."""
    names = [n for metric in recipe.metrics for n in (metric, f"{metric}_drop")]
    known = [*ROW_METRICS, *names]
    for i, gate in enumerate(context.pipeline.gates):
        if gate.metric not in known:
            where = context.plan.loaded.document.where(("gates", i, "metric"))
            hint = did_you_mean(gate.metric, known)
            raise UsageError(f"{where}: {gate.metric!r} is no metric of this task{hint}")


def read_facts(folder: Path) -> Facts:
    """What `run` left."""
    known = read_json(folder / FACTS)
    known["kernels"] = tuple(KernelInfo(**one) for one in known["kernels"])
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Facts(**{**known, **lists})


KIND = StageKind("preflight", 4, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
