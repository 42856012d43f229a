"""The study of accuracy at equal time: its pipelines, table and plot (tests/tools)."""

import shutil

import pytest
import yaml

from edgesparse.measure.rows import Speedup
from edgesparse.spec.reading.load import load_pipeline
from tests.conftest import ROOT
from tests.tools import accuracy_at_time
from tests.tools.accuracy_at_time import GRIDS, Point


@pytest.mark.parametrize("task", GRIDS)
def test_pipelines_are_valid(task, tmp_path):
    shutil.copy(ROOT / "tests" / "tools" / "two_digits.py", tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(accuracy_at_time.pipelines()[task]))
    variants = load_pipeline(path).spec.variants
    assert len(variants) == 1 + sum(map(len, GRIDS[task].values()))
    both = accuracy_at_time.name_of("both", GRIDS[task]["both"][0])
    assert [step.method for step in variants[both].sparsify] == ["channels", "magnitude"]


def test_table_and_plot(tmp_path):
    speedup = Speedup(ratio=4, ci95=(3.9, 4.1), baseline="dense-int8")
    points = [
        Point("digits", "dense", (), (0.98, 0.99, 0.97), speedup.model_copy(update={"ratio": 1})),
        Point("digits", "both", (0.4, 0.9), (0.97, 0.98, 0.99), speedup),
    ]
    lines = accuracy_at_time.table(points).splitlines()
    assert lines[-1] == (
        "| digits | channels, then blocks: 40 % of MACs, 90 % zeros | 4.00x | 98.0±2.5 "
        "| 97.0, 98.0, 99.0 |"
    )
    fewer = Speedup(ratio=2, ci95=(1.9, 2.1), baseline="dense-int8")
    points.append(Point("digits", "channels", (0.4,), (0.95, 0.96, 0.97), fewer))
    assert accuracy_at_time.comparison(points) == (
        "- digits: channels, then blocks: 40 % of MACs, 90 % zeros is 2.00x as fast as fewer "
        "channels: 40 % of MACs, at +2.0 points of accuracy."
    )
    accuracy_at_time.plot(points, tmp_path / "plot.svg")
    assert "channels, then blocks" in (tmp_path / "plot.svg").read_text()


def test_first_table_is_a_section_of_the_page():
    page = accuracy_at_time.with_table(f"before\n\n{accuracy_at_time.BEFORE}\n", "| new |")
    assert page.startswith("before\n\n## Accuracy at equal time")
    assert page.endswith(f"| new |\n{accuracy_at_time.END}\n\n{accuracy_at_time.BEFORE}\n")
    assert accuracy_at_time.BEFORE in accuracy_at_time.README.read_text()


def test_what_was_written_before_is_replaced():
    head, end = accuracy_at_time.HEAD, accuracy_at_time.END
    text = accuracy_at_time.with_table(f"before\n{head}\nold\n{end}\nafter", "| new |")
    assert text == f"before\n{head}\n| new |\n{end}\nafter"
