"""Verdicts: what to ship, where sparsity pays, means over seeds."""

import pytest
from scipy import stats

from edgesparse.measure.results import DeviceInfo
from edgesparse.measure.rows import Coverage
from edgesparse.report.table_notes import seed_lines
from edgesparse.report.verdicts import ship_lines, verdicts
from tests.report.test_table import printed, results, row


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.2, 1.4, "1.30x (1.20-1.40), 2.0x smaller vs dense-f32: sparsity saves time"),
        (0.9, 1.1, "sparsity saves space, not time"),
        (
            0.97,
            0.996,
            "0.98x (0.97-1.00), 2.0x smaller vs dense-f32: sparsity saves space, not time",
        ),
        (0.5, 0.6, "slower than dense-f32"),
        (
            0.0004,
            0.0006,
            "2000x slower (1667-2500), 2.0x smaller vs dense-f32: slower than dense-f32",
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
        (1.85, "1.90x (1.85-1.95) vs dense-f32: half precision saves time"),
        (0.97, "1.02x (0.97-1.07) vs dense-f32: no gain from half precision"),
        (
            1.04,
            "1.09x (1.04-1.14) vs dense-f32: faster, but half precision is not confirmed as the "
            "cause",
        ),
    ],
)
def test_half_precision_saves_time_only_where_a_timing_shows_it(low, verdict):
    rows = [row("dense-f32", 1.0), row("half-f16", 1.0, low, low + 0.1)]
    rows[1] = rows[1].model_copy(update={"half_precision": low > 1.2})
    (line,) = verdicts(results(*rows))
    assert line.text.endswith(verdict)
    # Channels alone can be the cause where half precision is not confirmed.
    rows[1] = rows[1].model_copy(update={"steps": ("channels",)})
    (line,) = verdicts(results(*rows))
    if low > 1:
        both = "channel pruning and half precision save time"
        assert line.text.endswith(both if low > 1.2 else "channel pruning saves time")


def device(name, error=None):
    return DeviceInfo(name=name, description="", machine="aarch64", cpu="A76", error=error)


def test_a_variant_alike_on_all_runtimes_has_one_line():
    other = {"name": "tflite-runtime", "version": "2.14.0"}
    rows = [row("dense-f32", 2.0), row("sparse", 1.0, 1.3, 1.5)]
    rows += [row("dense-f32", 2.0, runtime=other), row("sparse", 1.0, 1.2, 1.4, runtime=other)]
    (line,) = verdicts(results(*rows))
    assert line.text == "sparse: 1.20-1.50x, 2.0x smaller vs dense-f32: sparsity saves time"
    rows[3] = row("sparse", 1.0, 3.9, 4.1, runtime=other)
    (line,) = verdicts(results(*rows))
    assert line.text.startswith("sparse: 1.40x (ai-edge-litert) to 4.00x (tflite-runtime), 2.0x sm")
    rows[3] = row("sparse", 1.0, 0.9, 1.1, runtime=other)
    assert [line.pays for line in verdicts(results(*rows))] == [True, False]


def test_three_lines_state_what_to_ship_with_gains_costs_and_the_reason():
    run = results(
        row("dense-f32", 2.0, runtime={"name": "r", "version": "1"}),
        row("sparse-f32", 1.0, 1.9, 2.1, runtime={"name": "r", "version": "1"}),
    )
    texts = [verdict.text for verdict in ship_lines(run)]
    assert texts == [
        "ship sparse-f32 (r): 1.000 ms, 1.23 MB, accuracy 97.8 %",
        "gains: 2.00x faster (1.90-2.10), 2.0x smaller vs dense-f32; costs: 1.2 points",
        "why: fastest of 2 rows that keep metric and gates, 2.00x faster than dense-f32",
    ]
    table = printed(run, width=80).splitlines()
    last = max(n for n, line in enumerate(table) if line.startswith("* sparse-f32"))
    assert table[last + 1] == ""
    assert table[last + 2] == texts[0]
    assert any(line.startswith("* sparse-f32 ") for line in table)


@pytest.mark.parametrize(
    ("unit", "drop", "costs"),
    [
        ("%", (-0.288, -0.388, -0.188), "no accuracy (28.8±10.0 points better)"),
        ("°C", (-0.2, -0.3, -0.1), "no accuracy (0.2±0.1 °C accuracy better)"),
        ("%", (-0.004, -0.011, 0.003), "-0.4±0.7 points (not significant)"),
    ],
)
def test_a_metric_that_is_better_beyond_its_interval_costs_nothing(unit, drop, costs):
    value, *interval = drop
    score = {"name": "accuracy", "unit": unit, "device": 0.9, "samples": 360}
    better = [{**score, "drop": value, "drop_ci95": tuple(interval)}]
    run = results(row("dense-f32", 2.0), row("small", 1.0, metrics=better))
    assert ship_lines(run)[1].text.endswith(f"; costs: {costs}")


def test_what_is_equal_is_said_to_be_equal_and_the_faster_says_why_it_is_out():
    score = {"name": "accuracy", "unit": "%", "device": 0.9, "samples": 360}
    kept = [{**score, "drop": 0.004, "drop_ci95": (-0.003, 0.011)}]
    lost = [{**score, "drop": 0.08, "drop_ci95": (0.06, 0.10)}]
    run = results(
        row("dense-f32", 1.0, metrics=kept),
        row("small", 1.005, metrics=kept, model=row("x", 0.1).model.model_dump()),
        row("wild", 0.2, metrics=lost),
    )
    ship, gains, why = (verdict.text for verdict in ship_lines(run))
    assert ship.startswith("ship small (ai-edge-litert): 1.005 ms, 123.5 KB")
    assert gains.endswith("costs: 0.4±0.7 points (not significant)")
    assert why == (
        "why: equal in speed to dense-f32 (not told apart); smallest of those that lose no less; "
        "wild is faster, but loses 8 points of accuracy (limit: 2)"
    )


def test_where_nothing_can_be_shipped_the_reasons_are_listed():
    lost = [{"name": "accuracy", "unit": "%", "device": 0.5, "samples": 9, "drop": 0.4}]
    rows = [row("a", 1.0, metrics=lost), row("b", error="crashed")]
    (line,) = ship_lines(results(*rows))
    text = "ship nothing: a loses 40 points of accuracy (limit: 2); b failed"
    assert (line.text, line.pays) == (text, False)


def test_several_devices_have_a_verdict_each_and_a_dead_one_its_error():
    run = results(
        row("dense-f32", 2.0),
        row("sparse-f32", 1.0, 1.9, 2.1),
        row("dense-f32", error="device gone: no answer", device="gone"),
    ).model_copy(update={"devices": [device("pi"), device("gone", "device gone: no answer")]})
    lines = printed(run).splitlines()
    ship = "ship sparse-f32 (ai-edge-litert): 1.000 ms, 1.23 MB, accuracy 97.8 % to pi"
    assert ship in lines
    assert "gone: device gone: no answer" in lines
    assert any(line.startswith("gone | ai-edge-litert") for line in lines)


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
