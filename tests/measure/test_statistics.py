import numpy as np
import pytest

from edgesparse.measure.statistics import compare, spread, summarize


def rounds(median, count=5, size=300, noise=0.02, drift=0.0, seed=0):
    random = np.random.default_rng(seed)
    return [
        median * (1 + drift * i) * random.lognormal(0, noise, size) for i in range(count)
    ]  # fmt: skip


def test_percentiles_are_over_all_runs():
    summary = summarize([np.arange(1.0, 51.0), np.arange(51.0, 101.0)])
    assert (summary.p50, summary.samples, summary.rounds) == (50.5, 100, 2)
    assert summary.p90 == pytest.approx(90.1)
    assert summary.p99 == pytest.approx(99.01)
    assert summary.mean == 50.5


@pytest.mark.full
@pytest.mark.slow
def test_the_interval_holds_the_true_median_most_of_the_time():
    """Rounds differ by 3 %, runs by 2 %: the interval must reflect both."""
    hits = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        level = np.exp(random.normal(0, 0.03, 8))
        measured = [m * np.exp(random.normal(0, 0.02, 100)) for m in level]
        low, high = summarize(measured, seed).ci95
        hits += low <= 1.0 <= high
    assert hits >= 80


def test_one_run_and_one_round():
    summary = summarize([np.array([2.0])])
    assert (summary.p50, summary.std, summary.ci95) == (2.0, 0.0, (2.0, 2.0))


def test_a_real_difference_separates():
    ratio = compare(rounds(2.0), rounds(1.0, seed=1))
    assert ratio.ratio == pytest.approx(2.0, rel=0.02)
    assert 1.9 < ratio.ci95[0] <= ratio.ratio <= ratio.ci95[1] < 2.1


def test_no_difference_does_not():
    low, high = compare(rounds(1.0), rounds(1.0, seed=1)).ci95
    assert low < 1 < high


def test_a_drift_that_slows_both_cancels_out():
    ratio = compare(rounds(2.0, drift=0.3), rounds(1.0, drift=0.3, seed=1))
    assert ratio.ratio == pytest.approx(2.0, rel=0.02)
    assert ratio.ci95[1] - ratio.ci95[0] < 0.1


def test_results_do_not_change_from_call_to_call():
    assert compare(rounds(2.0), rounds(1.0)) == compare(rounds(2.0), rounds(1.0))
    assert summarize(rounds(2.0)) == summarize(rounds(2.0))


def test_spread():
    assert spread([np.full(3, 1.0), np.full(3, 1.2), np.full(3, 1.0)]) == pytest.approx(0.2)
