"""Measures ready .tflite files on devices, without a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from itertools import count
from pathlib import Path

from edgesparse.bench.job import QUICK, Candidate
from edgesparse.bench.results import Results
from edgesparse.bench.rows import ModelFile
from edgesparse.graph import progress as told
from edgesparse.graph.workspace import Workspace
from edgesparse.runs.candidates import ready
from edgesparse.runs.fleet.at_once import at_once, locked, opened
from edgesparse.runs.fleet.targets import Target
from edgesparse.runs.record import recorded
from edgesparse.spec.device import Device
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.reading.load import find_devices
from edgesparse.spec.safe.text import clean
from edgesparse.tflite.format.inspect import inspect, read_model

NAME_WIDTH = 48


def bench(
    models: str | Path | Sequence[str | Path],
    device: str | Path | Device | Sequence[str | Path | Device] = "local",
    *,
    threads: Sequence[int] = (1,),
    quick: bool = False,
    benchmark: Benchmark | None = None,
    project: str | Path = ".",
    listener: told.Listener = told.nobody,
) -> Results:
    """Measure ready .tflite files; ratios refer to the first.

    Args:
        models: a file or several.
        device: one device or several: names of files in the project's devices/, paths, or Devices.
        threads: numbers of threads, each measured; a device file's own stand before them.
        quick: measure briefly; the result is labelled so.
        benchmark: how to measure, in place of `threads` and of the usual settings.
        project: the folder with devices/ and .edgesparse.
        listener: called with each event of `edgesparse.graph.progress`; `print` will do.

    Raises:
        UsageError: a file or name is wrong; nothing was run.
        DeviceError: not one device can be used.
    """
    settings = benchmark or Benchmark(threads=list(dict.fromkeys(threads)))
    settings = shortened(settings) if quick else settings
    devices = find_devices(device, Path(project))
    files: dict[str, tuple[Path, ModelFile]] = {}
    given = [models] if isinstance(models, str | Path) else models
    for path in dict.fromkeys(map(Path, given)):
        info = inspect(read_model(path), str(path))
        files[_name(path, files)] = (path, ModelFile.of(info))
    baseline = next(iter(files))
    stop, tell = threading.Event(), locked(listener)
    workspace = Workspace(Path(project))
    with recorded(workspace, "bench", baseline, devices, quick=quick) as record:
        log = workspace.log_path(record.begun.run)

        def measure(target: Target) -> None:
            own = target.device
            candidates = [
                ready(Candidate(name, runtime, "", count, None, path, model), own, error)
                for runtime, error in target.all_runtimes
                for count in own.threads or settings.threads
                for name, (path, model) in files.items()
            ]
            record.measure(target, candidates, settings, tell, stop)

        def alone(target: Target) -> None:
            with record.alone(target.device, list(files), log):
                measure(target)

        with opened(devices, workspace.runs, tell, stop) as fleet:
            for dead, error in fleet.dead:
                record.add_dead(dead, list(files), error)
            for target in fleet.targets:
                record.add_device(target.info, target.notes)
            at_once(alone, fleet.targets, stop)
    return record.results()


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
