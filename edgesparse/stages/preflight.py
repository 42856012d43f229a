"""Checks a model before it is trained: whether it fits the data, and what variants cannot do to it.

Takes seconds, so that errors do not show after an hour of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import ROW_METRICS, Scheme
from edgesparse.stages.base.artifacts import flatten, read_json, write_json
from edgesparse.stages.base.conversion import to_tflite
from edgesparse.stages.base.stage import DATA_LIBRARIES, TOOLKIT_LIBRARIES, StageContext, StageKind
from edgesparse.tasks.model_tasks import ModelTasks

FACTS = "facts.json"
_FEW = 4
INTEGER: tuple[Scheme, ...] = ("int8", "uint8", "int16x8")
"""Schemes with other operators than f32: a model can have operators that they lack."""


@dataclasses.dataclass(frozen=True)
class Checks:
    """The checks of a model that its variants need."""

    qat: bool = False
    channels: bool = False
    schemes: tuple[Scheme, ...] = ()


@dataclasses.dataclass(frozen=True)
class KernelInfo:
    """A weight that can be pruned; `reason` says why it is not by default."""

    name: str
    layer: str
    size: int
    reason: str

    @property
    def names(self) -> tuple[str, str]:
        """The names that globs match."""
        return self.name, self.layer


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about an untrained model.

    `error` prevents its training. `skipped_by_qat` are the layers that quantization-aware training
    skips, `qat_error` says why it is impossible. `channel_layers` have channels, `channels_error`
    says why no layer can lose them. `conversion_errors` has by scheme why the model cannot be
    converted. `unused_in_training` and `unused_in_fine_tuning` are parts of the model's custom
    training that are not used there. Only what variants need is checked; see Checks.
    """

    kernels: tuple[KernelInfo, ...] = ()
    notes: tuple[str, ...] = ()
    info: tuple[str, ...] = ()
    """The task and the settings of training, for `plan`."""
    error: str | None = None
    skipped_by_qat: tuple[str, ...] = ()
    qat_error: str | None = None
    channels_error: str | None = None
    channel_layers: tuple[str, ...] = ()
    conversion_errors: dict[str, str] = dataclasses.field(default_factory=dict)
    unused_in_training: str = ""
    unused_in_fine_tuning: str = ""


def key_inputs(
    model: Mapping[str, Any], shared: Mapping[str, Any], gates: Sequence[str], checks: Checks
) -> dict[str, Any]:
    """Return what the result depends on: the model's source and digest, what every training depends
    on (`shared`), and the metrics of gates."""
    return {"model": model, **shared, "gates": list(gates), "checks": dataclasses.asdict(checks)}


def run(context: StageContext) -> None:
    """Write facts.json."""
    checks = Checks(**context.stage.spec["checks"])
    try:
        facts = _check_model(context, checks)
    except EdgesparseError as error:
        facts = Facts(error=str(error))
    # Messages of the user's code can contain values from the environment.
    masked = context.plan.loaded.document.masked_in(dataclasses.asdict(facts))
    write_json(context.folder / FACTS, masked)


def _check_model(context: StageContext, checks: Checks) -> Facts:
    from edgesparse import data, models
    from edgesparse.methods.network import input_layers, kernels
    from edgesparse.methods.training import compile_args, custom_training, fitting
    from edgesparse.tflite import diagnose

    source, dataset, recipe = context.pipeline.model, context.plan.dataset, context.plan.recipe
    compile_args.check(context.plan.train, dataset, recipe)
    _check_gates(context, recipe)
    built, notes = models.build_with_notes(source, context.plan.loaded.folder)
    model = flatten(built, context)
    input_layers.check_ids(model, dataset, recipe.inputs)
    calibration = data.representative(dataset, 2)
    samples = [calibration[name] for name in recipe.inputs]
    diagnose.require_layout(model, samples)
    step = custom_training.custom_step(built)
    losses = custom_training.dropped_losses(built, model, data.representative(dataset, _FEW))
    if not step:  # A custom training step can do without a loss.
        fitting.check_losses(model, dataset, context.plan.train, recipe)
    kernel_infos = tuple(
        KernelInfo(k.name, k.layer, k.size, k.reason) for k in kernels.kernels(model).values()
    )
    doubts = compile_args.loss_warnings(context.plan.train, recipe)
    info = list(recipe.notes)
    if context.plan.scaled_by is not None:
        info.append(f"pixels stay at 0 to 255: layer {context.plan.scaled_by} scales them")
    facts = Facts(
        kernel_infos,
        (*notes, *doubts),
        info=tuple(info),
        unused_in_training=losses or (step if model is not built else ""),
        unused_in_fine_tuning=losses or step,
    )
    if checks.qat:
        from edgesparse.methods import quantize_aware

        left, reason = quantize_aware.unsupported_layers(model)
        facts = dataclasses.replace(facts, skipped_by_qat=left, qat_error=reason)
    if checks.channels:
        from edgesparse.methods import channels

        widths, reason = channels.channel_layers(model)
        facts = dataclasses.replace(facts, channel_layers=widths, channels_error=reason)
    for scheme in checks.schemes:
        try:
            to_tflite(model, scheme, samples)
        except EdgesparseError as error:
            facts.conversion_errors[scheme] = str(error)
    return facts


def _check_gates(context: StageContext, recipe: ModelTasks) -> None:
    """Raise UsageError for a gate with an unknown metric."""
    names = [n for metric in recipe.metrics for n in (metric, f"{metric}_drop")]
    metrics = [*ROW_METRICS, *names]
    for i, gate in enumerate(context.pipeline.gates):
        if gate.metric not in metrics:
            where = context.plan.loaded.document.where(("gates", i, "metric"))
            hint = did_you_mean(gate.metric, metrics)
            raise UsageError(f"{where}: unknown metric {gate.metric!r} for this task{hint}")


def read_facts(folder: Path) -> Facts:
    """Read the facts that `run` wrote."""
    content = read_json(folder / FACTS)
    content["kernels"] = tuple(KernelInfo(**kernel) for kernel in content["kernels"])
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return Facts(**{**content, **lists})


KIND = StageKind("preflight", 6, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
