"""PyTorch networks in a pipeline: their mistakes, without running their code."""

import pytest

from edgesparse.spec.code.torch_models import shapes_of
from edgesparse.spec.errors import SpecError
from edgesparse.spec.pipeline import ModelSource
from edgesparse.spec.reading.load import parse_pipeline

PIPELINE = """\
name: p
data: {name: digits}
model: {torch: "my_net.py:build", weights: w.pt, input_shape: [1, 1, 8, 8]}
variants: {dense: {}, small: {quantize: int8}}
"""
MODEL = '{torch: "my_net.py:build", weights: w.pt, input_shape: [1, 1, 8, 8]}'


def parsed(folder, text):
    (folder / "my_net.py").write_text("raise SystemExit\ndef build(): ...\nclass Net: ...\n")
    (folder / "w.pt").write_bytes(b"w")
    return parse_pipeline(text, str(folder / "p.yaml")).spec


def test_a_network_is_located_and_its_code_not_run(tmp_path):
    assert shapes_of(parsed(tmp_path, PIPELINE).model) == ["1x1x8x8"]
    texts = PIPELINE.replace("[1, 1, 8, 8]", "[1x5x5, '1x9:int64']").replace(":build", ":Net")
    assert shapes_of(parsed(tmp_path, texts).model) == ["1x5x5", "1x9:int64"]
    assert shapes_of(ModelSource(torch="n.py:f", input_shape=[1, 2, "1x3"])) == ["1x2", "1x3"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("my_net.py:build", "net.py:build", "3:16: no file 'net.py' beside the YAML file"),
        ("my_net.py:build", "my_net.py:bild", "3:16: my_net.py has no function or class 'bild'"),
        ("my_net.py:build", "build", "3:16: 'build': write my_net.py:build"),
        ("w.pt", "v.pt", "no file 'v.pt' beside the YAML file"),
        (", input_shape: [1, 1, 8, 8]", "", "3:16: write the shape of one input"),
        ("[1, 1, 8, 8]", "[1, 0]", "write the shape of one input, a batch of 1 first"),
        ("weights: w.pt", "args: {a: 1}", "'args' does not belong to a torch model; remove it"),
        ("torch: ", "name: mlp, torch: ", "set exactly one of name, ref and torch, not name and"),
        (MODEL, "{name: mlp, args: {input_shape: [4], classes: 2}, input_shape: [1]}",
         "'input_shape' requires 'torch'; remove it"),
        ("small: {", "small: {sparsify: {method: magnitude, sparsity: 0.5}, ",
         "4:30: a torch model has no layers to train here: remove 'sparsify' and 'qat', and set "
         "'train: {epochs: 0}'; for zeros without training type: edgesparse compress "),
        ("variants:", "train: {epochs: 3}\nvariants:", "4:8: a torch model has no layers to train"),
        ("int8", "uint8", "4:30: a torch model cannot become uint8; use f32, f16, dynamic, int8"),
        ("{dense: {}, small: {quantize: int8}}", "auto",
         "4:11: a torch model needs named variants: {dense-f32"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_line_and_what_to_write(tmp_path, old, new, message):
    text = PIPELINE.replace(old, new)
    assert text != PIPELINE
    with pytest.raises(SpecError) as caught:
        parsed(tmp_path, text)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1
