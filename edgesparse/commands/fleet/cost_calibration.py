"""Compares the delegate's cost model with a device: a small network, dense and with zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesparse.commands.fleet.target import Target
from edgesparse.delegate import BuildError, library, refused
from edgesparse.devices.agent.job import Entry, Job, Settings, new_id
from edgesparse.devices.agent.run_job import round_medians, run_job
from edgesparse.devices.transport.interface import Progress
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.delegated import claim, read_network, times

ZEROS, BLOCK = 0.8, (2, 4)
LIMITS = (0.25, 4.0)
"""Factors beyond these are errors of measurement."""
_TIMED = Settings(warmup_runs=2, warmup_seconds=0.0, runs=20, seconds=0.1, timeout_seconds=300.0)


def loads_delegate(target: Target, runtime: str, version: str) -> bool:
    """Return whether a device's runtime loads edgesparse's delegate."""
    loads = target.device.loads_edgesparse
    return loads and refused(runtime, version, target.host.machine) is None


def delegate_factors(target: Target, progress: Progress) -> dict[str, float]:
    """Measure how many times the predicted time the delegate takes on a device, by runtime.

    Empty where no runtime loads it, or it has no kernels for the CPU.

    Raises:
        DeviceError: the device failed.
    """
    host = target.host
    profiles = {
        runtime.name: Profile(
            Machine(runtime.name, runtime.version, host.machine, host.cpu_flags), delegate=True
        )
        for runtime in target.runtimes
        if loads_delegate(target, runtime.name, runtime.version)
    }
    profiles = {name: profile for name, profile in profiles.items() if profile.cpu is not None}
    if not profiles:
        return {}
    progress(0.0, "making an int8 network")
    try:
        delegate = {"library": library(target.host.machine), "options": {}}
    except BuildError:
        return {}
    dense, sparse = network_files()
    with temporary_folder() as name:
        entries = {}
        for form, content in (("dense", dense), ("sparse", sparse)):
            path = Path(name) / f"{form}.tflite"
            path.write_bytes(content)
            for runtime in profiles:
                chosen = "xnnpack" if form == "dense" else delegate
                entries[runtime, form] = Entry(f"{runtime} {form} int8", path, runtime, chosen, 1)
        progress(0.5, "timing it dense and with zeros")
        events = run_job(target.transport, Job(new_id("delegate"), 3, _TIMED, (*entries.values(),)))
    medians = {key: min(round_medians(events).get(e.name) or [0.0]) for key, e in entries.items()}
    return {
        runtime: factor
        for runtime, profile in profiles.items()
        if (
            factor := _factor(
                profile, sparse, medians[runtime, "dense"], medians[runtime, "sparse"]
            )
        )
    }


def _factor(profile: Profile, sparse: bytes, dense_time: float, sparse_time: float) -> float | None:
    cpu = profile.cpu
    if cpu is None or not dense_time or not sparse_time:
        return None
    predicted = times(claim(read_network(sparse), cpu), cpu, profile.machine.runtime)
    factor = predicted.ratio / (dense_time / sparse_time)
    low, high = LIMITS
    return round(factor, 3) if low <= factor <= high else None


def network_files() -> tuple[bytes, bytes]:
    """Build the int8 files of a MobileNet: dense, and with zeros in its 1x1 convolutions."""
    from edgesparse.models.mobilenet_v1 import mobilenet_v1
    from edgesparse.tflite.convert import convert

    model = mobilenet_v1([32, 32, 3], 10, alpha=0.5, downsample=2)
    random = np.random.default_rng(4)
    x = random.random((16, 32, 32, 3), dtype=np.float32)
    dense = convert(model, "int8", x)
    for layer in model.layers:
        if getattr(layer, "kernel_size", None) == (1, 1):
            _, _, inputs, outputs = layer.kernel.shape
            kept = random.random((-(-inputs // BLOCK[1]), -(-outputs // BLOCK[0]))) >= ZEROS
            mask = np.repeat(np.repeat(kept, BLOCK[1], 0), BLOCK[0], 1)[:inputs, :outputs]
            layer.kernel.assign(layer.kernel * mask)
    return dense, convert(model, "int8", x)
