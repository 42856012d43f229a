"""Commands that start a project, install converters and complete words in a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgesparse.cli.options import JSON, emit, say

if TYPE_CHECKING:
    from edgesparse.commands.drafts.draft import Draft


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--example",
    metavar="NAME",
    help="Start from a shipped pipeline and its files; 'list' lists them.",
)
@click.option(
    "--model",
    metavar="FILE",
    help="Start from your model: a .keras or .h5 file, a SavedModel folder, or FILE.py:FUNCTION.",
)
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="The model's data: a folder with a folder of images per class, a .csv, or a .npz.",
)  # fmt: skip
@click.option("--target", metavar="COLUMN", help="Column that a .csv is to predict.")
@click.option("--device", metavar="USER@HOST", help="Also write a device file for this board.")
@click.option("--ci", is_flag=True, help="Also write a workflow for GitHub Actions.")
def init(
    folder: Path | None,
    example: str | None,
    model: str | None,
    data: Path | None,
    target: str | None,
    device: str | None,
    ci: bool,
) -> None:
    """Start a project: a first pipeline, the local device and JSON Schemas for editors.

    With --model and --data the pipeline is for your model: both are looked at, and what the files
    assume is printed. On a terminal, missing options are prompted for.
    """
    import shlex

    from edgesparse.commands.init import examples, write_project

    if example == "list":
        say("\n".join(examples()))
        return
    if model is None and data is not None and data.suffix == ".npy":
        raise click.UsageError(
            f"--data {data} needs a model; type: edgesparse compress MODEL --data {data}"
        )
    if model is None and folder is None:
        raise click.UsageError("name a folder, or start from your model with --model and --data")
    if model is not None and example is not None:
        raise click.UsageError("choose --example or --model: each is a pipeline to start from")
    folder, drafted = folder or Path(), None
    if model is not None:
        drafted = _draft(folder, model, data, target, device)
    elif data is not None or target is not None or device is not None:
        raise click.UsageError("--data, --target and --device need --model")
    written = write_project(folder, example, draft=drafted, ci=ci)
    for path in written:
        say(f"wrote {path}")
    for line in ("assumed:", *drafted.assumptions) if drafted else ():
        say(line if line == "assumed:" else f"  {line}")
    name = drafted.name if drafted else example or "first"
    option = (
        f" --device {shlex.quote(drafted.device)}" if drafted and drafted.device != "local" else ""
    )
    enter = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    say(f"next: {enter}edgesparse deploy pipelines/{name}.yaml{option}")


def _draft(
    folder: Path, model: str, data: Path | None, target: str | None, device: str | None
) -> Draft:
    """Draft files for a model; on a terminal, ask for what is missing."""
    import sys

    from edgesparse.commands.drafts.draft import TABLES, columns_of, draft, require_layers

    require_layers(model, data)
    asks = sys.stdin.isatty()
    if data is None:
        if not asks:
            raise click.UsageError("--model needs --data")
        data = Path(click.prompt("data (a folder of images per class, a .csv or a .npz)"))
    if target is None and asks and data.suffix in TABLES and (columns := columns_of(data)):
        target = click.prompt("column to predict", default=columns[-1])
    if device is None:
        device = click.prompt("device (USER@HOST, or local)", default="local") if asks else "local"
    return draft(folder, model, data, device=device, target=target)


@click.command()
@click.argument("converter", type=click.Choice(["torch", "onnx"]))
@JSON
def setup(converter: str, as_json: bool) -> None:
    """Install the converter of PyTorch's .pt2 files (torch) or of ONNX files (onnx).

    It is installed into an environment of its own in the user's cache, with uv where that is
    installed, else with pip.
    """
    from edgesparse.cli.console import ProgressDisplay
    from edgesparse.graph import events
    from edgesparse.tflite.exchange.environment import ENVIRONMENTS, build

    environment = ENVIRONMENTS[converter]  # type: ignore[index]  # click has checked it.
    label = f"install {environment.converter}"
    if not environment.python.exists():
        say(f"{environment.converter}: {environment.size}", err=True)
    with ProgressDisplay() as listener:
        listener(events.StageStarted(label, 1, 1))
        build(environment, lambda share, text: listener(events.StageProgress(label, share, text)))
        listener(events.StageDone(label, 1, 1))
    record = {"converter": environment.converter, "folder": str(environment.folder)}
    emit(as_json, record, [f"{environment.converter} is installed in {environment.folder}"])


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands, options, devices, variants and runs.

    bash, in ~/.bashrc: eval "$(edgesparse completion bash)"; zsh likewise in ~/.zshrc; fish:
    edgesparse completion fish > ~/.config/fish/completions/edgesparse.fish
    """
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    root = click.get_current_context().find_root().command
    click.echo(completion_class(root, {}, "edgesparse", "_EDGESPARSE_COMPLETE").source())
