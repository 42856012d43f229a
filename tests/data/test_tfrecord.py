import os

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Source

FEATURES = {
    "picture": {"shape": [6, 5, 3], "dtype": "image"},
    "meta": {"shape": [2], "dtype": "float32"},
    "label": {"shape": [], "dtype": "int64"},
}


@pytest.fixture
def folder(tmp_path):
    feature, train = tf.train.Feature, tf.train
    for split, count in (("train", 12), ("val", 4), ("test", 5)):
        with tf.io.TFRecordWriter(str(tmp_path / f"{split}.tfrecord")) as writer:
            for number in range(count):
                picture = np.full((6, 5, 3), number * 20, np.uint8)
                features = {
                    "picture": feature(
                        bytes_list=train.BytesList(value=[tf.io.encode_png(picture).numpy()])
                    ),
                    "meta": feature(float_list=train.FloatList(value=[number, 1.0])),
                    "label": feature(int64_list=train.Int64List(value=[number % 2])),
                }
                example = train.Example(features=train.Features(feature=features))
                writer.write(example.SerializeToString())
    return tmp_path


def load(folder, **args):
    defaults = {
        "train": "train*", "validation": "val*", "test": "test*",
        "features": FEATURES, "target": "label", "class_names": ["even", "odd"], **args,
    }  # fmt: skip
    return data.load(Source(name="tfrecord", args=defaults), folder)


def test_records_stream_with_several_inputs(folder):
    dataset = load(folder)
    assert (dataset.train.count, dataset.test.count) == (12, 5)
    assert dataset.inputs["picture"].shape == (6, 5, 3)
    x, y = data.arrays(dataset.train, 3)
    assert x["picture"][2].max() == pytest.approx(40 / 255)
    assert x["meta"].tolist() == [[0, 1], [1, 1], [2, 1]]
    assert y["y"].tolist() == [0, 1, 0]


def test_pixels_of_a_model_that_scales_them_stay(folder):
    os.mkfifo(folder / "train-fifo")  # Never read.
    x, _ = data.arrays(load(folder, scale=1.0).train, 3)
    assert x["picture"][2].max() == 40


def test_errors(folder):
    with pytest.raises(UsageError, match=r"no file matches trian\*"):
        load(folder, train="trian*")
    with pytest.raises(UsageError, match="must contain the target 'labl'"):
        load(folder, target="labl")
    with pytest.raises(UsageError, match=r"feature label needs a shape \(a list\) and a dtype"):
        load(folder, features={**FEATURES, "label": {"dtype": "int64"}})
