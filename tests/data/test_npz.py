import numpy as np
import pytest

from edgesparse import data
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Source


def load(folder, **args):
    return data.load(Source(name="npz", args={"path": "d.npz", **args}), folder)


def test_x_and_y_are_split(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.full((100, 4), 255, np.uint8), y=np.arange(100) % 5)
    dataset = load(tmp_path, scale=255)
    assert dataset.input_shape == (4,)
    assert len(dataset.class_names) == 5
    assert data.arrays(dataset.train, 1)[0]["x"].max() == 1.0


def test_explicit_splits(tmp_path):
    parts = {}
    for split, count in (("train", 8), ("val", 2), ("test", 4)):
        parts[f"x_{split}"] = np.zeros((count, 4), np.float32)
        parts[f"y_{split}"] = np.arange(count) % 2
    np.savez(tmp_path / "d.npz", **parts)
    dataset = load(tmp_path)
    assert (dataset.train.count, dataset.validation.count, dataset.test.count) == (8, 2, 4)


def test_errors(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path)
    (tmp_path / "d.npz").write_text("not a zip")
    with pytest.raises(UsageError, match=r"is not a .npz"):
        load(tmp_path)
    np.savez(tmp_path / "d.npz", a=np.zeros(3))
    with pytest.raises(UsageError, match="has a; needs x and y, or x_train"):
        load(tmp_path)
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], object), y=np.zeros(1, int))
    with pytest.raises(EdgesparseError, match=r"not a .npz of plain arrays"):
        load(tmp_path)
