"""TFRecord files of tf.train.Example records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesparse.data import Dataset, damaged_file_finder, from_datasets, transforms
from edgesparse.data.image_folder import decode_image
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
    scale: float = 1 / 255,
) -> Dataset:
    """Load splits that stream from files.

    Args:
        train, validation, test: a file or a glob, relative to the YAML file.
        features: by name, each with its shape and dtype: float32, int64, or image, an encoded
            image that becomes float32 [height, width, channels].
        target: the feature that is the target; all others are inputs.
        scale: factor of an image's pixels 0 to 255. A pipeline's default is 1 if the model itself
            begins with a layer that scales them.

    Raises:
        UsageError: a file or a feature is invalid.
    """
    import tensorflow as tf

    _check(features, target)
    schema = {
        name: tf.io.FixedLenFeature([], tf.string)
        if feature["dtype"] == "image"
        else tf.io.FixedLenFeature(feature["shape"], feature["dtype"])
        for name, feature in features.items()
    }
    names = [name for name in features if name != target]

    def value(name: str, parsed: Any) -> Any:
        if features[name]["dtype"] != "image":
            return parsed[name]
        return decode_image(parsed[name], features[name]["shape"], scale)

    def read(record: tf.Tensor) -> tuple[Any, Any]:
        parsed = tf.io.parse_single_example(record, schema)
        x = {name: value(name, parsed) for name in names}
        return x[names[0]] if len(names) == 1 else x, value(target, parsed)

    splits, all_files = [], []
    for pattern in (train, validation, test):
        # A FIFO would block.
        files = sorted(str(file) for file in base.glob(pattern) if file.is_file())
        if not files:
            raise UsageError(f"tfrecord: no file matches {pattern} beside the YAML file")
        all_files += files
        splits.append(tf.data.TFRecordDataset(files).map(read, tf.data.AUTOTUNE))
    first, second, third = splits
    images = [name for name in names if features[name]["dtype"] == "image"]
    by_input = {name: transforms.image(features[name]["shape"], scale) for name in images}
    raw = by_input if len(names) > 1 else next(iter(by_input.values()), None)
    find_damaged = damaged_file_finder(
        all_files, base, lambda file: list(tf.data.TFRecordDataset(file).map(read))
    )
    try:
        dataset = from_datasets(Path(train).stem, first, second, third, class_names, raw)
    except tf.errors.OpError as error:
        raise UsageError(find_damaged() or f"tfrecord: {cause_of(error)}") from error
    return replace(dataset, find_damaged=find_damaged)


def _check(features: Mapping[str, Mapping[str, Any]], target: str) -> None:
    if target not in features or len(features) < 2:
        raise UsageError(f"tfrecord: 'features' must contain the target {target!r} and an input")
    for name, feature in features.items():
        if feature.get("dtype") not in _DTYPES or not isinstance(feature.get("shape"), list):
            raise UsageError(
                f"tfrecord: feature {name} needs a shape (a list) and a dtype: {', '.join(_DTYPES)}"
            )
