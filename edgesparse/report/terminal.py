"""Results in the terminal: the tables, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from edgesparse.bench.results import Results
from edgesparse.report.lines import gate_line, release_line, summary
from edgesparse.report.seeds import over_seeds
from edgesparse.report.shown import shown
from edgesparse.report.table import (
    BEST,
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


def print_results(results: Results, console: Console) -> None:
    """Print blocks, notes, verdicts and gates, WIDTH columns wide."""
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
    _line(console, f"{BEST} best of its column; speed-up against {_baselines(results)}", "dim")
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
_LESS = ("MB RAM", "p90 ms", "95 % of p50", "95 %", "drop")
"""Columns that a narrow terminal does without, the first of them first; reports have them all."""


def _fitting(block: Block, lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """The places of the columns that fit beside the variants' names."""
    titles = ["variant", *(column.title for column in columns_of(block.rows))]
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


def _rich_table(block: Block, lines: Sequence[Sequence[str]], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    places = _fitting(block, lines, width)
    titles = ["variant", *(column.title for column in columns_of(block.rows))]
    for place in places:
        if place:
            table.add_column(titles[place], justify="right", no_wrap=True)
        else:
            table.add_column("variant", no_wrap=False, overflow="fold")
    for row, line in zip(block.rows, lines, strict=True):
        style = "red" if row.status == "failed" else ""
        texts = [shown(line[0], style=style)]
        for place in places[1:]:
            text = line[place]
            texts.append(shown(text, style="bold green" if text.endswith(BEST) else style))
        table.add_row(*texts)
    return table
