"""Commands on runs: compare, history, export; and compress, which starts one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    FAILED,
    GATE_NOT_MET,
    JSON,
    QUICK,
    complete_runs,
    device_option,
    emit,
    say,
)

HTML = click.option(
    "--html", "page", type=click.Path(path_type=Path), help="Also write a page to this file."
)


@click.command()
@click.argument("before", required=False, shell_complete=complete_runs)
@click.argument("after", required=False, shell_complete=complete_runs)
@HTML
@JSON
def compare(before: str | None, after: str | None, page: Path | None, as_json: bool) -> None:
    """Compare two runs; exit code 3 where a row is slower, less accurate or fails now.

    BEFORE and AFTER are a run's id or a prefix of it, a pipeline's name or file (its last run), or
    a git revision. Default: the last run, and the run of the same pipeline before it.
    """
    import edgesparse
    from edgesparse.cli.console import result_console
    from edgesparse.report.comparison import comparison_record, print_comparison

    if as_json and page is not None:
        raise click.UsageError("--json and --html cannot be combined")
    comparison = edgesparse.compare(before, after)
    record = comparison_record(comparison)
    emit(as_json, record, lambda: print_comparison(comparison, result_console()))
    if page is not None:
        from edgesparse.report.page.overview import write_comparison

        say(f"page: {write_comparison(comparison, page)}", err=True)
    sys.exit(GATE_NOT_MET if comparison.regressed else 0)


@click.command()
@click.argument("pipeline")
@HTML
@JSON
def history(pipeline: str, page: Path | None, as_json: bool) -> None:
    """Show latency, metric and size of each variant over a pipeline's runs, and what changed."""
    import edgesparse
    from edgesparse.cli.console import result_console
    from edgesparse.report.comparison import history_record, print_history

    runs, changed = edgesparse.history(pipeline)
    record = history_record(runs, changed)
    emit(as_json, record, lambda: print_history(runs, changed, result_console()))
    if page is not None:
        from edgesparse.report.page.overview import write_history

        say(f"page: {write_history(runs, changed, page)}", err=True)


@click.command()
@click.argument("variant")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="New folder (default: VARIANT).",
)
@click.option("--run", help="Id of the run (default: the last in which the variant is ok).")
@click.option("--runtime", help="Target runtime (default: the one it is faster with).")
def export(variant: str, output: Path | None, run: str | None, runtime: str | None) -> None:
    """Write a variant's model, labels, transforms and code that runs it to a folder."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        paths = project.export(variant, output, run=run, runtime=runtime)
    for path in paths:
        say(f"wrote {path}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path),
    help="A .npz or .npy of samples, with or without labels; or a pipeline file with data.",
)  # fmt: skip
@device_option("Target device.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("compressed.tflite"),
    show_default=True, help="Output file.",
)  # fmt: skip
@click.option(
    "--sparsity", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of zeros (default: 0.7; for a .tflite file the most within --max-error).",
)  # fmt: skip
@click.option(
    "--max-error", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.02,
    show_default=True,
    help="Largest loss of an output of a .tflite file; 1: that of the best constant answer.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True),
    help="Time after which no more zeros are tried (default: all levels are).",
)  # fmt: skip
@QUICK
@JSON
def compress(
    model: Path,
    data: Path,
    device: str,
    output: Path,
    sparsity: float | None,
    max_error: float,
    minutes: float | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Compress a trained model for a device, without training and without labels.

    MODEL is a .keras or .h5 file, a SavedModel folder, or a float .tflite file.
    """
    import dataclasses

    from edgesparse.cli.console import open_project, print_results, write_reports
    from edgesparse.report.units import size_text

    with open_project() as project:
        compressed = project.compress(
            model, data, device, output,
            sparsity=sparsity, max_error=max_error, minutes=minutes, quick=quick,
        )  # fmt: skip
    results = compressed.results

    def show() -> None:
        print_results(results, "table")
        zeros = "" if compressed.sparsity is None else f" with {compressed.sparsity:.0%} zeros"
        say(
            f"wrote {compressed.target}: {compressed.variant}{zeros}, "
            f"{size_text(compressed.bytes_before)} -> {size_text(compressed.bytes_after)}"
        )
        for line in compressed.lost:
            say(f"lost, {line}")

    fields = {f.name: getattr(compressed, f.name) for f in dataclasses.fields(compressed)}
    emit(as_json, {**fields, "results": results.model_dump(mode="json")}, show)
    write_reports(project, results)
    # The file is written: a variant that failed is a row of the table.
    sys.exit(FAILED if results.failures else 0)
