"""Verdicts on sparsity, recommendations, means over seeds."""

import pytest
from scipy import stats

from edgesparse.measure.results import DeviceInfo
from edgesparse.measure.rows import Coverage
from edgesparse.report.verdicts import seed_lines, verdicts
from tests.report.test_table import RUN, printed, results, row


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.2, 1.4, "1.20-1.40x speed, 2.0x smaller vs dense-f32: sparsity saves time"),
        (0.9, 1.1, "sparsity saves space, not time"),
        (
            0.97,
            0.996,
            "0.97-1.00x speed, 2.0x smaller vs dense-f32: sparsity saves space, not time",
        ),
        (0.5, 0.6, "slower than dense-f32"),
        (
            0.0004,
            0.0006,
            "0.0004-0.0006x speed, 2.0x smaller vs dense-f32: slower than dense-f32",
        ),
    ],
)
def test_verdicts_follow_the_interval(low, high, verdict):
    line = verdicts(results(row("dense-f32", 2.0), row("sparse", 1.0, low, high)))[0]
    assert line.text.endswith(verdict)
    assert line.pays == verdict.endswith("saves time")


def test_one_percent_is_no_speed_up():
    dense, sparse = row("dense-f32", 2.0), row("sparse", 1.0, 1.003, 1.02)
    speedup = sparse.speedup_vs_dense.model_copy(update={"ratio": 1.01, "ci95": (1.006, 1.014)})
    run = results(dense, sparse.model_copy(update={"speedup_vs_dense": speedup}))
    assert verdicts(run)[0].text.endswith("sparsity saves space, not time")


def test_a_step_that_targets_zeros_removes_no_channels():
    sparse = row("sparse", 1.0, 0.9, 1.1)
    few = sparse.model.model_copy(update={"sparsity": 0.01})
    coverage = Coverage(target=0.8, achieved=0.01)
    run = results(
        row("dense-f32", 2.0), sparse.model_copy(update={"model": few, "coverage": coverage})
    )
    assert "channel pruning" not in verdicts(run)[0].text
    assert "80->1.0" in printed(run)


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (1.85, "1.85-1.95x speed vs dense-f32: half precision saves time"),
        (0.97, "0.97-1.07x speed vs dense-f32: no gain from half precision"),
    ],
)
def test_half_precision_saves_time_only_where_a_timing_shows_it(low, verdict):
    rows = [row("dense-f32", 1.0), row("half-f16", 1.0, low, low + 0.1)]
    rows[1] = rows[1].model_copy(update={"half_precision": low > 1.2})
    (line,) = verdicts(results(*rows))
    assert line.text.endswith(verdict)


def device(name, error=None):
    return DeviceInfo(name=name, description="", machine="aarch64", cpu="A76", error=error)


def test_several_devices_have_a_best_variant_and_a_dead_one_its_error():
    run = results(
        row("dense-f32", 2.0),
        row("sparse-f32", 1.0, 1.9, 2.1),
        row("dense-f32", error="device gone: no answer", device="gone"),
    ).model_copy(update={"devices": [device("pi"), device("gone", "device gone: no answer")]})
    lines = printed(run).splitlines()
    assert "best on pi: sparse-f32 with ai-edge-litert, p50 1.000 ms, 1.23 MB" in lines
    assert "best on gone: no variant ran and met its gates" in lines
    assert "gone: device gone: no answer" in lines
    assert any(line.startswith("gone | ai-edge-litert") for line in lines)


def test_one_device_has_no_best_line():
    assert "best on" not in printed(RUN)


def seeded(variant, group, value):
    score = {"name": "accuracy", "unit": "%", "device": value, "samples": 100}
    return row(variant=variant, seed_group=group, metrics=[score])


def test_group_has_a_mean_and_an_interval_over_seeds():
    second_values, first_values = (0.90, 0.92, 0.94), (0.80, 0.86, 0.83)
    rows = [seeded(f"a{i}", "a0", v) for i, v in enumerate(first_values)]
    rows += [seeded(f"b{i}", "b0", v) for i, v in enumerate(second_values)]
    first, second = seed_lines(results(*rows))
    assert first.startswith("a0, a1, a2 (")
    assert "accuracy 83.0 ±7.5 over 3 seeds" in first
    test = stats.ttest_ind(second_values, first_values, equal_var=False).confidence_interval(0.95)
    half = (test.high - test.low) / 2 * 100
    assert f"accuracy 92.0 ±5.0 over 3 seeds, +9.0 ±{half:.1f} vs a0" in second


def test_single_seeds_have_no_line():
    assert list(seed_lines(results(row(variant="a"), row(variant="b")))) == []
    assert list(seed_lines(results(seeded("a", "a", 0.5)))) == []


@pytest.mark.parametrize("value", [0.5])
def test_equal_values_have_an_empty_interval(value):
    (line,) = seed_lines(results(seeded("a", "a", value), seeded("b", "a", value)))
    assert "±0.0 over 2 seeds" in line
