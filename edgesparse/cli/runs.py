"""Commands about runs that are there, compare, history, export; and compress, which makes one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    GATE_NOT_MET,
    JSON,
    QUICK,
    complete_runs,
    exit_code,
    one_device,
    print_json,
    say,
)

HTML = click.option(
    "--html", "page", type=click.Path(path_type=Path), help="Write a page to this file, too."
)


@click.command()
@click.argument("before", required=False, shell_complete=complete_runs)
@click.argument("after", required=False, shell_complete=complete_runs)
@HTML
@JSON
def compare(before: str | None, after: str | None, page: Path | None, as_json: bool) -> None:
    """Compare two runs; exit code 3 where something is slower, less accurate or fails now.

    Each is a run's id or its beginning, a pipeline's name or file (its last run counts), or a git
    revision. By default the last run is compared with the one before of its pipeline.
    """
    import edgesparse
    from edgesparse.cli.console import result_console
    from edgesparse.report.comparison import comparison_record, print_comparison

    if as_json and page is not None:
        raise click.UsageError("--json and --html do not go together")
    found = edgesparse.compare(before, after)
    if as_json:
        print_json(comparison_record(found))
    else:
        print_comparison(found, result_console())
    if page is not None:
        from edgesparse.report.page.several import write_comparison

        say(f"page: {write_comparison(found, page)}", err=True)
    sys.exit(GATE_NOT_MET if found.regressed else 0)


@click.command()
@click.argument("pipeline")
@HTML
@JSON
def history(pipeline: str, page: Path | None, as_json: bool) -> None:
    """Show a pipeline over its runs: latency, metric and size of each variant, and what changed."""
    import edgesparse
    from edgesparse.cli.console import result_console
    from edgesparse.report.comparison import history_record, print_history

    runs, changed = edgesparse.history(pipeline)
    if as_json:
        print_json(history_record(runs, changed))
    else:
        print_history(runs, changed, result_console())
    if page is not None:
        from edgesparse.report.page.several import write_history

        say(f"page: {write_history(runs, changed, page)}", err=True)


@click.command()
@click.argument("variant")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A new folder; default: the variant."
)
@click.option("--run", help="A run's id; default: the last where it is ok.")
@click.option("--runtime", help="For which it is stored; default: the one it was faster with.")
def export(variant: str, output: Path | None, run: str | None, runtime: str | None) -> None:
    """Write a variant's model with labels, transforms and the code that runs it to a folder."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        paths = project.export(variant, output, run=run, runtime=runtime)
    for path in paths:
        say(f"wrote {path}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path),
    help="A .npz or .npy of samples, with or without labels; or a pipeline file, for its data.",
)  # fmt: skip
@one_device("For which it is to be better.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("compressed.tflite"),
    show_default=True, help="The file to write.",
)  # fmt: skip
@click.option(
    "--sparsity", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of zeros; default: 0.7, of a .tflite file as many as keep the limit.",
)  # fmt: skip
@click.option(
    "--limit", type=click.FloatRange(0, 1, min_open=True), default=0.02, show_default=True,
    help="Of a .tflite file: how far its answers may be, as a mean share of their range.",
)  # fmt: skip
@QUICK
@JSON
def compress(
    model: Path,
    data: Path,
    device: str,
    output: Path,
    sparsity: float | None,
    limit: float,
    quick: bool,
    as_json: bool,
) -> None:
    """Make a trained model smaller and faster for a device, without training and without labels.

    MODEL is a .keras or .h5 file, or a float .tflite file of anybody's.
    """
    import dataclasses

    from edgesparse.cli.console import leave_page, open_project, print_results
    from edgesparse.report.table import size_text

    with open_project() as project:
        done = project.compress(
            model, data, device, output, sparsity=sparsity, limit=limit, quick=quick
        )
    if as_json:
        own = {f.name: getattr(done, f.name) for f in dataclasses.fields(done)}
        print_json({**own, "results": done.results.model_dump(mode="json")})
    else:
        print_results(done.results, "table")
        off = "" if done.off is None else f", its answers {done.off:.2%} of their range off"
        zeros = "" if done.sparsity is None else f" with {done.sparsity:.0%} zeros"
        say(
            f"wrote {done.target}: {done.variant}{zeros}, {size_text(done.bytes_before)} -> "
            f"{size_text(done.bytes_after)}{off}"
        )
    leave_page(project, done.results)
    sys.exit(exit_code(done.results))
