"""Parts of pages that come from the code: the commands and their options, the Python API.

A page says where they go by a comment, `<!-- commands -->` or `<!-- functions -->`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

COMMANDS, FUNCTIONS = "<!-- commands -->", "<!-- functions -->"


def with_generated(text: str, group: click.Group) -> str:
    """Return a page's text with the generated parts that it asks for."""
    if COMMANDS in text:
        text = text.replace(COMMANDS, "\n".join(_commands(group, "edgesparse")))
    if FUNCTIONS in text:
        text = text.replace(FUNCTIONS, "\n".join(_functions()))
    return text


def _commands(group: click.Group, name: str) -> Iterator[str]:
    """Yield the Markdown of a group's commands."""
    context = click.Context(group)
    for title in group.list_commands(context):
        command = group.get_command(context, title)
        if isinstance(command, click.Group):
            yield f"## {name} {title}\n\n{command.help or ''}\n"
            yield from _commands(command, f"{name} {title}")
        elif command is not None:
            yield _command(command, f"{name} {title}")


def _command(command: click.Command, name: str) -> str:
    with click.Context(command, info_name=name) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        rows = [parameter.get_help_record(context) for parameter in command.params]
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    lines = [f"## {name}\n", f"`{name} {usage}`\n", f"{text}\n"]
    options = [row for row in rows if row is not None]
    if options:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_cell(option)}` | {_cell(meaning)} |" for option, meaning in options]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _functions() -> Iterator[str]:
    """Yield the Markdown of what the package exports, from signatures and docstrings."""
    package = import_module("edgesparse")
    for name in sorted(package.__all__, key=lambda name: (not name.islower(), name)):
        value = getattr(package, name)
        yield f"## {name}\n\n{_signature(name, value)}{_docstring(value)}"
        if inspect.isclass(value) and not issubclass(value, Exception):
            for part, method in _methods(value):
                yield f"### {name}.{part}\n\n{_signature(part, method)}{_docstring(method)}"


def _methods(value: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods of a class of ours."""
    for part, method in inspect.getmembers(value, inspect.isfunction):
        if not part.startswith("_") and method.__module__.startswith("edgesparse."):
            yield part, method


def _signature(name: str, value: Any) -> str:
    if inspect.isclass(value):
        return ""
    text = re.sub(r"['\"]", "", str(inspect.signature(value)))
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text)
    return f"```text\n{name}{text}\n```\n\n"


def _docstring(value: Any) -> str:
    """Return a docstring as Markdown: its sections, such as Args, as lists."""
    lines, in_section = [], False
    for line in (inspect.getdoc(value) or "").splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Yields):", line):
            in_section = True
            lines += [f"**{line.rstrip(':')}**", ""]
        elif re.fullmatch(r"\w+:", line):  # An example, for instance.
            in_section = False
            lines += [f"**{line.rstrip(':')}**", ""]
        elif in_section and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        elif in_section and line.strip():
            lines.append(re.sub(r"^(\w+): ", r"- `\1`: ", line.strip()))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
