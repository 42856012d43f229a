"""Results as markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from edgesparse.measure.results import Results
from edgesparse.report.lines import gate_line, summary
from edgesparse.report.seeds import over_seeds
from edgesparse.report.table import (
    BEST,
    MARKED,
    advice,
    blocks,
    cells,
    columns_of,
    device_lines,
    number_notes,
    verdicts,
)
from edgesparse.spec.safe.text import clean


def markdown(results: Results) -> str:
    """Tables for a README or an issue."""
    numbered = number_notes(results.rows)
    kind = " (quick: not for claims)" if results.quick else ""
    lines = [f"### {_escaped(results.pipeline)}{kind}", ""]
    lines += [_line(line) for line in device_lines(results)]
    for block in blocks(results):
        lines += ["", f"**{_escaped(block.title)}**", ""]
        columns = columns_of(block.rows)
        lines.append("| variant | " + " | ".join(_escaped(c.title) for c in columns) + " |")
        lines.append("|---|" + "---:|" * len(columns))
        for line in cells(block, numbered):
            shown = [
                f"**{_escaped(t[:-1])}**" if t.endswith(BEST) else _escaped(t) for t in line[1:]
            ]
            lines.append("| " + " | ".join([_escaped(line[0]), *shown]) + " |")
    lines += ["", f"Bold: {MARKED}. Speed-up against {_escaped(results.baseline)}.", ""]
    lines += [f"- [{number}] {_escaped(note)}" for note, number in numbered.items()]
    lines += [
        f"- {_line(line)}"
        for line in [
            *advice(results),
            *results.notes,
            *verdicts(results),
            *over_seeds(results),
            *summary(results),
            *map(gate_line, results.gates),
        ]
    ]
    return "\n".join(lines).rstrip() + "\n"


# What makes HTML, images, links and emphasis of a text, or ends a cell. An underline or a tilde
# within a name means nothing to GitHub's markdown, so that names stay readable.
_MARKUP = re.compile(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w)|~(?=~))")
# What makes a heading, a list or a rule of a line.
_BLOCK = re.compile(r"(\s*\d*)([-+#=.)])")


def _escaped(text: str) -> str:
    """A text as markdown that shows it, and does nothing else."""
    quoted = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", quoted)


def _line(text: str) -> str:
    """The same where it stands at a line's beginning."""
    return _BLOCK.sub(r"\1\\\2", _escaped(text), count=1) if _BLOCK.match(text) else _escaped(text)


def csv_text(results: Results) -> str:
    """One line per row; nested values get dotted names."""
    flat = [_flat(row.model_dump(mode="json")) for row in results.rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    output = io.StringIO()
    writer = csv.DictWriter(output, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in flat)
    return output.getvalue()


def _inert(value: Any) -> Any:
    """Texts come from devices and files: a spreadsheet must not take one for a formula, also where
    it drops what stands before it."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and text != "-" else text


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            found |= _flat(item, f"{prefix}{name}.")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for one in item:  # Metrics, by their names.
                named = {key: part for key, part in one.items() if key != "name"}
                found |= _flat(named, f"{prefix}{name}.{clean(str(one.get('name', '')))}.")
        elif isinstance(item, list):
            found[f"{prefix}{name}"] = " ".join(str(part) for part in item)
        elif item is not None:
            found[f"{prefix}{name}"] = item
    return found


def json_text(results: Results) -> str:
    return json.dumps(results.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
