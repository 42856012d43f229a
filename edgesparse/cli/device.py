"""`edgesparse device ...`: look at devices, set them up, and manage what is released on them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgesparse.cli.options import FAILED, JSON, NAME, print_json, say

if TYPE_CHECKING:
    from edgesparse.devices.agent.probe import CellResult
    from edgesparse.devices.setup.install import State


@click.group()
def device() -> None:
    """Look at devices, set them up, and manage what is released on them."""


@device.command("list")
@JSON
def list_devices(as_json: bool) -> None:
    """List the device files in devices/, without connecting."""
    import edgesparse
    from edgesparse.report.terminal import WIDTH

    found = edgesparse.Project().device_files()
    if as_json:
        print_json([vars(file) for file in found])
        return
    if not found:
        say("no device files in devices/; 'edgesparse init .' writes a first one")
        return
    first = max(len(file.name) for file in found)
    second = max(len(file.connect) for file in found)
    for file in found:
        line = f"{file.name:<{first}}  {file.connect:<{second}}  {file.description}"
        say(line[:WIDTH].rstrip())


@device.command()
@NAME
@JSON
def check(name: str, as_json: bool) -> None:
    """Say in one screen what a device is, what it lacks and what to type."""
    from edgesparse.cli.console import open_project
    from edgesparse.devices.setup.checkup import MISSING

    with open_project() as project:
        found = project.check_device(name)
    if as_json:
        print_json([vars(finding) for finding in found])
    else:
        width = max(len(finding.subject) for finding in found)
        for finding in found:
            say(f"{finding.subject:<{width}}  {finding.state:<7}  {finding.text}")
            if finding.todo:
                say(f"{'':<{width}}  {'':<7}  -> {finding.todo}")
    sys.exit(FAILED if any(finding.state == MISSING for finding in found) else 0)


@device.command()
@NAME
@JSON
def setup(name: str, as_json: bool) -> None:
    """Install the runtimes on a device; does nothing where they are there."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        found = project.set_up_device(name)
    label, done = found.device.name, found.done
    if as_json:
        about = {"changed": done.changed, "versions": done.versions, "refused": done.refused}
        print_json(about)
        return
    versions = ", ".join(f"{runtime} {version}" for runtime, version in done.versions.items())
    if found.venv is None:
        say(f"{label}: uses the runtimes of its own Python; nothing to set up")
    elif done.changed:
        say(f"{label}: installed {versions} in {found.venv}")
    else:
        say(f"{label}: {versions} in {found.venv} already")
    for problem in done.refused.values():
        say(f"{label}: left out: {problem}")


@device.command()
@NAME
@JSON
def probe(name: str, as_json: bool) -> None:
    """Try on a device which sparse storage its runtimes refuse, run and exploit, and whether they
    compute in half precision; minutes."""
    from dataclasses import asdict

    from edgesparse.cli.console import open_project
    from edgesparse.report.terminal import WIDTH

    with open_project() as project:
        probed = project.probe_device(name)
    found = probed.found
    if as_json:
        print_json(asdict(found))
        return
    for runtime in probed.runtimes:
        say(f"{name} | {runtime.name} {runtime.version}")
        for trial in found.trials:
            if trial.runtime == runtime.name:
                say(f"  {_trial_line(trial)}"[:WIDTH])
        gains = found.gains[runtime.name]
        say(f"  {_path_line(gains.zeros)}")
        say(f"  {_half_line(gains.half)}")
    say(
        f"{probed.surprises} of {len(found.trials)} are not as the table of compatibility says"
        + "; what was found here counts from now on"
    )


def _path_line(gain: float) -> str:
    from edgesparse.tflite.runtimes.compatibility import SKIPS

    if gain == 0:
        return "zeros in 1x1 convolutions: refuses them, or answers wrong"
    said = "skips them" if gain >= SKIPS else "skips none"
    return f"zeros in 1x1 convolutions: {said}, {gain:.2f} times as fast with 90 %"


def _half_line(gain: float) -> str:
    from edgesparse.tflite.runtimes.compatibility import SKIPS

    if gain == 0:
        return "half-precision arithmetic: refuses it, or answers wrong"
    said = "computes so" if gain >= SKIPS else "without effect"
    return f"half-precision arithmetic: {said}, {gain:.2f} times as fast"


def _trial_line(trial: CellResult) -> str:
    from edgesparse.tflite.runtimes.compatibility import PAYS

    cell, verdict = trial.cell, trial.verdict
    if not verdict.runs:
        said = f"refuses: {verdict.why.removeprefix('RuntimeError: ')}"
    elif verdict.cost is None:
        said = "runs"
    else:
        said = f"pays where at most {min(1, PAYS / verdict.cost):.0%} is stored"
    return f"{cell.op:<17}  {cell.scheme:<19}  {cell.form:<10}  {said}"


@device.command()
@NAME
@click.argument("pipeline")
@JSON
def releases(name: str, pipeline: str, as_json: bool) -> None:
    """List a pipeline's releases on a device."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        state = project.releases(name, pipeline)
    _show_state(state, as_json)


@device.command()
@NAME
@click.argument("pipeline")
@JSON
def rollback(name: str, pipeline: str, as_json: bool) -> None:
    """Make a pipeline's earlier release on a device current again."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        state = project.rollback(name, pipeline)
    _show_state(state, as_json)


def _show_state(state: State, as_json: bool) -> None:
    if as_json:
        print_json(state.model_dump())
        return
    marks = {state.previous: "previous", state.current: "current"}
    for digest in state.releases:
        say(f"{digest}  {marks.get(digest, '')}".rstrip())
