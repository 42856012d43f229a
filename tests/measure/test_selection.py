"""Which variant is released."""

import pytest

from edgesparse.measure.rows import (
    GateResult,
    Latency,
    ModelFile,
    Row,
    RuntimeInfo,
    Score,
)
from edgesparse.measure.selection import best_row, recommend


def row(variant, p50, drop=0.0, status="ok", half=0.0, size=None, **score):
    latency = Latency(
        p50=p50, p90=p50, p99=p50, mean=p50, std=0, samples=1, rounds=1,
        ci95=(p50 - half, p50 + half),
    )  # fmt: skip
    if size is not None:
        file = ModelFile(
            sha256="", bytes=size, bytes_gzip=1, parameters=1, zeros=0, sparsity=0, storage="dense"
        )
        own = Score(name="accuracy", unit="%", device=0.9, drop=drop, samples=100, **score)
        return row(variant, p50, drop, status, half).model_copy(
            update={"model": file, "metrics": [own]}
        )
    return Row(
        pipeline="p", device="pi", runtime=RuntimeInfo(name="r", version="1"), delegate="xnnpack",
        threads=1, clock="wall", variant=variant, status=status,
        metrics=[Score(name="accuracy", unit="%", device=0.9, drop=drop, samples=100)],
        latency_ms=latency,
    )  # fmt: skip


def gate(variant, metric, passed):
    return GateResult(
        variant=variant, metric=metric, device="pi", runtime="r", threads=1, value=1, min=None,
        max=1, passed=passed,
    )  # fmt: skip


ROWS = [row("dense", 2.0), row("sparse", 1.0), row("wild", 0.5, drop=0.3)]


def test_the_fastest_that_is_still_accurate():
    assert best_row(ROWS, []).variant == "sparse"


def test_an_own_limit_on_accuracy_counts_instead():
    assert best_row(ROWS, [gate("wild", "accuracy_drop", True)]).variant == "wild"


@pytest.mark.parametrize("metric", ["accuracy", "bytes"])
def test_a_gate_that_is_not_met_keeps_a_variant_out(metric):
    assert best_row(ROWS, [gate("sparse", metric, False)]).variant == "dense"


def test_one_variant_may_be_asked_for():
    assert best_row(ROWS, [], "dense").variant == "dense"
    assert best_row(ROWS, [], "wild") is None


def test_nothing_good_is_none():
    assert best_row([row("a", 1.0, status="failed")], []) is None
    assert best_row([], []) is None


def test_of_those_that_are_not_clearly_slower_the_smallest_wins():
    """A tie of 0.023 ms flipped the release from run to run."""
    small = row("small", 1.03, half=0.05, size=100)
    rows = [row("large", 1.0, half=0.05, size=900), small, row("tiny", 1.5, half=0.05, size=10)]
    assert best_row(rows, []) is small
    # Apart by more than both intervals, but by less than two measurements of one model differ.
    close = [row("large", 1.0, half=0.001, size=900), row("small", 1.01, half=0.001, size=100)]
    assert best_row(close, []).variant == "small"
    far = [row("large", 1.0, half=0.001, size=900), row("small", 1.05, half=0.001, size=100)]
    assert best_row(far, []).variant == "large"


def test_what_lost_beyond_its_interval_or_is_at_chance_is_not_chosen():
    good = row("good", 2.0, size=500, chance_level=0.1, ci95=(0.85, 0.95))
    lost = row("lost", 1.0, drop=0.01, size=100, drop_ci95=(0.004, 0.016))
    chance = row("chance", 0.5, size=50, chance_level=0.89, ci95=(0.85, 0.95))
    assert best_row([good, lost, chance], []) is good
    # A gate says how much may be lost.
    assert best_row([good, lost], [gate("lost", "accuracy_drop", True)]) is lost
    error = {"name": "mae", "unit": "", "direction": "minimize", "samples": 9}
    assert Score(**error, device=45.0, chance_level=50.0, ci95=(40.0, 51.0)).at_chance
    assert not Score(**error, device=45.0, chance_level=60.0, ci95=(40.0, 51.0)).at_chance


def test_what_is_recommended_loses_at_most_a_point():
    rows = [
        row("dense", 4.0, size=900),
        row("fast", 1.0, drop=0.01, size=500),
        row("small", 2.0, drop=0.005, size=100),
        row("wild", 0.5, drop=0.02, size=10),
        row("chance", 0.4, size=10, chance_level=0.9),
    ]
    found = recommend(rows)
    assert (found.fastest.variant, found.smallest.variant) == ("fast", "small")
    assert recommend(rows[3:]) is None
