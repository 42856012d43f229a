"""Commands that start a project and that complete words in a shell."""

from __future__ import annotations

from pathlib import Path

import click

from edgesparse.cli.options import say


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--example",
    metavar="NAME",
    help="Start from a shipped pipeline and its files; 'list' lists them.",
)
@click.option("--ci", is_flag=True, help="Also write a workflow for GitHub Actions.")
def init(folder: Path, example: str | None, ci: bool) -> None:
    """Start a project: a first pipeline, the local device and JSON Schemas for editors."""
    import shlex

    from edgesparse.commands.init import examples, write_project

    if example == "list":
        say("\n".join(examples()))
        return
    written = write_project(folder, example, ci=ci)
    for path in written:
        say(f"wrote {path}")
    name = example or "first"
    say(f"next: cd {shlex.quote(str(folder))} && edgesparse deploy pipelines/{name}.yaml")


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
