"""PyTorch networks as code: what is checked before anything runs."""

import numpy as np
import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.exchange.networks import Network, is_reference, network


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text("raise SystemExit\ndef build(): ...\nclass Net: ...\n")
    for name in ("w.pt", "w.h5"):
        (tmp_path / name).write_bytes(b"w")
    return path


def test_a_function_or_a_class_is_located_without_running_its_file(file):
    for name in ("build", "Net"):
        located = network(f"{file}:{name}", file.with_name("w.pt"), ["1x3x8x8", "1x5:int64"])
        inputs = (((1, 3, 8, 8), "float32"), ((1, 5), "int64"))
        assert located == Network(file, name, file.with_name("w.pt"), inputs)
        assert located.stem == "my_net"
        assert str(located) == f"{file}:{name}"
    references = ["my_net.py:build", "a/my_net.py:Net", "net.py:", "m.py", "m.keras", "a.py:b/m.h5"]
    assert [is_reference(text) for text in references] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("name", "weights", "shapes", "cause"),
    [
        ("my_net.py:bild", None, ["1x2"], "no function or class 'bild'; did you mean 'build'"),
        ("other.py:build", None, ["1x2"], r"other\.py: no such file"),
        ("my_net.py:build", "v.pt", ["1x2"], r"v\.pt: no such file"),
        ("my_net.py:build", "w.h5", [], r"type: edgesparse compress .*w\.h5 --builder .*py:build"),
        ("my_net.py:build", "w.pt", [], r"missing; add --input-shape 1x3x224x224 \(once for each"),
        ("my_net.py:build", "w.pt", ["x=1x2"], "--input-shape 'x=1x2': of a PyTorch network write"),
        ("my_net.py:build", "w.pt", ["1x2:int9"], r"--input-shape '1x2:int9'.*\(float32, "),
        ("my_net.py:build", "w.pt", ["0x2"], "--input-shape '0x2'"),
    ],
)
def test_what_is_missing_or_invalid_has_its_cause(file, name, weights, shapes, cause):
    weights = weights and file.with_name(weights)
    with pytest.raises(UsageError, match=cause):
        network(file.with_name(name), weights, shapes)


def test_a_missing_shape_is_proposed_by_the_samples(file, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 1, 8, 8), "float32"))
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 5), "int32"), y=np.zeros(9))
    (tmp_path / "damaged.npy").write_bytes(b"?")
    for samples, shape in (
        ("x.npy", "1x1x8x8"),
        ("x.npz", "1x5:int64"),
        ("damaged.npy", "1x3x224x224"),
    ):
        with pytest.raises(UsageError, match=f"add --input-shape {shape} "):
            network(f"{file}:build", samples=tmp_path / samples)
