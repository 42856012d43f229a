"""Results in the terminal: the tables, and what is to be said about them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from edgesparse.measure.results import Results
from edgesparse.report.console import shown, shown_lines
from edgesparse.report.lines import gate_line, release_line, summary
from edgesparse.report.seeds import over_seeds
from edgesparse.report.table import (
    BEST,
    MARKED,
    Block,
    advice,
    blocks,
    cells,
    columns_of,
    device_lines,
    number_notes,
    verdicts,
)

WIDTH = 100
"""Columns of what goes to a pipe or a file, so that it is always the same."""
NARROW, WIDE = 60, 160
"""A terminal's own width counts between these."""


def print_results(results: Results, console: Console) -> None:
    """Print blocks, notes, verdicts and gates, as wide as the console is."""
    kind = " QUICK, not for claims" if results.quick else ""
    state = "" if results.finished else " INTERRUPTED"
    _line(console, f"{results.pipeline}  run {results.run}{kind}{state}", "bold")
    for line in device_lines(results):
        _line(console, line)
    numbered = number_notes(results.rows)
    for block in blocks(results):
        console.print()
        _line(console, block.title, "bold cyan")
        console.print(_rich_table(block, cells(block, numbered), console.width))
    _line(console, f"{BEST} {MARKED}; speed-up against {_baselines(results)}", "dim")
    for note, number in numbered.items():
        _line(console, f"[{number}] {note}")
    for note in [*advice(results), *results.notes]:
        _line(console, note)
    for line in [*verdicts(results), *over_seeds(results)]:
        _line(console, line, "green" if line.endswith((" pay", " pays")) else "yellow")
    for line in summary(results):
        _line(console, line)
    for release in results.releases:
        _line(console, release_line(release), "green")
    for line in results.failures:
        _line(console, f"FAILED: {line}", "bold red")
    for gate in results.gates:
        _line(console, gate_line(gate), "green" if gate.passed else "bold red")


def _baselines(results: Results) -> str:
    """What speed-ups refer to: on a device that cannot run the baseline, another variant."""
    others = {
        row.device: row.speedup.baseline
        for row in results.rows
        if row.speedup is not None and row.speedup.baseline != results.baseline
    }
    there = "".join(f", on {device} {name}" for device, name in others.items())
    return results.baseline + there


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(shown(text, style=style))


_NAME_WIDTH = 18
_LESS = ("MB RAM", "to send", "p90 ms", "MACs", "95 % of p50", "95 %", "drop")
"""Columns that a narrow terminal does without, the first of them first; reports have them all."""


def _fitting(block: Block, lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """The places of the columns that fit beside the variants' names."""
    titles = _titles(block)
    widths = [max(map(len, texts)) + 1 for texts in zip(titles, *lines, strict=True)]
    # Marks of notes may stand in a second line; a name is cut only where it is very long.
    longest = max([len("variant"), *(len(row.variant) for row in block.rows)])
    widths[0] = min(longest, _NAME_WIDTH) + 1
    places = list(range(len(titles)))
    for title in _LESS:
        if sum(widths[place] for place in places) <= width:
            break
        places = [place for place in places if titles[place] != title]
    return places


def _titles(block: Block) -> list[str]:
    return ["variant", *(column.title for column in columns_of(block.rows))]


def _folded(name: str, width: int) -> list[str]:
    """A name in lines, broken after a hyphen, a dot or a blank rather than inside a word."""
    lines = [""]
    for part in re.findall(r"[^-._ ]*[-._ ]*", name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > max(width, 1):
            lines.append("")
        lines[-1] += part
    return [line.rstrip(" ") for line in lines]


def _rich_table(block: Block, lines: Sequence[Sequence[str]], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    places = _fitting(block, lines, width)
    room = width - sum(
        max(len(texts[place]) for texts in [_titles(block), *lines]) + 1 for place in places[1:]
    )
    titles = _titles(block)
    for place in places:
        if place:
            table.add_column(shown(titles[place]), justify="right", no_wrap=True)
        else:
            table.add_column("variant", no_wrap=False, overflow="fold")
    for row, line in zip(block.rows, lines, strict=True):
        style = "red" if row.status == "failed" else ""
        texts = [shown_lines(_folded(line[0], room - 1), style)]
        for place in places[1:]:
            text = line[place]
            texts.append(shown(text, style="bold green" if text.endswith(BEST) else style))
        table.add_row(*texts)
    return table
