"""Measures ready .tflite files on devices, without a pipeline."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from edgesparse.commands.candidates import delegated, ready, too_many_threads
from edgesparse.commands.fleet.connect import Target
from edgesparse.commands.fleet.parallel import for_each
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.results.record import recorded
from edgesparse.measure.job import QUICK, Candidate
from edgesparse.measure.results import Results
from edgesparse.measure.rows import ModelFile, Row, RuntimeInfo
from edgesparse.spec.device import Device
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.safe.text import clean
from edgesparse.tflite.format.inspect import inspect, read_model
from edgesparse.tflite.format.signature import Signature, explain_custom, read_signature
from edgesparse.tflite.runtimes.compatibility import Profile
from edgesparse.tflite.runtimes.explain import explain

NAME_WIDTH = 48
DELEGATES = ("xnnpack", "edgesparse")


def bench(
    project: Resources,
    models: str | Path | Sequence[str | Path],
    device: DeviceName | Sequence[DeviceName] = "local",
    *,
    threads: Sequence[int] = (1,),
    input_shapes: Sequence[str] = (),
    delegates: Sequence[str] = (),
    quick: bool = False,
    benchmark: Benchmark | None = None,
) -> Results:
    """Measure ready .tflite files; ratios refer to the first.

    Args:
        models: a file or several.
        device: one device or several: names of files in the project's devices/, paths, or Devices.
        threads: numbers of threads, each measured; a device file's own stand before them.
        input_shapes: of inputs that a file leaves open, as "1x224x224x3" or "NAME=1x224x224x3".
        delegates: xnnpack, edgesparse (our own for int8 files with zeros) or both, in turns; in
            place of the device file's.
        quick: measure briefly; the result is labelled so.
        benchmark: how to measure, in place of `threads` and of the usual settings.

    Raises:
        UsageError: a file or name is wrong; nothing was run.
        DeviceError: not one device can be used.
    """
    settings = benchmark or Benchmark(threads=list(dict.fromkeys(threads)))
    given = [models] if isinstance(models, str | Path) else models
    devices = project.devices(device)
    words = ["edgesparse", "bench", *map(str, given)]
    words += [word for one in devices for word in ("--device", one.name)]
    words += [word for name in delegates for word in ("--delegate", name)]
    command = shlex.join([*words, *(["--quick"] if quick else [])])
    paths = list(dict.fromkeys(map(Path, given)))
    unknown = [name for name in delegates if name not in DELEGATES]
    if unknown:
        choices = f"choose xnnpack or edgesparse{did_you_mean(unknown[0], DELEGATES)}"
        raise UsageError(f"no delegate {unknown[0]!r} to measure with; {choices}")
    return measured(
        project, paths, devices, settings, command, input_shapes, delegates, quick=quick
    )


def measured(
    project: Resources,
    models: Sequence[Path],
    devices: Sequence[Device],
    settings: Benchmark,
    command: str,
    input_shapes: Sequence[str] = (),
    delegates: Sequence[str] = (),
    *,
    quick: bool,
) -> Results:
    """The same for files that a command has just written; `command` is what would measure them."""
    settings = shortened(settings) if quick else settings
    files: dict[str, _File] = {}
    names: list[str] = []
    for path in models:
        content = read_model(path)
        info, found = inspect(content, str(path)), read_signature(content, str(path))
        shapes = _shapes(found, input_shapes, path)
        names.append(name := _name(path, names))
        for delegate in dict.fromkeys(delegates or ("",)):
            # The same file twice is two variants, and the second is compared with the first.
            label = f"{name} {delegate}" if len(set(delegates)) > 1 else name
            files[label] = _File(path, ModelFile.of(info), found, shapes, delegate)
    baseline = next(iter(files))
    stop, workspace = threading.Event(), project.workspace()
    with recorded(workspace, "bench", baseline, devices, quick=quick, command=command) as record:
        log = workspace.log_path(record.initial.run)

        def measure(target: Target) -> None:
            own = target.device
            candidates = [
                _candidate(name, file, runtime, count, target, error)
                for runtime, error in target.all_runtimes
                for count in own.threads or settings.threads
                for name, file in files.items()
            ]
            record.measure(target, candidates, settings, project.listener, stop)
            known = profiles(target, workspace)
            record.explain(own.name, lambda row: _why(files[row.variant], row, known))

        def alone(target: Target) -> None:
            with record.isolated(target.device, list(files), log):
                measure(target)

        with project.connect(devices, stop) as fleet:
            for dead, error in fleet.failed:
                record.add_failed_device(dead, list(files), error)
            for target in fleet.targets:
                record.add_device(target.info, target.notes)
            for_each(alone, fleet.targets, stop)
    return record.results()


@dataclass(frozen=True)
class _File:
    path: Path
    model: ModelFile
    signature: Signature
    shapes: tuple[tuple[int, tuple[int, ...]], ...]
    delegate: str
    """In place of the device file's; empty: that one."""


def _candidate(
    name: str, file: _File, runtime: RuntimeInfo, threads: int, target: Target, error: str | None
) -> Candidate:
    candidate = Candidate(
        name, runtime, "", threads, None, file.path, file.model, shapes=file.shapes
    )
    candidate = ready(candidate, target.device, error or too_many_threads(target, threads))
    if not file.delegate:
        return candidate
    return delegated(candidate, file.delegate, target.host.machine)


def _shapes(
    found: Signature, given: Sequence[str], path: Path
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """By tensor, the shapes of inputs that the file leaves open; UsageError where one is missing
    or does not fit. A batch that is open is one."""
    named = dict(_parsed(text) for text in given)
    unknown = [name for name in named if name and name not in {e.name for e in found.inputs}]
    if unknown:
        names = [spec.name for spec in found.inputs]
        raise UsageError(f"{path}: it has no input {unknown[0]!r}{did_you_mean(unknown[0], names)}")
    chosen = []
    for spec in found.inputs:
        shape = named.get(spec.name, named.get(""))
        said = "x".join("?" if size < 1 else str(size) for size in spec.shape)
        if shape is None or not any(size < 1 for size in spec.shape):
            if spec.is_dynamic:
                raise UsageError(
                    f"{path}: its input {spec.name} is of open size, {said}; name one: "
                    f"--input-shape {spec.name}={said.replace('?', '1', 1).replace('?', '224')}"
                )
            continue
        fits = len(shape) == len(spec.shape) and all(
            o < 1 or o == s for o, s in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"{path}: its input {spec.name} is {said}, which "
                f"{'x'.join(map(str, shape))} does not fit"
            )
        chosen.append((spec.index, shape))
    return tuple(chosen)


def _parsed(text: str) -> tuple[str, tuple[int, ...]]:
    """ "NAME=1x2x3" or "1x2x3"."""
    name, _, sizes = text.rpartition("=")
    if not re.fullmatch(r"[1-9][0-9]{0,6}(x[1-9][0-9]{0,6})*", sizes):
        raise UsageError(f"--input-shape {text!r}: write 1x224x224x3, or NAME=1x224x224x3")
    return name, tuple(int(size) for size in sizes.split("x"))


def _why(file: _File, row: Row, known: Mapping[str, Profile]) -> str | None:
    """A failure with what is known of it, and what would help; None where nothing is."""
    custom = explain_custom(file.signature.custom)
    if custom is not None:
        return custom
    profile = known.get(row.runtime.name)
    if profile is None:
        return None
    content = read_model(file.path)
    refused = [line for line in explain(content, profile, str(file.path)) if not line.accepted]
    if not refused:
        return None
    reasons = "; ".join(dict.fromkeys(line.reason for line in refused))
    said = f"{len(refused)} weight{'s' * (len(refused) > 1)} stored as it refuses: {reasons}"
    stored = any(w.form != "dense" for w in inspect(content).weights)
    if stored:
        said += (
            f"; 'edgesparse encode {file.path.name} OUT.tflite --device {row.device} --runtime "
            f"{row.runtime.name}' stores them so that it takes them"
        )
    return f"{row.error}; {said}"


def _name(path: Path, taken: Container[str]) -> str:
    """What a file is called in the table: short, harmless, and like no other."""
    stem = clean(path.stem, NAME_WIDTH)
    longer = clean(f"{path.parent.name}/{path.stem}", NAME_WIDTH + 1)
    for name in (stem, longer):
        if name not in taken and len(name) <= NAME_WIDTH:
            return name
    numbered = (f"{stem[: NAME_WIDTH - 4]}-{number}" for number in count(2))
    return next(name for name in numbered if name not in taken)


def shortened(benchmark: Benchmark) -> Benchmark:
    """Short enough for a look, too short for a claim."""
    return benchmark.model_copy(update=QUICK)
