"""Commands for files of PyTorch and ONNX, with a conversion that was kept from an earlier call."""

import json
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.project import Project
from edgesparse.tflite.exchange.convert import conversion_key
from edgesparse.tflite.exchange.environment import ENVIRONMENTS
from edgesparse.tflite.format.minimal_model import tiny_model


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
