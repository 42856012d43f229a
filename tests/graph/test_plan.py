import pytest

from edgesparse.delegate.choice import ChannelMultiple
from edgesparse.graph.plan import build_plan
from edgesparse.graph.workspace import differences
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from tests.conftest import ROOT

TEXT = (ROOT / "pipelines" / "digits.yaml").read_text()
RUNTIMES = [
    RuntimeInfo(name="tflite-runtime", version="2.14.0"),
    RuntimeInfo(name="ai-edge-litert", version="2.1.6"),
]
DIGESTS = {"data": "d", "model": "m"}


def plan(
    text=TEXT,
    digests=DIGESTS,
    versions=None,
    runtimes=RUNTIMES,
    variants=None,
    machine="x86_64",
    multiple=8,
):
    pipeline = parse_pipeline(text, str(ROOT / "pipelines" / "x.yaml")).spec
    versions = versions or {"tensorflow": "2.21.0"}
    profiles = {
        r.name: Profile(
            Machine(r.name, r.version, machine), channel_multiple=ChannelMultiple(multiple)
        )
        for r in runtimes
    }
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
    # Two variants ask for the same zeros, two for the same channels, and one for both.
    assert names.count("sparsify") == 3
    assert names.count("quantize") == 0, "no variant trains with quantization"
    assert names.count("convert") == 7
    assert names.count("encode") == 6, (
        "neither channels nor half precision leave anything to encode"
    )
    assert names.count("verify") == 14
    assert names.count("untrained-model") == 1


def test_a_comment_reruns_nothing():
    assert rerun(plan(), plan("# more\n" + TEXT.replace("train:", "# what\ntrain:"))) == set()


def test_changing_one_variants_step_reruns_its_stages_only():
    changed = TEXT.replace("epochs: 8", "epochs: 4", 1)
    assert changed != TEXT
    again = rerun(plan(), plan(changed))
    assert again == {
        "sparsify channels-sparse-int8 (magnitude)",
        "convert channels-sparse-int8",
        "encode channels-sparse-int8 (tflite-runtime)",
        "encode channels-sparse-int8 (ai-edge-litert)",
        "verify channels-sparse-int8 (tflite-runtime)",
        "verify channels-sparse-int8 (ai-edge-litert)",
    }


def test_a_steps_batch_size_is_in_its_key():
    changed = TEXT.replace("epochs: 8", "epochs: 8, batch_size: 16", 1)
    again = rerun(plan(), plan(changed))
    assert "sparsify channels-sparse-int8 (magnitude)" in again
    assert len(again) == 6


def test_the_benchmark_settings_rerun_nothing():
    assert rerun(plan(), plan(TEXT.replace("min_seconds: 1", "rounds: 3, min_seconds: 2"))) == set()


@pytest.mark.parametrize("change", [{"digests": {**DIGESTS, "model": "other"}},
                                    {"versions": {"tensorflow": "2.22.0"}}])  # fmt: skip
def test_code_and_libraries_rerun_training_and_what_follows(change):
    again = rerun(plan(), plan(**change))
    assert {"train", "convert dense-f32", "verify sparse-int8-block (ai-edge-litert)"} <= again


def test_a_new_runtime_version_verifies_again_and_no_more():
    other = [RuntimeInfo(name="ai-edge-litert", version="9"), RUNTIMES[0]]
    assert rerun(plan(), plan(runtimes=other)) == {
        *(f"verify {v} (ai-edge-litert)" for v in plan().converted),
        *(
            f"encode {v} (ai-edge-litert)"
            for v in ("sparse-f32", "sparse-int8-block", "channels-sparse-int8")
        ),
    }


def test_another_machine_stores_anew_what_it_treats_otherwise():
    """Fully connected kernels pay elsewhere on Arm; nothing is trained or converted again."""
    names = {label.split()[0] for label in rerun(plan(), plan(machine="aarch64"))}
    assert names == {"encode", "verify"}
    assert rerun(plan(machine="armv7l"), plan(machine="armv8l")) == set()


def test_targets_with_other_widths_of_channels_prune_them_anew():
    wide = plan(multiple=16)
    again = {label for label in rerun(plan(), wide) if label.startswith("sparsify")}
    assert again == {
        "sparsify channels-int8",
        "sparsify channels-sparse-int8 (magnitude)",
    }
    assert keys(plan(multiple=8)) == keys(plan())
    numbered = TEXT.replace("macs: 0.4", "macs: 0.4\n      round_to: 8")
    assert keys(plan(numbered, multiple=16)) == keys(plan(numbered))


def test_steps_with_blocks_order_channels_first():
    by_label = {s.label: s.spec for s in plan().stages if s.name == "sparsify"}
    assert by_label["sparsify sparse-f32"]["channels"] == "ordered"
    assert "channels" not in by_label["sparsify channels-int8"]
    single = plan(TEXT.replace("pattern: block-2x4", "pattern: unstructured"))
    assert not any("channels" in s.spec for s in single.stages if s.name == "sparsify")


def test_a_subset_keeps_the_baseline():
    chosen = plan(variants=["sparse-f32"])
    assert set(chosen.converted) == {"dense-f32", "sparse-f32"}


def test_dense_storage_is_not_encoded():
    text = TEXT.replace("  sparse-f32:\n", "  sparse-f32:\n    storage: dense\n")
    assert not any(s.label.startswith("encode sparse-f32") for s in plan(text).stages)


def test_differences_of_identities():
    old = {"spec": {"sparsify": {"sparsity": 0.8}}, "inputs": {"model": "a"}, "libraries": {}}
    new = {"spec": {"sparsify": {"sparsity": 0.9}}, "inputs": {"model": "b"}, "libraries": {"x": 1}}
    assert differences(old, new) == [
        "its model changed",
        "libraries.x: none -> 1",
        "spec.sparsify.sparsity: 0.8 -> 0.9",
    ]


STEPS = """
name: p
data: {name: digits}
model: {name: mlp, args: {input_shape: [8, 8, 1], classes: 10}}
variants:
  both:
    sparsify:
      - {method: channels, %s}
      - {method: magnitude, %s}
  channels: {sparsify: {method: channels, %s}, quantize: int8}
"""


def steps(first, second, **options):
    return plan(STEPS % (first, second, first), **options)


def test_steps_are_stages_and_a_shared_beginning_is_shared():
    result = [s for s in steps("macs: 0.5", "sparsity: 0.5").stages if s.name == "sparsify"]
    assert [s.label for s in result] == ["sparsify both (channels)", "sparsify both (magnitude)"]
    assert result[0].variants == ("both", "channels")
    assert result[1].inputs["model"] == result[0].key


def test_an_untrained_model_for_advice_only_is_not_work():
    result = steps("macs: 0.5", "sparsity: 0.5")
    assert result.training_groups[0].untrained_model in keys(result)
    assert result.training_groups[0].untrained_model not in {stage.key for stage in result.work}
    needed = steps("macs: 0.5", "sparsity: 0.5, pattern: auto")
    assert needed.training_groups[0].untrained_model in {stage.key for stage in needed.work}
    assert (
        plan(STEPS.split("  both:")[0] + "  a: {quantize: int8}\n")
        .training_groups[0]
        .untrained_model
        is None
    )


def test_auto_depends_on_what_the_target_exploits_and_on_nothing_else_of_it():
    auto = "sparsity: 0.9, pattern: auto"
    here = steps("macs: 0.5", auto)
    there = steps("macs: 0.5", auto, machine="aarch64")
    assert "sparsify both (magnitude)" in rerun(here, there)
    assert "sparsify both (channels)" not in rerun(here, there)
    alike = steps("macs: 0.5", auto, machine="armv7l"), steps("macs: 0.5", auto, machine="armv8l")
    assert "sparsify both (magnitude)" not in rerun(*alike)


def test_sparsity_auto_comes_after_its_sensitivity():
    result = steps("macs: 0.5", "sparsity: auto, max_accuracy_drop: 0.01")
    by_name = {stage.label: stage for stage in result.stages}
    sensitivity = by_name["sensitivity both"]
    assert sensitivity.inputs["model"] == by_name["sparsify both (channels)"].key
    assert by_name["sparsify both (magnitude)"].inputs["sensitivity"] == sensitivity.key
    less = steps("macs: 0.5", "sparsity: auto, max_accuracy_drop: 0.02")
    assert "sensitivity both" not in rerun(result, less), "the curves are the same"


def test_a_latency_is_the_devices_own():
    here, there = (steps("latency: 0.5", "sparsity: 0.5", machine=m) for m in ("x86_64", "aarch64"))
    assert "sparsify both (channels)" not in rerun(here, here)
    changed = plan(STEPS % ("latency: 0.5", "sparsity: 0.5", "latency: 0.5"), runtimes=RUNTIMES[1:])
    assert "sparsify both (channels)" in rerun(here, changed)
    # A variant in int8 is another thing to measure.
    labels = [s.label for s in there.stages if s.name == "sparsify"]
    assert labels == ["sparsify both (channels)", "sparsify both (magnitude)", "sparsify channels"]


KEYED = """
name: keyed
data: {name: digits, args: {input_shape: [16, 16, 1]}}
model: {name: mlp, args: {input_shape: [16, 16, 1], classes: 10, widths: [64]}}
train: {epochs: 2}
variants:
  dense: {}
  qat:
    sparsify: {method: magnitude, sparsity: auto, max_accuracy_drop: 0.02, pattern: auto}
    quantize: {scheme: int8, qat: true}
  fast:
    sparsify:
      - {method: channels, latency: 0.5}
      - {method: magnitude, sparsity: 0.9}
    quantize: dynamic
"""
KEYS = {
    "samples": "5c2690b656de",
    "preflight": "0960a75726c6",
    "untrained-model": "6e87b0669397",
    "train": "11a9a6be50df",
    "convert dense": "b9e7b06f1eb1",
    "verify dense (ai-edge-litert)": "2cef6279dcdf",
    "sensitivity qat": "fc6acb167003",
    "sparsify qat": "1a76f9607d12",
    "quantize qat": "2ab3bc92fe88",
    "convert qat": "bb6d73bf2f12",
    "encode qat (ai-edge-litert)": "b97036d3d0a2",
    "verify qat (ai-edge-litert)": "b7f0eab329e3",
    "sparsify fast (channels)": "863582e56467",
    "sparsify fast (magnitude)": "37a200425eb3",
    "convert fast": "c9e0bbc0a298",
    "encode fast (ai-edge-litert)": "61c0faaa4427",
    "verify fast (ai-edge-litert)": "e52baf18951b",
}


def test_keys_stay_what_they_are():
    """A store of an earlier version is still hit: whoever means to change a key says so here."""
    runtime = RuntimeInfo(name="ai-edge-litert", version="2.1.6")
    machine = Machine(runtime.name, runtime.version, "aarch64", frozenset({"asimdhp"}))
    result = build_plan(
        parse_pipeline(KEYED, "keyed.yaml").spec,
        DIGESTS,
        {"tensorflow": "2.21.0"},
        [runtime],
        {runtime.name: Profile(machine)},
        machine="aarch64 Cortex-A76",
    )
    assert {stage.label: stage.key[:12] for stage in result.stages} == KEYS


OWN = """
name: own
data: {name: digits, args: {input_shape: [8, 8, 1]}}
model: &narrow {name: mlp, args: {input_shape: [8, 8, 1], classes: 10, widths: [8]}}
variants:
  narrow: {}
  narrow-int8: {quantize: int8}
  wide: {model: &wide {name: mlp, args: {input_shape: [8, 8, 1], classes: 10, widths: [64]}}}
  wide-sparse: {model: *wide, sparsify: {method: rigl, sparsity: 0.9}}
  again: {seed: 9}
"""


def test_variants_with_their_own_model_or_seed_have_their_own_training():
    result = plan(OWN)
    trainings = {stage.label: stage for stage in result.stages if stage.name == "train"}
    assert set(trainings) == {"train", "train wide", "train again"}
    assert len({stage.key for stage in trainings.values()}) == 3
    by_model = {item.variants: item for item in result.training_groups}
    assert set(by_model) == {("narrow", "narrow-int8"), ("wide", "wide-sparse"), ("again",)}
    (sparse,) = (stage for stage in result.stages if stage.name == "sparsify")
    assert sparse.inputs["model"] == trainings["train wide"].key
    # What is judged is the same for all of them.
    assert len([stage for stage in result.stages if stage.name == "samples"]) == 1


def test_a_teacher_is_an_input_of_a_fine_tuning_that_distills():
    teacher = "      distill: &teacher {weight: 0.5, temperature: 2}\n"
    text = TEXT.replace("      distill: *teacher\n", "")
    assert teacher in text
    before, after = plan(text.replace(teacher, "")), plan(text)
    trained = next(stage.key for stage in after.stages if stage.name == "train")
    changed = [s for s in after.stages if s.name == "sparsify" and "teacher" in s.inputs]
    assert changed
    assert all(stage.inputs["teacher"] == trained for stage in changed)
    assert not any(stage.key in keys(before) for stage in changed)
