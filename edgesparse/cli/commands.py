"""What the commands do: load files, call the pipeline, print."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from pydantic import TypeAdapter

from edgesparse.bench.results import Results
from edgesparse.cli.console import Shown, result_console
from edgesparse.cli.init import DEVICE, write_project
from edgesparse.cli.main import GATE_NOT_MET
from edgesparse.pipeline import bench as benches
from edgesparse.pipeline import deploy as runs
from edgesparse.pipeline.advice import advise
from edgesparse.pipeline.probes import profiles
from edgesparse.pipeline.targets import open_target
from edgesparse.pipeline.workspace import Workspace
from edgesparse.report import table, text
from edgesparse.spec.device import Device, Group
from edgesparse.spec.errors import SpecError, UsageError, did_you_mean
from edgesparse.spec.load import (
    load_any,
    load_device,
    load_device_or_group,
    load_pipeline,
    parse_device,
)
from edgesparse.spec.pipeline import Benchmark, Pipeline

DEVICES = Path("devices")


def find_device(name: str) -> Device:
    """The device file of that name in devices/, or at that path."""
    found = list(_find(name, DEVICES).values())
    if len(found) != 1:
        raise UsageError(f"{name} is a group of devices; name one of them")
    return found[0]


def _find(name: str, folder: Path) -> dict[Path, Device]:
    """A device, or the devices of a group, by file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if path.is_file() or path == Path(name):
        spec = load_device_or_group(path).spec
        if isinstance(spec, Group):
            files = [path.parent / f"{member}.yaml" for member in spec.devices]
            return {file.resolve(): load_device(file).spec for file in files}
        return {path.resolve(): spec}
    if name == "local":  # Works anywhere, also without a devices folder.
        return {path: parse_device(DEVICE).spec}
    known = [*(p.stem for p in folder.glob("*.yaml")), "local"]
    raise UsageError(f"no device file {path}{did_you_mean(name, known)}")


def find_devices(names: Sequence[str]) -> list[Device]:
    """Every device file once; two files must not share a name."""
    devices: dict[Path, Device] = {}
    for name in names:
        devices |= _find(name, DEVICES)
    seen: set[str] = set()
    for device in devices.values():
        if device.name in seen:
            raise UsageError(f"two device files are named {device.name!r}; rename one")
        seen.add(device.name)
    return list(devices.values())


def validate(files: Sequence[Path], as_json: bool) -> int:
    found: list[dict[str, Any]] = []
    for file in files:
        try:
            load_any(file)
            if not as_json:
                click.echo(f"{file}: valid")
        except SpecError as error:
            found += [problem._asdict() for problem in error.problems]
            if not as_json:
                click.echo(str(error), err=True)
        except UsageError as error:
            found.append({"file": str(file), "line": 1, "column": 1, "message": str(error)})
            if not as_json:
                click.echo(str(error), err=True)
    if as_json:
        click.echo(json.dumps({"valid": not found, "problems": found}, indent=1))
    return 2 if found else 0


def plan(pipeline: Path, device: str, variants: Sequence[str] | None, as_json: bool) -> None:
    loaded = load_pipeline(pipeline)
    target = open_target(find_device(device))
    workspace = Workspace(Path())
    known = profiles(target, workspace)
    try:
        planned = runs.plan_for(loaded, target, known, variants)
        # A plan writes nothing: an outline that is not there yet is made for this time only.
        with TemporaryDirectory() as place, Shown() as listener:
            kept = workspace.has(planned.outline)
            made_in = workspace if kept else Workspace(Path(place))
            context = runs.context_for(loaded, target, made_in, "plan", known)
            advised = advise(planned, context, target, Path(place) / "log.txt", listener)
    finally:
        target.transport.close()
    status = workspace.status(loaded.spec.name, planned)
    if as_json:
        stages = [
            {
                "stage": s.stage.name,
                "label": s.stage.label,
                "key": s.stage.key,
                "variants": s.stage.variants,
                "cached": s.cached,
                "why": s.why,
            }
            for s in status
        ]
        click.echo(json.dumps({"stages": stages, "advice": advised}, indent=1))
        return
    width = max(len(s.stage.label) for s in status)
    for s in status:
        click.echo(f"{'cached' if s.cached else 'to run'}  {s.stage.label:<{width}}  {s.why}")
    waiting = sum(not s.cached for s in status)
    click.echo(f"{waiting} of {len(status)} stages to run; the benchmark always runs")
    for line in advised:
        click.echo(f"note: {line}")


def deploy(
    pipeline: Path,
    devices: Sequence[str],
    variants: tuple[str, ...] | None,
    quick: bool,
    benchmark: bool,
    as_json: bool,
    canary: str | None = None,
) -> int:
    loaded = load_pipeline(pipeline)
    options = runs.Options(variants, quick, benchmark, canary)
    found = find_devices(devices)
    with Shown() as listener:
        results = runs.deploy(loaded, found, Workspace(Path()), listener, options)
    return _end(results, as_json)


def bench(
    models: Sequence[Path],
    devices: Sequence[str],
    threads: Sequence[int],
    quick: bool,
    as_json: bool,
) -> int:
    benchmark = Benchmark(threads=list(dict.fromkeys(threads)))
    if quick:
        benchmark = benches.quick(benchmark)
    found = find_devices(devices)
    with Shown() as listener:
        results = benches.bench_models(models, found, Workspace(Path()), listener, benchmark, quick)
    return _end(results, as_json)


def _end(results: Results, as_json: bool) -> int:
    """Print the results; the exit code tells what is wrong with them."""
    _print(results, "json" if as_json else "table")
    if results.failed:
        return 1
    return 0 if results.gates_met else GATE_NOT_MET


def report(run: str | None, form: str) -> None:
    _print(Workspace(Path()).results(run), form)


def list_runs(as_json: bool) -> None:
    ids = Workspace(Path()).run_ids()
    click.echo(json.dumps(ids, indent=1) if as_json else "\n".join(ids) or "no runs yet")


def _print(results: Results, form: str) -> None:
    if form == "table":
        table.print_results(results, result_console())
    else:
        write = {"markdown": text.markdown, "csv": text.csv_text, "json": text.json_text}[form]
        sys.stdout.write(write(results))


def schema(kind: str) -> None:
    click.echo(schema_text(kind))


def schema_text(kind: str) -> str:
    """JSON Schema of a kind of file."""
    models: dict[str, Any] = {"pipeline": Pipeline, "device": Device | Group}
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(models[kind]).json_schema(mode="validation"),
    }
    return json.dumps(_with_variables(found), indent=1)


def _with_variables(schema: Any) -> Any:
    """The same schema, where text may also have a ${VARIABLE}: an editor does not expand it."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _with_variables(value) for key, value in schema.items()}
    if isinstance(found.get("pattern"), str):
        found["pattern"] += r"|\$\{"
    return found


def init(folder: Path) -> None:
    for path in write_project(folder, {kind: schema_text(kind) for kind in ("pipeline", "device")}):
        click.echo(f"wrote {path}")
    click.echo(f"next: cd {shlex.quote(str(folder))} && edgesparse deploy pipelines/first.yaml")
