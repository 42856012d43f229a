"""Asks the device which file its runtime takes, and whether that answers right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgesparse.devices import edgetpu
from edgesparse.devices.agent.events import Check, Event, Failed
from edgesparse.devices.agent.job import Entry, check_only
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.transport.interface import Transport
from edgesparse.measure.evaluation import (
    INCOMPLETE_OUTPUTS,
    EvaluationResult,
    Evaluator,
    read_evaluator,
    save_outputs,
)
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant, Verify
from edgesparse.stages import convert, encode, samples
from edgesparse.stages.base.artifacts import read_json, write_json
from edgesparse.stages.base.stage import Devices, StageContext, StageKind
from edgesparse.tflite import verify
from edgesparse.tflite.runtimes import storage

NO_ANSWER = "no answer"
ANSWERS = "answers.npz"
_ON_CPU = "cpu"
"""The entry that runs an Edge TPU's model on the device's CPU, to compare."""


def key_inputs(
    variant: Variant,
    runtime: RuntimeInfo,
    delegate: str | Mapping[str, Any],
    machine: str,
    settings: Verify,
) -> dict[str, Any]:
    """Return what the result depends on: of the device its kind (`machine`), so that devices of one
    kind share the result, and so do all names of this machine's CPU."""
    return {
        "runtime": runtime.model_dump(),
        "delegate": delegate,
        "machine": machine,
        "storage": variant.storage,
        "scheme": variant.quantize.scheme,
        "verify": settings.model_dump(mode="json"),
    }


def run(context: StageContext) -> None:
    """Choose the storage: sparse where this runtime takes it and answers right, else dense.

    Leaves verify.json: which file (as KEY/NAME in the store), what it is, and how it answers.
    """
    devices = _devices(context)
    limit = verify.limits(context.variant.quantize, context.pipeline.verify)
    paths = _stored_forms(context)
    files = {form: read_json(path.with_name("model.json")) for form, path in paths.items()}
    _require_zeros(context, files)
    tried = _try(context, paths, limit)
    # The first that runs and answers right: sparse before dense.
    chosen = next((form for form in paths if form in tried.checks), None)
    if chosen is None:
        raise EdgesparseError(_why_none(context, paths, tried))
    evaluation = tried.evaluations.get(chosen)
    if devices.host is not None:
        evaluation = _host_evaluation(context, chosen, _readable(context, paths[chosen]), limit)
    if evaluation is not None:
        save_outputs(evaluation, context.folder / ANSWERS)
    write_json(
        context.folder / "verify.json",
        {
            "storage": chosen,
            # Relative to the store, so that a workspace can be moved.
            "path": paths[chosen].parent.name + "/" + paths[chosen].name,
            "model": files[chosen],
            "agreement": tried.checks[chosen].agreement,
            "scores": dict(evaluation.scores) if evaluation else {},
            "notes": [
                *context.notes_of("sparsify"),
                *_storage_notes(context, chosen, tried.refused),
            ],
            **_on_chip(context, tried.evaluations.get(_ON_CPU)),
        },
    )


@dataclass
class _Tried:
    """What became of each form, by its name."""

    checks: dict[str, Check] = field(default_factory=dict)
    evaluations: dict[str, EvaluationResult] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    """Those of the refused that did run."""


def _try(context: StageContext, paths: Mapping[str, Path], limit: verify.Limits) -> _Tried:
    """Load every form on the device and compare its answers.

    All at once: a second job would cost another start of the agent.
    """
    devices, runtime = _devices(context), context.stage.spec["runtime"]["name"]
    entries = [
        replace(
            _entry(context, form, path, runtime, limit),
            # A device that is not this machine answers its samples when it is measured.
            samples=None if devices.host else _samples_of(context),
            golden_samples=context.plan.golden_samples,
        )
        for form, path in paths.items()
    ]
    if "compile" in context.inputs:
        entries.append(_cpu_twin(context, runtime, limit))
    by_name, evaluator = {entry.name: entry for entry in entries}, _evaluator(context)
    found = _Tried()
    events = _checked(context, devices.transport, entries)
    for event in events:
        if isinstance(event, Failed):
            found.refused[event.entry] = _explained(event.error, context)
        elif isinstance(event, Check):
            wrong = verify.disagreement(event.agreement or 0.0, limit)
            evaluation = evaluator.evaluate_entry(by_name[event.entry], events)
            if evaluation is not None:
                found.evaluations[event.entry] = evaluation
            elif event.samples:
                wrong = INCOMPLETE_OUTPUTS
            if wrong and event.entry != _ON_CPU:
                found.refused[event.entry] = wrong
                found.wrong.add(event.entry)
            else:
                found.checks[event.entry] = event
    return found


def _why_none(context: StageContext, paths: Mapping[str, Path], tried: _Tried) -> str:
    """Why no file will do: it does not run, or it runs and answers wrong, and from what."""
    runtime = context.stage.spec["runtime"]["name"]
    said = {form: tried.refused.get(form, NO_ANSWER) for form in paths}
    # One reason for all is told once.
    if len(set(said.values())) == 1:
        reason = next(iter(said.values()))
    else:
        reason = "; ".join(f"{form}: {text}" for form, text in said.items())
    if not tried.wrong:
        return f"{runtime} cannot run it: {reason}"
    diagnosis = context.inputs["convert"] / convert.DIAGNOSIS
    because = f"; {read_json(diagnosis)}" if diagnosis.is_file() else ""
    return f"{runtime} answers wrong: {reason}{because}"


def _devices(context: StageContext) -> Devices:
    assert context.devices is not None
    return context.devices


def _cpu_twin(context: StageContext, runtime: str, limit: verify.Limits) -> Entry:
    """What was compiled, on the device's CPU: the chip must be as accurate as that."""
    source = context.inputs["convert"] / "dense.tflite"
    entry = _entry(context, _ON_CPU, source, runtime, limit)
    return replace(entry, delegate="xnnpack", samples=_samples_of(context))


def _on_chip(context: StageContext, on_cpu: EvaluationResult | None) -> dict[str, Any]:
    if "compile" not in context.inputs:
        return {}
    stored = read_json(context.inputs["compile"] / "edgetpu.json")
    tasks = _evaluator(context).tasks
    known = on_cpu.scores.get(tasks.metric_name) if on_cpu and tasks.metric.unit == "%" else None
    return {"edgetpu": {**stored["about"], "cpu_accuracy": known}, "notes": stored["notes"]}


def _explained(error: str, context: StageContext) -> str:
    tpu = context.plan.tpu
    if tpu is None or "compile" not in context.inputs:
        return error
    return edgetpu.delegate_problem(_devices(context).transport.name, tpu.library, error) or error


def _entry(
    context: StageContext, name: str, path: Path, runtime: str, limit: verify.Limits
) -> Entry:
    golden = context.inputs["convert"] / "golden.npz"
    delegate = context.stage.spec["delegate"]
    return Entry(
        name,
        path,
        runtime,
        delegate,
        1,
        golden=golden,
        tolerance=limit.tolerance,
        reduced=_evaluator(context).tasks.reduced,
    )


def _evaluator(context: StageContext) -> Evaluator:
    folder = context.inputs["samples"]
    kept = read_json(folder / samples.TASK)
    return read_evaluator(kept, folder / samples.TARGETS, context.plan.loaded.folder)


def _samples_of(context: StageContext) -> Path:
    return context.inputs["samples"] / "samples.npz"


def _checked(context: StageContext, transport: Transport, entries: Sequence[Entry]) -> list[Event]:
    devices, timeout_seconds = _devices(context), context.pipeline.benchmark.timeout_seconds
    job = check_only(entries, f"{devices.run}-{context.stage.key[:12]}", timeout_seconds)
    return run_job(transport, job, stop=devices.stop)


def _readable(context: StageContext, path: Path) -> Path:
    """The file that stands for another on a machine without an Edge TPU."""
    return context.inputs["convert"] / "dense.tflite" if "compile" in context.inputs else path


def _host_evaluation(
    context: StageContext, name: str, path: Path, limit: verify.Limits
) -> EvaluationResult | None:
    """What a file that another machine runs answers on this one.

    By the same runtime where this machine has it; None where no runtime here takes the file.
    """
    devices = _devices(context)
    assert devices.host is not None
    wanted = context.stage.spec["runtime"]["name"]
    # Numbers differ a little from runtime to runtime: the device's own first.
    for runtime in sorted(devices.host_runtimes, key=lambda own: own != wanted):
        entry = replace(
            _entry(context, name, path, runtime, limit),
            samples=_samples_of(context),
            delegate="xnnpack",
        )
        evaluation = _evaluator(context).evaluate_entry(
            entry, _checked(context, devices.host, [entry])
        )
        if evaluation is not None:
            return evaluation
    return None


def _stored_forms(context: StageContext) -> dict[str, Path]:
    """The files to choose from, the preferred first."""
    if "compile" in context.inputs:
        return {"edgetpu": context.inputs["compile"] / "edgetpu.tflite"}
    paths = {"dense": context.inputs["convert"] / "dense.tflite"}
    if "encode" in context.inputs:
        sparse = context.inputs["encode"] / "sparse.tflite"
        if context.variant.storage == "sparse":
            return {"sparse": sparse}
        if read_json(sparse.with_name("model.json"))["storage"] == "sparse":
            return {"sparse": sparse, **paths}
    return paths


def _storage_notes(context: StageContext, chosen: str, refused: Mapping[str, str]) -> list[str]:
    """Why weights with zeros are stored densely."""
    if "encode" not in context.inputs:
        return []
    if chosen == "dense" and "sparse" in refused:
        runtime = context.stage.spec["runtime"]["name"]
        return [f"stored dense, because {runtime} refuses it sparse: {refused['sparse']}"]
    return storage.summary(encode.read_decisions(context.inputs["encode"]))


def _require_zeros(context: StageContext, files: Mapping[str, Any]) -> None:
    if "sparsify" not in context.inputs:
        return
    layers = read_json(context.inputs["sparsify"] / "sparsity.json")
    for file in files.values():
        lost = verify.lost_zeros(file["zeros"], sum(layer["zeros"] for layer in layers))
        if lost:
            raise EdgesparseError(lost)


KIND = StageKind("verify", 3, (), run, in_child=False)
