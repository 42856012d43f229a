"""The choice between edgesparse's delegate and XNNPACK by brief rounds."""

import pytest

from edgesparse.stages.verify import _is_faster


@pytest.mark.parametrize(
    ("plain", "delegated", "predicted", "faster"),
    [
        ([2.0, 2.1, 2.0], [1.0, 1.9, 1.5], 0.8, True),
        ([1.0, 1.1, 1.0], [1.2, 1.3, 1.1], 1.2, False),
        ([1.0, 1.1, 1.0], [1.2, 0.9, 1.1], 1.2, True),
        ([1.0, 1.1, 1.0], [1.2, 0.9, 1.1], 0.8, False),
    ],
)
def test_rounds_that_differ_leave_it_to_the_prediction(plain, delegated, predicted, faster):
    rounds = {"xnnpack": plain, "edgesparse": delegated}
    assert _is_faster(rounds, predicted) is faster
    assert _is_faster({}, predicted) is (predicted >= 1)


def test_without_a_prediction_the_delegate_is_taken():
    assert _is_faster({}, None)
