"""From a plan's verified models to what is measured on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.connect import Target
from edgesparse.delegate import BuildError, library, refused
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.plan import Plan
from edgesparse.graph.store import Store
from edgesparse.measure.evaluation import Evaluator, read_evaluator, read_outputs
from edgesparse.measure.job import Candidate
from edgesparse.measure.rows import Coverage, EdgeTpuInfo, ModelFile, StoredWeight
from edgesparse.spec.device import Device
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.sparsify import L1, REPORTED_GAP, Channels, Sparsify, removes_channels
from edgesparse.stages import encode, samples, verify
from edgesparse.stages.base.artifacts import METRICS, read_json
from edgesparse.stages.base.stage import NOTES
from edgesparse.stages.convert import NETWORK
from edgesparse.stages.sparsify import COVERAGE
from edgesparse.tflite.edgetpu import is_compiled
from edgesparse.tflite.format.graph import label
from edgesparse.tflite.runtimes.storage import Decision
from edgesparse.tflite.verify import limits


def planned(
    plan: Plan,
    errors: Mapping[str, str],
    executor: Executor,
    target: Target,
    threads: Sequence[int],
) -> list[Candidate]:
    """A candidate per runtime, number of threads and variant; those that failed say why.

    `errors` are those of the plan's stages, by key.
    """
    evaluator = _evaluator(plan, executor)
    found = []
    # Runtimes outermost: a block of the table is one runtime with one number of threads.
    for runtime, missing in target.all_runtimes:
        for count in threads:
            for variant, convert in plan.converted.items():
                candidate = Candidate(
                    variant,
                    runtime,
                    target.device.delegate_used,
                    count,
                    _dense_twin(executor.context.pipeline, variant),
                    external=_external(target.device),
                    clock=target.device.clock,
                    on_host=target.device.emulated,
                )
                key = plan.verified.get((variant, runtime.name))
                error = missing or (errors.get(key) if key else None)
                error = error or too_many_threads(target, count)
                if error or key is None:
                    found.append(replace(candidate, error=error or "was not planned"))
                    continue
                found.append(_verified(candidate, plan, executor, key, convert, evaluator))
    return [within_macs(one, found, executor.context.pipeline) for one in found]


def within_macs(one: Candidate, others: Sequence[Candidate], pipeline: Pipeline) -> Candidate:
    """The same, with a note where the file has more multiply-accumulates than were asked for."""
    own = pipeline.variants[one.variant]
    budget = min((s.macs for s in own.sparsify if isinstance(s, Channels) and s.macs), default=None)
    if budget is None or one.model is None or one.model.macs is None:
        return one
    for other in others:
        variant = pipeline.variants[other.variant]
        if variant.sparsify or not own.shares_training_with(variant) or other.model is None:
            continue
        share = one.model.macs / other.model.macs if other.model.macs else 0.0
        if share > budget + REPORTED_GAP:
            note = (
                f"{budget:.0%} of the multiply-accumulates were asked for; the file has "
                f"{share:.0%} of those of {other.variant}"
            )
            return replace(one, notes=(*one.notes, note))
    return one


def _evaluator(plan: Plan, executor: Executor) -> Evaluator | None:
    """How every candidate's answers are judged; None where there are no samples."""
    folder = executor.store.path(plan.samples)
    if not (folder / samples.TASK).is_file():
        return None
    kept = read_json(folder / samples.TASK)
    executor.context.inputs.check_task_code()
    return read_evaluator(kept, folder / samples.TARGETS, executor.context.loaded.folder)


def too_many_threads(target: Target, threads: int) -> str | None:
    """Why so many threads are not measured: they wait for one another, and what comes out is a
    thousand times the time of one."""
    cores = target.host.cores
    if cores is None or threads <= cores:
        return None
    return (
        f"{threads} threads on {cores} core{'s' * (cores > 1)} are not measured: they wait for one "
        f"another; ask for at most {cores}"
    )


def _dense_twin(pipeline: Pipeline, variant: str) -> str | None:
    """The variant that this one goes on from, as far as the pipeline has it: with the same numbers
    and all of its steps but the last ones; a gain is then that of those steps."""
    own = pipeline.variants[variant]
    half = own.quantize.compute == "f16"
    # Weights of 16 bits are made 32 before anything is computed, where that is not half, too.
    alike = (own.quantize.scheme, "f32") if half else (own.quantize.scheme,)
    # Half precision comes last of all.
    for count in reversed(range(len(own.sparsify) + half)):
        for scheme in alike:
            for name, other in pipeline.variants.items():
                same = other.quantize.scheme == scheme and own.shares_training_with(other)
                plain = other.quantize.compute == "f32"
                if same and plain and other.sparsify == own.sparsify[:count]:
                    return name
    return None


def _named(step: Sparsify) -> str:
    """A step, by what it takes away."""
    if isinstance(step, L1) and step.group == "input":
        return "inputs"
    return "channels" if removes_channels(step) else step.method


def _numbers(variant: Variant) -> str:
    """What operators compute with: weights of 16 bits are made 32 before, unless half precision is
    asked for."""
    quantize = variant.quantize
    return quantize.compute if quantize.numbers in ("f32", "f16") else quantize.numbers


def _like(pipeline: Pipeline, variant: str) -> str | None:
    """The first of the variants that differ from this one in their seed only."""
    own = pipeline.variants[variant].model_copy(update={"seed": None})
    variants = pipeline.variants.items()
    alike = {n: v.seed for n, v in variants if v.model_copy(update={"seed": None}) == own}
    return next(iter(alike)) if len(set(alike.values())) > 1 else None


def _verified(
    candidate: Candidate,
    plan: Plan,
    executor: Executor,
    key: str,
    convert: str,
    evaluator: Evaluator | None,
) -> Candidate:
    assert evaluator is not None, "nothing is verified without samples"
    decided = _decided(plan, executor, key)
    store, pipeline = executor.store, executor.context.pipeline
    verdict = read_json(store.path(key) / "verify.json")
    inputs = plan.stage(convert).inputs
    on_chip = verdict.get("edgetpu")
    # Of steps the verdict has what is to be said; of a training without steps nobody else does.
    aware = _notes(store, inputs.get("quantize"))
    dense = not pipeline.variants[candidate.variant].sparsify
    trained = _notes(store, inputs["model"]) if dense else []
    covered = store.path(inputs["model"]) / COVERAGE
    metrics = read_json(store.path(inputs.get("quantize", inputs["model"])) / METRICS)
    sampled = store.path(plan.samples)
    network = read_json(store.path(convert) / NETWORK)
    return replace(
        candidate,
        path=_file(store, verdict["path"]),
        model=ModelFile.model_validate({**verdict["model"], **network}),
        golden=store.path(convert) / "golden.npz",
        samples=sampled / "samples.npz",
        limits=limits(pipeline.variants[candidate.variant].quantize, pipeline.verify),
        evaluator=evaluator,
        keras_scores=metrics,
        trained_scores=network["trained"],
        host_evaluation=read_outputs(store.path(key) / verify.ANSWERS, evaluator),
        agreement=verdict["agreement"],
        notes=(*candidate.notes, *trained, *verdict["notes"], *aware, *network["notes"]),
        coverage=Coverage.model_validate(read_json(covered)) if covered.is_file() else None,
        steps=tuple(_named(s) for s in pipeline.variants[candidate.variant].sparsify),
        seed_group=_like(pipeline, candidate.variant),
        compute_dtype=_numbers(pipeline.variants[candidate.variant]),
        zeros_exploited=any(one.exploited for one in decided) and verdict["storage"] == "sparse",
        half_precision=_half(pipeline.variants[candidate.variant], candidate, executor),
        weights=_weights(decided),
        edgetpu=EdgeTpuInfo.model_validate(on_chip) if on_chip else None,
    )


def _file(store: Store, place: str) -> Path:
    """KEY/NAME, as a verdict has it, in a store."""
    key, _, name = place.partition("/")
    return store.path(key) / name


def _notes(store: Store, key: str | None) -> list[str]:
    path = store.path(key) / NOTES if key is not None else None
    return list(read_json(path)) if path is not None and path.is_file() else []


def _half(variant: Variant, candidate: Candidate, executor: Executor) -> bool | None:
    """Whether a probe has seen half precision there; None where nobody asks for it."""
    if variant.quantize.compute != "f16":
        return None
    profile = executor.context.profiles[candidate.runtime.name]
    return profile.half_gain is not None and profile.half_precision.exists


def _decided(plan: Plan, executor: Executor, key: str) -> tuple[Decision, ...]:
    """How each weight is stored for a runtime; nothing where there was no choice."""
    encoded = plan.stage(key).inputs.get("encode")
    return tuple(encode.read_decisions(executor.store.path(encoded))) if encoded is not None else ()


def _weights(decided: Sequence[Decision]) -> tuple[StoredWeight, ...]:
    """What is to be said of weights: of those that have zeros, or nearly could have."""
    return tuple(
        StoredWeight(
            name=label(one.name),
            operator=one.op,
            storage=one.form,
            dense_bytes=one.dense_bytes,
            stored_bytes=one.stored_bytes,
            exploited=one.exploited,
            reason=one.reason,
        )
        for one in decided
        if one.form != "dense" or one.held_back
    )


def _external(device: Device) -> Mapping[str, Any] | None:
    loaded = device.agent_delegate
    return loaded if isinstance(loaded, Mapping) else None


def delegated(candidate: Candidate, delegate: str, machine: str) -> Candidate:
    """The same on a delegate that the user names in place of the device file's: xnnpack, or
    edgesparse, whose library is sent along."""
    if delegate != "edgesparse":
        return replace(candidate, delegate=delegate, external=None)
    why = candidate.error
    why = why or refused(candidate.runtime.name, candidate.runtime.version, machine)
    candidate = replace(candidate, delegate=delegate, error=why)
    if why is not None:
        return candidate
    try:
        external = {"library": library(machine), "options": {"report": "1"}}
    except BuildError as error:
        return replace(candidate, error=str(error))
    return replace(candidate, external=external)


def ready(candidate: Candidate, device: Device, error: str | None) -> Candidate:
    """How a device runs a file that needs no pipeline; `error` is why it cannot."""
    assert candidate.path is not None
    compiled = is_compiled(candidate.path.read_bytes())
    candidate = replace(candidate, delegate=device.delegate_used, clock=device.clock, error=error)
    if device.delegate_used == "edgetpu" and compiled:
        return replace(candidate, external=_external(device))
    if compiled:
        why = "it was compiled for the Edge TPU, which needs 'delegate: edgetpu' in the device file"
        return replace(candidate, error=error or why)
    if device.delegate_used == "edgetpu":
        note = "on the CPU: this file was not compiled for the Edge TPU"
        return replace(candidate, delegate="xnnpack", notes=(note,))
    return candidate
