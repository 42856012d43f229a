import csv
import io
import json

from edgesparse.measure.results import Results
from edgesparse.report.formats import csv_text, json_text, markdown
from tests.report.test_table import RUN, results, row


def test_markdown_is_a_table_of_equal_width():
    lines = [line for line in markdown(RUN).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert "**41.20**" in lines[3]


def test_markdown_is_escaped():
    text = markdown(results(row("x", error="a | b\nc")))
    assert "a \\| b c" in text


def test_csv_has_a_line_per_row_and_dotted_names():
    rows = list(csv.DictReader(io.StringIO(csv_text(RUN))))
    assert [line["variant"] for line in rows] == [
        "dense-f32", "sparse-int8-of-a-long-name", "broken"
    ]  # fmt: skip
    assert float(rows[1]["latency_ms.p50"]) == 41.2
    assert rows[2]["error"] == "the runtime crashed (SIGSEGV)"


def test_csv_texts_are_not_formulas():
    rows = next(csv.DictReader(io.StringIO(csv_text(results(row("x", error="=1+1"))))))
    assert rows["error"] == "'=1+1"


def test_json_round_trip():
    assert Results.model_validate(json.loads(json_text(RUN))) == RUN
