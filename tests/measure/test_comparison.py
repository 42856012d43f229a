import numpy as np
import pytest

from edgesparse.measure.comparison import compare_runs
from edgesparse.measure.results import Results
from edgesparse.measure.rows import RuntimeInfo, Score
from edgesparse.measure.statistics import UNSTABLE_SPREAD, spread, summarize
from tests.report.test_table import results
from tests.report.test_table import row as table_row


def row(variant="a", p50=1.0, half=0.01, clock="wall", value=0.9, **changes):
    """A row with an interval of `half` either way."""
    one = table_row(variant, p50=p50)
    latency = one.latency_ms.model_copy(update={"ci95": (p50 * (1 - half), p50 * (1 + half))})
    score = Score(name="accuracy", unit="%", device=value, ci95=(value - 0.02, value + 0.02),
                  samples=360)  # fmt: skip
    return one.model_copy(
        update={"latency_ms": latency, "clock": clock, "metrics": [score], **changes}
    )


def compared(before, after, **more):
    found = compare_runs(results(before), results(after).model_copy(update=more))
    (change,) = found.changes
    return found, change


@pytest.mark.parametrize(
    ("clock", "half", "p50", "slower"),
    [
        ("wall", 0.01, 1.05, True),
        ("wall", 0.01, 1.01, False),  # Within what two runs differ by.
        ("wall", 0.10, 1.05, False),  # Within the intervals.
        ("instructions", 0.0005, 1.05, True),
        ("instructions", 0.0005, 1.01, True),
        ("instructions", 0.0005, 1.002, False),
    ],
)
def test_slower_is_what_is_so_beyond_both_intervals(clock, half, p50, slower):
    found, change = compared(row(half=half, clock=clock), row(p50=p50, half=half, clock=clock))
    assert change.slowdown == pytest.approx(p50)
    assert change.slower is found.regressed is slower
    # The other way round it is faster, which is no regression.
    found, change = compared(row(p50=p50, half=half, clock=clock), row(half=half, clock=clock))
    assert change.faster is slower
    assert not found.regressed


@pytest.mark.parametrize("side", [0, 1])
def test_times_of_unstable_rows_are_not_judged(side):
    pair = [row(), row(p50=3.0)]
    pair[side] = pair[side].model_copy(
        update={"notes": ["unstable: medians of rounds differ by 20%"]}
    )
    found, change = compared(*pair)
    assert change.slowdown == pytest.approx(3)
    assert change.slowdown_ci95 is None
    assert not found.regressed
    assert not compare_runs(results(pair[1]), results(pair[0])).changes[0].faster
    # Its answers are.
    pair[1] = pair[1].model_copy(update={"metrics": row(value=0.5).metrics})
    assert compared(*pair)[0].regressed


BASE_MS = np.geomspace(0.003, 40, 14)


def measured(random, slower=(), rounds=5, places=1, noise=0.008, drift=0.02, machine=0.005):
    """A run of 14 rows as a busy machine gives them.

    What slows the machine slows every row of a round, wanders from round to round, and differs from
    run to run; a row's own rounds have heavy tails, mostly upwards.

    Args:
        slower: the rows that regressed, and by which factor.
    """
    steps = random.normal(0, drift / np.sqrt(rounds), rounds)
    common = random.normal(0, machine) + np.cumsum(steps)
    rows = []
    for place, base in enumerate(BASE_MS):
        own = random.normal(0, noise / 2, rounds) + noise / 2 * np.abs(random.standard_t(3, rounds))
        by_round = base * dict(slower).get(place, 1.0) * np.exp(common + own)
        # Runs within a round are many: its median is known well.
        runs = [median * random.lognormal(0, 0.02, 30) for median in by_round]
        latency, apart = summarize(runs), spread(runs)
        one = row(f"v{place}", value=0.9)
        notes = [f"unstable: medians of rounds differ by {apart:.0%}"] * (apart > UNSTABLE_SPREAD)
        runtime = {"runtime": RuntimeInfo(name=f"r{place % places}", version="1")}
        rows.append(one.model_copy(update={"latency_ms": latency, "notes": notes, **runtime}))
    return results(*rows)


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch):
    """Rows with rounds are judged by them; their bootstrap only costs time here."""
    monkeypatch.setattr("edgesparse.measure.statistics.RESAMPLES", 5)


MACHINES = {
    "quiet": {"noise": 0.003, "drift": 0.003, "machine": 0.001},
    "busy": {},
    "drifting": {"noise": 0.015, "drift": 0.05, "machine": 0.03},
    "two runtimes": {"places": 2},
    "many rounds": {"rounds": 12},
    "quick": {"rounds": 2},
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "comparisons", [10, pytest.param(200, marks=[pytest.mark.full, pytest.mark.slow])]
)
def test_runs_of_the_same_files_are_equal_ten_times_of_ten(machine, comparisons):
    false = 0
    for seed in range(comparisons):
        random = np.random.default_rng([seed, 28])
        found = compare_runs(*(measured(random, **MACHINES[machine]) for _ in range(2)))
        false += found.regressed
    # By its level, a comparison in twenty may be wrong.
    assert false <= comparisons // 50


@pytest.mark.parametrize(
    ("machine", "least"), [("quiet", 20), ("busy", 19), ("two runtimes", 19), ("many rounds", 20)]
)
def test_a_regression_of_a_tenth_is_seen(machine, least):
    seen = 0
    for seed in range(20):
        random = np.random.default_rng([seed, 29])
        before = measured(random, **MACHINES[machine])
        after = measured(random, slower={3: 1.1}, **MACHINES[machine])
        slower = [c.variant for c in compare_runs(before, after).changes if c.slower]
        assert set(slower) <= {"v3"}, seed
        seen += slower == ["v3"]
    assert seen >= least


def test_what_all_rows_have_in_common_counts_where_it_is_more_than_a_machine_does():
    def shifted(factor, **more):
        random = np.random.default_rng(1)
        both = [measured(random, slower=s, **MACHINES["quiet"], **more)
                for s in ({}, dict.fromkeys(range(14), factor))]  # fmt: skip
        return compare_runs(*both)

    assert not shifted(1.05).regressed
    assert shifted(1.05).shared["pi, r0"] == pytest.approx(1.05, rel=0.01)
    found = shifted(1.2)
    assert all(change.slower for change in found.changes)


def test_what_is_lost_of_the_metric_counts_beyond_both_intervals():
    assert compared(row(value=0.9), row(value=0.88))[1].worse is False
    found, change = compared(row(value=0.9), row(value=0.8))
    assert change.worse
    assert found.regressed
    assert change.drop == pytest.approx(0.1)
    assert compared(row(value=0.8), row(value=0.9))[1].better


def test_what_fails_now_has_regressed_and_clocks_are_not_compared():
    failed = table_row("a", error="it crashed")
    assert compared(row(), failed)[0].regressed
    assert not compared(failed, row())[0].regressed
    _, change = compared(row(), row(p50=50.0, clock="instructions"))
    assert change.slowdown is None
    assert not change.slower


def test_what_was_changed_between_them_is_told():
    before, after = results(row("a"), row("old")), results(row("a"), row("new"))
    after = after.model_copy(
        update={
            "versions": {"tensorflow": "2.21.0"},
            "commit": "b" * 40 + "+",
            "pipeline_digest": "x",
        }
    )
    found = compare_runs(before.model_copy(update={"versions": {"tensorflow": "2.20.0"}}), after)
    assert found.differences == (
        "the pipeline file",
        f"commit: none -> {'b' * 12}+",
        "tensorflow: 2.20.0 -> 2.21.0",
    )
    assert found.removed == ("pi, ai-edge-litert old",)
    assert found.added == ("pi, ai-edge-litert new",)
    assert isinstance(before, Results)


def test_rows_of_two_delegates_are_two_and_another_delegate_is_said():
    both = [row(delegate="xnnpack"), row(p50=0.5, delegate="edgesparse")]
    found = compare_runs(results(*both), results(both[0], row(p50=1.0, delegate="edgesparse")))
    changes = {change.placement: change.slower for change in found.changes}
    assert list(changes.values()) == [False, True]
    assert [name.rpartition(", ")[2] for name in changes] == ["xnnpack", "edgesparse"]
    # One of them is the same row before and after, however it runs.
    found, change = compared(both[1], both[0])
    assert change.slower
    assert found.differences == (f"a on {change.placement}: delegate edgesparse -> xnnpack",)
