import pytest

from edgesparse.bench.comparing import compare_runs
from edgesparse.bench.results import Results
from edgesparse.bench.rows import Score
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


def test_unstable_rows_must_differ_by_more():
    shaky = row(p50=1.05, notes=["unstable: the rounds' medians are 20% apart"])
    assert not compared(row(), shaky)[1].slower
    assert compared(row(), shaky.model_copy(update={"latency_ms": row(p50=1.2).latency_ms}))[
        1
    ].slower


def test_what_is_lost_of_the_metric_counts_beyond_both_intervals():
    assert compared(row(value=0.9), row(value=0.88))[1].worse is False
    found, change = compared(row(value=0.9), row(value=0.8))
    assert change.worse
    assert found.regressed
    assert change.lost == pytest.approx(0.1)
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
        "the pipeline's file",
        f"commit: none -> {'b' * 12}+",
        "tensorflow: 2.20.0 -> 2.21.0",
    )
    assert found.gone == ("pi, ai-edge-litert old",)
    assert found.new == ("pi, ai-edge-litert new",)
    assert isinstance(before, Results)
