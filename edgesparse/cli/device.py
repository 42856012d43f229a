"""`edgesparse device ...`: list, check, set up and probe devices, and manage their releases."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgesparse.cli.options import FAILED, JSON, NAME, emit

if TYPE_CHECKING:
    from edgesparse.devices.agent.probe import CellResult
    from edgesparse.devices.setup.releases import State


@click.group()
def device() -> None:
    """List, check, set up and probe devices, and manage their releases."""


@device.command("list")
@JSON
def list_devices(as_json: bool) -> None:
    """List the device files in devices/, without connecting."""
    import edgesparse
    from edgesparse.report.terminal import WIDTH

    files = edgesparse.Project().device_files()
    first = max((len(file.name) for file in files), default=0)
    second = max((len(file.connect) for file in files), default=0)
    lines = [
        f"{file.name:<{first}}  {file.connect:<{second}}  {file.description}"[:WIDTH].rstrip()
        for file in files
    ]
    lines = lines or ["no device files in devices/; 'edgesparse init .' writes a first one"]
    emit(as_json, [vars(file) for file in files], lines)


@device.command()
@NAME
@JSON
def check(name: str, as_json: bool) -> None:
    """Report on a device: hardware, software, what is missing and the command that installs it."""
    from edgesparse.cli.console import open_project
    from edgesparse.devices.setup.checkup import MISSING

    with open_project() as project:
        findings = project.check_device(name)
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.subject:<{width}}  {finding.state:<7}  {finding.text}")
        if finding.todo:
            lines.append(f"{'':<{width}}  {'':<7}  -> {finding.todo}")
    emit(as_json, [vars(finding) for finding in findings], lines)
    sys.exit(FAILED if any(finding.state == MISSING for finding in findings) else 0)


@device.command()
@NAME
@JSON
def setup(name: str, as_json: bool) -> None:
    """Install the runtimes on a device; does nothing where they are installed."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        result = project.set_up_device(name)
    label, done = result.device.name, result.done
    versions = ", ".join(f"{runtime} {version}" for runtime, version in done.versions.items())
    if result.venv is None:
        line = f"{label}: uses the runtimes of its own Python; nothing to set up"
    elif done.changed:
        line = f"{label}: installed {versions} in {result.venv}"
    else:
        line = f"{label}: {versions} already installed in {result.venv}"
    record = {"changed": done.changed, "versions": done.versions, "refused": done.refused}
    emit(as_json, record, [line, *(f"{label}: left out: {why}" for why in done.refused.values())])


@device.command()
@NAME
@JSON
def probe(name: str, as_json: bool) -> None:
    """Measure which sparse storage a device's runtimes refuse, run and exploit, and whether they
    compute in half precision; takes minutes."""
    from edgesparse.cli.console import open_project
    from edgesparse.report.terminal import WIDTH

    with open_project() as project:
        probed = project.probe_device(name)
    result = probed.result
    lines = []
    for runtime in probed.runtimes:
        gains = result.gains[runtime.name]
        lines.append(f"{name} | {runtime.name} {runtime.version}")
        trials = [trial for trial in result.trials if trial.runtime == runtime.name]
        lines += [f"  {_trial_line(trial)}"[:WIDTH] for trial in trials]
        lines += [f"  {_zeros_line(gains.zeros)}", f"  {_half_precision_line(gains.half)}"]
        delegate = probed.delegates.get(runtime.name)
        lines += [f"  delegate: {delegate.text}"] if delegate else []
    lines.append(
        f"{probed.surprises} of {len(result.trials)} results differ from the built-in "
        "compatibility table; probed results will be used"
    )
    delegates = {name: asdict(finding) for name, finding in probed.delegates.items()}
    emit(as_json, {**asdict(result), "delegates": delegates}, lines)


def _zeros_line(gain: float) -> str:
    from edgesparse.tflite.runtimes.compatibility import SKIPS

    if gain == 0:
        return "zeros in 1x1 convolutions: refused, or wrong outputs"
    verdict = "skipped" if gain >= SKIPS else "not skipped"
    return f"zeros in 1x1 convolutions: {verdict}, {gain:.2f}x as fast with 90 %"


def _half_precision_line(gain: float) -> str:
    from edgesparse.tflite.runtimes.compatibility import SKIPS

    if gain == 0:
        return "half precision: refused, or wrong outputs"
    verdict = "supported" if gain >= SKIPS else "no effect"
    return f"half precision: {verdict}, {gain:.2f}x as fast"


def _trial_line(trial: CellResult) -> str:
    from edgesparse.tflite.runtimes.compatibility import PAYS

    cell, verdict = trial.cell, trial.verdict
    if not verdict.runs:
        text = f"refused: {verdict.why.removeprefix('RuntimeError: ')}"
    elif verdict.cost is None:
        text = "runs"
    else:
        text = f"pays where at most {min(1, PAYS / verdict.cost):.0%} is stored"
    return f"{cell.op:<17}  {cell.scheme:<19}  {cell.form:<10}  {text}"


@device.command()
@NAME
@click.argument("pipeline")
@JSON
def releases(name: str, pipeline: str, as_json: bool) -> None:
    """List a pipeline's releases on a device."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        _emit_state(project.releases(name, pipeline), as_json)


@device.command()
@NAME
@click.argument("pipeline")
@JSON
def rollback(name: str, pipeline: str, as_json: bool) -> None:
    """Make a pipeline's earlier release on a device current again."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        _emit_state(project.rollback(name, pipeline), as_json)


def _emit_state(state: State, as_json: bool) -> None:
    marks = {state.previous: "previous", state.current: "current"}
    lines = [f"{digest}  {marks.get(digest, '')}".rstrip() for digest in state.releases]
    emit(as_json, state.model_dump(), lines)
