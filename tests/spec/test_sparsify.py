"""What `sparsify` accepts, and where in the file a mistake is."""

from importlib.util import find_spec

import pytest

from edgesparse.spec.pipeline import Variant
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.spec.sparsify import METHODS, Channels, Magnitude
from tests.spec.reading.test_load import BASE, problems


def steps(text):
    return parse_pipeline(BASE + f"  b: {{sparsify: {text}}}\n").spec.variants["b"]


def test_one_mapping_is_a_list_of_one():
    one = steps("{method: magnitude, sparsity: 0.5}")
    assert one == steps("[{method: magnitude, sparsity: 0.5}]")
    assert [type(step) for step in one.sparsify] == [Magnitude]
    assert parse_pipeline(BASE).spec.variants["a"].sparsify == []


def test_channels_leave_no_zeros_and_magnitude_does():
    both = steps("[{method: channels, macs: 0.5}, {method: magnitude, sparsity: 0.5}]")
    assert [type(step) for step in both.sparsify] == [Channels, Magnitude]
    assert both.has_zeros
    assert not steps("{method: channels, ratio: 0.5}").has_zeros
    assert steps("{method: magnitude, sparsity: auto, max_accuracy_drop: 0.01}").has_zeros


def test_every_method_is_known_by_its_name():
    assert len(METHODS) == 8
    for name in METHODS:
        assert find_spec(f"edgesparse.methods.{name.replace('-', '_')}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{method: chanels}", "7:26: unknown method 'chanels'; did you mean 'channels'?"),
        ("[{method: magnitude, sparsity: 0.5}, {method: magnitud}]",
         "7:63: unknown method 'magnitud'; did you mean 'magnitude'?"),
        ("{method: channels}", "7:17: set exactly one of ratio, macs, parameters and latency, "
         "not none"),
        ("{method: channels, macs: 0.5, ratio: 0.5}", "7:17: set exactly one of ratio, macs"),
        ("[{method: channels, mac: 0.5}]", "7:37: unknown key 'mac'; did you mean 'macs'?"),
        ("{method: channels, macs: 1.5}", "7:42: input should be less than 1"),
        ("{method: magnitude, sparsity: 2}", "7:47: input should be less than 1"),
        ("{method: magnitude, sparsity: most}", "7:47: invalid value 'most'"),
        ("{method: magnitude, sparsity: auto}", "7:17: 'sparsity: auto' requires"),
        ("{method: magnitude, sparsity: 0.5, max_accuracy_drop: 0.1}", "7:17: 'sparsity: auto'"),
        ("{method: magnitude, sparsity: auto, max_accuracy_drop: 0.1, pattern: '2:4'}",
         "7:17: 'pattern: 2:4' is 50 % zeros"),
        ("[{method: magnitude, sparsity: 0.5}, {method: channels, macs: 0.5}]",
         "7:17: 'channels' must come before 'magnitude'"),
        ("{method: one-shot, sparsity: 0.5, distill: true}",
         "7:17: 'distill' requires 'epochs' of at least 1"),
        ("{method: one-shot, sparsity: 0.5, pattern: '2:4', distribution: lamp}",
         "7:17: 'distribution: lamp' has no effect on 2:4"),
        ("{method: magnitude, sparsity: 0.5, distill: {weight: 2}}",
         "7:70: input should be less than or equal to 1"),
        ("[3]", "7:18: expected a mapping with 'method'"),
        ("{method: 'none.py:prune'}", "7:26: no file 'none.py' beside the YAML file"),
        ("[{method: channels, macs: 0.5}, {method: 'none.py:prune'}]",
         "7:58: no file 'none.py' beside the YAML file"),
    ],
)  # fmt: skip
def test_mistakes_have_their_place(text, expected):
    (found,) = problems(BASE + f"  b: {{sparsify: {text}}}\n")
    assert found.startswith(f"p.yaml:{expected}"), found


def test_distillation_has_a_shorthand_and_needs_a_training():
    step = {"method": "magnitude", "sparsity": 0.5}
    parsed = Variant(sparsify={**step, "distill": True}, quantize={"scheme": "int8", "qat": True})
    assert parsed.sparsify[0].distill.model_dump() == {
        "teacher": "dense",
        "weight": 0.7,
        "temperature": 4.0,
    }
    assert parsed.is_distilled
    assert not Variant(sparsify={**step, "distill": False}).is_distilled
    (problem,) = problems(BASE + "  b: {quantize: {scheme: int8, distill: true}}\n")
    assert "'distill' requires 'qat: true'" in problem
