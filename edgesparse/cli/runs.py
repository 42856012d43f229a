"""Commands about runs that are there: compare, history, export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgesparse.cli.options import GATE_NOT_MET, JSON, print_json, say

HTML = click.option(
    "--html", "page", type=click.Path(path_type=Path), help="Write a page to this file, too."
)


@click.command()
@click.argument("before", required=False)
@click.argument("after", required=False)
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
@click.option("--run", help="A run's id; default: the last with this variant.")
@click.option("--runtime", help="For which it is stored; default: the one it was faster with.")
def export(variant: str, output: Path | None, run: str | None, runtime: str | None) -> None:
    """Write a variant's model with labels, transforms and the code that runs it to a folder."""
    import edgesparse

    for path in edgesparse.export(variant, output, run=run, runtime=runtime):
        say(f"wrote {path}")
