"""Builds the graph of stages of a pipeline, with content keys. Pure: reads and runs nothing.

    samples                              data on the side of the benchmark
    preflight, untrained-model           the untrained model, for predictions before training
    train -> sparsify ... -> quantize    Keras side; quantize only with `qat: true`
          -> sensitivity                 for `sparsity: auto`
          -> convert                     .tflite with dense storage
          -> encode                      the storage that suits a runtime on a machine
          -> compile                     for an Edge TPU only, from dense storage
          -> verify                      per runtime

The inputs of a stage's key are defined in its file, its position here. Variants with the same
settings share a stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.code.saved_models import TFLITE
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.sparsify import LEVELS, Magnitude, removes_channels
from edgesparse.stages import compile as compile_
from edgesparse.stages import (
    convert,
    encode,
    kind,
    preflight,
    quantize,
    samples,
    sensitivity,
    sparsify,
    train,
    untrained_model,
    verify,
)
from edgesparse.stages.base.stage import Stage
from edgesparse.tflite.runtimes.compatibility import Profile


@dataclass(frozen=True)
class TrainingGroup:
    """Variants that share a training, and the keys of the stages before it."""

    variants: tuple[str, ...]
    preflight: str
    untrained_model: str | None


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each comes after its inputs."""

    stages: tuple[Stage, ...]
    converted: Mapping[str, str]
    """variant -> key of its convert stage"""
    verified: Mapping[tuple[str, str], str]
    """(variant, runtime name) -> key of its verify stage"""
    samples: str
    training_groups: tuple[TrainingGroup, ...] = ()

    @property
    def work(self) -> tuple[Stage, ...]:
        """The stages except those for predictions only, whose failure does not matter."""
        needed = {key for stage in self.stages for key in stage.inputs.values()}
        groups = self.training_groups
        advice = {k for g in groups for k in (g.untrained_model, g.preflight)} - needed
        return tuple(stage for stage in self.stages if stage.key not in advice)

    def stage(self, key: str) -> Stage:
        return next(stage for stage in self.stages if stage.key == key)


@dataclass
class _Graph:
    versions: Mapping[str, str]
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(
        self, name: str, variant: str | None, spec: Mapping[str, Any], **inputs: str | None
    ) -> str:
        stage_kind = kind(name)
        libraries = {lib: self.versions.get(lib, "none") for lib in stage_kind.libraries}
        input_keys = {role: key for role, key in inputs.items() if key is not None}
        label = f"{name} {variant}" if variant else name
        # A label can have more than the variant: its runtime or step.
        owners = (variant.split(" ")[0],) if variant else ()
        stage = Stage(name, label, owners, stage_kind.version, spec, input_keys, libraries)
        existing = self.stages.get(stage.key)
        if existing is None:
            self.stages[stage.key] = stage
        # The first variant gives the label; the others are added as owners.
        elif owners and owners[0] not in existing.variants:
            self.stages[stage.key] = replace(existing, variants=(*existing.variants, *owners))
        return stage.key


def build_plan(
    pipeline: Pipeline,
    digests: Mapping[str, str],
    versions: Mapping[str, str],
    runtimes: Sequence[RuntimeInfo],
    profiles: Mapping[str, Profile],
    delegate: str | Mapping[str, Any] = "xnnpack",
    variants: Sequence[str] | None = None,
    machine: str = "",
    full_int8_only: bool = False,
    compiler: Mapping[str, Any] | None = None,
    clock: str = "wall",
    edgesparse: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """Plan the pipeline up to verified models.

    Args:
        digests: those of the code and files of data, model and methods, by role: "data", "model",
            "model VARIANT" and "sparsify VARIANT STEP".
        versions: those of installed libraries, by distribution name.
        runtimes: those that will run the models.
        profiles: by runtime, how it executes sparse storage on that machine.
        machine: the kind of device that verifies the models and shares the result.
        variants: a subset; default all. The baseline is added, since ratios refer to it.
        full_int8_only: skip other variants and sparse storage, for an Edge TPU.
        compiler: the Edge TPU's compiler and its options.
        clock: the device's clock for latencies.
        edgesparse: by runtime, edgesparse's delegate for int8 files; see verify.key_inputs.
    """
    graph, data = _Graph(versions), _data(pipeline, digests)
    chosen = _chosen(pipeline, variants, full_int8_only)
    sampled = _samples(graph, pipeline, data, digests)
    starts = _trainings(graph, pipeline, data, digests, chosen)
    # A latency budget is measured with the first runtime of the device file.
    first = runtimes[0].model_dump() if runtimes else None
    target = {"runtime": first, "delegate": delegate, "machine": machine, "clock": clock}
    converted, verified = {}, {}
    for name in chosen:
        variant, start = pipeline.variants[name], starts[name]
        sparse = _sparsify(graph, name, variant, start, profiles, target)
        dense = _convert(graph, name, pipeline, start, sparse, profiles)
        compiling = {} if compiler is None else compile_.key_inputs(compiler)
        compiled = graph.add("compile", name, compiling, convert=dense) if compiling else None
        converted[name] = dense
        for runtime in runtimes:
            label = f"{name} ({runtime.name})"
            encoded = None
            if variant.stores_sparse and not full_int8_only:  # Its compiler reads dense only.
                spec = encode.key_inputs(variant, runtime, profiles[runtime.name])
                encoded = graph.add("encode", label, spec, convert=dense)
            offer = (edgesparse or {}).get(runtime.name)
            spec = verify.key_inputs(variant, runtime, delegate, machine, pipeline.verify, offer)
            files = {"convert": dense, "encode": encoded, "compile": compiled}
            verified[name, runtime.name] = graph.add(
                "verify", label, spec, **files, sparsify=sparse, samples=sampled
            )
    return Plan(
        tuple(graph.stages.values()), converted, verified, sampled, _groups(starts.values())
    )


def _chosen(pipeline: Pipeline, variants: Sequence[str] | None, full_int8_only: bool) -> list[str]:
    """Return the names of the variants to plan."""
    # Ratios need the baseline.
    chosen = [v for v in pipeline.variants
              if variants is None or v in variants or v == pipeline.baseline_variant]  # fmt: skip
    # An Edge TPU supports nothing else; the caller reports skipped variants.
    full_int8 = [v for v in chosen if pipeline.variants[v].quantize.numbers == "int8"]
    return full_int8 if full_int8_only else chosen


def sensitivity_plan(
    pipeline: Pipeline,
    digests: Mapping[str, str],
    versions: Mapping[str, str],
    profiles: Mapping[str, Profile],
    name: str,
    step_index: int,
    step: Magnitude,
    levels: Sequence[float],
) -> tuple[Plan, Stage]:
    """The plan up to the sensitivity of a variant's step, and that stage.

    `step` is what is measured in place of the variant's own step at `place`.
    """
    graph = _Graph(versions)
    data = _data(pipeline, digests)
    start = _trainings(graph, pipeline, data, digests, [name])[name]
    variant = pipeline.variants[name]
    before = variant.model_copy(update={"sparsify": variant.sparsify[:step_index]})
    model = _sparsify(graph, name, before, start, profiles, {}) or start.train
    pattern_inputs, untrained = _pattern_inputs(step, variant, start, profiles)
    key = _sensitivity(graph, name, step, start, model, pattern_inputs, untrained, levels)
    stages = tuple(graph.stages.values())
    return Plan(stages, {}, {}, "", _groups([start])), graph.stages[key]


def _data(pipeline: Pipeline, digests: Mapping[str, str]) -> dict[str, Any]:
    data_inputs = {"source": pipeline.data.model_dump(mode="json"), "digest": digests["data"]}
    shapes = pipeline.benchmark.input_shapes
    return {**data_inputs, "shapes": shapes} if shapes else data_inputs


@dataclass(frozen=True)
class _Training:
    """A training, and the stages before it, that variants share."""

    variants: tuple[str, ...]
    data: Mapping[str, Any]
    shared: Mapping[str, Any]
    digests: Mapping[str, str]
    train: str
    preflight: str
    untrained_model: str | None
    task: Mapping[str, Any]


def _groups(starts: Iterable[_Training]) -> tuple[TrainingGroup, ...]:
    by_training = {start.train: start for start in starts}
    return tuple(
        TrainingGroup(s.variants, s.preflight, s.untrained_model) for s in by_training.values()
    )


def _trainings(
    graph: _Graph,
    pipeline: Pipeline,
    data: Mapping[str, Any],
    digests: Mapping[str, str],
    chosen: Sequence[str],
) -> dict[str, _Training]:
    """Add a training for each group of variants with the same model and seed, by variant."""
    groups: list[list[str]] = []
    for name in chosen:
        variant = pipeline.variants[name]
        sharing = [
            group for group in groups if variant.shares_training_with(pipeline.variants[group[0]])
        ]
        if sharing:
            sharing[0].append(name)
        else:
            groups.append([name])
    trainings = {}
    for group in groups:
        start = _training(graph, pipeline, data, digests, group)
        trainings.update(dict.fromkeys(group, start))
    return trainings


def _model(pipeline: Pipeline, digest: str) -> dict[str, Any]:
    # Defaults are not part of the key.
    source = pipeline.model.model_dump(mode="json", exclude_defaults=True)
    return {"source": {"name": None, "ref": None, "args": {}, **source}, "digest": digest}


def _task(pipeline: Pipeline, digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "task": pipeline.task.model_dump(mode="json", exclude_defaults=True),
        "metric": pipeline.metric,
        "from_logits": pipeline.train.from_logits,
        "loss": pipeline.train.loss is None,
        "digest": digests.get("task"),
    }


def _samples(
    graph: _Graph, pipeline: Pipeline, data: Mapping[str, Any], digests: Mapping[str, str]
) -> str:
    """Add the test samples, before training, so that they exist even if that fails."""
    model, task = _model(pipeline, digests["model"]), _task(pipeline, digests)
    spec = samples.key_inputs(model, data, task, pipeline.benchmark.test_samples)
    return graph.add("samples", None, spec)


def _training(
    graph: _Graph,
    pipeline: Pipeline,
    data: Mapping[str, Any],
    digests: Mapping[str, str],
    chosen: Sequence[str],
) -> _Training:
    first = chosen[0]
    name = first if pipeline.variants[first].has_own_training else None
    pipeline = pipeline.for_variant(pipeline.variants[first])
    model = _model(pipeline, digests.get(f"model {first}", digests["model"]))
    variants = [pipeline.variants[name] for name in chosen]
    checks = preflight.Checks(
        qat=any(v.quantize.qat for v in variants),
        channels=any(removes_channels(step) for v in variants for step in v.sparsify),
        schemes=tuple(
            sorted({s for v in variants if (s := v.quantize.scheme) in preflight.INTEGER})
        ),
    )
    task = _task(pipeline, digests)
    shared = {
        "data": data,
        "task": task,
        # Defaults are not part of the key.
        "train": pipeline.train.model_dump(mode="json", exclude_defaults=True),
        "training": digests.get("training"),
    }
    limits = sorted({gate.metric for gate in pipeline.gates})
    preflight_key = graph.add(
        "preflight", name, preflight.key_inputs(model, shared, limits, checks)
    )
    untrained = None
    # Runtimes differ only for zeros and dynamic ranges.
    if any(v.stores_sparse or v.quantize.scheme == "dynamic" for v in variants):
        untrained = graph.add("untrained-model", name, untrained_model.key_inputs(model))
    trained = graph.add("train", name, train.key_inputs(model, shared))
    return _Training(tuple(chosen), data, shared, digests, trained, preflight_key, untrained, task)


def _sparsify(
    graph: _Graph,
    name: str,
    variant: Variant,
    start: _Training,
    profiles: Mapping[str, Profile],
    target: Mapping[str, Any],
) -> str | None:
    """Add a variant's steps, each after the one before it; returns the key of the last."""
    key = start.train
    target_inputs = {**target, "scheme": variant.quantize.scheme}
    for step_index, step in enumerate(variant.sparsify):
        teacher = start.train if step.distill else None
        inputs: dict[str, str | None] = {"model": key, "teacher": teacher}
        pattern_inputs: Mapping[str, Any] = {}
        if isinstance(step, Magnitude):
            pattern_inputs, inputs["untrained_model"] = _pattern_inputs(
                step, variant, start, profiles
            )
            if step.sparsity == "auto":
                inputs["sensitivity"] = _sensitivity(
                    graph, name, step, start, key, pattern_inputs, inputs["untrained_model"]
                )
        code = start.digests.get(f"sparsify {name} {step_index}")
        chosen = {**pattern_inputs, **sparsify.channel_inputs(step, profiles.values())}
        spec = sparsify.key_inputs(start.shared, step, code, target_inputs, chosen)
        label = name if len(variant.sparsify) == 1 else f"{name} ({step.method})"
        key = graph.add("sparsify", label, spec, **inputs)
    return key if variant.sparsify else None


def _convert(
    graph: _Graph,
    name: str,
    pipeline: Pipeline,
    start: _Training,
    sparse: str | None,
    profiles: Mapping[str, Profile],
) -> str:
    """Add a variant's quantization-aware training and conversion; returns the latter's key."""
    variant, model, qat = pipeline.variants[name], sparse or start.train, None
    if variant.quantize.qat:
        spec = quantize.key_inputs(start.shared, variant.quantize)
        teacher = start.train if variant.quantize.distill else None
        qat = graph.add("quantize", name, spec, model=model, teacher=teacher)
    data, golden = {**start.data, "task": start.task}, pipeline.verify.golden_samples
    ref = pipeline.for_variant(variant).model.ref or ""
    spec = convert.key_inputs(
        data, variant, golden, profiles.values(), is_file=ref.endswith(TFLITE)
    )
    return graph.add("convert", name, spec, model=model, quantize=qat)


def _pattern_inputs(
    step: Magnitude, variant: Variant, start: _Training, profiles: Mapping[str, Profile]
) -> tuple[dict[str, Any], str | None]:
    """Return the inputs of `pattern: auto`: properties of the target, and the untrained model."""
    pattern_inputs = untrained_model.exploited(step, variant.quantize.numbers, profiles)
    return pattern_inputs, start.untrained_model if pattern_inputs else None


def _sensitivity(
    graph: _Graph,
    name: str,
    step: Magnitude,
    start: _Training,
    model: str,
    chosen: Mapping[str, Any],
    untrained: str | None,
    levels: Sequence[float] = LEVELS,
) -> str:
    spec = sensitivity.key_inputs({**start.data, "task": start.task}, step, levels, chosen)
    return graph.add("sensitivity", name, spec, model=model, untrained_model=untrained)
