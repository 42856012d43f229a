import pytest

from edgesparse.bench.results import RuntimeInfo
from edgesparse.pipeline.plan import build_plan, differences
from edgesparse.spec.load import parse_pipeline
from edgesparse.tflite.compatibility import Machine, Profile
from tests.conftest import ROOT

TEXT = (ROOT / "pipelines" / "digits.yaml").read_text()
RUNTIMES = [
    RuntimeInfo(name="tflite-runtime", version="2.14.0"),
    RuntimeInfo(name="ai-edge-litert", version="2.1.6"),
]
DIGESTS = {"data": "d", "model": "m"}


def plan(
    text=TEXT, digests=DIGESTS, versions=None, runtimes=RUNTIMES, variants=None, machine="x86_64"
):
    pipeline = parse_pipeline(text, str(ROOT / "pipelines" / "x.yaml")).spec
    versions = versions or {"tensorflow": "2.21.0"}
    profiles = {r.name: Profile(Machine(r.name, r.version, machine)) for r in runtimes}
    return build_plan(pipeline, digests, versions, runtimes, profiles, variants=variants)


def keys(plan):
    return {stage.key for stage in plan.stages}


def rerun(before, after):
    """Labels of the stages of `after` that `before` does not have."""
    return {s.label for s in after.stages if s.key not in keys(before)}


def test_every_stage_comes_after_its_inputs():
    seen = set()
    for stage in plan().stages:
        assert set(stage.inputs.values()) <= seen
        seen.add(stage.key)


def test_variants_share_what_they_have_in_common():
    names = [stage.name for stage in plan().stages]
    assert names.count("train") == 1
    assert names.count("sparsify") == 1, "two variants ask for the same sparsify"
    assert names.count("quantize") == 1
    assert names.count("convert") == 4
    assert names.count("encode") == 4
    assert names.count("verify") == 8


def test_a_comment_reruns_nothing():
    assert rerun(plan(), plan("# more\n" + TEXT.replace("train:", "# what\ntrain:"))) == set()


def test_changing_one_variants_sparsity_reruns_its_stages_only():
    changed = TEXT.replace("sparsity: 0.88", "sparsity: 0.9", 1)
    assert changed != TEXT
    again = rerun(plan(), plan(changed))
    assert again == {
        "sparsify sparse-f32",
        "convert sparse-f32",
        "encode sparse-f32 (tflite-runtime)",
        "encode sparse-f32 (ai-edge-litert)",
        "verify sparse-f32 (tflite-runtime)",
        "verify sparse-f32 (ai-edge-litert)",
    }


def test_the_benchmark_settings_rerun_nothing():
    assert rerun(plan(), plan(TEXT + "benchmark: {rounds: 3, min_seconds: 1}\n")) == set()


@pytest.mark.parametrize("change", [{"digests": {**DIGESTS, "model": "other"}},
                                    {"versions": {"tensorflow": "2.22.0"}}])  # fmt: skip
def test_code_and_libraries_rerun_training_and_what_follows(change):
    again = rerun(plan(), plan(**change))
    assert {"train", "convert dense-f32", "verify sparse-int8 (ai-edge-litert)"} <= again


def test_a_new_runtime_version_verifies_again_and_no_more():
    other = [RuntimeInfo(name="ai-edge-litert", version="9"), RUNTIMES[0]]
    assert rerun(plan(), plan(runtimes=other)) == {
        *(
            f"verify {v} (ai-edge-litert)"
            for v in ("dense-f32", "dense-int8", "sparse-f32", "sparse-int8")
        ),
        "encode sparse-f32 (ai-edge-litert)",
        "encode sparse-int8 (ai-edge-litert)",
    }


def test_another_machine_stores_anew_what_it_treats_otherwise():
    """Fully connected kernels pay elsewhere on Arm; nothing is trained or converted again."""
    names = {label.split()[0] for label in rerun(plan(), plan(machine="aarch64"))}
    assert names == {"encode", "verify"}
    assert rerun(plan(machine="armv7l"), plan(machine="armv8l")) == set()


def test_a_subset_keeps_the_baseline():
    chosen = plan(variants=["sparse-f32"])
    assert set(chosen.converted) == {"dense-f32", "sparse-f32"}


def test_dense_storage_is_not_encoded():
    text = TEXT.replace("  sparse-f32:\n", "  sparse-f32:\n    storage: dense\n")
    assert not any(s.label.startswith("encode sparse-f32") for s in plan(text).stages)


def test_differences_are_told_in_words():
    old = {"spec": {"sparsify": {"sparsity": 0.8}}, "inputs": {"model": "a"}, "libraries": {}}
    new = {"spec": {"sparsify": {"sparsity": 0.9}}, "inputs": {"model": "b"}, "libraries": {"x": 1}}
    assert differences(old, new) == [
        "its model changed",
        "libraries.x: none -> 1",
        "spec.sparsify.sparsity: 0.8 -> 0.9",
    ]
