"""`variants: auto` on what this machine is."""

import json

import pytest

from edgesparse.spec.auto_variants import default_variants
from edgesparse.spec.reading.load import parse_pipeline
from tests.conftest import HERE
from tests.spec.reading.test_load import BASE

CNN = """
name: cnn
data: {name: digits, args: {input_shape: [32, 32, 3]}}
model:
  name: mobilenet_v1
  args: {input_shape: [32, 32, 3], classes: 10, alpha: 0.25, downsample: 2}
train: {epochs: 1}
variants: auto
"""
MLP = (
    CNN.replace("name: cnn", "name: mlp")
    .replace("mobilenet_v1", "mlp")
    .replace("alpha: 0.25, downsample: 2", "widths: [256, 256]")
)


def test_auto_stands_for_variants_that_are_valid_and_known_as_such():
    text = BASE[: BASE.index("variants:")] + "variants: auto\n"
    spec = parse_pipeline(text).spec
    assert spec.has_auto_variants
    assert list(spec.variants) == list(default_variants(10))
    assert spec.baseline_variant == "dense-f32"
    assert not parse_pipeline(BASE).spec.has_auto_variants
    # Whatever is done to it, it stays so.
    assert spec.model_copy(update={"baseline": "dense-int8"}).has_auto_variants


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        (
            CNN,
            {"channels-int8", "sparse-int8"},
            {"half-f16", "sparse-f32", "channels-sparse-f32", "blocks-int8"},
        ),
        (MLP, {"channels-int8", "blocks-f32", "blocks-int8"}, {"half-f16", "channels-sparse-f32"}),
    ],
)
def test_a_device_leaves_out_what_gains_nothing_there(cli, tmp_path, text, kept, left):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    (tmp_path / "p.yaml").write_text(text)
    done = cli("plan", "p.yaml", "--device", "here", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    made = {one["label"].split()[1] for one in found["stages"] if one["stage"] == "convert"}
    assert kept | {"dense-f32", "dense-int8"} <= made
    assert not made & left
    told = [p["message"] for p in found["predictions"] if "left out" in p["message"]]
    assert {line.split()[1] for line in told} >= left
    assert "here: half-f16 left out: XNNPACK computes in 32 bits on x86" in told
