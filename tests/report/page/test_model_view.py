"""The model view: what runs each layer, and why its zeros pay or not."""

import re

import pytest

from edgesparse.measure.rows import Layer, Speedup
from edgesparse.report.page import html_text
from edgesparse.report.page.model_view import model_views
from tests.report.page.sample_run import run


def view_of(layer, delegate="xnnpack"):
    results = run()
    row = results.rows[2].model_copy(update={"layers": [layer], "delegate": delegate})
    (view,) = model_views(results.model_copy(update={"rows": [row]}), {"pi": row})
    assert view.is_shipped
    (line,) = view.lines
    return line


LAYER = Layer(
    name="conv", operator="CONV_2D", weights=1000, zeros=900, macs=5000, storage="dense",
    dense_bytes=1000, stored_bytes=1000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "delegate", "runs_by", "pays", "reason"),
    [
        ({"taken": True}, "edgesparse", "edgesparse", True, "the delegate skips blocks of zeros"),
        (
            {"taken": True, "zeros": 300}, "edgesparse", "edgesparse", None,
            "too few zeros to pay; the delegate runs it for its neighbours",
        ),
        (
            {"taken": False, "why_left": "not int8"}, "edgesparse", "xnnpack: not int8", False,
            "not int8",
        ),
        ({"name": "dense_1", "operator": "FULLY_CONNECTED"}, "xnnpack", "xnnpack", True,
         "pi skips its zeros"),
        ({"name": "dense_1", "operator": "CONV_2D"}, "none", "runtime", False,
         "stored dense: the runtime does not know of its zeros"),
        ({"storage": "block-1x4"}, "xnnpack", "xnnpack", None, "stored block-1x4"),
        ({}, "none", "runtime", False, "stored dense: the runtime does not know of its zeros"),
        ({"name": "out", "zeros": 0}, "xnnpack", "xnnpack", None, "left dense: it"),
    ],
)  # fmt: skip
def test_a_layer_says_what_runs_it_and_why(changes, delegate, runs_by, pays, reason):
    line = view_of(LAYER.model_copy(update=changes), delegate)
    assert (line.runs_by, line.pays, line.reason) == (runs_by, pays, reason)
    assert line.work.text == "5k"


def test_zeros_of_a_file_that_is_slower_do_not_pay():
    results = run()
    slower = Speedup(ratio=0.66, ci95=(0.65, 0.68), baseline="dense-int8")
    layers = [LAYER.model_copy(update={"taken": True})]
    row = results.rows[2].model_copy(
        update={"layers": layers, "delegate": "edgesparse", "speedup_vs_dense": slower}
    )
    (view,) = model_views(results.model_copy(update={"rows": [row]}), {"pi": row})
    assert view.title == "sparse-int8 (ai-edge-litert): 0.66x vs dense-int8"
    assert view.lines[0].pays is False
    assert view.lines[0].reason.endswith("and the file is slower than dense-int8")


def test_a_measured_layer_says_how_much_faster_its_zeros_make_it():
    results = run()
    dense, row = results.rows[0], results.rows[2]
    assert row.speedup.baseline == dense.variant
    fast = LAYER.model_copy(update={"taken": True, "time_ms": 0.1})
    for time_ms, operator, expected in (
        (0.5, "CONV_2D", "5.00x vs dense-f32; the delegate skips blocks of zeros"),
        (0.07, "CONV_2D", "0.70x vs dense-f32; the delegate skips blocks of zeros"),
        (0.5, "FULLY_CONNECTED", "the delegate skips blocks of zeros"),
        (None, "CONV_2D", "the delegate skips blocks of zeros"),
    ):
        other = LAYER.model_copy(update={"zeros": 0, "time_ms": time_ms, "operator": operator})
        rows = [
            dense.model_copy(update={"layers": [other]}),
            row.model_copy(update={"layers": [fast], "delegate": "edgesparse"}),
        ]
        views = model_views(results.model_copy(update={"rows": rows}), {"pi": rows[1]})
        assert views[0].lines[0].reason == expected
        assert views[0].lines[0].pays is not expected.startswith("0.70x")


def test_shipped_rows_come_first_and_decoders_are_left_out():
    results = run()
    decoders = [
        Layer(name="", operator="DENSIFY"),
        Layer(name="", operator="DEQUANTIZE", storage="decoder"),
    ]
    output = Layer(name="out", operator="DEQUANTIZE")
    rows = [
        row.model_copy(update={"layers": [*decoders, output, LAYER]}) for row in results.rows[:2]
    ]
    views = model_views(results.model_copy(update={"rows": rows}), {"pi": rows[1]})
    assert [view.title.split()[0] for view in views] == ["sparse-f32", "dense-f32"]
    assert [[line.name for line in view.lines] for view in views] == [["out", "conv"]] * 2


@pytest.mark.parametrize(("machine", "pays"), [("x86_64", None), ("aarch64", True)])
def test_zeros_that_are_too_few_for_some_cpus_are_not_said_to_pay(machine, pays):
    results = run()
    layers = [LAYER.model_copy(update={"taken": True, "zeros": 600})]
    row = results.rows[2].model_copy(update={"layers": layers, "delegate": "edgesparse"})
    (device,) = results.devices
    devices = [device.model_copy(update={"machine": machine})]
    changed = results.model_copy(update={"rows": [row], "devices": devices})
    (view,) = model_views(changed, {"pi": row})
    assert view.lines[0].pays is pays


def test_instruction_counts_are_not_called_milliseconds():
    results = run()
    rows = [row.model_copy(update={"clock": "instructions"}) for row in results.rows]
    text = html_text(results.model_copy(update={"rows": rows}))
    assert "ms (simulated) alone" in text
    assert "Simulated times are instruction counts" in text
    assert not re.search(r"<title>[^<]*\d ms(?! \(simulated\))", text)
    assert "ms alone" not in text
    assert "ms alone" in html_text(results)
