"""Texts and numbers from devices, files and earlier runs are shown and do nothing else."""

import csv
import io
import json
import re

import pytest
from rich.console import Console

from edgesparse.measure.results import DeviceInfo, ReleaseInfo, Results, read_results
from edgesparse.measure.rows import Row, RuntimeInfo, Score
from edgesparse.report import formats, terminal
from edgesparse.spec.errors import UsageError

NASTY = [
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b[2J\x1b[31m",
    "\x9b31m\x9d0;x\x9c",
    "\u202egnp.exe\u2066",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "![x](http://example.com/beacon.png)",
    "[click](javascript:alert(1))",
    "`code` **bold** | cell | \\| end",
    "=HYPERLINK(1)",
    "\t=1+1",
    "\r\n=1+1",
    " \u00a0@SUM(1)",
    "+1",
    "[bold red]markup[/]",
    ":smile:",
    "&lt;",
    "# heading",
    "1. list",
    "_under_ ~~gone~~ *",
]
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def results(nasty, **changes):
    return Results(
        run="20261120-101500-x-123456",
        started="2026-11-20",
        host={},
        versions={},
        pipeline=nasty,
        pipeline_digest="",
        baseline=nasty,
        devices=[
            DeviceInfo(name="pi", description="", machine=nasty, cpu=nasty, python=nasty),
            DeviceInfo(name="dead", description="", error=nasty),
        ],
        rows=[
            Row(
                pipeline=nasty,
                device=nasty,
                runtime=RuntimeInfo(name=nasty, version=nasty),
                delegate=nasty,
                threads=1,
                clock="wall",
                variant=nasty,
                status="failed",
                error=nasty,
                notes=[nasty],
                metrics=[Score(name=nasty, unit=nasty, device=0.5, samples=1)],
            )
        ],
        releases=[
            ReleaseInfo(device=nasty, pipeline=nasty, variant=nasty, runtime=nasty, digest=nasty,
                        previous=nasty, folder=nasty, run_command=nasty)
        ],
        failures=[nasty],
        notes=[nasty],
    ).model_copy(update=changes)  # fmt: skip


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("late", [False, True])
def test_no_report_format_runs_texts(nasty, late):
    """Texts added after validation are escaped too: errors, notes."""
    run = results(nasty)
    if late:
        rows = [row.model_copy(update={"error": nasty, "notes": [nasty]}) for row in run.rows]
        score = run.rows[0].metrics[0].model_copy(update={"name": nasty, "unit": nasty})
        rows = [row.model_copy(update={"metrics": [score]}) for row in rows]
        run = run.model_copy(update={"rows": rows, "notes": [nasty], "failures": [nasty]})
    out = io.StringIO()
    terminal.print_results(run, Console(file=out, width=100, force_terminal=False))
    forms = {
        "table": out.getvalue(),
        "markdown": formats.markdown(run),
        "csv": formats.csv_text(run),
        "json": formats.json_text(run),
    }
    for form, output in forms.items():
        assert not CONTROLS.search(output), form
    assert not re.search(r"(?<!\\)<|(?<!\\)!\[|(?<!\\)\]\(", forms["markdown"])
    # No emphasis but our own, no heading but the first line, no cell more than columns.
    assert not re.search(
        r"(?<![\\\w])_|(?<!\\)~~|^(- )?[#+=]+ |^- \d+\. ", _body(forms["markdown"]), re.M
    )
    rows = [line for line in forms["markdown"].splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    for row in csv.reader(io.StringIO(forms["csv"])):
        for cell in row:
            assert cell.lstrip()[:1] not in ("=", "+", "-", "@"), cell


def _body(markdown):
    return markdown.partition("\n")[2]


def test_terminal_gets_no_codes_but_those_of_rich():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system="standard")
    terminal.print_results(results("\x1b]0;title\x07\x1b[2J"), console)
    assert "\x1b]0" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert not re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).count("\x1b")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["rows"][0].update(init_ms="1e999"),
        lambda d: d["host"].update(x="1e999"),
        lambda d: d["rows"][0].update(peak_rss_bytes=10**310),
        lambda d: d["rows"][0].update(peak_rss_bytes=-5),
        lambda d: d["rows"][0].update(agreement=7),
        lambda d: d.update(rows=3),
    ],
)
def test_invalid_numbers_are_errors(tmp_path, change):
    path = tmp_path / "results.json"
    record = json.loads(formats.json_text(results("x")))
    change(record)
    path.write_text(json.dumps(record).replace('"1e999"', "1e999"))
    with pytest.raises(UsageError, match="invalid results file"):
        read_results(path)


def test_a_planted_file_is_harmless(tmp_path):
    path = tmp_path / "results.json"
    record = json.loads(formats.json_text(results("x")))
    record["rows"][0]["variant"] = record["notes"][0] = "\x1b]0;title\x07"
    path.write_text(json.dumps(record))
    read = read_results(path)
    assert read.rows[0].variant == read.notes[0] == "\\x1b]0;title\\x07"
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="invalid results file"):
        read_results(path)
