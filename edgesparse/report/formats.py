"""Results as markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from edgesparse.measure.results import Results
from edgesparse.report.table import (
    BEST_LEGEND,
    SHIP_LEGEND,
    Cell,
    block_cells,
    blocks,
    number_notes,
)
from edgesparse.report.table_notes import (
    QUICK,
    device_lines,
    gate_line,
    legend,
    prediction_lines,
    release_line,
    seed_lines,
    unstable_lines,
)
from edgesparse.report.verdicts import ship_lines, verdicts
from edgesparse.spec.safe.text import clean


def markdown(results: Results) -> str:
    """Format results as markdown tables and lists, for a README or an issue."""
    note_numbers = number_notes(results.rows)
    kind = f" ({QUICK})" if results.quick else ""
    lines = [f"### {_escaped(results.pipeline)}{kind}", ""]
    lines += [_line(line) for line in device_lines(results)]
    for block in blocks(results):
        lines += ["", f"**{_escaped(block.title)}**", ""]
        lines.append(f"| {' | '.join(map(_escaped, block.titles))} |")
        lines.append("|---|" + "---:|" * len(block.columns))
        for cells in block_cells(block, note_numbers):
            lines.append(f"| {' | '.join(map(_cell_text, cells))} |")
    lines += ["", *(f"- {_line(verdict.text)}" for verdict in ship_lines(results))]
    legends = f"Bold name: {SHIP_LEGEND}; bold: {BEST_LEGEND}; {_escaped(legend(results))}."
    lines += ["", legends, ""]
    lines += [f"- [{number}] {_escaped(note)}" for note, number in note_numbers.items()]
    lines += [
        f"- {_line(line)}"
        for line in [
            *unstable_lines(results),
            *results.notes,
            *results.advice,
            *(verdict.text for verdict in verdicts(results)),
            *(line for line, _ in prediction_lines(results)),
            *seed_lines(results),
            *map(release_line, results.releases),
            *(f"FAILED: {line}" for line in results.failures),
            *map(gate_line, results.gates),
        ]
    ]
    return "\n".join(lines).rstrip() + "\n"


def _cell_text(cell: Cell) -> str:
    return f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)


# Characters of HTML, images, links, emphasis and cells. GitHub's markdown ignores an underscore or
# a tilde within a word, so that names stay readable.
_MARKUP = re.compile(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w)|~(?=~))")
# Beginnings of headings, lists and rules.
_BLOCK = re.compile(r"(\s*\d*)([-+#=.)])")


def _escaped(text: str) -> str:
    """Escape a text so that markdown shows it and does nothing else."""
    quoted = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", quoted)


def _line(text: str) -> str:
    """Escape a text that begins a line."""
    return _BLOCK.sub(r"\1\\\2", _escaped(text), count=1) if _BLOCK.match(text) else _escaped(text)


def csv_text(results: Results) -> str:
    """Format results as CSV: a line per row, nested values in columns with dotted names."""
    flat = [_flat(row.model_dump(mode="json")) for row in results.rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    output = io.StringIO()
    writer = csv.DictWriter(output, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in flat)
    return output.getvalue()


def _inert(value: Any) -> Any:
    """Quote a text that a spreadsheet would run as a formula, leading blanks ignored: texts come
    from devices and files."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and text != "-" else text


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for entry in item:  # Metrics and weights, by their names.
                rest = {key: part for key, part in entry.items() if key != "name"}
                flat |= _flat(rest, f"{prefix}{name}.{clean(str(entry.get('name', '')))}.")
        elif isinstance(item, list):
            flat[f"{prefix}{name}"] = " ".join(map(str, item))
        elif item is not None:
            flat[f"{prefix}{name}"] = item
    return flat


def json_text(results: Results) -> str:
    """Format results as in results.json."""
    return json.dumps(results.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
