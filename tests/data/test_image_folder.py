import numpy as np
import pytest
from PIL import Image

from edgesparse import data
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Source


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(["cats", "dogs"]):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.full((10, 12, 3), 255 * label, np.uint8)
            suffix = "png" if i % 2 else "jpg"
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.{suffix}")
    return tmp_path


def load(folder, **args):
    return data.load(Source(name="image-folder", args={"path": "pets", **args}), folder)


def test_images_are_decoded_resized_and_labelled(folder):
    dataset = load(folder, input_shape=[6, 7, 3])
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.train.count + dataset.validation.count + dataset.test.count == 40
    x, y = (next(iter(v.values())) for v in data.arrays(dataset.test, 100))
    assert x.shape == (8, 6, 7, 3)
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), y, atol=0.02)


def test_grey(folder):
    assert data.arrays(load(folder, input_shape=[6, 7, 1]).train, 2)[0]["x"].shape == (2, 6, 7, 1)


def test_clear_errors(folder):
    with pytest.raises(UsageError, match="input_shape is"):
        load(folder, input_shape=[6, 7])
    with pytest.raises(UsageError, match="no such folder"):
        load(folder / "pets")
    (folder / "pets" / "empty").mkdir()
    with pytest.raises(UsageError, match="needs a folder of images"):
        load(folder, path="pets/empty")
