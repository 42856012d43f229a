"""Lines around the tables: predicted speed-ups beside measured ones."""

from edgesparse.report.page import html_text
from edgesparse.report.table_notes import prediction_lines
from tests.report.test_table import printed, results, row


def test_predicted_and_measured_speed_ups_stand_side_by_side():
    near = row("block-int8", 1.0, 3.9, 4.3).model_copy(update={"predicted_speedup": 3.8})
    far = row("sparse-int8", 1.0, 1.1, 1.3).model_copy(update={"predicted_speedup": 1.8})
    run = results(row("dense-f32", 2.0), near, far)
    runtime = near.runtime.name
    assert prediction_lines(run) == [
        (f"block-int8 ({runtime}): predicted 3.80x, measured 4.10x vs dense-f32 (-7%)", True),
        (f"sparse-int8 ({runtime}): predicted 1.80x, measured 1.20x vs dense-f32 (+50%)", False),
    ]
    shown = " ".join(printed(run).split())
    assert "1 of 2 predicted speed-ups are within 20% of the measured" in shown
    assert "predicted 3.80x" not in shown
    assert "sparse-int8 (ai-edge-litert): predicted 1.80x, measured 1.20x" in shown
    html = html_text(run)
    assert "<h2>Predicted and measured speed-ups</h2>" in html
    assert "<td>3.80x</td><td>4.10x vs dense-f32</td><td>-7%</td>" in html
    assert prediction_lines(results(row("dense-f32", 2.0))) == []
