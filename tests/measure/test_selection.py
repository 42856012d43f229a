"""Which variant is released."""

import numpy as np
import pytest

from edgesparse.measure.gates import check_gates
from edgesparse.measure.rows import (
    GateResult,
    Latency,
    ModelFile,
    Row,
    RuntimeInfo,
    Score,
)
from edgesparse.measure.selection import best_row, clearly_slower, select
from edgesparse.spec.pipeline import Gate


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


def gate(variant, metric, passed, delegate=None):
    return GateResult(
        variant=variant, metric=metric, device="pi", runtime="r", threads=1, delegate=delegate,
        value=1, min=None, max=1, passed=passed,
    )  # fmt: skip


ROWS = [row("dense", 2.0), row("sparse", 1.0), row("wild", 0.5, drop=0.3)]


def test_the_fastest_that_is_still_accurate():
    assert best_row(ROWS, []).variant == "sparse"


def test_an_own_limit_on_accuracy_counts_instead():
    assert best_row(ROWS, [gate("wild", "accuracy_drop", True)]).variant == "wild"


@pytest.mark.parametrize("metric", ["accuracy", "bytes"])
def test_a_gate_that_is_not_met_keeps_a_variant_out(metric):
    assert best_row(ROWS, [gate("sparse", metric, False)]).variant == "dense"


def test_a_gate_counts_for_rows_of_its_delegate():
    ours = row("sparse", 1.0).model_copy(update={"delegate": "edgesparse"})
    rows = [row("sparse", 2.0), ours]
    checked = check_gates([Gate(variant="sparse", metric="p50_ms", max=1.5)], rows)
    assert [(g.delegate, g.passed) for g in checked] == [("xnnpack", False), ("edgesparse", True)]
    assert best_row(rows, [gate("sparse", "bytes", False, "edgesparse")]) is rows[0]
    assert best_row(rows, [gate("sparse", "bytes", False)]) is None


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


@pytest.mark.parametrize(("drop", "chosen"), [(1e-8, "half"), (0.004, "dense")])
def test_a_negligible_loss_is_none_however_narrow_its_interval(drop, chosen):
    """The labels of compress are the dense model's own outputs: its r2 is 1."""
    r2 = {"name": "r2", "unit": "", "samples": 100}
    rows = [
        row("dense", 1.0, size=200).model_copy(
            update={"metrics": [Score(**r2, device=1.0, drop=0.0, drop_ci95=(0.0, 0.0))]}
        ),
        row("half", 1.0, size=100).model_copy(
            update={
                "metrics": [
                    Score(**r2, device=1 - drop, drop=drop, drop_ci95=(0.7 * drop, 1.4 * drop))
                ]
            }
        ),
    ]
    assert best_row(rows, []).variant == chosen


def timed(variant, rounds, size, drop=0.0, half=0.0, runtime="r"):
    """A row that was measured in rounds, with an interval of its drop."""
    base = row(variant, 1.0, drop, size=size, drop_ci95=(drop - half, drop + half))
    p50 = float(np.median(rounds))
    latency = base.latency_ms.model_copy(
        update={"p50": p50, "ci95": (min(rounds), max(rounds)), "by_round": list(rounds)}
    )
    return base.model_copy(
        update={"latency_ms": latency, "runtime": RuntimeInfo(name=runtime, version="1")}
    )


DIGITS = {
    # p50 [ms], size, drop and half its interval of a run of digits on an AMD EPYC.
    "dense-f32": (1.034, 3_290_000, 0.0, 0.0),
    "dense-int8": (0.353, 987_600, 0.0, 0.003),
    "channels-int8": (0.170, 441_300, 0.0, 0.014),
    "sparse-f32": (1.037, 621_100, 0.008, 0.011),
    "sparse-int8": (0.353, 415_600, 0.014, 0.015),
    "half-f16": (1.045, 1_670_000, 0.0, 0.001),
    "channels-sparse-f32": (0.429, 439_200, 0.006, 0.015),
}


def measured(random, without=(), rounds=5, load=0.25):
    """Rows of a run on a loaded machine: what slows a round down slows all of its variants down;
    one in ten measurements is disturbed alone, up to three times as slow."""
    shared = random.lognormal(0, load, rounds)
    rows = []
    for runtime, factor in (("litert", 1.0), ("tflite", 1.08)):
        for variant, (p50, size, drop, half) in DIGITS.items():
            alone = random.lognormal(0, 0.03, rounds)
            alone *= np.where(random.random(rounds) < 0.1, random.uniform(1, 3, rounds), 1.0)
            if variant not in without:
                times = p50 * factor * shared * alone
                rows.append(timed(variant, times, size, drop, half, runtime))
    return rows


@pytest.mark.parametrize(
    ("without", "shipped"),
    [
        ((), "channels-int8"),
        # Equal in time, and 1.4 points apart: the smaller file is not worth that.
        (("channels-int8",), "dense-int8"),
        (("channels-int8", "dense-int8"), "sparse-int8"),
    ],
)
def test_ten_loaded_runs_ship_the_same_variant(without, shipped):
    runs = (measured(np.random.default_rng(seed), without) for seed in range(10))
    assert [best_row(rows, []).variant for rows in runs] == [shipped] * 10


def test_neither_the_order_of_rows_nor_common_noise_decides():
    random = np.random.default_rng(0)
    for _ in range(50):
        rows = measured(random)
        chosen = best_row(rows, [])
        assert best_row([rows[i] for i in random.permutation(len(rows))], []) is chosen
        # What slows every row of a round down cancels out.
        common = random.lognormal(0, 0.5, 5)
        slowed = []
        for row_ in rows:
            rounds = np.multiply(row_.latency_ms.by_round, common)
            latency = row_.latency_ms.model_copy(update={"by_round": list(rounds)})
            slowed.append(row_.model_copy(update={"latency_ms": latency}))
        again = best_row(slowed, [])
        assert (again.variant, again.runtime) == (chosen.variant, chosen.runtime)


def test_of_equal_rows_the_smaller_is_chosen_whichever_is_faster():
    rounds = np.array([1.0, 1.1, 0.9, 1.05, 0.95])
    for noise in ([1, 1.04, 0.97, 1, 1.02], [1, 0.97, 1.03, 0.99, 0.98]):
        small, large = timed("small", rounds * noise, 100), timed("large", rounds, 900)
        assert not clearly_slower(small, large)
        assert not clearly_slower(large, small)
        assert best_row([large, small], []) is small


def test_a_row_slower_by_a_few_percent_in_every_round_is_clearly_slower():
    rounds = np.array([1.0, 2.0, 1.5, 3.0, 1.2])
    small, large = timed("small", rounds * 1.05, 100), timed("large", rounds, 900)
    assert clearly_slower(small, large)
    assert best_row([small, large], []) is large
    assert not clearly_slower(timed("same", rounds * 1.01, 100), large)


def test_of_equally_fast_rows_those_that_lose_more_are_left_out():
    rounds = np.ones(5)
    worse = timed("worse", rounds, 10, drop=0.015, half=0.02)
    equal = timed("equal", rounds, 100, drop=0.004, half=0.01)
    large = timed("large", rounds, 900)
    selection = select([worse, equal, large], [])
    assert [row.variant for row in selection.as_fast] == ["worse", "equal", "large"]
    assert [row.variant for row in selection.as_good] == ["equal", "large"]
    assert selection.row is equal
