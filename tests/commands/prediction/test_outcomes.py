"""Predicted times become speed-ups of the rows that they are about."""

from edgesparse.commands.prediction.outcomes import Prediction, confirmed, with_predictions
from tests.report.test_table import row


def times(variant, time, delegate, runtime):
    return Prediction("gain", "", (variant,), (runtime,), "", time, delegate)


def test_a_row_has_the_ratio_that_was_predicted_for_its_delegate():
    dense = row("dense-f32", 2.0)
    runtime = dense.runtime.name
    sparse = row("block", 1.0, 1.9, 2.1).model_copy(update={"delegate": "edgesparse"})
    predictions = [
        times("dense-f32", 300.0, "xnnpack", runtime),
        times("block", 100.0, "edgesparse", runtime),
    ]
    assert [r.predicted_speedup for r in with_predictions([dense, sparse], predictions)] == [
        None,
        3,
    ]
    # What ran without the delegate was not predicted, nor was another runtime.
    left = sparse.model_copy(update={"delegate": "xnnpack"})
    assert with_predictions([dense, left], predictions)[1].predicted_speedup is None
    other = [times(p.variants[0], p.time, p.delegate, "other") for p in predictions]
    assert with_predictions([dense, sparse], other)[1].predicted_speedup is None
    assert confirmed(predictions, [dense, sparse]) == []
    assert predictions[1].record["time"] == 100.0
    assert predictions[1].message == ""
