import io
import re
from html import unescape

from rich.console import Console

from edgesparse.measure.comparison import compare_runs
from edgesparse.report.comparison import (
    comparison_record,
    print_comparison,
    print_history,
    print_runs,
    run_records,
    spark,
)
from edgesparse.report.page.overview import write_comparison, write_history
from tests.measure.test_comparison import row
from tests.report.page.sample_run import HOSTILE
from tests.report.test_table import results
from tests.report.test_table import row as table_row


def printed(show, *arguments):
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=100))
    return stream.getvalue()


def test_each_row_has_a_verdict():
    before = results(row("a"), row("b"), row("c"), table_row("d", error="no"))
    after = results(
        row("a", p50=1.2), row("b", value=0.7), table_row("c", error="it crashed"), row("d")
    )
    comparison = compare_runs(before, after)
    text = printed(print_comparison, comparison)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "1.000 -> 1.20" in lines["a"]
    assert "1.20x" in lines["a"]
    assert lines["a"].rstrip().endswith("slower")
    assert lines["b"].rstrip().endswith("less accurate")
    assert "FAILED: it crashed" in lines["c"]
    assert lines["d"].rstrip().endswith("works now")
    assert text.rstrip().endswith("significant regression")
    record = comparison_record(comparison)
    assert [change["regressed"] for change in record["changes"]] == [True, True, True, False]


def test_history_has_a_bar_for_each_run():
    runs = [results(row("a", p50=p50)) for p50 in (1.0, 2.0, 1.5)]
    text = printed(print_history, runs, [[], ["the pipeline file"], []])
    assert ": the pipeline file" in text
    assert "▁█▅" in text.replace("▄", "▅")
    assert "1.000 -> 1.500" in text
    assert spark([1.0, None, 1.0]) == "▄ ▄"


def test_pages_escape_every_text(tmp_path):
    before, after = results(row(HOSTILE)), results(row(HOSTILE, p50=2.0))
    pages = [
        write_comparison(compare_runs(before, after), tmp_path / "a.html"),
        write_history([before, after], [[], [HOSTILE]], tmp_path / "b.html"),
    ]
    for page in pages:
        text = page.read_text()
        assert text.count("<script>") == 1
        assert "<img" not in text
        assert "&lt;script&gt;" in text
        assert "<svg" in text


def tooltips(page):
    """Texts of the charts' parts."""
    return [unescape(text) for text in re.findall(r"<g id=[^>]*><title>([^<]*)", page.read_text())]


def test_charts_show_the_changes_and_pages_the_commits_and_dates(tmp_path):
    start = {"started": "2026-11-26T10:15:00+00:00", "commit": "0123456789"}
    end = {"started": "2026-11-27T09:00:00+00:00", "commit": "98+"}
    before = results(row("a"), row("b")).model_copy(update=start)
    after = results(row("a", p50=1.2), row("b", value=0.7)).model_copy(update=end)
    comparison = compare_runs(before, after)
    page = write_comparison(comparison, tmp_path / "a.html")
    shown, (first, second) = tooltips(page), comparison.changes
    assert f"a: {first.slowdown:.2f}x, slower" in shown
    assert f"b: {second.slowdown:.2f}x, less accurate" in shown
    scores = [f"{r.score.shown * 100:.1f}" for r in (second.before, second.after)]
    assert f"b: {scores[0]} -> {scores[1]} %" in shown
    text = page.read_text()
    assert "2026-11-26 10:15 UTC, commit 01234567<" in text
    assert "2026-11-27 09:00 UTC, commit 98+<" in text
    assert text.index("significant regression") < text.index("<svg")
    assert "commit 01234567" in printed(print_comparison, comparison)

    page = write_history([before, after], [[], ["the pipeline file"]], tmp_path / "b.html")
    assert "a: 1.000, 1.200 ms" in tooltips(page)
    assert f"b: {float(scores[0]):g}, {float(scores[1]):g}" in tooltips(page)
    assert "2. " in page.read_text()
    assert "2026-11-27 09:00 UTC, commit 98+: the pipeline file" in page.read_text()


def test_list_of_runs_has_status_and_best_variants():
    good = results(row("a", p50=2.0), row("b", p50=1.0), finished=True)
    bad = results(row("a"), table_row("c", error="no"), finished=True)
    cut = results(row("a"), finished=False)
    records = run_records([good, bad, cut])
    assert [record["status"] for record in records] == ["ok", "1 of 2 rows failed", "interrupted"]
    assert records[0]["best"] == {"pi": "b"}
    lines = printed(print_runs, [good, bad, cut]).splitlines()
    assert lines[0].split() == ["run", "pipeline", "date", "devices", "status", "best"]
    assert lines[1].split()[-1] == "b"
