"""Options, exit codes and output that several commands share.

These files import click and nothing else before a command runs: --help must be quick.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgesparse.measure.results import Results

FAILED = 1
INVALID = 2
GATE_NOT_MET = 3
INTERRUPTED = 130


def _devices(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """What a shell offers: the files in devices/."""
    found = {path.stem for path in Path("devices").glob("*.yaml")} | {"local"}
    return sorted(name for name in found if name.startswith(begun) and name != "published")


def _variants(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """The variants of the pipeline that stands before."""
    import yaml

    # With an option that still lacks its value, click has parsed nothing yet.
    words = [context.params.get("pipeline"), *context.args]
    try:
        path = next(str(word) for word in words if str(word).endswith((".yaml", ".yml")))
        variants = yaml.safe_load(Path(path).read_text())["variants"]
        return sorted(str(name) for name in variants if str(name).startswith(begun))
    except (OSError, ValueError, LookupError, TypeError, StopIteration, yaml.YAMLError):
        return []


def complete_runs(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The runs in .edgesparse."""
    found = Path(".edgesparse", "runs").glob("*/results.json")
    return sorted(path.parent.name for path in found if path.parent.name.startswith(begun))


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
QUICK = click.option("--quick", is_flag=True, help="Measure briefly; the result is labelled so.")
DEVICES = click.option(
    "--device",
    "devices",
    multiple=True,
    default=("local",),
    show_default=True,
    shell_complete=_devices,
    help="Name of a file in devices/, or a path; may be given many times.",
)
PIPELINE = click.argument("pipeline", type=click.Path(path_type=Path))
VARIANTS = click.option(
    "--variant",
    "variants",
    multiple=True,
    shell_complete=_variants,
    help="Only this variant (and the baseline).",
)
JOBS = click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1, 64),
    help="Stages that run side by side.  [default: by cores and memory]",
)
CLUSTER = click.option(
    "--cluster",
    metavar="ADDRESS|FILE",
    help="A Dask cluster that makes the models: its scheduler's address or file.",
)
NAME = click.argument("name")


def one_device(said: str) -> Callable[[Any], Any]:
    """The option of commands that take one device."""
    return click.option(
        "--device", default="local", show_default=True, shell_complete=_devices, help=said
    )


def say(text: str, *, err: bool = False) -> None:
    """Print lines of text: what is in them from outside does nothing but be read."""
    from edgesparse.spec.safe.text import clean_lines

    click.echo(clean_lines(text), err=err)


def print_json(value: Any) -> None:
    """What --json prints: ASCII, with everything else escaped."""
    import json

    click.echo(json.dumps(value, indent=1))


def exit_code(results: Results) -> int:
    """What is wrong with results, as a number."""
    if results.failed:
        return FAILED
    return 0 if results.gates_met else GATE_NOT_MET
