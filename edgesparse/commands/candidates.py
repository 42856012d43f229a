"""Candidates for a measurement, from a plan's verified models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.delegates import offers
from edgesparse.commands.fleet.target import Target
from edgesparse.delegate import BuildError, library, refused
from edgesparse.devices.agent.run_job import refused_by
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.plan import Plan
from edgesparse.graph.store import Store
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.evaluation import Evaluator, read_evaluator, read_outputs
from edgesparse.measure.rows import Coverage, EdgeTpuInfo, Layer, ModelFile, StoredWeight
from edgesparse.spec.device import Device
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.sparsify import L1, REPORTED_GAP, Channels, Sparsify, removes_channels
from edgesparse.stages import encode, samples, verify
from edgesparse.stages.base.artifacts import METRICS, read_json
from edgesparse.stages.base.stage import NOTES
from edgesparse.stages.convert import NETWORK
from edgesparse.stages.sparsify import COVERAGE
from edgesparse.tflite.edgetpu import is_compiled
from edgesparse.tflite.format.flatbuffer import label
from edgesparse.tflite.format.operators import read_operators
from edgesparse.tflite.runtimes.delegated import choose_delegate
from edgesparse.tflite.runtimes.storage import Decision
from edgesparse.tflite.verify import limits


def planned(
    plan: Plan,
    errors: Mapping[str, str],
    executor: Executor,
    target: Target,
    threads: Sequence[int],
) -> list[Candidate]:
    """Build a candidate per runtime, number of threads and variant.

    Args:
        errors: errors of the plan's stages, by key; their candidates have failed.
    """
    evaluator = _evaluator(plan, executor)
    models = []
    # In the order of the table's blocks.
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
                    models.append(replace(candidate, error=error or "was not planned"))
                    continue
                models.append(_verified(candidate, plan, executor, key, convert, evaluator))
    return [within_macs(candidate, models, executor.context.pipeline) for candidate in models]


def try_again(plan: Plan, store: Store) -> None:
    """Drop verdicts of files for which edgesparse's delegate failed for a reason that can pass: the
    next run tries it again."""
    for key in set(plan.verified.values()):
        if store.has(key) and read_json(store.path(key) / "verify.json").get("try_again"):
            store.discard(key)


def within_macs(candidate: Candidate, others: Sequence[Candidate], pipeline: Pipeline) -> Candidate:
    """Add a note where the file has more multiply-accumulates than requested."""
    variant = pipeline.variants[candidate.variant]
    budget = min(
        (s.macs for s in variant.sparsify if isinstance(s, Channels) and s.macs), default=None
    )
    if budget is None or candidate.model is None or candidate.model.macs is None:
        return candidate
    for other in others:
        reference = pipeline.variants[other.variant]
        if reference.sparsify or not variant.shares_training_with(reference) or other.model is None:
            continue
        share = candidate.model.macs / other.model.macs if other.model.macs else 0.0
        if share > budget + REPORTED_GAP:
            note = (
                f"requested {budget:.0%} of the multiply-accumulates of {other.variant}; the file "
                f"has {share:.0%}"
            )
            return replace(candidate, notes=(*candidate.notes, note))
    return candidate


def _evaluator(plan: Plan, executor: Executor) -> Evaluator | None:
    """Evaluator of the plan's test samples; None where it has none."""
    folder = executor.store.path(plan.samples)
    if not (folder / samples.TASK).is_file():
        return None
    kept = read_json(folder / samples.TASK)
    executor.context.inputs.check_task_code()
    return read_evaluator(kept, folder / samples.TARGETS, executor.context.loaded.folder)


def too_many_threads(target: Target, threads: int) -> str | None:
    """Error for more threads than cores: they wait for one another, which takes a thousand times as
    long."""
    cores = target.host.cores
    if cores is None or threads <= cores:
        return None
    return (
        f"{threads} threads exceed {cores} core{'s' * (cores > 1)} and would wait for one another; "
        f"use at most {cores}"
    )


def _dense_twin(pipeline: Pipeline, variant: str) -> str | None:
    """Variant with the same quantization and all steps but the last ones; a speed-up against it is
    the effect of those steps."""
    spec = pipeline.variants[variant]
    half = spec.quantize.compute == "f16"
    # 16-bit weights are converted to 32 bits, unless half precision is computed.
    schemes = (spec.quantize.scheme, "f32") if half else (spec.quantize.scheme,)
    # Half precision counts as the last step.
    for count in reversed(range(len(spec.sparsify) + half)):
        for scheme in schemes:
            for name, other in pipeline.variants.items():
                same = other.quantize.scheme == scheme and spec.shares_training_with(other)
                plain = other.quantize.compute == "f32"
                if same and plain and other.sparsify == spec.sparsify[:count]:
                    return name
    return None


def _named(step: Sparsify) -> str:
    """Name of a step in a row: by what it removes."""
    if isinstance(step, L1) and step.group == "input":
        return "inputs"
    return "channels" if removes_channels(step) else step.method


def _compute_dtype(variant: Variant) -> str:
    """Number format that operators compute with: 16-bit weights are converted to 32 bits, unless
    half precision is requested."""
    quantize = variant.quantize
    return quantize.compute if quantize.numbers in ("f32", "f16") else quantize.numbers


def _seed_group(pipeline: Pipeline, variant: str) -> str | None:
    """First of the variants that differ from this one only in their seed."""
    spec = pipeline.variants[variant].model_copy(update={"seed": None})
    variants = pipeline.variants.items()
    seeds = {n: v.seed for n, v in variants if v.model_copy(update={"seed": None}) == spec}
    return next(iter(seeds)) if len(set(seeds.values())) > 1 else None


def _verified(
    candidate: Candidate,
    plan: Plan,
    executor: Executor,
    key: str,
    convert: str,
    evaluator: Evaluator | None,
) -> Candidate:
    assert evaluator is not None, "nothing is verified without samples"
    decisions = _decided(plan, executor, key)
    store, pipeline = executor.store, executor.context.pipeline
    verdict = read_json(store.path(key) / "verify.json")
    inputs = plan.stage(convert).inputs
    on_chip = verdict.get("edgetpu")
    by_edgesparse = verdict.get("delegate") == "edgesparse"
    # Notes of steps are in the verdict; those of a training without steps are not.
    quantize_notes = _notes(store, inputs.get("quantize"))
    dense = not pipeline.variants[candidate.variant].sparsify
    trained = _notes(store, inputs["model"]) if dense else []
    covered = store.path(inputs["model"]) / COVERAGE
    metrics = read_json(store.path(inputs.get("quantize", inputs["model"])) / METRICS)
    sampled = store.path(plan.samples)
    network = read_json(store.path(convert) / NETWORK)
    candidate = replace(
        candidate,
        path=_file(store, verdict["path"]),
        model=ModelFile.model_validate(
            {**verdict["model"], **network, "delegate_times": verdict.get("times") or None}
        ),
        golden=store.path(convert) / "golden.npz",
        samples=sampled / "samples.npz",
        limits=limits(pipeline.variants[candidate.variant].quantize, pipeline.verify),
        evaluator=evaluator,
        keras_scores=metrics,
        trained_scores=network["trained"],
        host_evaluation=read_outputs(store.path(key) / verify.ANSWERS, evaluator),
        agreement=verdict["agreement"],
        notes=(*candidate.notes, *trained, *verdict["notes"], *quantize_notes, *network["notes"]),
        coverage=Coverage.model_validate(read_json(covered)) if covered.is_file() else None,
        steps=tuple(_named(s) for s in pipeline.variants[candidate.variant].sparsify),
        seed_group=_seed_group(pipeline, candidate.variant),
        compute_dtype=_compute_dtype(pipeline.variants[candidate.variant]),
        zeros_exploited=by_edgesparse
        or (verdict["storage"] == "sparse" and any(decision.exploited for decision in decisions)),
        half_precision=_half(pipeline.variants[candidate.variant], candidate, executor),
        weights=_weights(decisions),
        layers=_layers_of(_file(store, verdict["path"])),
        edgetpu=EdgeTpuInfo.model_validate(on_chip) if on_chip else None,
    )
    if not by_edgesparse:
        return candidate
    architecture = plan.stage(key).spec["edgesparse"]["architecture"]
    chosen = delegated(candidate, "edgesparse", architecture)
    if chosen.error is None:
        return chosen
    # The library is gone since the verification; the file runs without it.
    return _by_xnnpack(candidate, chosen.error)


@lru_cache(64)  # Rows are built several times in a run, and for each runtime.
def _layers_of(path: Path, modified_ns: int = 0) -> tuple[Layer, ...]:
    """Read the operators of a file. Raises UsageError where it is damaged.

    Args:
        modified_ns: of a file that can change, as artifacts do not.
    """
    operators = read_operators(path.read_bytes(), str(path))
    return tuple(Layer.model_validate(info, from_attributes=True) for info in operators)


def _file(store: Store, location: str) -> Path:
    """Path in a store of KEY/NAME, as a verdict has it."""
    key, _, name = location.partition("/")
    return store.path(key) / name


def _notes(store: Store, key: str | None) -> list[str]:
    path = store.path(key) / NOTES if key is not None else None
    return list(read_json(path)) if path is not None and path.is_file() else []


def _half(variant: Variant, candidate: Candidate, executor: Executor) -> bool | None:
    """True where a probe has confirmed half precision; None where it was not requested."""
    if variant.quantize.compute != "f16":
        return None
    profile = executor.context.profiles[candidate.runtime.name]
    return profile.half_gain is not None and profile.half_precision.exists


def _decided(plan: Plan, executor: Executor, key: str) -> tuple[Decision, ...]:
    """Storage decisions for a runtime; none where nothing was encoded."""
    encoded = plan.stage(key).inputs.get("encode")
    return tuple(encode.read_decisions(executor.store.path(encoded))) if encoded is not None else ()


def _weights(decisions: Sequence[Decision]) -> tuple[StoredWeight, ...]:
    """Weights with sparse storage, and those for which it was rejected."""
    return tuple(
        StoredWeight(
            name=label(decision.name),
            operator=decision.op,
            storage=decision.form,
            dense_bytes=decision.dense_bytes,
            stored_bytes=decision.stored_bytes,
            exploited=decision.exploited,
            reason=decision.reason,
        )
        for decision in decisions
        if decision.form != "dense" or decision.held_back
    )


def _external(device: Device) -> Mapping[str, Any] | None:
    loaded = device.agent_delegate
    return loaded if isinstance(loaded, Mapping) else None


def delegated(candidate: Candidate, delegate: str, machine: str) -> Candidate:
    """Run a candidate with a delegate that replaces the device file's: xnnpack, or
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


def deliverable(models: Sequence[Candidate], target: Target) -> list[Candidate]:
    """Send edgesparse's delegate to a device, and run its files by XNNPACK where the device cannot
    store it: they were verified on a device of the same kind, which could."""
    reasons: dict[Path, str | None] = {}

    def sent(candidate: Candidate) -> Candidate:
        if candidate.delegate != "edgesparse" or candidate.error or not candidate.external:
            return candidate
        path = candidate.external["library"]
        if path not in reasons:
            reasons[path] = refused_by(target.transport, path)
        why = reasons[path]
        return candidate if why is None else _by_xnnpack(candidate, why)

    return [sent(candidate) for candidate in models]


def _by_xnnpack(candidate: Candidate, why: str) -> Candidate:
    """Run a candidate without edgesparse's delegate, with a note."""
    notes = (*candidate.notes, f"runs by xnnpack: {why}")
    return replace(candidate, delegate="xnnpack", external=None, notes=notes, zeros_exploited=False)


def ready(candidate: Candidate, target: Target, error: str | None, delegate: str) -> Candidate:
    """Candidate for a file without a pipeline on a device.

    Args:
        error: why it cannot run there.
        delegate: in place of the device file's; empty: that one.
    """
    assert candidate.path is not None
    device, content = target.device, candidate.path.read_bytes()
    compiled = is_compiled(content)
    candidate = replace(
        candidate,
        delegate=device.delegate_used,
        clock=device.clock,
        error=error,
        layers=_layers_of(candidate.path, candidate.path.stat().st_mtime_ns),
    )
    if device.delegate_used == "edgetpu" and compiled and not delegate:
        return replace(candidate, external=_external(device))
    if compiled:
        why = "it was compiled for the Edge TPU, which needs 'delegate: edgetpu' in the device file"
        return replace(candidate, error=error or why)
    if delegate:
        return delegated(candidate, delegate, target.host.machine)
    if device.delegate_used == "edgetpu":
        note = "on the CPU: this file was not compiled for the Edge TPU"
        return replace(candidate, delegate="xnnpack", notes=(note,))
    offer = offers(target).get(candidate.runtime.name)
    if error is not None or offer is None:
        return candidate
    choice = choose_delegate(content, offer, candidate.runtime.name)
    if choice.why:
        return replace(candidate, notes=(f"runs by xnnpack: {choice.why}",))
    if not choice.is_tried:
        return candidate
    if "refused" in offer:
        return replace(candidate, notes=(f"runs by xnnpack: {offer['refused']}",))
    return delegated(candidate, "edgesparse", target.host.machine)
