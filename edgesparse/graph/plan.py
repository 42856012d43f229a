"""From a pipeline to a graph of stages with content keys. Pure: nothing is read or run here.

    samples                              data on the side of the benchmark
    preflight, untrained-model           the untrained model, for what can be known before training
    train -> sparsify ... -> quantize    Keras side; quantize only where QAT is asked for
          -> sensitivity                 for `sparsity: auto`
          -> convert                     .tflite with dense storage
          -> encode                      the storage that suits a runtime on a machine
          -> compile                     for an Edge TPU only, from dense storage
          -> verify                      per runtime

What a stage's key covers is said in the stage's own file; here is who feeds whom. Variants that ask
for the same thing share a stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.sparsify import LEVELS, Magnitude, removes_channels
from edgesparse.stages import (
    compile as compile_,
)
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
    """Variants that share a training, and the keys of its stages that run before it."""

    variants: tuple[str, ...]
    preflight: str
    untrained_model: str | None
    """None where no runtime depends on the model's graph."""

    @property
    def advice(self) -> tuple[str, ...]:
        """The keys of stages that predict the result."""
        return tuple(key for key in (self.untrained_model, self.preflight) if key is not None)


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
    """The trainings that variants start from."""

    @property
    def work(self) -> tuple[Stage, ...]:
        """The stages without those that serve advice only: where they fail, nothing else does for
        that reason."""
        needed = {key for stage in self.stages for key in stage.inputs.values()}
        advice = {key for group in self.training_groups for key in group.advice} - needed
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
        own = kind(name)
        libraries = {lib: self.versions.get(lib, "none") for lib in own.libraries}
        given = {role: key for role, key in inputs.items() if key is not None}
        label = f"{name} {variant}" if variant else name
        # A label may say more than the variant: its runtime or step.
        owners = (variant.split(" ")[0],) if variant else ()
        stage = Stage(name, label, owners, own.version, spec, given, libraries)
        known = self.stages.get(stage.key)
        if known is None:
            self.stages[stage.key] = stage
        # The first who asks gives the label; the others are added as owners.
        elif owners and owners[0] not in known.variants:
            self.stages[stage.key] = replace(known, variants=(*known.variants, *owners))
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
) -> Plan:
    """Plan the pipeline up to verified models.

    Args:
        digests: of the code and files that data, model and methods refer to, by role: "data",
            "model", "model VARIANT" and "sparsify VARIANT STEP".
        versions: of installed libraries, by distribution name.
        runtimes: those that will run the models.
        profiles: what each of them, by its name, does with sparse storage on that machine.
        machine: what verifies the models: devices of one kind share the verdict.
        variants: a subset; default all. The baseline is added, since ratios refer to it.
        full_int8_only: leave other variants out, and zeros stored densely: for an Edge TPU.
        compiler: what compiles for it, and how.
        clock: what a latency is measured by there.
    """
    graph = _Graph(versions)
    data = _data(pipeline, digests)
    golden = pipeline.verify.golden_samples
    chosen = list(pipeline.variants)
    if variants is not None:
        # Ratios need the baseline, so that it is always made.
        chosen = [v for v in chosen if v in variants or v == pipeline.baseline_variant]
    # An Edge TPU takes nothing else; what is left out is said by the caller.
    if full_int8_only:
        chosen = [v for v in chosen if pipeline.variants[v].quantize.numbers == "int8"]
    sampled = _samples(graph, pipeline, data, digests)
    starts = _trainings(graph, pipeline, data, digests, chosen)
    target = {
        # A latency budget is measured with the first runtime: that of the device file's own order.
        "runtime": runtimes[0].model_dump() if runtimes else None,
        "delegate": delegate,
        "machine": machine,
        "clock": clock,
    }
    converted, verified = {}, {}
    for name in chosen:
        variant, start = pipeline.variants[name], starts[name]
        sparse = _sparsify(graph, name, variant, start, profiles, target)
        model = sparse or start.train
        aware = None
        if variant.quantize.qat:
            spec = quantize.key_inputs(start.shared, variant.quantize)
            aware = graph.add("quantize", name, spec, model=model)
        spec = convert.key_inputs({**data, "task": start.task}, variant, golden, profiles.values())
        dense = graph.add("convert", name, spec, model=model, quantize=aware)
        converted[name] = dense
        compiled = None
        if compiler is not None:
            compiled = graph.add("compile", name, compile_.key_inputs(compiler), convert=dense)
        # The Edge TPU's compiler cannot read sparse storage.
        encodes = variant.stores_sparse and not full_int8_only
        for runtime in runtimes:
            label = f"{name} ({runtime.name})"
            encoded = None
            if encodes:
                spec = encode.key_inputs(variant, runtime, profiles[runtime.name])
                encoded = graph.add("encode", label, spec, convert=dense)
            verified[name, runtime.name] = graph.add(
                "verify",
                label,
                verify.key_inputs(variant, runtime, delegate, machine, pipeline.verify),
                convert=dense,
                encode=encoded,
                compile=compiled,
                sparsify=sparse,
                samples=sampled,
            )
    return Plan(
        tuple(graph.stages.values()), converted, verified, sampled, _groups(starts.values())
    )


def sensitivity_plan(
    pipeline: Pipeline,
    digests: Mapping[str, str],
    versions: Mapping[str, str],
    profiles: Mapping[str, Profile],
    name: str,
    place: int,
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
    before = variant.model_copy(update={"sparsify": variant.sparsify[:place]})
    model = _sparsify(graph, name, before, start, profiles, {}) or start.train
    chosen, untrained = _chosen(step, variant, start, profiles)
    key = _sensitivity(graph, name, step, start, model, chosen, untrained, levels)
    stages = tuple(graph.stages.values())
    return Plan(stages, {}, {}, "", _groups([start])), graph.stages[key]


def _data(pipeline: Pipeline, digests: Mapping[str, str]) -> dict[str, Any]:
    found = {"source": pipeline.data.model_dump(mode="json"), "digest": digests["data"]}
    shapes = pipeline.benchmark.input_shapes
    return {**found, "shapes": shapes} if shapes else found


@dataclass(frozen=True)
class _Training:
    """What variants start from."""

    variants: tuple[str, ...]
    data: Mapping[str, Any]
    shared: Mapping[str, Any]
    digests: Mapping[str, str]
    train: str
    preflight: str
    untrained_model: str | None
    task: Mapping[str, Any]


def _groups(starts: Iterable[_Training]) -> tuple[TrainingGroup, ...]:
    found = {start.train: start for start in starts}
    return tuple(TrainingGroup(s.variants, s.preflight, s.untrained_model) for s in found.values())


def _trainings(
    graph: _Graph,
    pipeline: Pipeline,
    data: Mapping[str, Any],
    digests: Mapping[str, str],
    chosen: Sequence[str],
) -> dict[str, _Training]:
    """What each variant starts from: those with the same model and seed from the same training."""
    groups: list[list[str]] = []
    for name in chosen:
        own = pipeline.variants[name]
        like = [group for group in groups if own.shares_training_with(pipeline.variants[group[0]])]
        if like:
            like[0].append(name)
        else:
            groups.append([name])
    found = {}
    for group in groups:
        start = _training(graph, pipeline, data, digests, group)
        found.update(dict.fromkeys(group, start))
    return found


def _model(pipeline: Pipeline, digest: str) -> dict[str, Any]:
    # What a pipeline does not say has no part in the key.
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
    """Before training: they are there, whatever becomes of that."""
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
    alone = first if pipeline.variants[first].has_own_training else None
    pipeline = pipeline.for_variant(pipeline.variants[first])
    model = _model(pipeline, digests.get(f"model {first}", digests["model"]))
    variants = [pipeline.variants[name] for name in chosen]
    asked = preflight.Asked(
        aware=any(v.quantize.qat for v in variants),
        channels=any(removes_channels(step) for v in variants for step in v.sparsify),
        schemes=tuple(
            sorted({s for v in variants if (s := v.quantize.scheme) in preflight.INTEGER})
        ),
    )
    task = _task(pipeline, digests)
    shared = {
        "data": data,
        "task": task,
        # What a pipeline does not say has no part in the key.
        "train": pipeline.train.model_dump(mode="json", exclude_defaults=True),
        "training": digests.get("training"),
    }
    limits = sorted({gate.metric for gate in pipeline.gates})
    foreseen = graph.add("preflight", alone, preflight.key_inputs(model, shared, limits, asked))
    untrained = None
    # Only of zeros and of dynamic ranges is there anything to be known of runtimes.
    if any(v.stores_sparse or v.quantize.scheme == "dynamic" for v in variants):
        untrained = graph.add("untrained-model", alone, untrained_model.key_inputs(model))
    trained = graph.add("train", alone, train.key_inputs(model, shared))
    return _Training(tuple(chosen), data, shared, digests, trained, foreseen, untrained, task)


def _sparsify(
    graph: _Graph,
    name: str,
    variant: Variant,
    start: _Training,
    profiles: Mapping[str, Profile],
    target: Mapping[str, Any],
) -> str | None:
    """The last of a variant's steps; each starts from the one before it."""
    key = start.train
    aimed = {**target, "scheme": variant.quantize.scheme}
    for place, step in enumerate(variant.sparsify):
        inputs: dict[str, str | None] = {"model": key}
        chosen: Mapping[str, Any] = {}
        if isinstance(step, Magnitude):
            chosen, inputs["untrained_model"] = _chosen(step, variant, start, profiles)
            if step.sparsity == "auto":
                inputs["sensitivity"] = _sensitivity(
                    graph, name, step, start, key, chosen, inputs["untrained_model"]
                )
        code = start.digests.get(f"sparsify {name} {place}")
        spec = sparsify.key_inputs(start.shared, step, code, aimed, chosen)
        label = name if len(variant.sparsify) == 1 else f"{name} ({step.method})"
        key = graph.add("sparsify", label, spec, **inputs)
    return key if variant.sparsify else None


def _chosen(
    step: Magnitude, variant: Variant, start: _Training, profiles: Mapping[str, Profile]
) -> tuple[dict[str, Any], str | None]:
    """What `pattern: auto` depends on: of the target, and the untrained model."""
    found = untrained_model.exploited(step, variant.quantize.numbers, profiles)
    return found, start.untrained_model if found else None


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


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What changed between two identities of a stage, one line each."""
    found = []
    # Sorted, so that the same change is always told in the same words.
    for name in sorted({*old, *new}):
        before, after, here = old.get(name), new.get(name), f"{path}{name}"
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{here}.")
        elif here.startswith("inputs."):
            found.append(f"its {name} changed")
        elif name == "digest":
            found.append(f"{here}: the files changed")
        else:
            found.append(f"{here}: {_short(before)} -> {_short(after)}")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
