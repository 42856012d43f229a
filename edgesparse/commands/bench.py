"""The bench command: measure .tflite files on devices, without a pipeline."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from edgesparse.commands.candidates import deliverable, ready, too_many_threads
from edgesparse.commands.exchange import tflite_file
from edgesparse.commands.fleet.parallel import for_each
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.fleet.target import Target
from edgesparse.commands.results.layer_times import measure_layers
from edgesparse.commands.results.record import recorded
from edgesparse.measure.benchmark import QUICK, Candidate
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Layer, ModelFile, Row, RuntimeInfo, StoredWeight
from edgesparse.spec.device import Device
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.safe.text import clean
from edgesparse.tflite.exchange.networks import is_reference
from edgesparse.tflite.format.inspect import inspect, read_model
from edgesparse.tflite.format.signature import Signature, explain_custom, read_signature
from edgesparse.tflite.runtimes.compatibility import Profile
from edgesparse.tflite.runtimes.explain import Explanation, explain
from edgesparse.tflite.verify import Limits

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
    layers: bool = False,
    benchmark: Benchmark | None = None,
    weights: str | Path | None = None,
) -> Results:
    """Measure .tflite files; ratios refer to the first.

    Args:
        models: a file or several; .pt2 and .onnx files are converted, and a PyTorch network as
            FILE.py:FUNCTION, which takes `weights` and `input_shapes`.
        device: one device or several: names of files in the project's devices/, paths,
            addresses (USER@HOST[:PORT]), or Devices.
        threads: numbers of threads, each measured; a device file's own stand before them.
        input_shapes: shapes of dynamic inputs, as "1x224x224x3" or "NAME=1x224x224x3".
        delegates: xnnpack, edgesparse (for int8 files with zeros) or both, in turns; in place of
            the device file's.
        quick: measure briefly; results are indicative only.
        layers: measure each operator alone, too, from a file of its own.
        benchmark: how to measure, in place of `threads` and of the usual settings.
        weights: state_dict of the PyTorch network.

    Raises:
        UsageError: a file or name is wrong; nothing was run.
        DeviceError: no device can be used.
    """
    settings = benchmark or Benchmark(threads=list(dict.fromkeys(threads)))
    named = [models] if isinstance(models, str | Path) else models
    files = list(dict.fromkeys(str(file if is_reference(file) else Path(file)) for file in named))
    devices = project.devices(device)
    words = ["edgesparse", "bench", *files]
    words += [word for target in devices for word in ("--device", target.option)]
    words += [word for count in threads if not benchmark for word in ("--threads", str(count))]
    words += [word for shape in input_shapes for word in ("--input-shape", shape)]
    words += [word for name in delegates for word in ("--delegate", name)]
    words += ["--weights", str(weights)] if weights else []
    words += [*["--quick"] * quick, *["--layers"] * layers]
    networks = list(filter(is_reference, files))
    if weights is not None and len(networks) != 1:
        raise UsageError(
            f"--weights {weights} needs one network as FILE.py:FUNCTION, not {len(networks)}; "
            "convert others before: edgesparse encode FILE.py:FUNCTION OUT.tflite --weights FILE"
        )
    # A network's shapes have no names.
    of_network = [shape for shape in input_shapes if "=" not in shape] if networks else []
    paths = [
        tflite_file(project, file, *((weights, of_network) if file in networks else ()))
        for file in files
    ]
    input_shapes = [shape for shape in input_shapes if shape not in of_network]
    if not paths:
        raise UsageError("no model to measure; name a .tflite file")
    unknown = [name for name in delegates if name not in DELEGATES]
    if unknown:
        choices = f"choose xnnpack or edgesparse{did_you_mean(unknown[0], DELEGATES)}"
        raise UsageError(f"no delegate {unknown[0]!r} to measure with; {choices}")
    command = shlex.join(words)
    return bench_files(
        project, paths, devices, settings, command, input_shapes, delegates,
        quick=quick, layers=layers,
    )  # fmt: skip


def bench_files(
    project: Resources,
    models: Sequence[Path],
    devices: Sequence[Device],
    settings: Benchmark,
    command: str,
    input_shapes: Sequence[str] = (),
    delegates: Sequence[str] = (),
    *,
    quick: bool,
    layers: bool = False,
    golden: Mapping[Path, tuple[Path, Limits]] | None = None,
) -> Results:
    """Measure files that another command has written; `command` would measure them again.

    Args:
        golden: by file its golden outputs, and how far a device's may be from them.
    """
    settings = shortened(settings) if quick else settings
    files: dict[str, _File] = {}
    names: list[str] = []
    for path in models:
        content = read_model(path)
        info, signature = inspect(content, str(path)), read_signature(content, str(path))
        shapes = _shapes(signature, input_shapes, path)
        names.append(name := _name(path, names))
        for delegate in dict.fromkeys(delegates or ("",)):
            # With two delegates a file is two variants; the second is compared with the first.
            label = f"{name} {delegate}" if len(set(delegates)) > 1 else name
            expected = (golden or {}).get(path, (None, None))
            files[label] = _File(path, ModelFile.of(info), signature, shapes, delegate, *expected)
    baseline = next(iter(files))
    stop, workspace = threading.Event(), project.workspace()
    with recorded(workspace, "bench", baseline, devices, quick=quick, command=command) as record:
        log = workspace.log_path(record.initial.run)

        def measure(target: Target) -> None:
            spec = target.device
            runtime_profiles = profiles(target, workspace)
            candidates = [
                _candidate(name, file, runtime, count, target, error)
                for runtime, error in target.all_runtimes
                for count in spec.threads or settings.threads
                for name, file in files.items()
            ]
            if not delegates:
                candidates = deliverable(candidates, target)
            candidates = list(_with_weights(candidates, runtime_profiles))
            record.measure(target, candidates, settings, project.listener, stop)
            if layers:
                measure_layers(record, target, candidates, project.listener, stop)
            record.explain(spec.name, lambda row: _why(files[row.variant], row, runtime_profiles))

        def isolated(target: Target) -> None:
            with record.isolated(target.device, list(files), log):
                measure(target)

        with project.connect(devices, stop) as fleet:
            for failed, error in fleet.failed:
                record.add_failed_device(failed, list(files), error)
            for target in fleet.targets:
                record.add_device(target.info, target.notes)
            for_each(isolated, fleet.targets, stop)
    return record.results()


@dataclass(frozen=True)
class _File:
    path: Path
    model: ModelFile
    signature: Signature
    shapes: tuple[tuple[int, tuple[int, ...]], ...]
    delegate: str
    """In place of the device file's; empty: that one."""
    golden: Path | None
    limits: Limits | None


def _candidate(
    name: str, file: _File, runtime: RuntimeInfo, threads: int, target: Target, error: str | None
) -> Candidate:
    candidate = Candidate(
        name, runtime, "", threads, None, file.path, file.model, golden=file.golden,
        limits=file.limits, shapes=file.shapes,
    )  # fmt: skip
    return ready(candidate, target, error or too_many_threads(target, threads), file.delegate)


def _with_weights(
    candidates: Sequence[Candidate], profiles: Mapping[str, Profile]
) -> Iterator[Candidate]:
    """Add whether the zeros of each weight are expected to save time."""
    explained: dict[tuple[Path, str, str], tuple[StoredWeight, ...]] = {}
    for candidate in candidates:
        path = candidate.path
        profile = _profile(profiles, candidate.runtime.name, candidate.delegate)
        if profile is None or path is None or candidate.error:
            yield candidate
            continue
        key = path, candidate.runtime.name, candidate.delegate
        if key not in explained:
            explained[key] = ()
            with suppress(UsageError):  # What cannot be explained can be measured nevertheless.
                lines = explain(path.read_bytes(), profile, str(path))
                explained[key] = tuple(_stored(candidate.layers, lines))
        yield replace(candidate, weights=explained[key])


def _profile(profiles: Mapping[str, Profile], runtime: str, delegate: str) -> Profile | None:
    """Profile of a runtime on a device with the delegate of a row, whatever the device file has."""
    profile = profiles.get(runtime)
    return None if profile is None else replace(profile, delegate=delegate == "edgesparse")


def _stored(layers: Sequence[Layer], lines: Sequence[Explanation]) -> Iterator[StoredWeight]:
    by_name = {(line.name, line.op): line for line in lines}
    for layer in layers:
        line = by_name.get((layer.name, layer.operator))
        if line is not None and layer.zeros:
            yield StoredWeight(
                name=layer.name,
                operator=layer.operator,
                storage=layer.storage,
                dense_bytes=layer.dense_bytes,
                stored_bytes=layer.stored_bytes,
                exploited=line.exploited,
                reason=line.reason,
            )


def _shapes(
    signature: Signature, texts: Sequence[str], path: Path
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Shapes of dynamic inputs by tensor index; a dynamic batch is 1.

    Raises:
        UsageError: the shape of a dynamic input is missing, or does not match.
    """
    named = dict(_parsed(text) for text in texts)
    unknown = [name for name in named if name and name not in {e.name for e in signature.inputs}]
    if unknown:
        names = [spec.name for spec in signature.inputs]
        raise UsageError(f"{path}: unknown input {unknown[0]!r}{did_you_mean(unknown[0], names)}")
    chosen = []
    for spec in signature.inputs:
        shape = named.get(spec.name, named.get(""))
        text = "x".join("?" if size < 1 else str(size) for size in spec.shape)
        if shape is None or not any(size < 1 for size in spec.shape):
            if spec.is_dynamic:
                raise UsageError(
                    f"{path}: input {spec.name} is dynamic, {text}; set its shape: "
                    f"--input-shape {spec.name}={text.replace('?', '1', 1).replace('?', '224')}"
                )
            continue
        fits = len(shape) == len(spec.shape) and all(
            o < 1 or o == s for o, s in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"{path}: shape {'x'.join(map(str, shape))} does not match input {spec.name}, "
                f"{text}"
            )
        chosen.append((spec.index, shape))
    return tuple(chosen)


def _parsed(text: str) -> tuple[str, tuple[int, ...]]:
    """ "NAME=1x2x3" or "1x2x3"."""
    name, _, sizes = text.rpartition("=")
    if not re.fullmatch(r"[1-9][0-9]{0,6}(x[1-9][0-9]{0,6})*", sizes):
        raise UsageError(f"--input-shape {text!r}: write 1x224x224x3, or NAME=1x224x224x3")
    return name, tuple(int(size) for size in sizes.split("x"))


def _why(file: _File, row: Row, profiles: Mapping[str, Profile]) -> str | None:
    """Explain a failed row and suggest a command; None where the cause is unknown."""
    custom = explain_custom(file.signature.custom)
    if custom is not None:
        return custom
    if row.delegate == "edgesparse" and not file.delegate:
        return f"{row.error}; --delegate xnnpack measures it without delegate edgesparse"
    profile = _profile(profiles, row.runtime.name, row.delegate)
    if profile is None:
        return None
    content = read_model(file.path)
    refused = [line for line in explain(content, profile, str(file.path)) if not line.accepted]
    if not refused:
        return None
    reasons = "; ".join(dict.fromkeys(line.reason for line in refused))
    text = f"{len(refused)} weight{'s' * (len(refused) > 1)} stored in a refused format: {reasons}"
    stored = any(w.form != "dense" for w in inspect(content).weights)
    if stored:
        text += (
            f"; 'edgesparse encode {file.path.name} OUT.tflite --device {row.device} --runtime "
            f"{row.runtime.name}' converts them"
        )
    return f"{row.error}; {text}"


def _name(path: Path, taken: Container[str]) -> str:
    """Name of a file in the table: short, clean and unique."""
    stem = clean(path.stem, NAME_WIDTH)
    longer = clean(f"{path.parent.name}/{path.stem}", NAME_WIDTH + 1)
    for name in (stem, longer):
        if name not in taken and len(name) <= NAME_WIDTH:
            return name
    numbered = (f"{stem[: NAME_WIDTH - 4]}-{number}" for number in count(2))
    return next(name for name in numbered if name not in taken)


def shortened(benchmark: Benchmark) -> Benchmark:
    """Settings of --quick: indicative only."""
    return benchmark.model_copy(update=QUICK)
