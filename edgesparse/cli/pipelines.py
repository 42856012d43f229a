"""Commands that take a pipeline: validate, plan, run, deploy, sweep, sensitivity; and schema."""

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
    PIPELINE,
    QUICK,
    VARIANTS,
    exit_code,
    one_device,
    print_json,
    say,
)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@JSON
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check pipeline and device files; every mistake at once."""
    from edgesparse.spec.errors import Problem, SpecError, UsageError
    from edgesparse.spec.reading.load import load_any

    found: list[Problem] = []
    for file in files:
        said = f"{file}: valid"
        try:
            load_any(file)
        except UsageError as error:
            said = str(error)
            own = error.problems if isinstance(error, SpecError) else ()
            found += own or [Problem(str(file), 1, 1, said)]
        if not as_json:
            say(said, err=not said.endswith(": valid"))
    if as_json:
        problems = [problem._asdict() for problem in found]
        print_json({"valid": not found, "problems": problems})
    sys.exit(INVALID if found else 0)


@click.command()
@PIPELINE
@one_device("The device to plan for.")
@VARIANTS
@JSON
def plan(pipeline: Path, device: str, variants: tuple[str, ...], as_json: bool) -> None:
    """Show each stage as cached or to run, and why."""
    from edgesparse.cli.console import open_project

    with open_project() as project:
        planned = project.plan(pipeline, device, variants=variants or None)
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
            for s in planned.stages
        ]
        print_json({"stages": stages, "said": planned.said, "advice": planned.advice})
        return
    width = max(len(s.stage.label) for s in planned.stages)
    for s in planned.stages:
        say(f"{'cached' if s.cached else 'to run'}  {s.stage.label:<{width}}  {s.why}")
    waiting = sum(not s.cached for s in planned.stages)
    say(f"{waiting} of {len(planned.stages)} stages to run; the benchmark always runs")
    for line in planned.said:
        say(line)
    for line in planned.advice:
        say(f"note: {line}")


FORCE = click.option(
    "--force", is_flag=True, help="Go on where the dense model is at chance level."
)


@click.command()
@PIPELINE
@VARIANTS
@FORCE
@JOBS
@CLUSTER
@JSON
def run(
    pipeline: Path,
    variants: tuple[str, ...],
    force: bool,
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Make and verify every variant on this machine, without a benchmark."""
    _deploy(pipeline, ("local",), variants, jobs, cluster, as_json, benchmark=False, force=force)


@click.command()
@PIPELINE
@DEVICES
@VARIANTS
@click.option(
    "--canary", metavar="DEVICE", help="Use this device first; go on only when all is well there."
)
@QUICK
@FORCE
@JOBS
@CLUSTER
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
    as_json: bool,
) -> None:
    """Make every variant, measure and release it on the devices, and print the table."""
    _deploy(
        pipeline, devices, variants, jobs, cluster, as_json, quick=quick, canary=canary, force=force
    )


def _deploy(
    pipeline: Path,
    devices: tuple[str, ...],
    variants: tuple[str, ...],
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
    *,
    benchmark: bool = True,
    quick: bool = False,
    canary: str | None = None,
    force: bool = False,
) -> None:
    import edgesparse
    from edgesparse.cli.console import leave_page, open_project, print_results

    with open_project(jobs=jobs, cluster=cluster) as project:
        loaded = edgesparse.load_pipeline(pipeline)
        results = project.deploy(
            loaded,
            devices,
            variants=variants or None,
            quick=quick,
            benchmark=benchmark,
            canary=canary,
            force=force,
        )
    print_results(results, "json" if as_json else "table")
    leave_page(project, results, loaded.spec.tracking)
    sys.exit(exit_code(results))


@click.command()
@PIPELINE
@one_device("Where trials are measured.")
@click.option(
    "--trials", type=click.IntRange(1, 100_000), default=50, show_default=True,
    help="In all, those of earlier calls among them.",
)  # fmt: skip
@QUICK
@JOBS
@CLUSTER
@JSON
def sweep(
    pipeline: Path,
    device: str,
    trials: int,
    quick: bool,
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Try many variants, as the pipeline's 'search' says, and show which no other one beats.

    The same command goes on where an earlier one was stopped.
    """
    from edgesparse.cli.console import open_project, result_console
    from edgesparse.report.page.several import write_sweep
    from edgesparse.report.trials import print_sweep

    with open_project(jobs=jobs, cluster=cluster) as project:
        found, folder = project.sweep(pipeline, device, trials=trials, quick=quick)
    if as_json:
        print_json({**found.model_dump(mode="json"), "front": [t.name for t in found.front]})
    else:
        print_sweep(found, result_console())
    say(f"front, as variants to paste: {folder / 'front.yaml'}", err=True)
    say(f"page: {write_sweep(found, folder / 'page.html')}", err=True)
    sys.exit(0 if found.front else FAILED)


@click.command()
@PIPELINE
@click.option("--variant", help="Whose pattern counts; default: the first pruned by magnitude.")
@one_device("The target of 'pattern: auto'.")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0),
    default=0.02,
    show_default=True,
    help="What the proposal may lose of the metric, on validation data, before fine-tuning.",
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="A sparsity to try; may be given many times.  [default: 0.5 0.7 0.8 0.9 0.95]",
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
    """Prune each layer alone, show what accuracy is left, and propose a sparsity for each."""
    from edgesparse.cli.console import open_project, result_console
    from edgesparse.report.sensitivity import print_sensitivity
    from edgesparse.spec.sparsify import LEVELS

    with open_project() as project:
        found = project.sensitivity(
            pipeline,
            device,
            variant=variant,
            max_accuracy_drop=max_accuracy_drop,
            levels=levels or LEVELS,
        )
    if as_json:
        print_json(found.record)
        return
    print_sensitivity(
        found.variant, found.sensitivity, max_accuracy_drop, found.proposal, result_console()
    )
    say(f"saved in {found.path}")


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
