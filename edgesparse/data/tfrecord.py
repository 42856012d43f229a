"""TFRecord files of tf.train.Example records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesparse.data import Dataset, damaged_file, from_datasets, transforms
from edgesparse.spec.errors import UsageError, cause_of

_DTYPES = ("float32", "int64", "image")


def tfrecord(
    train: str,
    validation: str,
    test: str,
    base: Path,
    features: Mapping[str, Mapping[str, Any]],
    target: str,
    class_names: Sequence[str] = (),
) -> Dataset:
    """Splits that stream from files.

    Args:
        train: a file or a glob, relative to the YAML file; `validation` and `test` alike.
        features: each by name with its shape and dtype: float32, int64, or image, an encoded
            picture that becomes float32 [height, width, channels], 0 to 1.
        target: the feature that the model is to give; all others are its inputs.
    """
    import tensorflow as tf

    if target not in features or len(features) < 2:
        raise UsageError(f"tfrecord: 'features' must have the target {target!r} and an input")
    for name, given in features.items():
        if given.get("dtype") not in _DTYPES or not isinstance(given.get("shape"), list):
            raise UsageError(
                f"tfrecord: {name} needs a shape, a list, and a dtype: {', '.join(_DTYPES)}"
            )
    wanted = {
        name: tf.io.FixedLenFeature([], tf.string)
        if given["dtype"] == "image"
        else tf.io.FixedLenFeature(given["shape"], given["dtype"])
        for name, given in features.items()
    }
    names = [name for name in features if name != target]

    def value(name: str, parsed: Any) -> Any:
        if features[name]["dtype"] != "image":
            return parsed[name]
        height, width, channels = features[name]["shape"]
        image = tf.io.decode_image(parsed[name], channels, expand_animations=False)
        image = tf.image.resize(tf.cast(image, tf.float32) / 255.0, (height, width))
        return tf.ensure_shape(image, (height, width, channels))

    def read(record: tf.Tensor) -> tuple[Any, Any]:
        parsed = tf.io.parse_single_example(record, wanted)
        x = {name: value(name, parsed) for name in names}
        return x[names[0]] if len(names) == 1 else x, value(target, parsed)

    def read_all(file: str) -> None:
        for _ in tf.data.TFRecordDataset(file).map(read):
            pass

    splits, every = [], []
    for pattern in (train, validation, test):
        files = sorted(str(file) for file in base.glob(pattern))
        if not files:
            raise UsageError(f"tfrecord: no file {pattern} beside the YAML file")
        every += files
        splits.append(tf.data.TFRecordDataset(files).map(read, tf.data.AUTOTUNE))
    first, second, third = splits
    pictures = [name for name in names if features[name]["dtype"] == "image"]
    raw = {name: transforms.image(features[name]["shape"]) for name in pictures}
    keyed = raw if len(names) > 1 else next(iter(raw.values()), None)
    damaged = damaged_file(every, base, read_all)
    try:
        dataset = from_datasets(Path(train).stem, first, second, third, class_names, keyed)
    except tf.errors.OpError as error:
        raise UsageError(damaged() or f"tfrecord: {cause_of(error)}") from error
    return replace(dataset, damaged=damaged)
