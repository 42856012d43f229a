"""Rich text and tables for the terminal, safe for text from any source."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgesparse.spec.safe.text import clean


def safe_text(text: str, style: str = "") -> Text:
    """Make text from any source safe to print: no control codes, no markup."""
    return Text(clean(text), style=style)


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line of text from any source."""
    console.print(safe_text(text, style))


def plain_table() -> Table:
    """Create a table without borders."""
    return Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)


def add_columns(table: Table, titles: Sequence[str], left: Sequence[str] = ()) -> None:
    """Add columns that do not wrap, aligned to the right but for those in `left`."""
    for title in titles:
        table.add_column(
            safe_text(title), justify="left" if title in left else "right", no_wrap=True
        )
