"""Verifies on the device which files its runtime runs, by which delegate, and whether their outputs
are right."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgesparse.delegate import BuildError
from edgesparse.delegate import library as library_for
from edgesparse.delegate.node_summary import summarize
from edgesparse.devices import edgetpu
from edgesparse.devices.agent.events import Check, Event, Failed
from edgesparse.devices.agent.job import Entry, Job, Settings, check_only
from edgesparse.devices.agent.run_job import round_medians, run_job
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
from edgesparse.tflite.runtimes.delegated import DelegateChoice, choose_delegate, is_faster

_ROUNDS = 3
_TIMED = Settings(warmup_runs=2, warmup_seconds=0.0, runs=5, seconds=0.1, timeout_seconds=60.0)
"""A short measurement: which of two delegates is faster."""
_SLOWER = "{xnnpack_ms:.3g} ms, with delegate edgesparse {edgesparse_ms:.3g} ms"
NO_ANSWER = "no answer"
ANSWERS = "answers.npz"
_DELEGATED = " by edgesparse"
"""Follows the form in the name of an entry that edgesparse's delegate runs."""
_ON_CPU = "cpu"
"""The entry that runs an Edge TPU's model on the device's CPU, for comparison."""


def key_inputs(
    variant: Variant,
    runtime: RuntimeInfo,
    delegate: str | Mapping[str, Any],
    machine: str,
    settings: Verify,
    edgesparse: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the result depends on: of the device its kind (`machine`), so that devices of one
    kind share the result, and so do all names of this machine's CPU.

    Args:
        delegate: the one that runs files for which edgesparse's is not chosen.
        edgesparse: `library` and `architecture` of edgesparse's delegate, or why it is `refused`,
            and the `threshold` of zeros, the `cpu` and the predicted speed-ups by which it is tried
            and `timed_between`; default: with every int8 file.
    """
    offered = (
        {"edgesparse": edgesparse} if edgesparse and variant.quantize.numbers == "int8" else {}
    )
    return {
        **offered,
        "runtime": runtime.model_dump(),
        "delegate": delegate,
        "machine": machine,
        "storage": variant.storage,
        "scheme": variant.quantize.scheme,
        "verify": settings.model_dump(mode="json"),
    }


def run(context: StageContext) -> None:
    """Choose the delegate and the storage: edgesparse's where it takes nodes, answers right and is
    faster, and sparse where this runtime runs it with right outputs, else dense.

    Writes verify.json: the file (as KEY/NAME in the store), its facts, its delegate, the times by
    which that was chosen, and its agreement.
    """
    devices = _devices(context)
    limit = verify.limits(context.variant.quantize, context.pipeline.verify)
    paths = _stored_forms(context)
    files = {form: read_json(path.with_name("model.json")) for form, path in paths.items()}
    _require_zeros(context, files)
    library, choice, fallback = _edgesparse(context)
    tried = _try_forms(context, paths, limit, library)
    # The first one that runs with right outputs: sparse before dense.
    chosen = next((form for form in paths if form in tried.checks), None)
    if chosen is None:
        raise EdgesparseError(_failure(context, paths, tried))
    name, times, untimed = chosen, dict[str, float](), False
    if library is not None:
        # It must run without the delegate, too.
        delegated = [f for f in paths if _takes_nodes(tried, f) and f in tried.checks]
        if not delegated:
            fallback = _Fallback(*_why_not(tried, chosen + _DELEGATED))
        else:
            rounds: dict[str, list[float]] = {}
            if choice.is_timed:
                rounds = _timed_rounds(context, paths[chosen], paths[delegated[0]], library)
                times = {f"{k}_ms": statistics.median(v) for k, v in rounds.items()}
                untimed = not times
            if is_faster(rounds, choice.ratio):
                chosen, name = delegated[0], delegated[0] + _DELEGATED
            elif untimed:
                fallback = _Fallback("it could not be timed", True)
            else:
                fallback = _Fallback(_SLOWER.format(**times), False)
    evaluation = tried.evaluations.get(name)
    if devices.host is not None:
        evaluation = _host_evaluation(context, chosen, _cpu_file(context, paths[chosen]), limit)
    if evaluation is not None:
        save_outputs(evaluation, context.folder / ANSWERS)
    write_json(
        context.folder / "verify.json",
        {
            "storage": chosen,
            # Relative to the store, so that a workspace can be moved.
            "path": paths[chosen].parent.name + "/" + paths[chosen].name,
            "model": files[chosen],
            "delegate": "edgesparse" if name != chosen else None,
            "times": times,
            "try_again": untimed or (fallback is not None and fallback.can_pass),
            "agreement": tried.checks[name].agreement,
            "notes": [
                *context.notes_of("sparsify"),
                *_storage_notes(context, chosen, tried.refused),
                *([f"runs by xnnpack: {fallback.reason}"] if fallback else []),
            ],
            **_edgetpu_facts(context, tried.evaluations.get(_ON_CPU)),
        },
    )


@dataclass
class _Tried:
    """The result of each form, by its name."""

    checks: dict[str, Check] = field(default_factory=dict)
    evaluations: dict[str, EvaluationResult] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    """The refused forms that ran, with wrong outputs."""


@dataclass(frozen=True)
class _Fallback:
    """Why a file is not run by edgesparse's delegate, and whether that can pass."""

    reason: str
    can_pass: bool


def _edgesparse(context: StageContext) -> tuple[Path | None, DelegateChoice, _Fallback | None]:
    """Return the library of edgesparse's delegate where it is to be tried, the prediction, and the
    reason where it is not to be tried although the file has enough zeros for it."""
    offer = context.stage.spec.get("edgesparse")
    if offer is None:
        return None, DelegateChoice(False), None
    dense, runtime = context.inputs["convert"] / "dense.tflite", context.stage.spec["runtime"]
    choice = choose_delegate(dense.read_bytes(), offer, runtime["name"])
    if not choice.is_tried:
        return None, choice, _Fallback(choice.why, False) if choice.why else None
    if "refused" in offer:
        return None, choice, _Fallback(offer["refused"], False)
    try:
        return library_for(offer["architecture"]), choice, None
    except BuildError as error:
        return None, choice, _Fallback(str(error), True)


def _timed_rounds(
    context: StageContext, plain: Path, delegated: Path, library: Path
) -> dict[str, list[float]]:
    """Measure a file by XNNPACK and by edgesparse's delegate, briefly and in interleaved rounds.

    Returns:
        The median of each round, in ms, by delegate; empty where one of them failed.
    """
    devices, runtime = _devices(context), context.stage.spec["runtime"]["name"]
    settings = replace(_TIMED, timeout_seconds=context.pipeline.benchmark.timeout_seconds)
    entries = (
        Entry("xnnpack", plain, runtime, context.stage.spec["delegate"], 1),
        Entry("edgesparse", delegated, runtime, {"library": library, "options": {}}, 1),
    )
    job = Job(f"{devices.run}-{context.stage.key[:12]}-times", _ROUNDS, settings, entries)
    medians = round_medians(run_job(devices.transport, job, stop=devices.stop))
    if any(len(medians.get(entry.name, ())) < _ROUNDS for entry in entries):
        return {}
    return {e.name: [ns / 1e6 for ns in medians[e.name]] for e in entries}


def _takes_nodes(tried: _Tried, form: str) -> bool:
    check = tried.checks.get(form + _DELEGATED)
    return check is not None and any(state == "taken" for _, state, _ in check.nodes)


def _why_not(tried: _Tried, entry: str) -> tuple[str, bool]:
    """Return why edgesparse's delegate does not run a file, and whether that can pass."""
    if entry in tried.wrong:
        return f"delegate edgesparse has wrong outputs: {tried.refused[entry]}", False
    if entry in tried.checks:
        return summarize(tried.checks[entry].nodes), False
    return f"delegate edgesparse failed: {tried.refused.get(entry, NO_ANSWER)}", True


def _try_forms(
    context: StageContext, paths: Mapping[str, Path], limit: verify.Limits, library: Path | None
) -> _Tried:
    """Run every form on the device, by edgesparse's delegate as well where it has a library, and
    compare its outputs, in one job."""
    devices, runtime = _devices(context), context.stage.spec["runtime"]["name"]
    entries = [
        replace(
            _entry(context, form, path, runtime, limit),
            # A device other than this machine runs the test samples when it is measured.
            samples=None if devices.host else _samples_of(context),
            golden_samples=context.plan.golden_samples,
        )
        for form, path in paths.items()
    ]
    if library is not None:
        loaded = {"library": library, "options": {"report": "1"}}
        entries += [replace(e, name=e.name + _DELEGATED, delegate=loaded) for e in entries]
    if "compile" in context.inputs:
        entries.append(_cpu_entry(context, runtime, limit))
    by_name, evaluator = {entry.name: entry for entry in entries}, _evaluator(context)
    tried = _Tried()
    events = _run_checks(context, devices.transport, entries)
    for event in events:
        if isinstance(event, Failed):
            tried.refused[event.entry] = _explain_error(event.error, context)
        elif isinstance(event, Check):
            problem = verify.disagreement(event.agreement or 0.0, limit)
            evaluation = evaluator.evaluate_entry(by_name[event.entry], events)
            if evaluation is not None:
                tried.evaluations[event.entry] = evaluation
            elif event.samples:
                problem = INCOMPLETE_OUTPUTS
            if problem and event.entry != _ON_CPU:
                tried.refused[event.entry] = problem
                tried.wrong.add(event.entry)
            else:
                tried.checks[event.entry] = event
    return tried


def _failure(context: StageContext, paths: Mapping[str, Path], tried: _Tried) -> str:
    """Describe why no form is usable: it does not run, or its outputs are wrong."""
    runtime = context.stage.spec["runtime"]["name"]
    reasons = {form: tried.refused.get(form, NO_ANSWER) for form in paths}
    # A common reason is given once.
    if len(set(reasons.values())) == 1:
        reason = next(iter(reasons.values()))
    else:
        reason = "; ".join(f"{form}: {text}" for form, text in reasons.items())
    if not tried.wrong & paths.keys():
        return f"does not run on {runtime}: {reason}"
    path = context.inputs["convert"] / convert.DIAGNOSIS
    diagnosis = f"; {read_json(path)}" if path.is_file() else ""
    return f"wrong outputs on {runtime}: {reason}{diagnosis}"


def _devices(context: StageContext) -> Devices:
    assert context.devices is not None
    return context.devices


def _cpu_entry(context: StageContext, runtime: str, limit: verify.Limits) -> Entry:
    """Return the entry of the compiler's source on the CPU: the chip must be as accurate."""
    source = context.inputs["convert"] / "dense.tflite"
    entry = _entry(context, _ON_CPU, source, runtime, limit)
    return replace(entry, delegate="xnnpack", samples=_samples_of(context))


def _edgetpu_facts(context: StageContext, on_cpu: EvaluationResult | None) -> dict[str, Any]:
    if "compile" not in context.inputs:
        return {}
    stored = read_json(context.inputs["compile"] / "edgetpu.json")
    tasks = _evaluator(context).tasks
    cpu_accuracy = (
        on_cpu.scores.get(tasks.metric_name) if on_cpu and tasks.metric.unit == "%" else None
    )
    return {"edgetpu": {**stored["about"], "cpu_accuracy": cpu_accuracy}, "notes": stored["notes"]}


def _explain_error(error: str, context: StageContext) -> str:
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


def _run_checks(
    context: StageContext, transport: Transport, entries: Sequence[Entry]
) -> list[Event]:
    devices, timeout_seconds = _devices(context), context.pipeline.benchmark.timeout_seconds
    job = check_only(entries, f"{devices.run}-{context.stage.key[:12]}", timeout_seconds)
    return run_job(transport, job, stop=devices.stop)


def _cpu_file(context: StageContext, path: Path) -> Path:
    """Return the file to run in place of a compiled one on a machine without an Edge TPU."""
    return context.inputs["convert"] / "dense.tflite" if "compile" in context.inputs else path


def _host_evaluation(
    context: StageContext, name: str, path: Path, limit: verify.Limits
) -> EvaluationResult | None:
    """Evaluate on this machine a file of another one.

    With the same runtime where it is installed here; None where no runtime here runs the file.
    """
    devices = _devices(context)
    assert devices.host is not None
    own_runtime = context.stage.spec["runtime"]["name"]
    # Outputs differ slightly between runtimes: the device's runtime first.
    for runtime in sorted(devices.host_runtimes, key=lambda runtime: runtime != own_runtime):
        entry = replace(
            _entry(context, name, path, runtime, limit),
            samples=_samples_of(context),
            delegate="xnnpack",
        )
        evaluation = _evaluator(context).evaluate_entry(
            entry, _run_checks(context, devices.host, [entry])
        )
        if evaluation is not None:
            return evaluation
    return None


def _stored_forms(context: StageContext) -> dict[str, Path]:
    """Return the files to choose from, the preferred one first."""
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
    """Return notes on weights with zeros that are stored dense."""
    if "encode" not in context.inputs:
        return []
    if chosen == "dense" and "sparse" in refused:
        runtime = context.stage.spec["runtime"]["name"]
        return [f"stored dense, because {runtime} rejects it sparse: {refused['sparse']}"]
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
