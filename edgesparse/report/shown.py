"""The one way in which text reaches the terminal from a report."""

from __future__ import annotations

from rich.text import Text

from edgesparse.spec.safe.text import clean


def shown(text: str, style: str = "") -> Text:
    """A text that does nothing but be read, whoever it is from."""
    return Text(clean(text), style=style)
