"""Which networks XNNPACK would run on its sparse path. The emulated Pi agrees: see
tests/e2e/test_clusters.py."""

import pytest

from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.explain import explain
from edgesparse.tflite.runtimes.storage import store
from tests.tflite.runtimes.clusters import RECIPES, VERDICTS, both_forms

pytestmark = pytest.mark.slow
PI5 = frozenset({"asimdhp", "asimddp"})
TFLITE = Profile(Machine("tflite-runtime", "2.14.0", "aarch64", PI5))
LITERT = Profile(Machine("ai-edge-litert", "2.1.6", "aarch64", PI5))


def told(profile, content):
    """What is said of the 1x1 convolution in the middle."""
    (result,) = [e for e in explain(content, profile) if e.name == "second"]
    return result


# Of each pair of what the two runtimes do with a network at least one.
SOME = (
    "taken",
    "classifier-convolution",
    "stem-same",
    "depthwise-same",
    "tanh",
    "exp",
    "int8",
    "stored-dense",
)


def test_every_verdict_is_among_some():
    verdicts = {(verdict.tflite, verdict.litert) for verdict in VERDICTS.values()}
    assert {(VERDICTS[name].tflite, VERDICTS[name].litert) for name in SOME} == verdicts


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SOME else [pytest.mark.full]) for name in RECIPES],
)
def test_each_broken_condition_is_named(name):
    _, sparse, _, _ = both_forms(RECIPES[name])
    verdict = VERDICTS[name]
    for profile, state in ((TFLITE, verdict.tflite), (LITERT, verdict.litert)):
        result = told(profile, sparse)
        assert result.exploited == (state == "taken"), result.reason
        assert result.accepted == (state != "wrong"), result.reason
        if state != "taken":
            assert verdict.reason in result.reason
    # Never a file that answers wrong, however small.
    _, decisions = store(sparse, TFLITE, "auto")
    assert (verdict.tflite != "wrong") == any(d.form == "densify" for d in decisions)
