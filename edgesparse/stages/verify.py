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
from edgesparse.measure.evaluation import LOST, Judge, Judgement, judged, read_judge, save_answers
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Variant, Verify
from edgesparse.stages import convert, encode, samples
from edgesparse.stages.base.artifacts import read_json, write_json
from edgesparse.stages.base.stage import Devices, Kind, Work
from edgesparse.tflite import verify
from edgesparse.tflite.runtimes import storage

NO_ANSWER = "no answer"
ANSWERS = "answers.npz"
_ON_CPU = "cpu"
"""The entry that runs an Edge TPU's model on the device's CPU, to compare."""


def covers(
    variant: Variant,
    runtime: RuntimeInfo,
    delegate: str | Mapping[str, Any],
    machine: str,
    settings: Verify,
) -> dict[str, Any]:
    """What the result depends on. `machine` is the kind of device: those of one kind share the
    verdict, and so does this machine with itself, whatever its CPU is called."""
    return {
        "runtime": runtime.model_dump(),
        "delegate": delegate,
        "machine": machine,
        "storage": variant.storage,
        "scheme": variant.quantize.scheme,
        "verify": settings.model_dump(mode="json"),
    }


def run(work: Work) -> None:
    """Choose the storage: sparse where this runtime takes it and answers right, else dense.

    Leaves verify.json: which file (as KEY/NAME in the store), what it is, and how it answers.
    """
    devices = _devices(work)
    limit = verify.limits(work.variant.quantize, work.pipeline.verify)
    paths = _stored_forms(work)
    files = {form: read_json(path.with_name("model.json")) for form, path in paths.items()}
    _require_zeros(work, files)
    tried = _try(work, paths, limit)
    # The first that runs and answers right: sparse before dense.
    chosen = next((form for form in paths if form in tried.checks), None)
    if chosen is None:
        raise EdgesparseError(_why_none(work, paths, tried))
    judgement = tried.judgements.get(chosen)
    if devices.host is not None:
        judgement = _host_judgement(work, chosen, _readable(work, paths[chosen]), limit)
    if judgement is not None:
        save_answers(judgement, work.folder / ANSWERS)
    write_json(
        work.folder / "verify.json",
        {
            "storage": chosen,
            # Relative to the store, so that a workspace can be moved.
            "path": paths[chosen].parent.name + "/" + paths[chosen].name,
            "model": files[chosen],
            "agreement": tried.checks[chosen].agreement,
            "scores": dict(judgement.scores) if judgement else {},
            "notes": [
                *work.notes_of("sparsify"),
                *_storage_notes(work, chosen, tried.refused),
            ],
            **_on_chip(work, tried.judgements.get(_ON_CPU)),
        },
    )


@dataclass
class _Tried:
    """What became of each form, by its name."""

    checks: dict[str, Check] = field(default_factory=dict)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    """Those of the refused that did run."""


def _try(work: Work, paths: Mapping[str, Path], limit: verify.Limits) -> _Tried:
    """Load every form on the device and compare its answers.

    All at once: a second job would cost another start of the agent.
    """
    devices, runtime = _devices(work), work.stage.spec["runtime"]["name"]
    entries = [
        replace(
            _entry(work, form, path, runtime, limit),
            # A device that is not this machine answers its samples when it is measured.
            samples=None if devices.host else _samples_of(work),
            golden_samples=work.context.golden_samples,
        )
        for form, path in paths.items()
    ]
    if "compile" in work.inputs:
        entries.append(_cpu_twin(work, runtime, limit))
    by_name, judge = {entry.name: entry for entry in entries}, _judge(work)
    found = _Tried()
    events = _checked(work, devices.transport, entries)
    for event in events:
        if isinstance(event, Failed):
            found.refused[event.entry] = _explained(event.error, work)
        elif isinstance(event, Check):
            wrong = verify.disagreement(event.agreement or 0.0, limit)
            judgement = judged(by_name[event.entry], events, judge)
            if judgement is not None:
                found.judgements[event.entry] = judgement
            elif event.samples:
                wrong = LOST
            if wrong and event.entry != _ON_CPU:
                found.refused[event.entry] = wrong
                found.wrong.add(event.entry)
            else:
                found.checks[event.entry] = event
    return found


def _why_none(work: Work, paths: Mapping[str, Path], tried: _Tried) -> str:
    """Why no file will do: it does not run, or it runs and answers wrong, and from what."""
    runtime = work.stage.spec["runtime"]["name"]
    said = {form: tried.refused.get(form, NO_ANSWER) for form in paths}
    # One reason for all is told once.
    if len(set(said.values())) == 1:
        reason = next(iter(said.values()))
    else:
        reason = "; ".join(f"{form}: {text}" for form, text in said.items())
    if not tried.wrong:
        return f"{runtime} cannot run it: {reason}"
    diagnosis = work.inputs["convert"] / convert.DIAGNOSIS
    because = f"; {read_json(diagnosis)}" if diagnosis.is_file() else ""
    return f"{runtime} answers wrong: {reason}{because}"


def _devices(work: Work) -> Devices:
    assert work.devices is not None
    return work.devices


def _cpu_twin(work: Work, runtime: str, limit: verify.Limits) -> Entry:
    """What was compiled, on the device's CPU: the chip must be as accurate as that."""
    source = work.inputs["convert"] / "dense.tflite"
    entry = _entry(work, _ON_CPU, source, runtime, limit)
    return replace(entry, delegate="xnnpack", samples=_samples_of(work))


def _on_chip(work: Work, on_cpu: Judgement | None) -> dict[str, Any]:
    if "compile" not in work.inputs:
        return {}
    stored = read_json(work.inputs["compile"] / "edgetpu.json")
    judging = _judge(work).judging
    known = on_cpu.scores.get(judging.name) if on_cpu and judging.metric.unit == "%" else None
    return {"edgetpu": {**stored["about"], "cpu_accuracy": known}, "notes": stored["notes"]}


def _explained(error: str, work: Work) -> str:
    tpu = work.context.tpu
    if tpu is None or "compile" not in work.inputs:
        return error
    return edgetpu.delegate_problem(_devices(work).transport.name, tpu.library, error) or error


def _entry(work: Work, name: str, path: Path, runtime: str, limit: verify.Limits) -> Entry:
    golden = work.inputs["convert"] / "golden.npz"
    delegate = work.stage.spec["delegate"]
    return Entry(
        name,
        path,
        runtime,
        delegate,
        1,
        golden=golden,
        tolerance=limit.tolerance,
        reduced=_judge(work).judging.reduced,
    )


def _judge(work: Work) -> Judge:
    folder = work.inputs["samples"]
    kept = read_json(folder / samples.TASK)
    return read_judge(kept, folder / samples.TARGETS, work.context.loaded.folder)


def _samples_of(work: Work) -> Path:
    return work.inputs["samples"] / "samples.npz"


def _checked(work: Work, transport: Transport, entries: Sequence[Entry]) -> list[Event]:
    devices, timeout_seconds = _devices(work), work.pipeline.benchmark.timeout_seconds
    job = check_only(entries, f"{devices.run}-{work.stage.key[:12]}", timeout_seconds)
    return run_job(transport, job, stop=devices.stop)


def _readable(work: Work, path: Path) -> Path:
    """The file that stands for another on a machine without an Edge TPU."""
    return work.inputs["convert"] / "dense.tflite" if "compile" in work.inputs else path


def _host_judgement(work: Work, name: str, path: Path, limit: verify.Limits) -> Judgement | None:
    """What a file that another machine runs answers on this one.

    By the same runtime where this machine has it; None where no runtime here takes the file.
    """
    devices = _devices(work)
    assert devices.host is not None
    wanted = work.stage.spec["runtime"]["name"]
    # Numbers differ a little from runtime to runtime: the device's own first.
    for runtime in sorted(devices.host_runtimes, key=lambda own: own != wanted):
        entry = replace(
            _entry(work, name, path, runtime, limit),
            samples=_samples_of(work),
            delegate="xnnpack",
        )
        judgement = judged(entry, _checked(work, devices.host, [entry]), _judge(work))
        if judgement is not None:
            return judgement
    return None


def _stored_forms(work: Work) -> dict[str, Path]:
    """The files to choose from, the preferred first."""
    if "compile" in work.inputs:
        return {"edgetpu": work.inputs["compile"] / "edgetpu.tflite"}
    paths = {"dense": work.inputs["convert"] / "dense.tflite"}
    if "encode" in work.inputs:
        sparse = work.inputs["encode"] / "sparse.tflite"
        if work.variant.storage == "sparse":
            return {"sparse": sparse}
        if read_json(sparse.with_name("model.json"))["storage"] == "sparse":
            return {"sparse": sparse, **paths}
    return paths


def _storage_notes(work: Work, chosen: str, refused: Mapping[str, str]) -> list[str]:
    """Why weights with zeros are stored densely."""
    if "encode" not in work.inputs:
        return []
    if chosen == "dense" and "sparse" in refused:
        runtime = work.stage.spec["runtime"]["name"]
        return [f"stored dense, because {runtime} refuses it sparse: {refused['sparse']}"]
    return storage.summary(encode.read_decisions(work.inputs["encode"]))


def _require_zeros(work: Work, files: Mapping[str, Any]) -> None:
    if "sparsify" not in work.inputs:
        return
    layers = read_json(work.inputs["sparsify"] / "sparsity.json")
    for file in files.values():
        lost = verify.lost_zeros(file["zeros"], sum(layer["zeros"] for layer in layers))
        if lost:
            raise EdgesparseError(lost)


KIND = Kind("verify", 3, (), run, in_child=False)
