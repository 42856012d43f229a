import pytest

from edgesparse.spec.pipeline import Quantize, Verify
from edgesparse.tflite.verify import disagreement, limits, lost_zeros


def test_zeros_that_did_not_arrive():
    assert lost_zeros(1000, 1000) is None
    assert lost_zeros(1200, 1000) is None
    assert lost_zeros(995, 1000) is None
    assert "conversion lost 400 of 1,000 zeros" in lost_zeros(600, 1000)


@pytest.mark.parametrize("scheme", ["f32", "f16", "dynamic", "int8"])
def test_limits_by_scheme_and_by_pipeline(scheme):
    quantize = Quantize(scheme=scheme)
    local = limits(quantize, Verify(tolerance=0.5, min_agreement=0.25))
    assert (local.tolerance, local.min_agreement) == (0.5, 0.25)
    default = limits(quantize, Verify())
    assert disagreement(1.0, default) is None
    assert "50% of golden outputs match" in disagreement(0.5, default)
