"""The `edgesparse` command and how its errors end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from edgesparse import __version__
from edgesparse.cli.device import device, emulator
from edgesparse.spec.errors import EdgesparseError

INTERRUPTED = 130
GATE_NOT_MET = 3

_EPILOG = (
    "Exit codes: 0 done; 1 a stage or device failed; 2 wrong usage or invalid file; "
    "3 a gate is not met; 130 interrupted (what is finished is kept)."
)


class _Group(click.Group):
    """Ends every error that a user can cause in one message and a documented exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except BrokenPipeError:
            # The reader of our output (head, less) has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgesparseError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise
        except OSError as error:
            # A full or read-only disk, most likely; what was finished before is kept.
            place = f": {error.filename}" if error.filename else ""
            click.echo(f"error: {error.strerror or error}{place}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "interrupted; finished stages are kept, the same command goes on from there",
                err=True,
            )
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="edgesparse")
def main() -> None:
    """Sparse neural networks on real edge devices: train, store the zeros, deploy, measure."""


_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_QUICK = click.option("--quick", is_flag=True, help="Measure briefly; the result is labelled so.")
_DEVICES = click.option(
    "--device",
    "devices",
    multiple=True,
    default=("local",),
    show_default=True,
    help="Name of a file in devices/, or a path; may be given many times.",
)
_PIPELINE = click.argument("pipeline", type=click.Path(path_type=Path))
_VARIANTS = click.option(
    "--variant", "variants", multiple=True, help="Only this variant (and the baseline)."
)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_JSON
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check pipeline and device files; every mistake at once."""
    from edgesparse.cli import commands

    sys.exit(commands.validate(files, as_json))


@main.command()
@_PIPELINE
@click.option("--device", default="local", show_default=True, help="The device to plan for.")
@_VARIANTS
@_JSON
def plan(pipeline: Path, device: str, variants: tuple[str, ...], as_json: bool) -> None:
    """Show each stage as cached or to run, and why."""
    from edgesparse.cli import commands

    commands.plan(pipeline, device, variants or None, as_json)


@main.command()
@_PIPELINE
@_VARIANTS
@_JSON
def run(pipeline: Path, variants: tuple[str, ...], as_json: bool) -> None:
    """Make and verify every variant on this machine, without a benchmark."""
    from edgesparse.cli import commands

    sys.exit(commands.deploy(pipeline, ("local",), variants or None, False, False, as_json))


@main.command()
@_PIPELINE
@_DEVICES
@_VARIANTS
@click.option(
    "--canary", metavar="DEVICE", help="Use this device first; go on only when all is well there."
)
@_QUICK
@_JSON
def deploy(
    pipeline: Path,
    devices: tuple[str, ...],
    variants: tuple[str, ...],
    canary: str | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Make every variant, measure and release it on the devices, and print the table."""
    from edgesparse.cli import commands

    sys.exit(commands.deploy(pipeline, devices, variants or None, quick, True, as_json, canary))


@main.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@_DEVICES
@click.option("--threads", multiple=True, type=click.IntRange(1, 256), default=(1,))
@_QUICK
@_JSON
def bench(
    models: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    quick: bool,
    as_json: bool,
) -> None:
    """Measure any .tflite files; ratios refer to the first."""
    from edgesparse.cli import commands

    sys.exit(commands.bench(models, devices, threads, quick, as_json))


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", help="Say for its runtimes which zeros pay, and why the others do not.")
@_JSON
def inspect(model: Path, device: str | None, as_json: bool) -> None:
    """Show every weight of a .tflite file: its zeros, how it is stored, and what that costs."""
    from edgesparse.cli import insights

    insights.inspect_model(model, device, as_json)


@main.command()
@_PIPELINE
@click.option("--variant", help="Whose pattern counts; default: the first pruned by magnitude.")
@click.option("--device", default="local", show_default=True, help="The target of 'pattern: auto'.")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Validation accuracy that the proposal may lose, before any fine-tuning.",
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="A sparsity to try; may be given many times.  [default: 0.5 0.7 0.8 0.9 0.95]",
)
@_JSON
def sensitivity(
    pipeline: Path,
    variant: str | None,
    device: str,
    max_accuracy_drop: float,
    levels: tuple[float, ...],
    as_json: bool,
) -> None:
    """Prune each layer alone, show what accuracy is left, and propose a sparsity for each."""
    from edgesparse.cli import insights

    insights.show_sensitivity(pipeline, variant, device, max_accuracy_drop, levels, as_json)


@main.command()
@click.argument("run", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option("--list", "as_list", is_flag=True, help="List the runs instead.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def report(run: str | None, form: str, as_list: bool, as_json: bool) -> None:
    """Print a run's results again, by default the last one's."""
    from edgesparse.cli import commands

    if as_list:
        commands.list_runs(as_json)
    else:
        commands.report(run, "json" if as_json else form)


@main.command()
@click.argument("kind", type=click.Choice(["pipeline", "device"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of pipeline or device files, for editors."""
    from edgesparse.cli import commands

    commands.schema(kind)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Start a project: a first pipeline, the local device, and schemas for editors."""
    from edgesparse.cli import commands

    commands.init(folder)


main.add_command(device)
main.add_command(emulator)
