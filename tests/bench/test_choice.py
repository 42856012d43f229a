"""Which variant is released."""

import pytest

from edgesparse.bench.choice import best_row
from edgesparse.bench.rows import Accuracy, GateResult, Latency, Row, RuntimeInfo


def row(variant, p50, drop=0.0, status="ok"):
    latency = Latency(
        p50=p50, p90=p50, p99=p50, mean=p50, std=0, samples=1, rounds=1, ci95=(p50, p50)
    )
    return Row(
        pipeline="p", device="pi", runtime=RuntimeInfo(name="r", version="1"), delegate="xnnpack",
        threads=1, clock="wall", variant=variant, status=status,
        accuracy=Accuracy(device=0.9, drop=drop, samples=100), latency_ms=latency,
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
