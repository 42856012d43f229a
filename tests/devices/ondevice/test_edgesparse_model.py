"""The importable model: in a fresh Python with numpy and a runtime only."""

import hashlib
import json
import platform
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgesparse.data import raw, transforms
from edgesparse.delegate import library
from edgesparse.devices.agent.job import Entry
from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.devices.ondevice import edgesparse_model
from edgesparse.devices.ondevice.edgesparse_model import Model, ModelError
from edgesparse.devices.setup.releases import MODEL_PROGRAMS, about_model

pytestmark = pytest.mark.slow
PACKAGES = ("numpy", "ai_edge_litert", "flatbuffers", "backports")
FIVE_LINES = """
from edgesparse_model import Model
model = Model()
frame = numpy.load("sample.npy")
scores = model(frame)
print(model.labels[scores.argmax()])
"""


@pytest.fixture
def folder(tflite_files, sparse_dense_layer, samples, tmp_path):
    """Write a folder as `export` does, for a model of `tflite_files`."""

    def write(model="int8", delegate="xnnpack", transform=None, **manifest):
        target = tmp_path / model
        target.mkdir()
        golden = tmp_path / "golden.npz"
        save_golden(golden, samples, sparse_dense_layer(samples).numpy())
        content = tflite_files[model].read_bytes()
        entry = Entry(model, tflite_files[model], "ai-edge-litert", delegate, 1, golden)
        about = about_model(entry) | manifest
        about["files"] = {"model.tflite": hashlib.sha256(content).hexdigest()}
        (target / "manifest.json").write_text(json.dumps(about))
        (target / "model.tflite").write_bytes(content)
        (target / "labels.json").write_text(json.dumps([f"class {i}" for i in range(10)]))
        name = about["inputs"][0][0]
        (target / "transform.json").write_text(json.dumps({name: transform} if transform else {}))
        for program in MODEL_PROGRAMS:
            (target / program.name).write_bytes(program.read_bytes())
        np.save(target / "sample.npy", samples[0])
        return target

    return write


@pytest.fixture
def fresh_python(tmp_path):
    """Run code in a Python that has numpy and a runtime, and nothing else."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in PACKAGES:
        spec = find_spec(name)
        for location in spec.submodule_search_locations if spec else ():
            for path in Path(location).parent.glob(f"{name}*"):
                if not (packages / path.name).exists():
                    (packages / path.name).symlink_to(path)

    def run(code, cwd):
        start = f"import sys; sys.path[:0] = [{str(cwd)!r}, {str(packages)!r}]; import numpy\n"
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", start + code],
            cwd=cwd,
            capture_output=True,
            text=True,
        )

    return run


def test_five_lines_answer_right(folder, fresh_python, sparse_dense_layer, samples):
    done = fresh_python(FIVE_LINES, folder())
    assert done.returncode == 0, done.stderr
    expected = sparse_dense_layer(samples[:1]).numpy().argmax()
    assert done.stdout == f"class {expected}\n"


def test_importing_does_nothing(fresh_python, tmp_path):
    source = Path(edgesparse_model.__file__)
    (tmp_path / source.name).write_bytes(source.read_bytes())  # Without a model beside it.
    code = "before = set(sys.modules); import edgesparse_model; print('raw' in sys.modules)"
    done = fresh_python(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


@pytest.mark.parametrize("model", ["dense", "int8"])
def test_outputs_equal_those_of_keras(folder, sparse_dense_layer, samples, model):
    loaded = Model(folder(model))
    outputs = np.stack([loaded(sample) for sample in samples])
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, sparse_dense_layer(samples), atol=0.02)
    np.testing.assert_array_equal(loaded(samples[:1]), outputs[0])  # With its batch.
    label, score = loaded.top(outputs[0])[0]
    assert (label, score) == (f"class {outputs[0].argmax()}", outputs[0].max())


def test_a_call_costs_little_beside_the_inference(folder, samples):
    """Far more than 100 calls a second: counted in Python's function calls, not in time."""
    model, calls = Model(folder()), []
    sys.setprofile(lambda frame, event, _: calls.append(event) if "call" in event else None)
    try:
        for sample in samples[:10]:
            model(sample)
    finally:
        sys.setprofile(None)
    assert len(calls) / 10 < 150


def test_values_are_named_and_wrong_ones_are_errors(folder, samples):
    model = Model(folder())
    (name,) = model.inputs
    np.testing.assert_array_equal(model(**{name: samples[0]}), model({name: samples[0]}))
    for values, message in [
        ((samples[0][:5],), r"input .*: has shape \(5,\), but the model needs \[512\]"),
        ((samples[0], samples[1]), "takes a value for each input"),
        ((object(),), "needs an array of numbers, not object"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(*values)


def test_raw_values_are_scaled_as_in_training(folder, samples):
    model = Model(folder(transform=transforms.numbers(scale=0.5, offset=1.0)))
    plain = dict(model.transforms)
    scaled = model(samples[0])
    model.transforms = {}
    np.testing.assert_array_equal(model(samples[0] * np.float32(0.5) + 1), scaled)
    assert plain


def test_transforms_by_the_names_of_the_data(folder, samples):
    """A saved model's input is input_1, and the data's x."""
    target = folder()
    transform = transforms.numbers(scale=0.5, offset=1.0)
    (target / "transform.json").write_text(json.dumps({"another": transform}))
    model = Model(target)
    scaled = model(samples[0])
    model.transforms = {}
    np.testing.assert_array_equal(model(samples[0] * np.float32(0.5) + 1), scaled)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"x": 1, "y": None}, {"a": 1, "b": None}),  # Without one of its own it has no other's.
        ({"b": 1, "y": 2}, {"a": 1, "b": 2}),  # An equal name of another input.
        ({"b": 2, "a": None}, {"a": None, "b": 2}),
        ({"b": 2}, {"b": 2}),
    ],
)
def test_transforms_of_some_inputs_stay_theirs(data, expected):
    assert edgesparse_model.by_input(["a", "b"], data) == expected


def test_an_altered_model_is_not_loaded(folder):
    target = folder()
    with open(target / "model.tflite", "ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"model\.tflite: differs from its digest in manifest"):
        Model(target)
    done = subprocess.run([sys.executable, target / "predict.py", "x"], capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


@pytest.mark.parametrize("case", ["loads", "missing", "damaged", "untested"])
def test_without_the_delegate_the_model_still_answers(folder, samples, case):
    built = library(platform.machine())
    target = folder("int8", {"library": built, "options": {}})
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["delegate"]["library"] == built.name
    if case != "missing":
        (target / built.name).write_bytes(built.read_bytes()[: 5000 if case == "damaged" else None])
    if case == "untested":
        manifest["delegate_tested_with"] = ["ai-edge-litert 0.1"]
    manifest["files"][built.name] = hashlib.sha256(built.read_bytes()).hexdigest()
    (target / "manifest.json").write_text(json.dumps(manifest))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = Model(target)
    texts = [str(w.message) for w in caught if w.category is RuntimeWarning]
    if case == "loads":
        assert (model.delegate, texts) == (built.name, [])
    else:
        assert model.delegate == "xnnpack"
        assert f"delegate {built.name} cannot be used, continuing with xnnpack" in texts[0]
    np.testing.assert_array_equal(model(samples[0]), Model(target, delegate="xnnpack")(samples[0]))


@pytest.mark.parametrize("name", ["labels.json", "transform.json", "raw.py"])
def test_a_release_with_an_altered_file_is_not_loaded(folder, name):
    target = folder()
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((target / name).read_bytes()).hexdigest()
    (target / "manifest.json").write_text(json.dumps(manifest))
    Model(target)
    with open(target / name, "ab") as file:
        file.write(b"\n")
    with pytest.raises(ModelError, match=rf"{name}: differs from its digest in manifest"):
        Model(target)


@pytest.mark.parametrize(
    ("name", "text"), [("transform.json", "{"), ("manifest.json", "[]"), ("manifest.json", "{}")]
)
def test_a_damaged_description_is_one_message(folder, name, text):
    target = folder()
    (target / name).write_text(text)
    with pytest.raises(ModelError, match=name):
        Model(target)


def test_a_path_that_runtimes_cannot_read_is_one_message():
    with pytest.raises(ModelError, match=r"'/m\\udcff': runtimes read only paths in UTF-8"):
        Model("/m\udcff")


def test_another_delegate_is_required(folder):
    target = folder("int8", {"library": "libedgetpu-none.so.1", "options": {}})
    with pytest.raises(ModelError, match=r"delegate libedgetpu-none\.so\.1 cannot be used"):
        Model(target)


def test_another_runtime_serves_with_a_warning(folder, samples):
    target = folder(runtime={"name": "absent-runtime", "module": "absent_runtime.interpreter"})
    with pytest.warns(RuntimeWarning, match="absent_runtime cannot be imported, continuing with"):
        assert Model(target)(samples[0]).shape == (10,)


def test_a_python_without_a_runtime_names_what_to_type(folder, fresh_python):
    code = "sys.modules.update({name: None for name in ('ai_edge_litert', 'tflite_runtime')})\n"
    done = fresh_python(code + FIVE_LINES, folder())
    assert "no TFLite runtime can be imported" in done.stderr
    assert "-m pip install ai-edge-litert" in done.stderr


def test_frames_become_the_inputs_that_files_become(tmp_path):
    image = pytest.importorskip("PIL.Image")
    frame = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    image.fromarray(frame).save(tmp_path / "frame.png")
    for shape in ((12, 10, 3), (12, 10, 1)):
        transform = transforms.image(shape, 1 / 255, 0.0, 1.0, "grey" if shape[2] == 1 else "rgb")
        expected = raw.read(str(tmp_path / "frame.png"), transform, (1, *shape))
        with_alpha = np.concatenate([frame, frame[:, :, :1]], axis=2)
        for value in (frame, with_alpha, tmp_path / "frame.png", expected):
            result = raw.convert(value, transform, (1, *shape))
            np.testing.assert_array_equal(result, expected)


def test_a_row_becomes_the_input_that_its_file_becomes(tmp_path):
    transform = transforms.columns(
        [
            {"name": "age", "mean": 20.0, "deviation": 2.0},
            {"name": "town", "categories": ["A", "B"]},
        ]
    )
    (tmp_path / "row.csv").write_text("town,age\nB,25\n")
    expected = raw.read(str(tmp_path / "row.csv"), transform, (1, 3))
    np.testing.assert_array_equal(
        raw.convert({"age": 25, "town": "B"}, transform, (1, 3)), expected
    )
    with pytest.raises(ValueError, match="row: no column town"):
        raw.convert({"age": 25}, transform, (1, 3))


def test_files_for_the_device_are_python_3_7():
    import ast

    for path in Path(edgesparse_model.__file__).parent.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 7))
