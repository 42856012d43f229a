"""Reasons for the choice among variants of a Keras model."""

from edgesparse.commands.compression.keras_models import _why_unchanged
from tests.report.test_table import results, row


def test_every_variant_says_why_the_float_model_was_kept():
    score = {"name": "accuracy", "unit": "%", "device": 0.9, "samples": 360}
    scores = [[{**score, "drop": drop, "drop_ci95": (drop - 0.01, drop + 0.01)}]
              for drop in (0, 0.031, 0.015, 0)]  # fmt: skip
    rows = [
        row(name, p50, metrics=metrics)
        for name, p50, metrics in zip("dabc", (1.0, 0.5, 0.5, 2.0), scores, strict=True)
    ]
    rows[0] = rows[0].model_copy(update={"variant": "dense-f32"})
    text = _why_unchanged(results(*rows, row("e", error="crashed")))
    assert text == (
        "the float model was kept: a loses 3.1 points of accuracy (limit: 2); "
        "b loses 1.5 points of accuracy (95 %: at least 0.5); c is slower; e failed"
    )
