"""What is tried: the same for the same seed, also after kills, and no trial lost."""

import sqlite3
from contextlib import closing

import pytest

from edgesparse.commands.search.study import Study, check
from edgesparse.measure.trials import Trial
from edgesparse.spec.errors import UsageError
from edgesparse.spec.search import Search
from tests.report.test_table import row as table_row

pytestmark = pytest.mark.slow

SEARCH = Search.model_validate(
    {
        "objectives": ["accuracy", "bytes"],
        "constraints": [{"metric": "accuracy", "min": 0.5}],
        "parallel_trials": 3,
        "variant": {
            "sparsify": {"method": "magnitude", "sparsity": {"range": [0.1, 0.9]}},
            "quantize": {"choice": ["f32", {"scheme": "int8"}]},
        },
    }
)
DIRECTIONS = ("maximize", "minimize")


def outcome(asked):
    sparsity = asked.variant["sparsify"]["sparsity"]
    values = [1 - sparsity**3, 100 * (1 - sparsity) + 10 * (asked.variant["quantize"] == "f32")]
    beyond = max(0.0, 0.5 - values[0])
    about = {"name": asked.name, "number": asked.number, "chosen": asked.chosen}
    status = "infeasible" if beyond else "ok"
    # Every third is seen to be beyond before it is measured.
    values = [] if beyond and asked.number % 3 == 0 else values
    row = table_row("x", 1.0)
    return Trial(**about, variant=asked.variant, status=status, values=values, row=row), beyond


def drive(study, most, run="run", stop_after=None):
    """Go on until there are `most`; with `stop_after`, die after so many results were told."""
    told = 0
    while batch := study.batch(most, run, lambda other: other == "alive"):
        for asked in batch:
            if stop_after is not None and told == stop_after:
                return
            study.tell(asked, *outcome(asked))
            told += 1


def variants(study):
    return [trial.variant for trial in study.done()]


OTHERS = [pytest.param(sampler, marks=pytest.mark.full) for sampler in ("random", "nsga2")]


@pytest.mark.parametrize("sampler", ["tpe", *OTHERS])
def test_the_same_seed_tries_the_same_and_another_something_else(tmp_path, sampler):
    search = SEARCH.model_copy(update={"sampler": sampler})
    found = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        study = Study(tmp_path / f"{name}.db", search.model_copy(update={"seed": seed}), DIRECTIONS)
        drive(study, 14)
        found.append(variants(study))
    assert len(found[0]) == 14
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_kills_lose_no_trial_and_change_none(tmp_path):
    whole = Study(tmp_path / "whole.db", SEARCH, DIRECTIONS)
    drive(whole, 20)
    # Killed in the middle of batches, and between them; each process begins anew.
    for number, told in enumerate((2, 4, 3)):
        drive(Study(tmp_path / "killed.db", SEARCH, DIRECTIONS), 20, f"run{number}", told)
    last = Study(tmp_path / "killed.db", SEARCH, DIRECTIONS)
    drive(last, 20, "last")
    assert [trial.number for trial in last.done()] == list(range(20))
    assert variants(last) == variants(whole)


def test_what_another_process_works_on_is_left_to_it(tmp_path):
    one, two = (Study(tmp_path / "s.db", SEARCH, DIRECTIONS) for _ in range(2))
    first = one.batch(6, "alive", lambda _: True)
    second = two.batch(6, "other", lambda run: run == "alive")
    assert [a.number for a in first] == [0, 1, 2]
    assert [a.number for a in second] == [3, 4, 5]
    assert one.batch(6, "alive", lambda _: True) == []


def test_more_trials_go_on_from_those_that_are_there(tmp_path):
    drive(Study(tmp_path / "s.db", SEARCH, DIRECTIONS), 4)
    again = Study(tmp_path / "s.db", SEARCH, DIRECTIONS)
    drive(again, 7)
    assert len(again.done()) == 7


def change(path, statement):
    with closing(sqlite3.connect(path)) as study:
        study.execute(statement)
        study.commit()


DAMAGES = {
    "text": lambda path: path.write_text("hello"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\0" * 100_000),
    "later": lambda path: change(path, "update alembic_version set version_num = 'v99'"),
    "no rows": lambda path: change(path, "delete from trial_user_attributes"),
    "no trial": lambda path: change(path, "update trial_user_attributes set value_json = '1'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_study_is_one_message(tmp_path, damage):
    path = tmp_path / "study.db"
    check(path)
    drive(Study(path, SEARCH, DIRECTIONS), 3)
    check(path)
    DAMAGES[damage](path)
    with pytest.raises(
        UsageError, match=r"study\.db: cannot be used: .*remove .*: the search starts"
    ):
        Study(path, SEARCH, DIRECTIONS).done()
    if damage in ("text", "half", "zeros"):
        with pytest.raises(UsageError, match=r"study\.db: cannot be used"):
            check(path)
