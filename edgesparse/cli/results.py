"""Commands that take files or runs that are there: bench, inspect, report."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    DEVICES,
    JSON,
    QUICK,
    complete_runs,
    exit_code,
    one_device,
    print_json,
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
    help="Of an input whose size the file leaves open.",
)
@click.option(
    "--delegate",
    "delegates",
    multiple=True,
    type=click.Choice(["xnnpack", "edgesparse"]),
    help="In place of the device file's; both are measured in turns.",
)
@QUICK
@JSON
def bench(
    models: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    shapes: tuple[str, ...],
    delegates: tuple[str, ...],
    quick: bool,
    as_json: bool,
) -> None:
    """Measure any .tflite files; ratios refer to the first."""
    from edgesparse.cli.console import leave_page, open_project, print_results

    with open_project() as project:
        results = project.bench(
            models,
            devices,
            threads=threads,
            input_shapes=shapes,
            delegates=delegates,
            quick=quick,
        )
    print_results(results, "json" if as_json else "table")
    leave_page(project, results)
    sys.exit(exit_code(results))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", help="Say for its runtimes which zeros pay, and why the others do not.")
@click.option(
    "--data", "samples", help="A .npy or .npz of samples: how much between operators is zero."
)
@click.option("--features", is_flag=True, help="Which inputs still reach the outputs.")
@click.option("--of", "pipeline", help="A pipeline file, whose data names inputs and outputs.")
@JSON
def inspect(
    model: Path,
    device: str | None,
    samples: str | None,
    features: bool,
    pipeline: str | None,
    as_json: bool,
) -> None:
    """Show every weight of a .tflite file: its zeros, how it is stored, and what that costs."""
    import edgesparse
    from edgesparse.cli.console import result_console
    from edgesparse.report.features import print_activations, print_features
    from edgesparse.report.inspection import print_inspection

    found = edgesparse.inspect(
        model, device, samples=samples, with_features=features, pipeline=pipeline
    )
    if as_json:
        print_json(found.record)
        return
    console = result_console()
    print_inspection(
        found.file,
        found.info,
        found.signature,
        found.tensors,
        found.explained,
        found.half_precision,
        console,
    )
    if found.activations is not None:
        print_activations(found.activations, console)
    for one in found.features or ():
        print_features(one, found.strongest(one), console)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@one_device("For whose runtime.")
@click.option("--runtime", help="One of the device's; default: its first.")
@JSON
def encode(source: Path, target: Path, device: str, runtime: str | None, as_json: bool) -> None:
    """Rewrite a .tflite file with its weights stored as a device's runtime likes them.

    Every value stays what it is."""
    import edgesparse

    done = edgesparse.encode(source, target, device, runtime=runtime)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    sparse = sum(decision.form != "dense" for decision in done.decisions)
    say(
        f"{done.target}: for {done.runtime}, {done.bytes_before:,} -> {done.bytes_after:,} bytes, "
        f"{sparse} of {len(done.decisions)} weights stored sparse"
    )
    for note in done.notes:
        say(f"note: {note}")


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
    "-o", "--output", type=click.Path(path_type=Path), help="Where to; default: RUN.html here."
)
@click.option("--list", "as_list", is_flag=True, help="List the runs, with what they found.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def report(
    run: str | None, form: str, as_html: bool, output: Path | None, as_list: bool, as_json: bool
) -> None:
    """Print a run's results again, by default the last one's; or write them as a page."""
    import edgesparse
    from edgesparse.cli.console import print_results

    if output is not None and not as_html:
        raise click.UsageError("-o goes with --html")
    if as_html:
        results = edgesparse.load_results(run)
        say(f"wrote {edgesparse.write_page(results, output or f'{results.run}.html')}")
    elif as_list:
        from edgesparse.cli.console import result_console
        from edgesparse.report.comparison import print_runs, run_records

        project = edgesparse.Project()
        runs, outdated = project.runs(), project.outdated_runs()
        if as_json:
            print_json(run_records(runs, outdated))
        elif runs or outdated:
            print_runs(runs, result_console(), outdated)
        else:
            say("no runs yet")
    else:
        print_results(edgesparse.load_results(run), "json" if as_json else form)
