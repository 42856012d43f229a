"""The one way in which text reaches the terminal from a report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from edgesparse.spec.safe.text import clean


def shown(text: str, style: str = "") -> Text:
    """A text that does nothing but be read, whoever it is from."""
    return Text(clean(text), style=style)


def shown_lines(lines: Sequence[str], style: str = "") -> Text:
    """The same of a text that was broken into lines."""
    return Text("\n").join(shown(line, style) for line in lines)
