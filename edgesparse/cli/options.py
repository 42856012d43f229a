"""Options, exit codes and output that several commands share.

Modules of this package import nothing but click before a command runs, so that --help is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgesparse.measure.results import Results

FAILED = 1
INVALID = 2
GATE_NOT_MET = 3
INTERRUPTED = 130


def _devices(_: click.Context, __: click.Parameter, prefix: str) -> list[str]:
    """Complete the name of a file in devices/."""
    names = {path.stem for path in Path("devices").glob("*.yaml")} | {"local"}
    return sorted(name for name in names if name.startswith(prefix) and name != "published")


def _variants(context: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """Complete a variant of the pipeline earlier on the command line."""
    import yaml

    # With an option that still lacks its value, click has parsed nothing yet.
    words = [context.params.get("pipeline"), *context.args]
    try:
        path = next(str(word) for word in words if str(word).endswith((".yaml", ".yml")))
        variants = yaml.safe_load(Path(path).read_text())["variants"]
        return sorted(str(name) for name in variants if str(name).startswith(prefix))
    except (OSError, ValueError, LookupError, TypeError, StopIteration, yaml.YAMLError):
        return []


def complete_runs(_: click.Context, __: click.Parameter, prefix: str) -> list[str]:
    """Complete the id of a run in .edgesparse."""
    paths = Path(".edgesparse", "runs").glob("*/results.json")
    return sorted(path.parent.name for path in paths if path.parent.name.startswith(prefix))


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
QUICK = click.option("--quick", is_flag=True, help="Measure briefly; results are indicative only.")
NOTES = click.option("--notes", is_flag=True, help="Print all notes and stages.")
DEVICES = click.option(
    "--device",
    "devices",
    multiple=True,
    default=("local",),
    show_default=True,
    shell_complete=_devices,
    help="Name of a file in devices/, a path, or USER@HOST[:PORT]; repeatable.",
)
PIPELINE = click.argument("pipeline", type=click.Path(path_type=Path))
VARIANTS = click.option(
    "--variant",
    "variants",
    multiple=True,
    shell_complete=_variants,
    help="Only this variant and the baseline; repeatable.",
)
JOBS = click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1, 64),
    help="Stages that run in parallel.  [default: by cores and memory]",
)
CLUSTER = click.option(
    "--cluster",
    metavar="ADDRESS|FILE",
    help="Scheduler (address or file) of a Dask cluster that runs the stages.",
)
NAME = click.argument("name")
WEIGHTS = click.option(
    "--weights", type=click.Path(path_type=Path),
    help="Of a PyTorch network, FILE.py:FUNCTION: its state_dict.",
)  # fmt: skip
NETWORK_SHAPES = click.option(
    "--input-shape", "shapes", multiple=True, metavar="1x3x224x224",
    help="Of a PyTorch network: an input's shape; repeatable; whole numbers: 1x128:int64.",
)  # fmt: skip
SERVE = click.option(
    "--serve",
    is_flag=True,
    help="Show rows as they arrive on a page, for browsers on this machine, until the run ends.",
)
PORT = click.option(
    "--port", type=click.IntRange(1024, 65535), help="Port of --serve.  [default: a free one]"
)


def device_option(text: str) -> Callable[[Any], Any]:
    """Option of commands that take exactly one device."""
    return click.option(
        "--device", default="local", show_default=True, shell_complete=_devices, help=text
    )


def say(text: str, *, err: bool = False) -> None:
    """Print lines of text, cleaned of control characters."""
    from edgesparse.spec.safe.text import clean_lines

    click.echo(clean_lines(text), err=err)


def emit(as_json: bool, record: Any, lines: Iterable[str] | Callable[[], None]) -> None:
    """Print the result of a command.

    Args:
        as_json: print `record` as ASCII JSON; otherwise print `lines`, or call it.
    """
    import json

    if as_json:
        click.echo(json.dumps(record, indent=1))
    elif callable(lines):
        lines()
    else:
        for line in lines:
            say(line)


def exit_code(results: Results) -> int:
    """Exit code for results: failed rows come before gates."""
    if results.failed:
        return FAILED
    return 0 if results.gates_met else GATE_NOT_MET
