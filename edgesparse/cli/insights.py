"""What `inspect` and `sensitivity` do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgesparse.cli.commands import find_device
from edgesparse.cli.console import Shown, result_console
from edgesparse.pipeline.probes import profiles
from edgesparse.pipeline.sensitivities import find_sensitivity
from edgesparse.pipeline.stages import model_file
from edgesparse.pipeline.targets import open_target
from edgesparse.pipeline.workspace import Workspace
from edgesparse.report.inspection import print_inspection
from edgesparse.report.sensitivity import print_sensitivity
from edgesparse.spec.load import load_pipeline
from edgesparse.spec.sparsify import LEVELS
from edgesparse.tflite.explain import describe, explain
from edgesparse.tflite.inspect import inspect, read_model

if TYPE_CHECKING:
    from edgesparse.tflite.explain import Explanation


def inspect_model(path: Path, device: str | None, as_json: bool) -> None:
    content = read_model(path)
    info, tensors = inspect(content, str(path)), describe(content, str(path))
    explained: dict[str, tuple[Explanation, ...]] = {}
    if device is not None:
        target = open_target(find_device(device))
        target.transport.close()
        for name, profile in profiles(target, Workspace(Path())).items():
            runtime = f"{target.device.name} | {name} {profile.machine.version}"
            explained[runtime] = explain(content, profile, str(path))
    if as_json:
        about = {
            "file": str(path),
            **model_file(info).model_dump(),
            "tensors": [asdict(tensor) for tensor in tensors],
            "explained": {name: [asdict(e) for e in found] for name, found in explained.items()},
        }
        click.echo(json.dumps(about, indent=1))
        return
    print_inspection(str(path), info, tensors, explained, result_console())


def show_sensitivity(
    pipeline: Path,
    variant: str | None,
    device: str,
    max_accuracy_drop: float,
    levels: Sequence[float],
    as_json: bool,
) -> None:
    loaded = load_pipeline(pipeline)
    target = open_target(find_device(device))
    try:
        with Shown() as listener:
            found = find_sensitivity(
                loaded,
                target,
                Workspace(Path()),
                listener,
                variant=variant,
                max_accuracy_drop=max_accuracy_drop,
                levels=levels or LEVELS,
            )
    finally:
        target.transport.close()
    if as_json:
        click.echo(json.dumps(found.record, indent=1))
        return
    print_sensitivity(
        found.variant,
        found.sensitivity,
        max_accuracy_drop,
        found.proposal,
        result_console(),
    )
    click.echo(f"saved in {found.path}")
