"""From a pipeline to a graph of stages with content keys. Pure: nothing is read or run here.

    samples                              data on the side of the benchmark
    train -> sparsify -> quantize        Keras side; quantize only where QAT is asked for
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
from dataclasses import dataclass, field, replace
from typing import Any

from edgesparse.bench.results import RuntimeInfo
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.tflite.compatibility import Profile

# Raise a stage's number when its code starts to give other results for the same input.
STAGE_VERSIONS = {
    "samples": 1,
    "train": 1,
    "sparsify": 1,
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
    """
    graph = _Graph(versions)
    data = {"source": pipeline.data.model_dump(mode="json"), "digest": digests["data"]}
    golden = pipeline.verify.samples
    samples = graph.add(
        "samples", None, {"data": data, "count": pipeline.benchmark.accuracy_samples}
    )
    train = graph.add(
        "train",
        None,
        {
            "data": data,
            "model": {
                "source": pipeline.model.model_dump(mode="json"),
                "digest": digests["model"],
            },
            "train": pipeline.train.model_dump(mode="json"),
        },
    )
    chosen = list(pipeline.variants)
    if variants is not None:
        chosen = [v for v in chosen if v in variants or v == pipeline.baseline_variant]
    if full_int8_only:
        chosen = [v for v in chosen if pipeline.variants[v].quantize.scheme == "int8"]
    converted, verified = {}, {}
    for name in chosen:
        variant = pipeline.variants[name]
        shared = {"data": data, "train": pipeline.train.model_dump(mode="json")}
        sparsify = _sparsify(graph, name, variant, shared, digests, train)
        quantize = _quantize(graph, name, variant, shared, sparsify or train)
        keras = {"model": sparsify or train, "quantize": quantize}
        convert = graph.add(
            "convert",
            name,
            {
                "data": data,
                "scheme": variant.quantize.scheme,
                "calibration_samples": variant.quantize.calibration_samples,
                "golden": golden,
                "one_scale": sparsify is not None,
            },
            **keras,
        )
        converted[name] = convert
        compiled = None
        if compiler is not None:
            compiled = graph.add("compile", name, compiler, convert=convert)
        encodes = sparsify is not None and variant.storage != "dense" and not full_int8_only
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
    return Plan(tuple(graph.stages.values()), converted, verified, samples)


def _sparsify(
    graph: _Graph,
    name: str,
    variant: Variant,
    shared: Mapping[str, Any],
    digests: Mapping[str, str],
    train: str,
) -> str | None:
    if variant.sparsify is None:
        return None
    spec = {**shared, "sparsify": variant.sparsify.model_dump(mode="json")}
    code = digests.get(f"sparsify {name}")
    if code:
        spec["digest"] = code
    return graph.add("sparsify", name, spec, model=train)


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
