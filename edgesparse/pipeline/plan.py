"""From a pipeline to a graph of stages with content keys. Pure: nothing is read or run here.

    samples                              data on the side of the benchmark
    outline                              the untrained model, for what can be known before training
    train -> sparsify ... -> quantize    Keras side; quantize only where QAT is asked for
          -> sensitivity                 for `sparsity: auto`
          -> convert                     .tflite with dense storage
          -> encode                      the storage that suits a runtime on a machine
          -> compile                     for an Edge TPU only, from dense storage
          -> verify                      per runtime

A key covers the stage's name and version, its part of the spec, the keys of its inputs and the
versions of the libraries that shape its result. Variants that ask for the same thing share a stage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgesparse.bench.results import RuntimeInfo
from edgesparse.spec.pipeline import Pipeline, Scheme, Variant
from edgesparse.spec.sparsify import LEVELS, Channels, Magnitude
from edgesparse.tflite.compatibility import Profile
from edgesparse.tflite.patterns import LIKELY_SPARSITY, exploits

# Raise a stage's number when its code starts to give other results for the same input.
STAGE_VERSIONS = {
    "samples": 1,
    "outline": 1,
    "train": 1,
    "sensitivity": 1,
    "sparsify": 2,
    "quantize": 1,
    "convert": 2,
    "encode": 2,
    "compile": 1,
    "verify": 1,
}
_KERAS = ("tensorflow", "tf-keras", "numpy")
_TOOLKIT = (*_KERAS, "tensorflow-model-optimization")
_DATA = ("numpy", "scikit-learn")
STAGE_LIBRARIES: dict[str, tuple[str, ...]] = {
    "samples": (*_DATA, "tensorflow"),
    "outline": _KERAS,
    "sensitivity": (*_DATA, *_TOOLKIT),
    "train": (*_DATA, *_KERAS),
    "sparsify": (*_DATA, *_TOOLKIT),
    "quantize": (*_DATA, *_TOOLKIT),
    "convert": (*_DATA, *_TOOLKIT),
    "encode": ("numpy", "flatbuffers"),
    "compile": (),
    "verify": (),
}


@dataclass(frozen=True)
class Stage:
    """A unit of work. `inputs` maps a role to the key of the artifact that plays it."""

    name: str
    label: str
    variants: tuple[str, ...]
    version: int
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    libraries: Mapping[str, str]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What the key is made of."""
        return {
            "stage": self.name,
            "version": self.version,
            "spec": dict(self.spec),
            "inputs": dict(self.inputs),
            "libraries": dict(self.libraries),
        }


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each comes after its inputs."""

    stages: tuple[Stage, ...]
    converted: Mapping[str, str]
    """variant -> key of its convert stage"""
    verified: Mapping[tuple[str, str], str]
    """(variant, runtime name) -> key of its verify stage"""
    samples: str
    outline: str | None = None
    """Where there is something to be known of it."""

    @property
    def work(self) -> tuple[Stage, ...]:
        """The stages without an outline that serves advice only: where that fails, nothing else
        does for that reason."""
        needed = any(self.outline in stage.inputs.values() for stage in self.stages)
        return tuple(s for s in self.stages if needed or s.key != self.outline)

    def stage(self, key: str) -> Stage:
        return next(stage for stage in self.stages if stage.key == key)


@dataclass
class _Graph:
    versions: Mapping[str, str]
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(
        self, name: str, variant: str | None, spec: Mapping[str, Any], **inputs: str | None
    ) -> str:
        libraries = {lib: self.versions.get(lib, "none") for lib in STAGE_LIBRARIES[name]}
        given = {role: key for role, key in inputs.items() if key is not None}
        label = f"{name} {variant}" if variant else name
        owners = (variant.split(" ")[0],) if variant else ()
        stage = Stage(name, label, owners, STAGE_VERSIONS[name], spec, given, libraries)
        known = self.stages.get(stage.key)
        if known is None:
            self.stages[stage.key] = stage
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
            "model", and "sparsify VARIANT".
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
    golden = pipeline.verify.samples
    samples = graph.add(
        "samples", None, {"data": data, "count": pipeline.benchmark.accuracy_samples}
    )
    chosen = list(pipeline.variants)
    if variants is not None:
        chosen = [v for v in chosen if v in variants or v == pipeline.baseline_variant]
    if full_int8_only:
        chosen = [v for v in chosen if pipeline.variants[v].quantize.scheme == "int8"]
    start = _start(graph, pipeline, data, digests, chosen)
    target = {
        "runtime": runtimes[0].model_dump() if runtimes else None,
        "delegate": delegate,
        "machine": machine,
        "clock": clock,
    }
    converted, verified = {}, {}
    for name in chosen:
        variant = pipeline.variants[name]
        sparsify = _sparsify(graph, name, variant, start, profiles, target)
        quantize = _quantize(graph, name, variant, start.shared, sparsify or start.train)
        keras = {"model": sparsify or start.train, "quantize": quantize}
        convert = graph.add(
            "convert",
            name,
            {
                "data": data,
                "scheme": variant.quantize.scheme,
                "calibration_samples": variant.quantize.calibration_samples,
                "golden": golden,
                "one_scale": variant.has_zeros,
            },
            **keras,
        )
        converted[name] = convert
        compiled = None
        if compiler is not None:
            compiled = graph.add("compile", name, compiler, convert=convert)
        encodes = variant.has_zeros and variant.storage != "dense" and not full_int8_only
        for runtime in runtimes:
            encode = None
            if encodes:
                encode = _encode(graph, name, variant, runtime, profiles[runtime.name], convert)
            verified[name, runtime.name] = graph.add(
                "verify",
                f"{name} ({runtime.name})",
                {
                    "runtime": runtime.model_dump(),
                    "delegate": delegate,
                    "machine": machine,
                    "storage": variant.storage,
                    "scheme": variant.quantize.scheme,
                    "verify": pipeline.verify.model_dump(mode="json"),
                },
                convert=convert,
                encode=encode,
                compile=compiled,
                sparsify=sparsify,
                samples=samples,
            )
    return Plan(tuple(graph.stages.values()), converted, verified, samples, start.outline)


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
    start = _start(graph, pipeline, data, digests, [name])
    variant = pipeline.variants[name]
    before = variant.model_copy(update={"sparsify": variant.sparsify[:place]})
    model = _sparsify(graph, name, before, start, profiles, {}) or start.train
    chosen, outline = _chosen(step, variant.quantize.scheme, start, profiles)
    key = _sensitivity(graph, name, step, start, model, chosen, outline, levels)
    return Plan(tuple(graph.stages.values()), {}, {}, "", start.outline), graph.stages[key]


def _data(pipeline: Pipeline, digests: Mapping[str, str]) -> dict[str, Any]:
    return {"source": pipeline.data.model_dump(mode="json"), "digest": digests["data"]}


@dataclass(frozen=True)
class _Start:
    """What every variant starts from."""

    data: Mapping[str, Any]
    shared: Mapping[str, Any]
    digests: Mapping[str, str]
    train: str
    outline: str | None


def _start(
    graph: _Graph,
    pipeline: Pipeline,
    data: Mapping[str, Any],
    digests: Mapping[str, str],
    chosen: Sequence[str],
) -> _Start:
    model = {"source": pipeline.model.model_dump(mode="json"), "digest": digests["model"]}
    settings = pipeline.train.model_dump(mode="json")
    outline = None
    variants = [pipeline.variants[name] for name in chosen]
    if any(v.has_zeros or v.quantize.scheme == "dynamic" for v in variants):
        outline = graph.add("outline", None, {"model": model})
    train = graph.add("train", None, {"data": data, "model": model, "train": settings})
    return _Start(data, {"data": data, "train": settings}, digests, train, outline)


def _sparsify(
    graph: _Graph,
    name: str,
    variant: Variant,
    start: _Start,
    profiles: Mapping[str, Profile],
    target: Mapping[str, Any],
) -> str | None:
    """The last of a variant's steps; each starts from the one before it."""
    key, scheme = start.train, variant.quantize.scheme
    for place, step in enumerate(variant.sparsify):
        spec: dict[str, Any] = {**start.shared, "sparsify": step.model_dump(mode="json")}
        inputs: dict[str, str | None] = {"model": key}
        code = start.digests.get(f"sparsify {name} {place}")
        if code:
            spec["digest"] = code
        if isinstance(step, Channels) and step.latency is not None:
            spec["target"] = {**target, "scheme": scheme}
        if isinstance(step, Magnitude):
            chosen, inputs["outline"] = _chosen(step, scheme, start, profiles)
            spec |= chosen
            if step.sparsity == "auto":
                inputs["sensitivity"] = _sensitivity(
                    graph, name, step, start, key, chosen, inputs["outline"]
                )
        label = name if len(variant.sparsify) == 1 else f"{name} ({step.method})"
        key = graph.add("sparsify", label, spec, **inputs)
    return key if variant.sparsify else None


def _chosen(
    step: Magnitude, scheme: Scheme, start: _Start, profiles: Mapping[str, Profile]
) -> tuple[dict[str, Any], str | None]:
    """What `pattern: auto` depends on: of the target, and the outline."""
    if step.pattern != "auto":
        return {}, None
    sparsity = LIKELY_SPARSITY if isinstance(step.sparsity, str) else step.sparsity
    return {"exploits": asdict(exploits(profiles.values(), scheme, sparsity))}, start.outline


def _sensitivity(
    graph: _Graph,
    name: str,
    step: Magnitude,
    start: _Start,
    model: str,
    chosen: Mapping[str, Any],
    outline: str | None,
    levels: Sequence[float] = LEVELS,
) -> str:
    own = step.model_dump(mode="json", include={"method", "pattern", "layers", "exclude"})
    spec = {"data": start.data, "sparsify": own, "levels": sorted(levels), **chosen}
    return graph.add("sensitivity", name, spec, model=model, outline=outline)


def _quantize(
    graph: _Graph, name: str, variant: Variant, shared: Mapping[str, Any], model: str
) -> str | None:
    if not variant.quantize.aware:
        return None
    settings = variant.quantize.model_dump(
        mode="json", include={"scheme", "epochs", "learning_rate"}
    )
    return graph.add("quantize", name, {**shared, "quantize": settings}, model=model)


def _encode(
    graph: _Graph,
    name: str,
    variant: Variant,
    runtime: RuntimeInfo,
    profile: Profile,
    convert: str,
) -> str:
    """Devices whose runtime treats the variant's weights alike share the file."""
    spec = {
        "storage": variant.storage,
        "runtime": runtime.model_dump(),
        "cells": profile.table(variant.quantize.scheme),
    }
    return graph.add("encode", f"{name} ({runtime.name})", spec, convert=convert)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What changed between two identities of a stage, one line each."""
    found = []
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
