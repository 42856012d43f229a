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
    (found,) = [e for e in explain(content, profile) if e.name == "second"]
    return found


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request):
    return request.param, both_forms(RECIPES[request.param])


def test_each_broken_condition_is_named(recipe):
    name, (_, sparse, _, _) = recipe
    verdict = VERDICTS[name]
    for profile, state in ((TFLITE, verdict.tflite), (LITERT, verdict.litert)):
        found = told(profile, sparse)
        assert found.exploited == (state == "taken"), found.reason
        assert found.accepted == (state != "wrong"), found.reason
        if state != "taken":
            assert verdict.reason in found.reason
    # Never a file that answers wrong, however small.
    _, decisions = store(sparse, TFLITE, "auto")
    assert (verdict.tflite != "wrong") == any(d.form == "densify" for d in decisions)
