"""Commands on a pipeline: validate, plan, run, deploy, search, sensitivity; and schema."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgesparse.cli.options import (
    CLUSTER,
    DEVICES,
    FAILED,
    INVALID,
    JOBS,
    JSON,
    NOTES,
    PIPELINE,
    PORT,
    QUICK,
    SERVE,
    VARIANTS,
    device_option,
    emit,
    exit_code,
    say,
)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@JSON
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check pipeline and device files, and report every error at once."""
    from edgesparse.spec.errors import Problem, SpecError, UsageError
    from edgesparse.spec.reading.load import load_any

    problems: list[Problem] = []
    for file in files:
        try:
            load_any(file)
        except UsageError as error:
            in_file = error.problems if isinstance(error, SpecError) else ()
            problems += in_file or [Problem(str(file), 1, 1, str(error))]
            if not as_json:
                say(str(error), err=True)
        else:
            if not as_json:
                say(f"{file}: valid")
    record = {"valid": not problems, "problems": [problem._asdict() for problem in problems]}
    emit(as_json, record, ())
    sys.exit(INVALID if problems else 0)


@click.command()
@PIPELINE
@device_option("Target device.")
@VARIANTS
@NOTES
@JSON
def plan(
    pipeline: Path, device: str, variants: tuple[str, ...], notes: bool, as_json: bool
) -> None:
    """Show each stage as cached or to run, and why; one line where all are cached."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        planned = project.plan(pipeline, device, variants=variants or None)
    width = max(len(s.stage.label) for s in planned.stages)
    lines = [
        f"{'cached' if s.cached else 'to run'}  {s.stage.label:<{width}}  {s.why}"
        for s in planned.stages
    ]
    waiting, count = sum(not s.cached for s in planned.stages), len(planned.stages)
    summary = f"{waiting} of {count} stages to run; the benchmark always runs"
    predicted = [f"{p.severity}: {p.message}" for p in planned.predictions if p.message]
    lines = [*lines, summary, *predicted]
    if not waiting and not notes:  # Nothing is to be done.
        lines = [f"all {count} stages are cached; the benchmark always runs"]
    emit(as_json, planned.record, lines)


FORCE = click.option(
    "--force", is_flag=True, help="Continue where the dense model is at chance level."
)


@click.command()
@PIPELINE
@VARIANTS
@FORCE
@JOBS
@CLUSTER
@NOTES
@JSON
def run(
    pipeline: Path,
    variants: tuple[str, ...],
    force: bool,
    jobs: int | None,
    cluster: str | None,
    notes: bool,
    as_json: bool,
) -> None:
    """Create and verify every variant on this machine, without a benchmark."""
    _deploy(
        pipeline, ("local",), variants, jobs, cluster, as_json, notes, benchmark=False, force=force
    )


@click.command()
@PIPELINE
@DEVICES
@VARIANTS
@click.option(
    "--canary",
    metavar="DEVICE",
    help="Deploy to this device first; continue only where it has no failure and meets its gates.",
)
@QUICK
@FORCE
@JOBS
@CLUSTER
@SERVE
@PORT
@NOTES
@JSON
def deploy(
    pipeline: Path,
    devices: tuple[str, ...],
    variants: tuple[str, ...],
    canary: str | None,
    quick: bool,
    force: bool,
    jobs: int | None,
    cluster: str | None,
    serve: bool,
    port: int | None,
    notes: bool,
    as_json: bool,
) -> None:
    """Create every variant, measure it on the devices, release the best, and print the table."""
    _deploy(
        pipeline, devices, variants, jobs, cluster, as_json, notes,
        quick=quick, canary=canary, force=force, serve=serve, port=port,
    )  # fmt: skip


def _deploy(
    pipeline: Path,
    devices: tuple[str, ...],
    variants: tuple[str, ...],
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
    notes: bool,
    *,
    benchmark: bool = True,
    quick: bool = False,
    canary: str | None = None,
    force: bool = False,
    serve: bool = False,
    port: int | None = None,
) -> None:
    import edgesparse
    from edgesparse.cli.console import finish_run, open_project
    from edgesparse.cli.page_server import live_page
    from edgesparse.report.tracking import require_trackers

    with live_page(pipeline.stem, serve=serve, port=port) as live:
        with open_project(jobs=jobs, cluster=cluster, live=live) as project:
            loaded = edgesparse.load_pipeline(pipeline)
            require_trackers(loaded.spec.tracking)
            results = project.deploy(
                loaded,
                devices,
                variants=variants or None,
                quick=quick,
                benchmark=benchmark,
                canary=canary,
                force=force,
            )
        tracking = loaded.spec.tracking
        finish_run(project, results, live, tracking, as_json=as_json, notes=notes)
    sys.exit(exit_code(results))


@click.command()
@PIPELINE
@device_option("Device that measures the trials.")
@click.option(
    "--trials", type=click.IntRange(1, 100_000), default=50, show_default=True,
    help="Total trials, including earlier runs.",
)  # fmt: skip
@QUICK
@FORCE
@JOBS
@CLUSTER
@JSON
def search(
    pipeline: Path,
    device: str,
    trials: int,
    quick: bool,
    force: bool,
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Search for the best variants, as the pipeline's 'search' defines, and show the Pareto front.

    The same command resumes an earlier search.
    """
    from edgesparse.cli.console import open_project, result_console
    from edgesparse.report.page.overview import write_search
    from edgesparse.report.trials import print_search

    with open_project(jobs=jobs, cluster=cluster) as project:
        result, folder = project.search(pipeline, device, trials=trials, quick=quick, force=force)
    record = {**result.model_dump(mode="json"), "front": [trial.name for trial in result.front]}
    emit(as_json, record, lambda: print_search(result, result_console()))
    say(f"front, as variants to paste: {folder / 'front.yaml'}", err=True)
    say(f"page: {write_search(result, folder / 'page.html')}", err=True)
    sys.exit(0 if result.front else FAILED)


@click.command()
@PIPELINE
@click.option(
    "--variant", help="Variant to take the pattern from (default: first magnitude-pruned)."
)
@device_option("Target device of 'pattern: auto'.")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0),
    default=0.02,
    show_default=True,
    help="Maximum drop of the proposal on validation data, before fine-tuning.",
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Sparsity to try; repeatable.  [default: 0.5 0.7 0.8 0.9 0.95]",
)
@JSON
def sensitivity(
    pipeline: Path,
    variant: str | None,
    device: str,
    max_accuracy_drop: float,
    levels: tuple[float, ...],
    as_json: bool,
) -> None:
    """Prune each layer alone, show the metric that is left, and propose a sparsity for each."""
    from edgesparse.cli.console import open_project, result_console
    from edgesparse.report.sensitivity import print_sensitivity
    from edgesparse.spec.sparsify import LEVELS

    with open_project() as project:
        result = project.sensitivity(
            pipeline,
            device,
            variant=variant,
            max_accuracy_drop=max_accuracy_drop,
            levels=levels or LEVELS,
        )

    def show() -> None:
        print_sensitivity(
            result.variant, result.sensitivity, max_accuracy_drop, result.proposal, result_console()
        )
        say(f"saved in {result.path}")

    emit(as_json, result.record, show)


@click.command()
@click.argument("kind", type=click.Choice(["pipeline", "device", "results"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of pipeline files, device files or results.json."""
    if kind == "results":
        from edgesparse.measure.results import schema_text

        click.echo(schema_text())
    else:
        from edgesparse.spec.reading.schema import schema_text as spec_schema_text

        click.echo(spec_schema_text(kind))
