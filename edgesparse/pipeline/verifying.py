"""The stages that ask the device: which file its runtime takes, and whether that answers right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.bench.results import EdgeTpuInfo
from edgesparse.devices import edgetpu
from edgesparse.devices.events import Check, Event, Failed
from edgesparse.devices.measure import Entry, check_only, run_job
from edgesparse.devices.transport import Transport
from edgesparse.pipeline.context import Context, Progress, read_json, write_json
from edgesparse.pipeline.plan import Stage
from edgesparse.pipeline.sparsifying import notes_of
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant

if TYPE_CHECKING:
    from edgesparse.tflite.verify import Limits

_ON_CPU = "cpu"
"""The entry that runs an Edge TPU's model on the device's CPU, to compare."""


def compile_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """A full-int8 file becomes one for the Edge TPU, which takes densely stored weights only."""
    assert context.tpu is not None
    source = context.store.path(stage.inputs["convert"]) / "dense.tflite"
    compiled = edgetpu.compile_model(context.tpu, source, stage.variants[0])
    (folder / "edgetpu.tflite").write_bytes(compiled.content)
    (folder / "compiler.log").write_text(compiled.log_text)
    own = read_json(source.with_name("model.json"))
    digest = hashlib.sha256(compiled.content).hexdigest()
    # The weights are inside one operator now: what they are is known of the source.
    sizes = {"bytes": len(compiled.content), "bytes_gzip": edgetpu.gzip_bytes(compiled.content)}
    write_json(folder / "model.json", {**own, "sha256": digest, **sizes, "storage": "edgetpu"})
    log = compiled.log
    known = bool(log.operators)
    about = EdgeTpuInfo(
        compiler=log.version,
        compiler_sha256=stage.spec["compiler"].get("sha256"),
        source_sha256=own["sha256"],
        operators=log.total if known else None,
        mapped_operators=log.mapped if known else None,
        subgraphs=log.subgraphs,
        on_chip_bytes=log.on_chip_bytes,
        on_chip_free_bytes=log.on_chip_free_bytes,
        off_chip_bytes=log.off_chip_bytes,
    )
    notes = edgetpu.describe(compiled)
    write_json(folder / "edgetpu.json", {"about": about.model_dump(), "notes": notes})


def verify_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """Choose the storage: sparse where this runtime takes it and answers right, else dense."""
    from edgesparse.tflite import verify

    variant = context.variant(stage)
    limit = verify.limits(variant.quantize, context.pipeline.verify)
    paths = _stored_forms(stage, context, variant)
    files = {storage: read_json(path.with_name("model.json")) for storage, path in paths.items()}
    _require_zeros(stage, context, files)
    runtime = stage.spec["runtime"]["name"]
    entries = [
        replace(
            _entry(stage, context, storage, path, runtime, limit),
            samples=None if context.host else _samples_of(stage, context),
            golden_samples=context.golden_samples,
        )
        for storage, path in paths.items()
    ]
    if "compile" in stage.inputs:
        entries.append(_cpu_twin(stage, context, runtime, limit))
    refused: dict[str, str] = {}
    checks: dict[str, Check] = {}
    for event in _checked(stage, context, context.transport, entries):
        if isinstance(event, Failed):
            refused[event.entry] = _explained(event.error, context, stage)
        elif isinstance(event, Check):
            wrong = verify.disagreement(event.agreement or 0.0, limit)
            if wrong and event.entry != _ON_CPU:
                refused[event.entry] = wrong
            else:
                checks[event.entry] = event
    chosen = next((storage for storage in paths if storage in checks), None)
    if chosen is None:
        reason = "; ".join(f"{name}: {refused[name]}" for name in paths if name in refused)
        raise EdgesparseError(f"{runtime} cannot run it: {reason}")
    check = checks[chosen]
    accuracy, samples = check.accuracy, check.samples or 0
    if context.host is not None:
        readable = _readable(stage, context, paths[chosen])
        accuracy, samples = _host_accuracy(stage, context, chosen, readable, limit)
    write_json(
        folder / "verify.json",
        {
            "storage": chosen,
            "path": paths[chosen].parent.name + "/" + paths[chosen].name,
            "model": files[chosen],
            "agreement": check.agreement,
            "accuracy": accuracy,
            "samples": samples,
            "notes": [
                *notes_of(context, stage.inputs.get("sparsify", "")),
                *_storage_notes(stage, context, chosen, refused),
            ],
            **_on_chip(stage, context, checks.get(_ON_CPU)),
        },
    )


def _cpu_twin(stage: Stage, context: Context, runtime: str, limit: Limits) -> Entry:
    """What was compiled, on the device's CPU: the chip must be as accurate as that."""
    source = context.store.path(stage.inputs["convert"]) / "dense.tflite"
    entry = _entry(stage, context, _ON_CPU, source, runtime, limit)
    return replace(entry, delegate="xnnpack", samples=_samples_of(stage, context))


def _on_chip(stage: Stage, context: Context, on_cpu: Check | None) -> dict[str, Any]:
    if "compile" not in stage.inputs:
        return {}
    stored = read_json(context.store.path(stage.inputs["compile"]) / "edgetpu.json")
    accuracy = on_cpu.accuracy if on_cpu is not None else None
    return {"edgetpu": {**stored["about"], "cpu_accuracy": accuracy}, "notes": stored["notes"]}


def _explained(error: str, context: Context, stage: Stage) -> str:
    if context.tpu is None or "compile" not in stage.inputs:
        return error
    problem = edgetpu.delegate_problem(context.transport.name, context.tpu.library, error)
    return problem or error


def _entry(
    stage: Stage, context: Context, name: str, path: Path, runtime: str, limit: Limits
) -> Entry:
    golden = context.store.path(stage.inputs["convert"]) / "golden.npz"
    return Entry(
        name, path, runtime, stage.spec["delegate"], 1, golden=golden, tolerance=limit.tolerance
    )


def _samples_of(stage: Stage, context: Context) -> Path:
    return context.store.path(stage.inputs["samples"]) / "samples.npz"


def _checked(
    stage: Stage, context: Context, transport: Transport, entries: Sequence[Entry]
) -> list[Event]:
    timeout_seconds = context.pipeline.benchmark.timeout_seconds
    job = check_only(entries, f"{context.run}-{stage.key[:12]}", timeout_seconds)
    return run_job(transport, job, stop=context.stop)


def _readable(stage: Stage, context: Context, path: Path) -> Path:
    """The file that stands for another on a machine without an Edge TPU."""
    if "compile" not in stage.inputs:
        return path
    return context.store.path(stage.inputs["convert"]) / "dense.tflite"


def _host_accuracy(
    stage: Stage, context: Context, name: str, path: Path, limit: Limits
) -> tuple[float | None, int]:
    """Accuracy of a file that another machine runs, and over how many samples, on this one.

    By the same runtime where this machine has it; None where no runtime here takes the file.
    """
    assert context.host is not None
    wanted = stage.spec["runtime"]["name"]
    for runtime in sorted(context.host_runtimes, key=lambda own: own != wanted):
        entry = replace(
            _entry(stage, context, name, path, runtime, limit),
            samples=_samples_of(stage, context),
            delegate="xnnpack",
        )
        for event in _checked(stage, context, context.host, [entry]):
            if isinstance(event, Check) and event.accuracy is not None:
                return event.accuracy, event.samples or 0
    return None, 0


def _stored_forms(stage: Stage, context: Context, variant: Variant) -> dict[str, Path]:
    """The files to choose from, the preferred first."""
    if "compile" in stage.inputs:
        return {"edgetpu": context.store.path(stage.inputs["compile"]) / "edgetpu.tflite"}
    paths = {"dense": context.store.path(stage.inputs["convert"]) / "dense.tflite"}
    if "encode" in stage.inputs:
        sparse = context.store.path(stage.inputs["encode"]) / "sparse.tflite"
        if variant.storage == "sparse":
            return {"sparse": sparse}
        if read_json(sparse.with_name("model.json"))["storage"] == "sparse":
            return {"sparse": sparse, **paths}
    return paths


def _storage_notes(
    stage: Stage, context: Context, chosen: str, refused: Mapping[str, str]
) -> list[str]:
    """Why weights with zeros are stored densely."""
    if "encode" not in stage.inputs:
        return []
    if chosen == "dense" and "sparse" in refused:
        runtime = stage.spec["runtime"]["name"]
        return [f"stored dense, because {runtime} refuses it sparse: {refused['sparse']}"]
    from edgesparse.tflite import storage

    decisions = read_json(context.store.path(stage.inputs["encode"]) / "storage.json")
    return storage.summary([storage.Decision(**decision) for decision in decisions])


def _require_zeros(stage: Stage, context: Context, files: Mapping[str, Any]) -> None:
    from edgesparse.tflite import verify

    if "sparsify" not in stage.inputs:
        return
    layers = read_json(context.store.path(stage.inputs["sparsify"]) / "sparsity.json")
    for file in files.values():
        lost = verify.lost_zeros(file["zeros"], sum(layer["zeros"] for layer in layers))
        if lost:
            raise EdgesparseError(lost)
