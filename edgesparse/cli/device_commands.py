"""What the device and emulator commands do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from edgesparse.cli.commands import DEVICES, find_device
from edgesparse.cli.console import Shown
from edgesparse.devices import emulator, install
from edgesparse.devices.checkup import MISSING, checkup
from edgesparse.devices.connection import build_image, connect
from edgesparse.devices.provision import provision
from edgesparse.devices.transport import Progress, Transport
from edgesparse.devices.trials import Trial
from edgesparse.pipeline import probes
from edgesparse.pipeline import progress as told
from edgesparse.pipeline.execute import captured_output
from edgesparse.pipeline.targets import open_target
from edgesparse.pipeline.workspace import Workspace
from edgesparse.report.table import WIDTH
from edgesparse.spec.device import Device, Emulator, Group
from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.load import load_device_or_group
from edgesparse.tflite.compatibility import PAYS, SKIPS


def list_devices(as_json: bool) -> None:
    found = []
    for path in sorted(DEVICES.glob("*.yaml")):
        try:
            spec = load_device_or_group(path).spec
        except (SpecError, UsageError) as error:
            found.append((path.stem, "invalid", str(error).splitlines()[0]))
            continue
        found.append((spec.name, _way(spec), spec.description))
    if as_json:
        keys = ("name", "connect", "description")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in found], indent=1))
        return
    if not found:
        click.echo(f"no device files in {DEVICES}/; 'edgesparse init .' writes a first one")
        return
    widths = [max(len(row[i]) for row in found) for i in (0, 1)]
    for name, way, description in found:
        click.echo(f"{name:<{widths[0]}}  {way:<{widths[1]}}  {description}"[:WIDTH].rstrip())


def _way(spec: Device | Group) -> str:
    if isinstance(spec, Group):
        return f"group of {len(spec.devices)}"
    way = spec.connect
    if way.ssh is not None:
        return f"ssh {way.ssh.host}"
    return f"emulator {way.emulator.cpu}" if way.emulator is not None else "local"


def check(name: str, as_json: bool) -> int:
    device = find_device(name)
    with _connected(device) as (transport, _):
        found = checkup(transport, device)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        width = max(len(finding.subject) for finding in found)
        for finding in found:
            click.echo(f"{finding.subject:<{width}}  {finding.state:<7}  {finding.text}")
            if finding.todo:
                click.echo(f"{'':<{width}}  {'':<7}  -> {finding.todo}")
    return 1 if any(finding.state == MISSING for finding in found) else 0


def setup(name: str, as_json: bool) -> None:
    device = find_device(name)
    with _connected(device) as (transport, progress):
        done = provision(transport, device, progress)
    if as_json:
        about = {"changed": done.changed, "versions": done.versions, "refused": done.refused}
        click.echo(json.dumps(about, indent=1))
        return
    versions = ", ".join(f"{name} {version}" for name, version in done.versions.items())
    if not device.builds_venv:
        click.echo(f"{device.name}: uses the runtimes of its own Python; nothing to set up")
    elif done.changed:
        click.echo(f"{device.name}: installed {versions} in {transport.workdir}/venv")
    else:
        click.echo(f"{device.name}: {versions} in {transport.workdir}/venv already")
    for problem in done.refused.values():
        click.echo(f"{device.name}: left out: {problem}")


def probe(name: str, as_json: bool) -> None:
    with _progress(f"probe {name}") as progress:
        target = open_target(find_device(name), progress)
        try:
            with captured_output(Workspace(Path()).folder / "probes" / f"{name}.log"):
                found = probes.probe(target, Workspace(Path()), progress)
        finally:
            target.transport.close()
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    versions = {runtime.name: runtime.version for runtime in target.runtimes}
    for runtime, version in versions.items():
        click.echo(f"{name} | {runtime} {version}")
        for trial in found.trials:
            if trial.runtime == runtime:
                click.echo(f"  {_trial_line(trial)}"[:WIDTH])
        click.echo(f"  {_path_line(found.path_gain[runtime])}")
    odd = probes.surprises(target, found.trials)
    click.echo(
        f"{len(odd)} of {len(found.trials)} are not as the table of compatibility says"
        + "; what was found here counts from now on"
    )


def _path_line(gain: float) -> str:
    if gain == 0:
        return "zeros in 1x1 convolutions: refuses them, or answers wrong"
    said = "skips them" if gain >= SKIPS else "skips none"
    return f"zeros in 1x1 convolutions: {said}, {gain:.2f} times as fast with 90 %"


def _trial_line(trial: Trial) -> str:
    cell, verdict = trial.cell, trial.verdict
    if not verdict.runs:
        said = f"refuses: {verdict.why.removeprefix('RuntimeError: ')}"
    elif verdict.cost is None:
        said = "runs"
    else:
        said = f"pays where at most {min(1, PAYS / verdict.cost):.0%} is stored"
    return f"{cell.op:<17}  {cell.scheme:<19}  {cell.form:<10}  {said}"


def releases(name: str, pipeline: str, as_json: bool) -> None:
    _show_state(name, pipeline, as_json, install.released)


def rollback(name: str, pipeline: str, as_json: bool) -> None:
    _show_state(name, pipeline, as_json, install.rollback)


def _show_state(
    name: str, pipeline: str, as_json: bool, act: Callable[[Transport, str], install.State]
) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", pipeline):
        raise UsageError(f"{pipeline!r} is no pipeline's name; give the name inside its file")
    with _connected(find_device(name)) as (transport, _):
        state = act(transport, pipeline)
    if as_json:
        click.echo(state.model_dump_json(indent=1))
        return
    for digest in state.releases:
        mark = (
            "current" if digest == state.current else "previous" if digest == state.previous else ""
        )
        click.echo(f"{digest}  {mark}".rstrip())


@contextmanager
def _connected(device: Device) -> Iterator[tuple[Transport, Progress]]:
    """The device's transport; progress is shown once there is something to wait for."""
    with _progress(f"set up {device.name}") as progress:
        transport = connect(device, progress)
        try:
            yield transport, progress
        finally:
            transport.close()


@contextmanager
def _progress(label: str) -> Iterator[Progress]:
    with Shown() as tell:
        started = False

        def progress(share: float, text: str) -> None:
            nonlocal started
            if not started:
                tell(told.StageStarted(label, 1, 1))
                started = True
            tell(told.StageProgress(label, share, text))

        yield progress
        if started:
            tell(told.StageDone(label, 1, 1))


def _emulated(name: str) -> tuple[Device, Emulator]:
    device = find_device(name)
    if device.connect.emulator is None:
        raise UsageError(f"device {name} is no emulated one: its file has no connect.emulator")
    return device, device.connect.emulator


def emulator_build(name: str, as_json: bool) -> None:
    device, _ = _emulated(name)
    with _progress(f"build the image of {name}") as progress:
        folder = build_image(device, progress)
    about = {"image": folder.name, "folder": str(folder)}
    click.echo(json.dumps(about, indent=1) if as_json else f"image {folder.name} is there")


def emulator_up(name: str, as_json: bool) -> None:
    device, spec = _emulated(name)
    with _progress(f"start {name}") as progress:
        built = build_image(device, progress)
        progress(0.9, "booting")
        machine = emulator.up(device.name, spec, built)
    click.echo(json.dumps(asdict(machine), indent=1) if as_json else emulator.describe(machine))
    if not as_json:
        click.echo(f"log in with: {emulator.login(machine, built)}")


def emulator_down(name: str, as_json: bool) -> None:
    was_up = emulator.down(_emulated(name)[0].name)
    text = f"{name}: {'shut down' if was_up else 'was not up'}"
    click.echo(json.dumps({"name": name, "was_up": was_up}) if as_json else text)


def emulator_status(as_json: bool) -> None:
    machines, images = emulator.machines(), emulator.images()
    if as_json:
        about = {
            "machines": [asdict(machine) for machine in machines],
            "images": [{"name": path.name, "bytes": size} for path, size in images],
        }
        click.echo(json.dumps(about, indent=1))
        return
    for machine in machines:
        click.echo(emulator.describe(machine))
    if not machines:
        click.echo("no emulated device is up")
    for path, size in images:
        click.echo(f"image {path.name}: {size / 1e6:.0f} MB in {path}")
