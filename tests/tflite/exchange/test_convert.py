"""Models of PyTorch and ONNX, converted by the real converters, and compared with the original."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import digest_of
from edgesparse.spec.safe.isolated_python import run_json_module
from edgesparse.tflite.exchange.convert import (
    TOLERANCE,
    Converted,
    Input,
    conversion_key,
    convert,
    converted_samples,
)
from edgesparse.tflite.exchange.environment import ENVIRONMENTS, build
from edgesparse.tflite.exchange.networks import Network
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.post_training.calibration_samples import outputs_of
from tests.conftest import HERE, require


def run_in(kind, code, folder):
    """Run a script with the Python of a converter's environment, which is kept for the next run."""
    try:
        build(ENVIRONMENTS[kind], lambda _, __: None)
    except EdgesparseError as error:
        require(False, str(error))
    path = f"import sys\nsys.path += {ENVIRONMENTS[kind].imported}\n"
    words = [ENVIRONMENTS[kind].python, "-I", "-c", path + code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digits(folder):
    """Write x, channels first, and y to digits.npz; returns x."""
    data = load_digits()
    images = (data.images[:, None] / 16).astype("float32")
    np.savez(folder / "digits.npz", x=images, y=data.target)
    return images


def project(folder):
    (folder / "devices").mkdir()
    (folder / "devices" / "here.yaml").write_text(HERE)


def test_a_difference_is_a_share_of_the_spread_of_the_originals_answers(
    tflite_files, samples, tmp_path
):
    """The reference has another answer in one of its values than the file."""
    content = tflite_files["dense"].read_bytes()
    (tmp_path / "m.tflite").write_bytes(content)
    answers = outputs_of(content, {"x": samples[:4]} | {name_of(content): samples[:4]})[0]
    answers = answers.reshape(4, 1, -1)
    spread = answers.max() - answers.min()
    original = json.dumps({"inputs": [{"name": "a", "shape": [1, 512]}], "outputs": ["b"]})
    for change, low, high in ((0, 0, 1e-6), (0.1 * spread, 0.08, 0.12), (np.nan, 1, 0)):
        answers[2, 0, 1] += change
        arrays = {"input/0": samples[:4, None], "output/0": answers}
        np.savez(tmp_path / "m.npz", **arrays)
        words = ("m.onnx", tmp_path / "m.tflite", original)
        about = run_json_module("edgesparse.tflite.exchange.convert", words, "m", 60)
        assert low <= about["error"] <= high or np.isnan(change)
        assert about["error"] <= TOLERANCE or change
    with pytest.raises(UsageError, match=r"^m.onnx: input .* has shape \(1, 512\), not \(1, 511\)"):
        run_json_module(
            "edgesparse.tflite.exchange.convert",
            ("m.onnx", tmp_path / "m.tflite", original.replace("512", "511")), "m", 60,
        )  # fmt: skip


def test_a_conversion_is_kept_for_one_name_content_and_weights_beside(tmp_path):
    onnx, torch = ENVIRONMENTS["onnx"], ENVIRONMENTS["torch"]
    (tmp_path / "x.npy").write_bytes(b"x")
    for name in ("m.onnx", "other.onnx", "m.onnx.data"):
        (tmp_path / name).write_bytes(b"same")
    m, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    keys = [conversion_key(m, onnx, None), conversion_key(m, onnx, tmp_path / "x.npy")]
    assert keys[0] == conversion_key(m, onnx, None)
    keys += [conversion_key(other, onnx, None), conversion_key(other, torch, None)]
    (tmp_path / "m.onnx.data").write_bytes(b"more")
    keys.append(conversion_key(m, onnx, None))
    m.rename(tmp_path / "other.onnx")
    assert conversion_key(other, onnx, None) == keys[2]
    assert len(set(keys)) == 5


@pytest.fixture
def net(tmp_path):
    """Code of a network, with a file that it imports, and weights."""
    (tmp_path / "net.py").write_text("from beside import layer\ndef build(): return layer()\n")
    (tmp_path / "beside.py").write_text("def layer(): return 1\n")
    (tmp_path / "w.pt").write_bytes(b"w")
    return Network(tmp_path / "net.py", "build", tmp_path / "w.pt", (((1, 3), "float32"),))


def test_edits_of_a_networks_code_weights_and_shapes_are_noticed(net, tmp_path):
    torch = ENVIRONMENTS["torch"]
    keys = [conversion_key(net, torch, None)]
    assert keys[0] == conversion_key(net, torch, None)
    keys.append(conversion_key(replace(net, inputs=(((1, 4), "float32"),)), torch, None))
    keys.append(conversion_key(replace(net, weights=None), torch, None))
    for name in ("net.py", "beside.py", "w.pt"):
        with (tmp_path / name).open("a") as file:
            file.write("# edited\n")
        keys.append(conversion_key(net, torch, None))
    assert len(set(keys)) == 6


def test_a_conversion_is_kept_until_a_file_that_the_code_read_changes(net, tmp_path, monkeypatch):
    """The converter is one that refuses, so that nothing but what is kept can be returned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    environment = ENVIRONMENTS["torch"]
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text('#!/bin/sh\necho \'{"wrong": "converted again"}\'\n')
    environment.python.chmod(0o755)
    read = tmp_path / "config.json"
    read.write_text("{}")
    folder = tmp_path / "c" / conversion_key(net, environment, None)
    folder.mkdir(parents=True)
    about = {"inputs": [], "error": 0.0, "samples": 4, "read": {str(read): digest_of(read)}}
    (folder / "about.json").write_text(json.dumps(about))
    assert convert(net, "torch", tmp_path / "c").path == folder / "net.tflite"
    read.write_text('{"width": 2}')
    with pytest.raises(UsageError, match="converted again"):
        convert(net, "torch", tmp_path / "c")


def test_samples_that_cannot_be_read_are_left_to_what_uses_them(tmp_path):
    image = Input("image", "x", (1, 3, 2, 2), (1, 2, 2, 3), moved=True)
    converted = Converted(tmp_path / "m.tflite", (image,), 0.0, 4)
    x = np.arange(24, dtype="float32").reshape(2, 3, 2, 2)
    labels = np.array(["a", None])
    np.savez(tmp_path / "x.npz", image=x, labels=labels)
    last = np.load(converted_samples(converted, tmp_path / "x.npz"), allow_pickle=False)
    assert last.files == ["x"]
    np.testing.assert_array_equal(last["x"], np.moveaxis(x, 1, -1))
    np.savez(tmp_path / "objects.npz", image=labels)
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(content[:200])
    (tmp_path / "changed.npz").write_bytes(content.replace(x.tobytes(), bytes(x.nbytes)))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npz", "short.npz", "changed.npz", "empty.npy", "missing.npy"):
        assert converted_samples(converted, tmp_path / name) == tmp_path / name


def name_of(content):
    from edgesparse.tflite.format.signature import read_signature

    return read_signature(content).inputs[0].name


ONNX = """
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as n

r = np.random.default_rng(0)
def weight(name, *shape):
    values = r.normal(size=shape).astype("f") * 0.2
    if len(shape) > 1:
        values[r.random(shape) < 0.8] = 0
    return n.from_array(values, name)

def save(name, nodes, inputs, outputs, weights):
    ends = [[h.make_tensor_value_info(k, T.FLOAT, s) for k, s in e] for e in (inputs, outputs)]
    graph = h.make_graph(nodes, "g", *ends, weights)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), name)

node = h.make_node
save("digits.onnx", [
    node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
    node("Shape", ["r"], ["s"]), node("Gather", ["s", "zero"], ["batch"]),
    node("Concat", ["batch", "rest"], ["flat"], axis=0), node("Reshape", ["r", "flat"], ["f"]),
    node("Gemm", ["f", "v", "a"], ["g"]), node("Softmax", ["g"], ["y"], axis=1),
], [("x", ["N", 1, 8, 8])], [("y", ["N", 10])], [
    weight("w", 64, 1, 3, 3), weight("b", 64), weight("v", 4096, 10), weight("a", 10),
    n.from_array(np.array([0]), "zero"), n.from_array(np.array([-1]), "rest"),
])
save("two.onnx", [
    node("Conv", ["image", "w"], ["map"], pads=[1, 1, 1, 1]),
    node("MatMul", ["series", "v"], ["m"]), node("Tanh", ["m"], ["seen"]),
], [("image", [1, 3, 6, 8]), ("series", [1, 5, 4])], [("map", [1, 4, 6, 8]), ("seen", [1, 5, 2])],
    [weight("w", 4, 3, 3, 3), weight("v", 4, 2)])
save("open.onnx", [node("Relu", ["x"], ["y"])], [("x", [1, 3, "high", 4])],
    [("y", [1, 3, "high", 4])], [])
for name, location in (("apart", "weights.bin"), ("beside", "beside.onnx.data")):
    # Loaded anew, since saving moves its weights out.
    onnx.save_model(onnx.load("digits.onnx"), f"{name}.onnx", save_as_external_data=True,
                    location=location, size_threshold=0)
save("odd.onnx", [node("Det", ["x"], ["y"])], [("x", [1, 3, 3])], [("y", [1])], [])
open("bad.onnx", "w").write("not a model")
"""


@pytest.mark.slow
@pytest.mark.full
def test_an_onnx_file_is_inspected_stored_and_compressed_by_the_users_samples(cli, tmp_path):
    images = digits(tmp_path)
    project(tmp_path)
    run_in("onnx", ONNX, tmp_path)
    converted = convert(tmp_path / "digits.onnx", "onnx", tmp_path / "c", tmp_path / "digits.npz")
    assert converted.error <= TOLERANCE
    assert converted.samples == 8  # Random inputs and the user's.
    assert "input x is channels last, 1x8x8x1" in converted.note
    values = {c.op: c.values for c in constants(open_model(converted.path.read_bytes(), "m"))}
    assert (values["FULLY_CONNECTED"] == 0).mean() == pytest.approx(0.8, abs=0.02)
    last = np.load(converted_samples(converted, tmp_path / "digits.npz"))
    np.testing.assert_array_equal(last["x"], np.moveaxis(images, 1, -1))
    assert last["y"].shape == (len(images),)

    done = cli("encode", "digits.onnx", "stored.tflite", "--device", "here")
    assert done.returncode == 0, done.stderr
    assert "converted to .tflite: answers differ by at most" in done.stderr
    assert (tmp_path / "stored.tflite").stat().st_size < converted.path.stat().st_size / 2
    words = ("--data", "digits.npz", "--device", "here", "--sparsity", "0.8", "--quick")
    done = cli("compress", "digits.onnx", *words, "-o", "out.tflite")
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout
    assert "wrote out.tflite" in done.stdout
    runs = (tmp_path / ".edgesparse" / "runs").glob("*/results.json")
    rows = [row for run in runs for row in json.loads(run.read_text())["rows"]]
    assert "stored" in {row["variant"] for row in rows}  # With its own zeros.


@pytest.mark.slow
@pytest.mark.full
def test_onnx_images_become_channels_last_and_series_stay(tmp_path):
    run_in("onnx", ONNX, tmp_path)
    two = convert(tmp_path / "two.onnx", "onnx", tmp_path / "c")
    convert(tmp_path / "beside.onnx", "onnx", tmp_path / "d")
    assert two.error <= TOLERANCE
    assert [i.moved for i in two.inputs] == [True, False]
    assert [i.tflite_shape for i in two.inputs] == [(1, 6, 8, 3), (1, 5, 4)]
    for name, cause in (
        (
            "open",
            r"open.onnx: input x has the dynamic size high; fix it: pip install onnx onnxruntime",
        ),
        ("apart", r"apart.onnx: its weights are in 'weights.bin', not in 'apart...data'; write"),
        ("bad", "bad.onnx: not a valid ONNX file"),
        ("odd", "odd.onnx: converted to .tflite, .*MatrixDeterminant"),
    ):
        with pytest.raises(EdgesparseError, match=cause):
            convert(tmp_path / f"{name}.onnx", "onnx", tmp_path / "c")
    assert [path.name for path in tmp_path.glob("c/*") if path != two.path.parent] == ["lock"]


TORCH = """
import numpy as np, torch
from torch import nn
from torch.nn.utils import prune

class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        self.skips = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(), nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    def forward(self, x):
        return x + self.layers(x) if self.skips else self.layers(x)

def mobilenet_v2():
    layers, width = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()], 32
    for expansion, outputs, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2),
            (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for number in range(count):
            layers.append(Residual(width, outputs, stride if number == 0 else 1, expansion))
            width = outputs
    return nn.Sequential(*layers, nn.Conv2d(width, 1280, 1, bias=False), nn.BatchNorm2d(1280),
        nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))

torch.manual_seed(0)
batch = {0: torch.export.Dim("batch", min=1, max=512)}
images = (torch.randn(2, 3, 96, 96),)
program = torch.export.export(mobilenet_v2().eval(), images, dynamic_shapes=(batch,))
torch.export.save(program, "mobilenet.pt2")

data = np.load("digits.npz")
x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 64),
    nn.ReLU(), nn.Linear(64, 10), nn.Softmax(dim=1))

def train(epochs):
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for first in [*range(0, len(x), 64)] * epochs:
        optimizer.zero_grad()
        answers = model.train()(x[first:first + 64])
        nn.functional.nll_loss(torch.log(answers + 1e-9), y[first:first + 64]).backward()
        optimizer.step()

train(6)
for layer in (model[3], model[6]):
    prune.l1_unstructured(layer, "weight", amount=0.8)
train(3)
for layer in (model[3], model[6]):
    prune.remove(layer, "weight")
torch.export.save(torch.export.export(model.train(), (x[:2],)), "training.pt2")
torch.export.save(torch.export.export(model.eval(), (x[:1],)), "classifier.pt2")
print((model(x).argmax(1) == y).float().mean().item())
"""


@pytest.mark.bench
def test_a_mobilenet_and_a_trained_classifier_of_torch_get_a_table_and_keep_their_zeros(
    cli, tmp_path
):
    """By hand, since PyTorch is a download of 440 MB."""
    images = digits(tmp_path)
    project(tmp_path)
    accuracy = float(run_in("torch", TORCH, tmp_path))
    assert accuracy > 0.97
    done = cli("bench", "mobilenet.pt2", "classifier.pt2", "--device", "here", "--quick")
    assert done.returncode == 0, done.stderr
    assert "mobilenet" in done.stdout
    assert "classifier" in done.stdout
    assert "input args_0 is channels last, 1x96x96x3" in done.stderr
    classifier = convert(tmp_path / "classifier.pt2", "torch", tmp_path / "c")
    mobilenet = convert(tmp_path / "mobilenet.pt2", "torch", tmp_path / "c")
    print(f"\nerrors: classifier {classifier.error:.1e}, mobilenet {mobilenet.error:.1e}")
    assert max(classifier.error, mobilenet.error) <= TOLERANCE
    content = classifier.path.read_bytes()
    last = np.load(converted_samples(classifier, tmp_path / "digits.npz"))
    (answers,) = outputs_of(content, {"args_0": last["args_0"]})
    assert (answers.argmax(-1) == last["y"]).mean() == pytest.approx(accuracy, abs=0.002)
    assert len(answers) == len(images)
    zeros = {c.label: (c.values == 0).mean() for c in constants(open_model(content, "m"))}
    assert zeros["conv_2d_1"] == pytest.approx(0.8, abs=0.01)
    assert zeros["fully_connected_1"] == pytest.approx(0.8, abs=0.01)
    done = cli("encode", "classifier.pt2", "stored.tflite", "--device", "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stored.tflite").stat().st_size < len(content) * 0.6
    with pytest.raises(UsageError, match=r"computes as in training; call model.eval\(\)"):
        convert(tmp_path / "training.pt2", "torch", tmp_path / "c")


NETWORK = """
from torch import nn
from blocks import block

def build():
    return nn.Sequential(block(1, 8), block(8, 16), nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.layer = nn.Embedding(50, 4), nn.Linear(4, 2)
    def forward(self, ids, values):
        return self.layer(nn.functional.dropout(self.words(ids).mean(1) + values[:, :4])), values

class Always(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, training=True)

def number(): return 3
def broken(): return nn.Sequential(undefined)
def absent(): import timm
def branches():
    class Branches(nn.Module):
        def forward(self, x): return x * 2 if x.sum() > 0 else x
    return Branches()
"""
BLOCKS = """
from torch import nn
def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())
"""
WEIGHTS = """
import numpy as np, sys, torch
sys.path.insert(0, ".")
import my_net
torch.manual_seed(1)
model = my_net.build()
x = torch.from_numpy(np.load("digits.npz")["x"])
model(x)  # Statistics of batch norm.
state = model.state_dict()
torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, "w.pt")
torch.save(model, "whole.pt")
torch.save({**state, "4.bias": state["4.bias"][:9]}, "shape.pt")
state["head.weight"] = state.pop("4.weight")
torch.save(state, "wrong.pt")
np.save("answers.npy", model.eval()(x).detach().numpy())
"""


@pytest.mark.bench
def test_a_network_by_its_code_and_weights_answers_as_torch(cli, tmp_path):
    """By hand, since PyTorch is a download of 440 MB."""
    digits(tmp_path)
    project(tmp_path)
    (tmp_path / "my_net.py").write_text(NETWORK)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    run_in("torch", WEIGHTS, tmp_path)
    words = ("my_net.py:build", "--weights", "w.pt", "--input-shape", "1x1x8x8")
    done = cli("bench", *words, "--device", "here", "--quick")
    assert done.returncode == 0, done.stderr
    assert "* my_net" in done.stdout
    shape = (((1, 1, 8, 8), "float32"),)
    build = Network(tmp_path / "my_net.py", "build", tmp_path / "w.pt", shape)
    converted = convert(build, "torch", tmp_path / "c", tmp_path / "digits.npz")
    last = np.load(converted_samples(converted, tmp_path / "digits.npz"))
    (answers,) = outputs_of(converted.path.read_bytes(), {"args_0": last["args_0"]})
    expected = np.load(tmp_path / "answers.npy")
    difference = np.abs(answers - expected).max() / (expected.max() - expected.min())
    print(f"\nlargest difference: {difference:.1e} of the spread")
    assert difference <= TOLERANCE
    words = (*words, "--data", "digits.npz", "--device", "here", "--quick")
    done = cli("compress", *words, "--sparsity", "0.5", "--max-error", "0.2")
    assert done.returncode == 0, done.stderr
    assert "wrote compressed.tflite" in done.stdout

    def refused(function, weights, *inputs):
        inputs = tuple((shape, dtype) for shape, dtype in inputs) or shape
        weights = weights and tmp_path / weights
        with pytest.raises(UsageError) as caught:
            convert(Network(build.file, function, weights, inputs), "torch", tmp_path / "c")
        return str(caught.value)

    assert "whole.pt has other objects than tensors" in refused("build", "whole.pt")
    wrong = "wrong.pt is not of this network: lacks 4.weight; has the unknown head.weight"
    assert wrong in refused("build", "wrong.pt")
    assert "not of this network: 4.bias is 9, not 10" in refused("build", "shape.pt")
    assert "my_net.py:number: returned int, not a torch.nn.Module" in refused("number", None)
    assert "broken() failed, my_net.py:20: NameError" in refused("broken", None)
    assert "imports timm, which is not installed beside the" in refused("absent", None)
    assert "cannot answer an input of 1x1x4x4: " in refused(
        "build", "w.pt", ((1, 1, 4, 4), "float32")
    )
    assert "pass training=self.training to dropout" in refused("Always", None)
    assert "cannot be traced by torch.export" in refused("branches", None)
    assert "pass training" in refused("Two", None, ((1, 6), "int64"), ((1, 4), "float32"))
