"""Plan of a pipeline for one device: its stages, predictions, and the executor that runs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.commands.exchange import with_tflite_models
from edgesparse.commands.fleet.delegates import offers
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.fleet.target import Target, installed_runtimes, this_machine
from edgesparse.commands.prediction.auto_variants import left_out, useless_variants
from edgesparse.commands.prediction.outcomes import Prediction
from edgesparse.commands.prediction.predict import predict
from edgesparse.devices import edgetpu
from edgesparse.devices.agent.job import new_id
from edgesparse.devices.setup.tidy import leave
from edgesparse.graph.digests import inputs_of, user_code
from edgesparse.graph.execution.executor import Cluster, Executor
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.plan import Plan, build_plan
from edgesparse.graph.store import Store
from edgesparse.graph.versions import library_versions
from edgesparse.graph.workspace import StageStatus
from edgesparse.measure.benchmark import EMULATED_GOLDEN_SAMPLES
from edgesparse.spec.code.run_inputs import Inputs
from edgesparse.spec.device import Device, EdgeTpu
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.stages.base.stage import Devices, PlanContext
from edgesparse.tflite.runtimes.compatibility import Profile


@dataclass(frozen=True)
class Planned:
    """Stages of a plan, each cached or to run, and the predictions before training."""

    stages: tuple[StageStatus, ...]
    predictions: tuple[Prediction, ...]

    @property
    def record(self) -> dict[str, Any]:
        """A JSON record."""
        stages = [
            {
                "stage": status.stage.name,
                "label": status.stage.label,
                "key": status.stage.key,
                "variants": status.stage.variants,
                "cached": status.cached,
                "why": status.why,
            }
            for status in self.stages
        ]
        return {"stages": stages, "predictions": [p.record for p in self.predictions]}


def plan(
    project: Resources,
    pipeline: str | Path | Loaded[Pipeline],
    device: DeviceName = "local",
    *,
    variants: Sequence[str] | None = None,
) -> Planned:
    """Show what `deploy` would do for a device, and why. Nothing is written.

    Args:
        device: name of a file in the project's devices/, a path, or a Device.
        variants: these only, and the baseline.

    Raises:
        UsageError: a file, device or variant is wrong.
        DeviceError: the device cannot be used.
    """
    loaded = with_tflite_models(project, load_pipeline(pipeline))
    workspace = project.workspace(loaded.spec.store)
    with project.target(device) as target:
        runtime_profiles = profiles(target, workspace)
        inputs = inputs_of(loaded)
        planned = plan_for(loaded, target, runtime_profiles, inputs, variants)
        # Stages that predictions need and that are not stored yet run in a temporary store.
        with temporary_folder() as folder:
            workers = project.workers(folder / "log.txt")
            keys = [k for g in planned.training_groups for k in (g.preflight, g.untrained_model)]
            if all(workspace.has(key) for key in keys if key):
                store = workspace.store
            else:
                store = Store(folder / "store", project=workspace.project)
            run = new_id("plan")
            with executor_for(
                loaded, target, store, workers, run, runtime_profiles, inputs
            ) as executor:
                predictions = predict(planned, executor, target, project.listener)
                prune = loaded.spec.has_auto_variants and not variants
                useless = useless_variants(planned, executor) if prune else {}
        if useless:
            useful = [name for name in planned.converted if name not in useless]
            planned = plan_for(loaded, target, runtime_profiles, inputs, useful)
    remaining = [prediction.without(useless) for prediction in predictions]
    return Planned(
        tuple(workspace.status(loaded, planned)),
        (*(p for p in remaining if p is not None), *left_out(useless, target.device.name)),
    )


def plan_for(
    loaded: Loaded[Pipeline],
    target: Target,
    runtime_profiles: Mapping[str, Profile],
    inputs: Inputs,
    variants: Sequence[str] | None = None,
) -> Plan:
    """Build the plan of a pipeline for one device.

    Args:
        runtime_profiles: profile of each runtime, by name.
        inputs: digests of code and files that the pipeline refers to.
    """
    check_variants(loaded, variants)
    local = target.device.connect.local is not None
    tpu = target.device.tpu
    return build_plan(
        loaded.spec,
        inputs.digests,
        library_versions(),
        target.runtimes,
        runtime_profiles,
        target.device.agent_delegate,
        variants,
        machine="" if local else f"{target.host.machine} {target.host.cpu}",
        full_int8_only=tpu is not None,
        compiler=_compiler(tpu),
        clock=target.device.clock,
        edgesparse=offers(target),
    )


@contextmanager
def executor_for(
    loaded: Loaded[Pipeline],
    target: Target,
    store: Store,
    workers: Workers,
    run: str,
    runtime_profiles: Mapping[str, Profile],
    inputs: Inputs,
    stop: threading.Event | None = None,
    cluster: Cluster | None = None,
) -> Iterator[Executor]:
    """Open the executor of a plan that was built from the same `inputs`, for a block; temporary
    files on this machine are removed at its end."""
    device = target.device
    golden = EMULATED_GOLDEN_SAMPLES if device.emulated else None
    context = PlanContext(
        loaded, runtime_profiles, device.tpu, golden, user_code(inputs), inputs, store.project
    )
    host = None if device.connect.local is not None else this_machine()
    stop = stop or threading.Event()
    devices = Devices(target.transport, run, host, installed_runtimes(), stop)
    try:
        yield Executor(context, devices, store, workers, cluster)
    finally:
        if host is not None:
            leave(host)


def _compiler(tpu: EdgeTpu | None) -> dict[str, Any] | None:
    """Key inputs of the compile stage; None where nothing is compiled."""
    if tpu is None or tpu.compiler.none is not None:
        return None
    compiler = tpu.model_dump(
        mode="json", exclude_none=True, exclude={"library", "options", "compiler"}
    )
    return {**compiler, "compiler": edgetpu.identify(tpu)}


def check_full_int8(
    loaded: Loaded[Pipeline], devices: Sequence[Device], variants: Sequence[str] | None
) -> None:
    """Raise UsageError for a device with an Edge TPU where no variant is full int8."""
    chosen = [v for name, v in loaded.spec.variants.items() if variants is None or name in variants]
    if any(variant.quantize.numbers == "int8" for variant in chosen):
        return
    for device in devices:
        if device.tpu is not None:
            raise UsageError(
                f"{loaded.path}: device {device.name} requires full int8 (delegate: edgetpu), "
                "which no variant has; add one with 'quantize: int8'"
            )


def check_variants(loaded: Loaded[Pipeline], variants: Sequence[str] | None) -> None:
    """Raise UsageError for a variant that the pipeline does not have."""
    names = loaded.spec.variants
    for name in variants or ():
        if name not in names:
            raise UsageError(f"{loaded.path}: unknown variant {name!r}{did_you_mean(name, names)}")
