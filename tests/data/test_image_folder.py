import numpy as np
import pytest
import tensorflow as tf
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


def test_scale(folder):
    dataset = load(folder, input_shape=[6, 7, 3], scale=1.0)
    x = data.arrays(dataset.test, 100)[0]["x"]
    assert x.max() == pytest.approx(255, abs=3)
    assert dataset.transforms["x"]["scale"] == [1.0, 1.0, 1.0]


def test_grey(folder):
    assert data.arrays(load(folder, input_shape=[6, 7, 1]).train, 2)[0]["x"].shape == (2, 6, 7, 1)


def test_errors(folder):
    with pytest.raises(UsageError, match="input_shape must be"):
        load(folder, input_shape=[6, 7])
    with pytest.raises(UsageError, match="no such folder"):
        load(folder / "pets")
    (folder / "pets" / "empty").mkdir()
    with pytest.raises(UsageError, match="needs a folder of files"):
        load(folder, path="pets/empty")


def test_masks(tmp_path):
    random = np.random.default_rng(0)
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    for number in range(20):
        mask = (random.random((8, 8)) > 0.5).astype(np.uint8)
        picture = np.repeat(mask[..., None] * 200, 3, axis=2)
        for name, values in (("pictures", picture), ("masks", mask[..., None])):
            content = tf.io.encode_png(values).numpy()
            (tmp_path / name / f"{number}.png").write_bytes(content)
    args = {"path": "pictures", "masks": "masks", "input_shape": [8, 8, 3]}
    source = Source(name="image-folder", args={**args, "class_names": ["no", "yes"]})
    dataset = data.load(source, tmp_path)
    x, y = data.arrays(dataset.train, 99)
    assert y["y"].shape == (14, 8, 8)
    np.testing.assert_array_equal(x["x"][..., 0] > 0.5, y["y"] == 1)
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(UsageError, match=r"no mask 3\.png for 3\.png"):
        data.load(source, tmp_path)


def test_a_list_says_which_file_is_in_which_split(folder):
    files = [str(p.relative_to(folder / "pets")) for p in sorted((folder / "pets").rglob("*.*"))]
    names = ["test", "validation", "train"]
    lines = [f"{file},{names[i % 3]}" for i, file in enumerate(files)]
    (folder / "splits.csv").write_text("\n".join(lines))
    dataset = load(folder, input_shape=[6, 7, 3], splits="splits.csv")
    assert dataset.train.count + dataset.validation.count + dataset.test.count == len(files)
    assert dataset.test.count == (len(files) + 2) // 3
    (folder / "splits.csv").write_text("nothing.png,train\n")
    with pytest.raises(UsageError, match=r"splits\.csv:1: expected FILE,SPLIT"):
        load(folder, splits="splits.csv")
