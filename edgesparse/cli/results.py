"""Commands on .tflite files: bench, inspect, encode; and report."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    DEVICES,
    JSON,
    NOTES,
    PORT,
    QUICK,
    SERVE,
    complete_runs,
    device_option,
    emit,
    exit_code,
    say,
)


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@DEVICES
@click.option("--threads", multiple=True, type=click.IntRange(1, 256), default=(1,))
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="[NAME=]1x224x224x3",
    help="Shape of an input with dynamic dimensions; repeatable.",
)
@click.option(
    "--delegate",
    "delegates",
    multiple=True,
    type=click.Choice(["xnnpack", "edgesparse"]),
    help="Delegate to use instead of the device file's; repeatable: measured in turns.",
)
@click.option("--layers", is_flag=True, help="Measure each layer alone, too; the page shows them.")
@QUICK
@SERVE
@PORT
@NOTES
@JSON
def bench(
    models: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    shapes: tuple[str, ...],
    delegates: tuple[str, ...],
    layers: bool,
    quick: bool,
    serve: bool,
    port: int | None,
    notes: bool,
    as_json: bool,
) -> None:
    """Measure .tflite files; ratios refer to the first."""
    from edgesparse.cli.console import open_project, print_results, write_reports
    from edgesparse.cli.live import live_page

    with live_page("bench", serve=serve, port=port) as live:
        with open_project(live=live) as project:
            results = project.bench(
                models,
                devices,
                threads=threads,
                input_shapes=shapes,
                delegates=delegates,
                quick=quick,
                layers=layers,
            )
        print_results(results, "json" if as_json else "table", notes=notes)
        page = write_reports(project, results)
        if live is not None:
            live.finish(page)
    sys.exit(exit_code(results))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", help="Explain for its runtimes which zeros pay, and why others do not.")
@click.option("--samples", help="A .npy or .npz of samples: measure zeros between operators.")
@click.option("--attribution", is_flag=True, help="Show which inputs reach the outputs.")
@click.option("--pipeline", help="A pipeline file, whose data names inputs and outputs.")
@JSON
def inspect(
    model: Path,
    device: str | None,
    samples: str | None,
    attribution: bool,
    pipeline: str | None,
    as_json: bool,
) -> None:
    """Show every weight of a .tflite file: its zeros, storage and size."""
    import edgesparse
    from edgesparse.cli.console import result_console
    from edgesparse.report.inspection import print_inspection

    inspection = edgesparse.inspect(
        model, device, samples=samples, attribution=attribution, pipeline=pipeline
    )
    emit(as_json, inspection.record, lambda: print_inspection(inspection, result_console()))


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@device_option("Target device.")
@click.option("--runtime", help="Runtime of the device (default: its first).")
@JSON
def encode(source: Path, target: Path, device: str, runtime: str | None, as_json: bool) -> None:
    """Store the weights of a .tflite file in the format that a device's runtime exploits.

    No value changes.
    """
    import edgesparse

    encoded = edgesparse.encode(source, target, device, runtime=runtime)
    sparse = sum(decision.form != "dense" for decision in encoded.decisions)
    line = (
        f"{encoded.target}: for {encoded.runtime}, {encoded.bytes_before:,} -> "
        f"{encoded.bytes_after:,} bytes, {sparse} of {len(encoded.decisions)} weights stored sparse"
    )
    lines = [line, *(f"note: {note}" for note in encoded.notes)]
    emit(as_json, dataclasses.asdict(encoded), lines)


@click.command()
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option(
    "--format",
    "form",
    metavar="[table|markdown|csv|json|PLUG-IN]",
    default="table",
    show_default=True,
)
@click.option("--html", "as_html", is_flag=True, help="Write the page instead.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Output file (default: RUN.html)."
)
@click.option("--list", "as_list", is_flag=True, help="List the runs with their status.")
@NOTES
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
def report(
    run: str | None,
    form: str,
    as_html: bool,
    output: Path | None,
    as_list: bool,
    notes: bool,
    as_json: bool,
) -> None:
    """Print the results of a run (default: the last), or write them as an HTML page."""
    import edgesparse
    from edgesparse.cli.console import print_results

    if output is not None and not as_html:
        raise click.UsageError("-o needs --html")
    if as_html:
        results = edgesparse.load_results(run)
        say(f"wrote {edgesparse.write_page(results, output or f'{results.run}.html')}")
    elif as_list:
        from edgesparse.cli.console import result_console
        from edgesparse.report.comparison import print_runs, run_records

        project = edgesparse.Project()
        runs, outdated = project.runs(), project.outdated_runs()
        listed = (
            (lambda: print_runs(runs, result_console(), outdated)) if runs or outdated else None
        )
        emit(as_json, run_records(runs, outdated), listed or ["no runs yet"])
    else:
        print_results(edgesparse.load_results(run), "json" if as_json else form, notes=notes)
