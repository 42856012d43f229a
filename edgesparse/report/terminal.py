"""Results in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgesparse.measure.results import Results
from edgesparse.report.rich_text import plain_table, print_line, safe_text
from edgesparse.report.table import (
    BEST_LEGEND,
    SHIP_LEGEND,
    Block,
    Cell,
    block_cells,
    blocks,
    number_notes,
)
from edgesparse.report.table_notes import (
    QUICK,
    device_lines,
    gate_lines,
    legend,
    note_lines,
    prediction_lines,
    ready_text,
    release_line,
    seed_lines,
    unstable_lines,
)
from edgesparse.report.verdicts import ship_lines, verdicts

WIDTH = 100
"""Columns of output to a pipe or a file, so that it does not depend on the terminal."""
NARROW, WIDE = 60, 160
"""Limits of a terminal's width."""
_NAME_WIDTH = 18
_TITLE_WIDTH = 12
"""Longer titles, such as those of a user's metric, are folded."""
_OPTIONAL = ("RAM MB", "transfer", "p90 ms", "MACs", "p50 95 % CI", "95 % CI", "drop")
"""Columns that a narrow terminal omits, the first of them first; reports have them all."""


def print_results(results: Results, console: Console, *, notes: bool = False) -> None:
    """Print blocks, what to ship, verdicts, releases and gates, as wide as the console is.

    Args:
        notes: print the notes, too, instead of their number.
    """
    kind = f" {QUICK}" if results.quick else ""
    state = "" if results.finished else " INTERRUPTED"
    print_line(console, f"{results.pipeline}  run {results.run}{kind}{state}", "bold")
    for line in device_lines(results):
        print_line(console, line)
    note_numbers = number_notes(results.rows)
    _print_blocks(blocks(results), console, note_numbers)
    console.print()
    for verdict in ship_lines(results):
        print_line(console, verdict.text, "bold green" if verdict.pays else "bold yellow")
    bold = f"; bold: {BEST_LEGEND}" if console.is_terminal else ""
    print_line(console, f"* {SHIP_LEGEND}{bold}; {legend(results)}", "dim")
    _print_notes(console, note_numbers)
    for note in [*unstable_lines(results), *results.notes]:
        print_line(console, note, "yellow")
    for verdict in verdicts(results):
        print_line(console, verdict.text, "green" if verdict.pays else "yellow")
    for line, good in prediction_lines(results, summarized=not notes):
        print_line(console, line, "" if good else "yellow")
    for line in seed_lines(results):
        print_line(console, line)
    for release in results.releases:
        print_line(console, release_line(release), "green")
    for line in results.failures:
        print_line(console, f"FAILED: {line}", "bold red")
    for line, passed in gate_lines(results):
        print_line(console, line, "green" if passed else "bold red")
    lines = note_lines(results)
    if lines and not notes:
        count = f"{len(lines)} more note{'s' * (len(lines) > 1)}"
        print_line(console, f"{count}: edgesparse report {results.run} --notes", "dim")
    for line in lines if notes else ():
        print_line(console, f"note: {line}")


def _print_blocks(tables: Iterable[Block], console: Console, note_numbers: dict[str, int]) -> None:
    for block in tables:
        console.print()
        print_line(console, block.title, "bold cyan")
        console.print(_rich_table(block, block_cells(block, note_numbers), console.width))


def _print_notes(console: Console, note_numbers: dict[str, int]) -> None:
    for note, number in note_numbers.items():
        print_line(console, f"[{number}] {note}")


def print_rows(results: Results, console: Console) -> None:
    """Print the rows of a run before its end: a line for each variant that is not measured yet,
    else tables."""
    if not any(row.latency_ms for row in results.rows):
        for row in {row.variant: row for row in results.rows if row.model}.values():
            print_line(console, f"ready: {ready_text(row)}", "green")
        return
    note_numbers = number_notes(results.rows)
    # Nothing is to be shipped yet.
    tables = (replace(block, shipped=None) for block in blocks(results))
    _print_blocks(tables, console, note_numbers)
    _print_notes(console, note_numbers)
    for note in results.notes:
        print_line(console, note, "yellow")
    console.print()


def _fitting(block: Block, lines: Sequence[Sequence[Cell]], width: int) -> list[int]:
    """Indices of the columns that fit beside the variants' names."""
    widths = [max(map(len, texts)) + 1 for texts in _columns(block, lines)]
    # References to notes may wrap; a name is folded only where it is very long.
    names = (len(row.variant) + 2 * (row is block.shipped) for row in block.rows)
    longest = max([len("variant"), *names])
    widths[0] = min(longest, _NAME_WIDTH) + 1
    titles = block.titles
    indices = list(range(len(titles)))
    for title in _OPTIONAL:
        if sum(widths[index] for index in indices) <= width:
            break
        indices = [index for index in indices if titles[index] != title]
    return indices


def _columns(block: Block, lines: Sequence[Sequence[Cell]]) -> list[tuple[str, ...]]:
    """Texts of each column, the longest line of the title first."""
    texts = [[cell.text for cell in line] for line in lines]
    titles = [max(_lines(title, _TITLE_WIDTH), key=len) for title in block.titles]
    return list(zip(titles, *texts, strict=True))


def _lines(text: str, width: int) -> list[str]:
    """Break a text after a hyphen, dot or blank rather than inside a word."""
    width = max(width, 1)
    lines = [""]
    for part in re.findall(rf"[^-._ ]{{1,{width}}}[-._ ]?|[-._ ]", text):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip(" ") for line in lines]


def _folded(cell: Cell, width: int) -> Text:
    """Fold a name; the one to ship begins with a star."""
    style = "bold green" if cell.best else ""
    lines = _lines("* " * cell.best + cell.text, width)
    return Text("\n").join(safe_text(line, style) for line in lines)


def _rich_table(block: Block, lines: Sequence[Sequence[Cell]], width: int) -> Table:
    table = plain_table()
    _, *indices = _fitting(block, lines, width)
    columns = _columns(block, lines)
    name_width = width - sum(max(map(len, columns[index])) + 1 for index in indices)
    table.add_column("variant", no_wrap=False, overflow="fold")
    for index in indices:
        title = Text("\n").join(map(safe_text, _lines(block.titles[index], _TITLE_WIDTH)))
        table.add_column(title, justify="right", no_wrap=True)
    for row, line in zip(block.rows, lines, strict=True):
        cells = [line[index] for index in indices]
        table.add_row(
            _folded(line[0], name_width - 1),
            *(safe_text(cell.text, "bold green" if cell.best else "") for cell in cells),
            style="red" if row.status == "failed" else "",
        )
    return table
