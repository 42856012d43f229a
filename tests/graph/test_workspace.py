"""Which run is meant where none is named."""

import pytest

from edgesparse.graph.open_runs import hold
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.results import write_results
from tests.measure.test_comparison import row
from tests.report.test_table import results

FIRST, SECOND, THIRD = (f"2026010{n}-000000-p-aaaaaa" for n in (1, 2, 3))


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    for run, rows, finished in ((FIRST, [row()], True), (SECOND, [], False), (THIRD, [], True)):
        update = {"run": run, "rows": rows, "finished": finished}
        write_results(results(row()).model_copy(update=update), workspace.results_path(run))
    return workspace


def test_the_last_run_is_the_last_with_rows_and_later_ones_are_named(workspace):
    assert workspace.results().run == FIRST
    assert workspace.results().notes[:2] == [
        f"run {THIRD} is newer, but has no rows",
        f"run {SECOND} is newer, but was interrupted before it measured",
    ]
    with hold(workspace.runs / SECOND, []):
        assert f"run {SECOND} is newer, but is running" in workspace.results().notes[1]
    assert workspace.results(SECOND).rows == []
    assert workspace.results(FIRST).notes == results(row()).notes


def test_where_no_run_has_rows_it_is_the_last(workspace):
    workspace.results_path(FIRST).unlink()
    assert workspace.results().run == THIRD


def test_a_damaged_run_hides_no_other(workspace):
    workspace.results_path(SECOND).write_bytes(b"\xff{")
    assert [run.run for run in workspace.all_results()] == [FIRST, THIRD]
