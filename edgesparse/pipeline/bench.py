"""Measures ready .tflite files on devices, without a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from edgesparse.bench.job import QUICK, Candidate
from edgesparse.bench.results import ModelFile, Results
from edgesparse.pipeline import fleet
from edgesparse.pipeline import progress as told
from edgesparse.pipeline.candidates import ready
from edgesparse.pipeline.record import recorded
from edgesparse.pipeline.stages import model_file
from edgesparse.pipeline.targets import Target
from edgesparse.pipeline.workspace import Workspace
from edgesparse.spec.device import Device
from edgesparse.spec.pipeline import Benchmark


def bench_models(
    models: Sequence[Path],
    devices: Sequence[Device],
    workspace: Workspace,
    listener: told.Listener,
    benchmark: Benchmark,
    quick_mode: bool,
) -> Results:
    """Measure ready .tflite files; ratios refer to the first."""
    from edgesparse.tflite.inspect import inspect, read_model

    files: dict[str, tuple[Path, ModelFile]] = {}
    for path in models:
        info = inspect(read_model(path), str(path))
        name = path.stem if path.stem not in files else str(path)
        files[name] = (path, model_file(info))
    baseline = next(iter(files))
    stop = threading.Event()
    tell = fleet.locked(listener)
    with recorded(workspace, "bench", baseline, devices, quick=quick_mode) as record:

        def measure(target: Target) -> None:
            device = target.device
            candidates = [
                ready(Candidate(name, runtime, "", threads, None, path, model), device, error)
                for runtime, error in target.all_runtimes
                for threads in device.threads or benchmark.threads
                for name, (path, model) in files.items()
            ]
            record.measure(target, candidates, benchmark, tell, stop)

        with fleet.opened(devices, tell, stop) as opened:
            for device, error in opened.dead:
                record.add_dead(device, list(files), error)
            for target in opened.targets:
                record.add_device(target.info, target.notes)
            fleet.at_once(measure, opened.targets, stop)
    return record.results()


def quick(benchmark: Benchmark) -> Benchmark:
    """Short enough for a look, too short for a claim."""
    return benchmark.model_copy(update=QUICK)
