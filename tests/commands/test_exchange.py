"""Commands for files of PyTorch and ONNX, with a conversion that was kept from an earlier call."""

import json
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgesparse.project import Project
from edgesparse.spec.errors import UsageError
from edgesparse.tflite.exchange.convert import conversion_key
from edgesparse.tflite.exchange.environment import ENVIRONMENTS
from edgesparse.tflite.exchange.networks import network
from edgesparse.tflite.format.minimal_model import tiny_model
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.post_training.calibration_samples import outputs_of


def of_shape(*shape):
    """A .tflite file that adds its input to itself."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tiny_model(), 0))
    for tensor in model.subgraphs[0].tensors:
        tensor.shape = list(shape)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_inspect_takes_samples_as_the_original_takes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, environment = tmp_path / "m.pt2", ENVIRONMENTS["torch"]
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("m/models/model.json", "{}")
    python = environment.python
    python.parent.mkdir(parents=True)
    python.touch()
    x = np.ones((5, 3, 2, 2), np.float32)
    x[:, 0] = 0
    np.save(tmp_path / "x.npy", x)
    key = conversion_key(source, environment, tmp_path / "x.npy")
    folder = tmp_path / ".edgesparse" / "converted" / key
    folder.mkdir(parents=True)
    (folder / "m.tflite").write_bytes(of_shape(1, 2, 2, 3))
    moved = {"name": "image", "tflite_name": "input", "shape": [1, 3, 2, 2],
             "tflite_shape": [1, 2, 2, 3], "moved": True}  # fmt: skip
    about = {"inputs": [moved], "output": "output", "error": 0.0, "samples": 8}
    (folder / "about.json").write_text(json.dumps(about))
    with Project(tmp_path) as project:
        inspection = project.inspect(source, samples=tmp_path / "x.npy")
    assert inspection.file == str(folder / "m.tflite")
    (share,) = inspection.activations.values()
    assert np.isclose(share, 1 / 3)


PIPELINE = """\
name: torch
data: {name: npz, args: {path: x.npz}}
model: {torch: "my_net.py:build", weights: w.pt, input_shape: [1, 512]}
variants: {dense: {}, small: {quantize: int8}}
"""


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        ("keras.yaml", "x.npz", {}, r"keras\.yaml: its model is not a torch one; compress takes"),
        ("p.yaml", "p.yaml", {}, r"p\.yaml: .*my_net\.py:build needs --data as a \.npy or \.npz"),
        ("my_net.py:build", "x.npz", {}, r"shape of its input is missing; add --input-shape 1x512"),
        ("m.tflite", "x.npz", {"weights": "w.pt"}, r"--weights w\.pt needs a PyTorch network as"),
        ("m.tflite", "x.npz", {"builder": "a.py:b"}, r"--builder a\.py:b needs an \.h5 file of"),
        ("w.h5", "x.npz", {"builder": "a.py"}, r"--builder a\.py: write my_model\.py:build"),
    ],
)
def test_compress_says_what_a_model_needs_before_anything_runs(
    tmp_path, monkeypatch, model, data, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text("def build(): ...\n")
    for name in ("w.pt", "w.h5", "m.tflite"):
        (tmp_path / name).write_bytes(b"w")
    np.savez("x.npz", x=np.zeros((20, 512), "float32"))
    (tmp_path / "p.yaml").write_text(PIPELINE)
    network = PIPELINE.splitlines()[2]
    keras = "model: {name: mlp, args: {input_shape: [4], classes: 2}}"
    (tmp_path / "keras.yaml").write_text(PIPELINE.replace(network, keras))
    with Project(tmp_path) as project, pytest.raises(UsageError, match=message):
        project.compress(model, data, **options)


@pytest.mark.slow
def test_a_pipeline_of_a_network_is_quantized_verified_and_measured(
    tmp_path, monkeypatch, tflite_files, samples
):
    """Its conversion is one that was kept."""
    pytest.importorskip("ai_edge_quantizer")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    environment = ENVIRONMENTS["torch"]
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    (tmp_path / "my_net.py").write_text("def build(): ...\n")
    (tmp_path / "w.pt").write_bytes(b"w")
    content = tflite_files["dense"].read_bytes()
    x = np.concatenate([samples] * 4)
    (name,) = (spec.name for spec in read_signature(content).inputs)
    (answers,) = outputs_of(content, {name: x})
    np.savez(tmp_path / "x.npz", x=x, y=answers.reshape(len(x), -1))
    (tmp_path / "p.yaml").write_text(PIPELINE)
    source = network(f"{tmp_path / 'my_net.py'}:build", tmp_path / "w.pt", ["1x512"])
    folder = tmp_path / ".edgesparse" / "converted" / conversion_key(source, environment, None)
    folder.mkdir(parents=True)
    (folder / "my_net.tflite").write_bytes(content)
    (folder / "about.json").write_text(json.dumps({"inputs": [], "error": 0.0, "samples": 4}))
    with Project(tmp_path) as project:
        results = project.deploy(tmp_path / "p.yaml", quick=True, benchmark=False)
        planned = project.plan(tmp_path / "p.yaml")
    rows = {row.variant: row for row in results.rows}
    assert not [row.error for row in results.rows if row.error]
    assert rows["dense"].model.bytes == len(content)
    assert rows["small"].model.bytes < len(content) / 2
    assert all(status.cached for status in planned.stages)
