"""Trainings that differ in their seed, taken together."""

import pytest
from scipy import stats

from edgesparse.report.seeds import over_seeds
from tests.report.test_table import results, row


def seeded(variant, like, value):
    score = {"name": "accuracy", "unit": "%", "device": value, "samples": 100}
    return row(variant=variant, seed_group=like, metrics=[score])


def test_a_group_has_a_mean_and_an_interval_over_seeds():
    own, other = (0.90, 0.92, 0.94), (0.80, 0.86, 0.83)
    rows = [seeded(f"a{i}", "a0", v) for i, v in enumerate(other)]
    rows += [seeded(f"b{i}", "b0", v) for i, v in enumerate(own)]
    first, second = over_seeds(results(*rows))
    assert first.startswith("a0, a1, a2 (")
    assert "accuracy 83.0 ±7.5 over 3 seeds" in first
    test = stats.ttest_ind(own, other, equal_var=False).confidence_interval(0.95)
    half = (test.high - test.low) / 2 * 100
    assert f"accuracy 92.0 ±5.0 over 3 seeds, +9.0 ±{half:.1f} against a0" in second


def test_variants_without_others_say_nothing():
    assert over_seeds(results(row(variant="a"), row(variant="b"))) == []
    assert over_seeds(results(seeded("a", "a", 0.5))) == []


@pytest.mark.parametrize("value", [0.5])
def test_equal_values_have_no_width(value):
    lines = over_seeds(results(seeded("a", "a", value), seeded("b", "a", value)))
    assert "±0.0 over 2 seeds" in lines[0]
