"""What a pipeline means on one device: its plan, what is known of it before training, and what its
stages need."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.connect import Target, own_runtimes, this_machine
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.prediction.auto_variants import left_out
from edgesparse.commands.prediction.predict import advise
from edgesparse.devices import edgetpu
from edgesparse.devices.agent.job import new_id
from edgesparse.devices.setup.tidy import leave
from edgesparse.graph.execution.executor import Cluster, Executor
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.fingerprints import inputs_of, library_versions, user_code
from edgesparse.graph.plan import Plan, build_plan
from edgesparse.graph.store import Store
from edgesparse.graph.workspace import StageStatus
from edgesparse.measure.job import EMULATED_GOLDEN_SAMPLES
from edgesparse.spec.code.inputs import Inputs
from edgesparse.spec.device import Device
from edgesparse.spec.edgetpu import EdgeTpu
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.temporary import temporary_folder
from edgesparse.stages.base.stage import Devices, PlanContext
from edgesparse.tflite.runtimes.compatibility import Profile


@dataclass(frozen=True)
class Planned:
    """Each stage as cached or to run, and what should be known before anything is trained."""

    stages: tuple[StageStatus, ...]
    advice: tuple[str, ...]
    said: tuple[str, ...] = ()
    """What task was found, and what counts in training."""


def plan(
    project: Resources,
    pipeline: str | Path | Loaded[Pipeline],
    device: DeviceName = "local",
    *,
    variants: Sequence[str] | None = None,
) -> Planned:
    """What `deploy` would do for a device, and why. Nothing is written.

    Args:
        device: name of a file in the project's devices/, a path, or a Device.
        variants: these only, and the baseline.

    Raises:
        UsageError: a file, device or variant is wrong.
        DeviceError: the device cannot be used.
    """
    loaded = load_pipeline(pipeline)
    workspace = project.workspace(loaded.spec.store)
    with project.target(device) as target:
        known = profiles(target, workspace)
        inputs = inputs_of(loaded)
        planned = plan_for(loaded, target, known, inputs, variants)
        # An untrained model that is not stored yet is made for this time only.
        with temporary_folder() as place:
            workers = project.workers(place / "log.txt")
            wanted = [
                k for one in planned.training_groups for k in (one.preflight, one.untrained_model)
            ]
            kept = all(workspace.has(key) for key in wanted if key)
            own = Store(place / "store", project=workspace.project)
            store = workspace.store if kept else own
            run = new_id("plan")
            with executor_for(loaded, target, store, workers, run, known, inputs) as executor:
                advised = advise(planned, executor, target, project.listener)
                left = (
                    left_out(planned, executor)
                    if loaded.spec.has_auto_variants and not variants
                    else {}
                )
        if left:
            kept_ones = [name for name in planned.converted if name not in left]
            planned = plan_for(loaded, target, known, inputs, kept_ones)
    stages = tuple(workspace.status(loaded, planned))
    shown = [one for one in advised if not set(one.variants) or set(one.variants) - left.keys()]
    lines = tuple(one.line for one in shown if one.kind != "said")
    lines += tuple(f"{target.device.name}: {name} left out: {why}" for name, why in left.items())
    return Planned(stages, lines, tuple(one.line for one in advised if one.kind == "said"))


def plan_for(
    loaded: Loaded[Pipeline],
    target: Target,
    known: Mapping[str, Profile],
    inputs: Inputs,
    variants: Sequence[str] | None = None,
) -> Plan:
    """The plan of a pipeline for one device; `known` is what its runtimes do with sparse storage,
    by their names, `inputs` what the pipeline refers to."""
    check_variants(loaded, variants)
    local = target.device.connect.local is not None
    tpu = target.device.tpu
    return build_plan(
        loaded.spec,
        inputs.digests,
        library_versions(),
        target.runtimes,
        known,
        target.device.agent_delegate,
        variants,
        machine="" if local else f"{target.host.machine} {target.host.cpu}",
        full_int8_only=tpu is not None,
        compiler=_compiler(tpu),
        clock=target.device.clock,
    )


@contextmanager
def executor_for(
    loaded: Loaded[Pipeline],
    target: Target,
    store: Store,
    workers: Workers,
    run: str,
    known: Mapping[str, Profile],
    inputs: Inputs,
    stop: threading.Event | None = None,
    cluster: Cluster | None = None,
) -> Iterator[Executor]:
    """What runs the stages of a plan, made of the same `inputs`, for one device; on this machine
    nothing of them is left when the block ends."""
    device = target.device
    golden = EMULATED_GOLDEN_SAMPLES if device.emulated else None
    context = PlanContext(
        loaded, known, device.tpu, golden, user_code(inputs), inputs, store.project
    )
    host = None if device.connect.local is not None else this_machine()
    stop = stop or threading.Event()
    devices = Devices(target.transport, run, host, own_runtimes(), stop)
    try:
        yield Executor(context, devices, store, workers, cluster)
    finally:
        if host is not None:
            leave(host)


def _compiler(tpu: EdgeTpu | None) -> dict[str, Any] | None:
    """What the result of compiling depends on; None where nothing is compiled."""
    if tpu is None or tpu.compiler.none is not None:
        return None
    way = tpu.model_dump(mode="json", exclude_none=True, exclude={"library", "options", "compiler"})
    return {**way, "compiler": edgetpu.identify(tpu)}


def check_full_int8(
    loaded: Loaded[Pipeline], devices: Sequence[Device], variants: Sequence[str] | None
) -> None:
    """Raise UsageError where a device with an Edge TPU would have nothing to run."""
    chosen = [v for name, v in loaded.spec.variants.items() if variants is None or name in variants]
    if any(variant.quantize.numbers == "int8" for variant in chosen):
        return
    for device in devices:
        if device.tpu is not None:
            raise UsageError(
                f"{loaded.path}: device {device.name} runs full int8 only (delegate: edgetpu), and "
                "no variant to deploy is; add one with 'quantize: int8'"
            )


def check_variants(loaded: Loaded[Pipeline], variants: Sequence[str] | None) -> None:
    """Raise UsageError for a variant that the pipeline does not have."""
    known = loaded.spec.variants
    for name in variants or ():
        if name not in known:
            raise UsageError(f"{loaded.path}: no variant {name!r}{did_you_mean(name, known)}")
