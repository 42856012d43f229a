"""The docs command: pages of the documentation in the terminal, without a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from edgesparse.cli.options import say


def _topics(_: click.Context, __: click.Parameter, prefix: str) -> list[str]:
    """Complete the name of a topic."""
    from edgesparse.docs import topics

    return [name for name in topics() if name.startswith(prefix)]


@click.command()
@click.argument("topic", required=False, shell_complete=_topics)
@click.option("--search", "words", metavar="WORDS", help="Find pages that have these words.")
@click.pass_context
def docs(context: click.Context, topic: str | None, words: str | None) -> None:
    """Show a page of the documentation, or list its topics.

    In a pipe a page is Markdown.
    """
    from edgesparse import docs as documentation

    if words is not None:
        say("\n".join(_matches(words if topic is None else f"{words} {topic}")))
    elif topic is None:
        say("\n".join(_topic_list()))
    else:
        from edgesparse.docs.generated import with_generated

        group = context.find_root().command
        assert isinstance(group, click.Group)
        text = with_generated(documentation.topic(topic).read(), group)
        _show(documentation.offline(text))


def _topic_list() -> Iterator[str]:
    from edgesparse.docs import topics

    kind = ""
    for topic in topics().values():
        if topic.kind != kind:
            kind = topic.kind
            yield f"\n{kind.capitalize()}:"
        yield f"  {topic.name:<16} {topic.title}"
    yield "\nedgesparse docs TOPIC; edgesparse docs --search WORDS"


def _matches(words: str) -> Iterator[str]:
    from edgesparse.docs.search import find
    from edgesparse.spec.errors import UsageError

    matches = find(words)
    if not matches:
        raise UsageError(f"no page has {words!r}; 'edgesparse docs' lists topics")
    for match in matches:
        yield f"{match.section.topic.name}: {match.section.heading}"
        yield f"    {match.line[:150]}"
    yield f"\nedgesparse docs {matches[0].section.topic.name}"


def _show(text: str) -> None:
    """Print Markdown: formatted and paged on a terminal, as it is in a pipe."""
    if not sys.stdout.isatty():
        click.echo(text)
        return
    import shutil

    from rich.console import Console
    from rich.markdown import Markdown

    columns, lines = shutil.get_terminal_size()
    console = Console(width=min(columns, 100), force_terminal=True)
    with console.capture() as capture:
        console.print(Markdown(text, hyperlinks=False))
    page = capture.get()
    if page.count("\n") < lines:
        click.echo(page)
    else:
        click.echo_via_pager(page, color=True)
