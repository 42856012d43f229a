"""Commands for the first minutes: a project to begin with, and what shells need to complete."""

from __future__ import annotations

from pathlib import Path

import click

from edgesparse.cli.options import say


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--example", metavar="NAME", help="A shipped pipeline, with its code and data; 'list' lists."
)
@click.option("--ci", is_flag=True, help="Also a workflow for GitHub Actions.")
def init(folder: Path, example: str | None, ci: bool) -> None:
    """Start a project: a first pipeline, the local device, and schemas for editors."""
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
    """Print what a shell needs to complete commands, options, devices, variants and runs.

    bash, in ~/.bashrc: eval "$(edgesparse completion bash)"; zsh likewise in ~/.zshrc; fish:
    edgesparse completion fish > ~/.config/fish/completions/edgesparse.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "edgesparse", "_EDGESPARSE_COMPLETE").source())
