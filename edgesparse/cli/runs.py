"""Commands on runs: report, compare, history, export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    GATE_NOT_MET,
    JSON,
    NOTES,
    complete_runs,
    emit,
    say,
)

HTML = click.option(
    "--html", "page", type=click.Path(path_type=Path), help="Also write a page to this file."
)


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
