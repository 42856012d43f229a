"""Typed datasets: three splits of samples with targets. One file per dataset or format.

Each loader is a function that returns a `Dataset`; `from_arrays` builds one from NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.data.splits import Order, is_integer, is_label, random_indices, split_indices
from edgesparse.data.transforms import Transform
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError, cause_of
from edgesparse.spec.pipeline import Source

if TYPE_CHECKING:
    import tensorflow as tf

Arrays = dict[str, np.ndarray]
ArrayOrArrays = np.ndarray | Mapping[str, np.ndarray]
Transforms = Mapping[str, Transform] | Transform | None
X, Y = "x", "y"
"""Names of a single input and a single target that the data does not name."""
MAX_UNNAMED_CLASSES = 10_000
"""Limit for integer targets without class names, unless there are ten times as many samples: more
are likely to be values of a regression."""


@dataclass(frozen=True)
class Tensor:
    """An input or target: `shape` is a sample's, without the batch, None for a dynamic size."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Split:
    """`count` samples in a fixed order: pairs (x, y), or (x, y, sample weight). x and y are
    tensors, or mappings of them by name if there are several. `at` gives those at indices [n], for
    samples whose order means something (time, classes)."""

    count: int
    samples: tf.data.Dataset
    at: Callable[[np.ndarray], tf.data.Dataset] | None = None


@dataclass(frozen=True)
class Dataset:
    """Samples in three splits that stream.

    `inputs` and `targets` are in the order of the model's. Labels count from 0 in `class_names`,
    which is empty for other targets. `target_is_input`: the model is to reconstruct its input.
    `transforms`: preprocessing from raw files to inputs, by input, if declared (transforms.py).
    `find_damaged` returns the file that TensorFlow failed to read, with the reason.
    `recipe`: how models are trained on it, set by a pipeline.
    `checkpoints`: where interrupted trainings resume from, set by a stage.
    `teacher`: whose outputs fine-tunings learn, too, set by a stage.
    """

    name: str
    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    target_is_input: bool = False
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    find_damaged: Callable[[], str | None] = lambda: None
    recipe: Any = None
    checkpoints: Any = None
    teacher: Any = None

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of the first input, which is the only input of most datasets."""
        return next(iter(self.inputs.values())).shape

    @property
    def dtype(self) -> str:
        """The dtype of the first input."""
        return next(iter(self.inputs.values())).dtype


def arrays(split: Split, count: int) -> tuple[Arrays, Arrays]:
    """Return the first `count` samples (or all), inputs and targets by name, each [n, ...].

    Raises:
        EdgesparseError: the split is empty, or has fewer samples than it declares.
    """
    count = min(count, split.count)
    if count == 0:
        raise EdgesparseError("the dataset has an empty split; add samples")
    x, y, *_ = next(iter(split.samples.take(count).batch(count)))
    inputs, targets = _by_name(x, X), _by_name(y, Y)
    if (length := len(next(iter(inputs.values())))) != count:
        raise EdgesparseError(f"a split declares {split.count} samples but yields {length}")
    return inputs, targets


def _by_name(tensors: Any, name: str) -> Arrays:
    named = tensors if isinstance(tensors, Mapping) else {name: tensors}
    return {key: tensor.numpy() for key, tensor in named.items()}


def representative(dataset: Dataset, count: int) -> Arrays:
    """Return calibration samples for a quantizer, each input [n, ...], from training data only:
    the first, or from all parts of data whose order means something."""
    split = dataset.train
    if split.at is not None and count < split.count:
        spread = np.linspace(0, split.count - 1, count).round().astype(int)
        split = Split(count, split.at(spread))
    return arrays(split, count)[0]


def from_arrays(
    name: str,
    x: ArrayOrArrays,
    y: ArrayOrArrays | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    sample_weight: np.ndarray | None = None,
    transforms: Transforms = None,
    split: Order = "random",
    gap: int = 0,
) -> Dataset:
    """Build a dataset from samples [n, ...], split 70/10/20.

    Args:
        x: an array, or arrays by the names of the model's inputs.
        y: targets: integer labels [n]; or numbers, masks, 0 and 1 for each label; or arrays by the
            names of the model's outputs. None: the model is to reconstruct its input.
        sample_weight: weights of samples in training, [n].
        transforms: preprocessing from raw files, of the only input or by input.
        split: `random`, stratified by label; or `time`: samples are in the order of their time,
            the first for training, the last for testing.
        gap: with `split="time"`, the number of samples left out between two splits; for windows of
            n rows, one after each row, n - 1, so that no row is in two splits.

    Raises:
        EdgesparseError: shapes or values are invalid, or there are too few samples.
    """
    inputs, reconstruct = _arrays(x, X), y is None
    if y is None and len(inputs) > 1:
        raise EdgesparseError(f"{name}: several inputs need targets")
    targets = {Y: next(iter(inputs.values()))} if y is None else _arrays(y, Y)
    weights = None if sample_weight is None else np.asarray(sample_weight, np.float32)
    _check(name, inputs, targets, weights)
    first = next(iter(targets.values()))
    by_target = len(targets) == 1 or split == "time"
    if by_target:
        indices_by_split = split_indices(name, first, seed, split, gap)
    else:
        indices_by_split = random_indices(name, len(first), seed)
    parts = [
        (
            {key: values[indices] for key, values in inputs.items()},
            {key: values[indices] for key, values in targets.items()},
            None if weights is None else weights[indices],
        )
        for indices in indices_by_split
    ]
    is_ordered = split == "time"
    return _dataset(name, parts, class_names, reconstruct, transforms, is_ordered)


def from_splits(
    name: str,
    train: Sequence[Any],
    validation: Sequence[Any],
    test: Sequence[Any],
    class_names: Sequence[str] | None = None,
    transforms: Transforms = None,
) -> Dataset:
    """Build a dataset from three splits, each (x, y) or (x, y, sample weights), with the arguments
    of `from_arrays`.

    Raises:
        EdgesparseError: shapes or values are invalid or differ between splits.
    """
    parts: list[tuple[Arrays, Arrays, np.ndarray | None]] = []
    for split in (train, validation, test):
        x, y, *weights = split
        weight = np.asarray(weights[0], np.float32) if weights else None
        inputs, targets = _arrays(x, X), _arrays(y, Y)
        _check(name, inputs, targets, weight)
        for values, expected in ((inputs, parts[0][0]), (targets, parts[0][1])) if parts else ():
            for key in expected:
                if key not in values or values[key].shape[1:] != expected[key].shape[1:]:
                    shape = values[key].shape[1:] if key in values else "none"
                    raise EdgesparseError(
                        f"{name}: {key} has samples of shape {expected[key].shape[1:]} in one "
                        f"split and {shape} in another"
                    )
        parts.append((inputs, targets, weight))
    return _dataset(name, parts, class_names, False, transforms, True)


def from_datasets(
    name: str,
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    test: tf.data.Dataset,
    class_names: Sequence[str] = (),
    transforms: Transforms = None,
) -> Dataset:
    """Build a dataset from three that stream single samples, (x, y) or (x, y, weight), not batched.

    x and y are tensors or mappings of them by name. A dataset whose length TensorFlow does not know
    is iterated once to count its samples. Quantizers are calibrated with the first samples of
    `train`: shuffle what is in the order of its classes.

    Raises:
        EdgesparseError: a dataset is empty, endless, or yields something else.
    """
    first, second, third = (
        Split(_count(name, samples), samples) for samples in (train, validation, test)
    )
    parts = train.element_spec
    if not isinstance(parts, tuple) or len(parts) not in (2, 3):
        raise EdgesparseError(f"{name}: samples must be (x, y) or (x, y, weight)")
    inputs, targets = ({} if part is None else _specs(part, key) for part, key in
                       zip(parts, (X, Y), strict=False))  # fmt: skip
    classes, raw = tuple(class_names), _by_input(transforms, inputs)
    return Dataset(name, inputs, targets, classes, first, second, third, transforms=raw)


def damaged_file_finder(
    files: Sequence[str], base: Path, read: Callable[[str], object]
) -> Callable[[], str | None]:
    """Return a function for `Dataset.find_damaged`: it names the first file, relative to `base`,
    that `read` fails on, with the reason. TensorFlow's own errors do not name the file."""

    def find() -> str | None:
        import tensorflow as tf

        for file in files:
            try:
                read(file)
            except tf.errors.OpError as error:
                path = Path(file)
                shown = path.relative_to(base) if path.is_relative_to(base) else path
                return f"{shown}: cannot be read: {cause_of(error)}"
        return None

    return find


def _by_input(transforms: Transforms, inputs: Mapping[str, Tensor]) -> Mapping[str, Transform]:
    if not transforms:
        return {}
    return {next(iter(inputs)): transforms} if "kind" in transforms else transforms


def _specs(part: Any, name: str) -> dict[str, Tensor]:
    named = part if isinstance(part, Mapping) else {name: part}
    return {key: Tensor(tuple(spec.shape), spec.dtype.name) for key, spec in named.items()}


def _count(name: str, samples: tf.data.Dataset) -> int:
    import tensorflow as tf

    count = int(samples.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise EdgesparseError(f"{name}: a split is endless; limit it with .take(N)")
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = sum(1 for _ in samples)
    if count == 0:
        raise EdgesparseError(f"{name}: a split is empty")
    return count


def _dataset(
    name: str,
    parts: Sequence[tuple[Arrays, Arrays, np.ndarray | None]],
    class_names: Sequence[str] | None,
    reconstruct: bool,
    transforms: Transforms,
    is_ordered: bool,
) -> Dataset:
    splits = [_split(part, is_ordered) for part in parts]
    inputs, targets, _ = parts[0]
    labels = [t for _, y, _ in parts for t in y.values() if is_integer(t) and not reconstruct]
    names = _class_names(name, labels, class_names)
    first, second, third = splits
    x, y = _describe(inputs), _describe(targets)
    raw = _by_input(transforms, x)
    return Dataset(name, x, y, names, first, second, third, reconstruct, raw)


def _split(part: tuple[Arrays, Arrays, np.ndarray | None], is_ordered: bool) -> Split:
    import tensorflow as tf

    inputs, _, weights = part

    def at(indices: np.ndarray | slice) -> tf.data.Dataset:
        # Stays a NumPy array on the host until TensorFlow reads a batch.
        x, y = ({key: values[indices] for key, values in named.items()} for named in part[:2])
        sample = [_unwrap(x, X), _unwrap(y, Y)]
        sample += [] if weights is None else [weights[indices]]
        return tf.data.Dataset.from_tensor_slices(tuple(sample))

    count = len(next(iter(inputs.values())))
    return Split(count, at(slice(None)), at if is_ordered else None)


def _class_names(
    name: str, labels: Sequence[np.ndarray], class_names: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the names of the classes, checked against the labels; numbers by default."""
    classes = int(max((values.max() for values in labels), default=-1)) + 1
    samples = sum(values.size for values in labels)
    if not class_names and classes > max(MAX_UNNAMED_CLASSES, 10 * samples):
        raise EdgesparseError(
            f"{name}: labels go up to {classes - 1}; labels must count from 0 to the number of "
            "classes - 1; for regression use float targets"
        )
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(classes))
    if len(names) < classes:
        lowest = min(int(values.min()) for values in labels)
        is_shifted = lowest == 1 and len(names) == classes - 1
        hint = "; labels must count from 0: use y - 1" if is_shifted else ""
        raise EdgesparseError(
            f"{name}: labels go up to {classes - 1}, but there are {len(names)} class names{hint}"
        )
    return names


def _describe(arrays: Arrays) -> dict[str, Tensor]:
    return {key: Tensor(tuple(v.shape[1:]), str(v.dtype)) for key, v in arrays.items()}


def _arrays(values: ArrayOrArrays, name: str) -> Arrays:
    """Return arrays by name in the dtypes that models take: float32, integers unchanged."""
    named = values if isinstance(values, Mapping) else {name: values}
    converted = {}
    for key, value in named.items():
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        elif array.dtype.kind in "iu" and name == Y:
            array = array.astype(np.int64)
        elif array.dtype == np.int64:
            array = array.astype(np.int32)
        converted[str(key)] = array
    return converted


def _unwrap(arrays: Arrays, name: str) -> Any:
    return arrays[name] if list(arrays) == [name] else arrays


def _check(name: str, inputs: Arrays, targets: Arrays, weights: np.ndarray | None) -> None:
    arrays = {**inputs, **({} if weights is None else {"sample_weight": weights}), **targets}
    for key, values in inputs.items():
        if values.ndim < 2:
            shape = values.shape
            raise EdgesparseError(f"{name}: {key} has shape {shape}; it must be [samples, ...]")
    counts = {key: len(values) if values.ndim else 0 for key, values in arrays.items()}
    if len(set(counts.values())) != 1:
        text = " but ".join(f"{key} has {count} samples" for key, count in counts.items())
        raise EdgesparseError(f"{name}: {text}")
    if set(counts.values()) == {0}:
        raise EdgesparseError(f"{name}: x is empty; it needs samples")
    for key, values in (*inputs.items(), *targets.items()):
        if values.dtype.kind not in "fiub":
            raise EdgesparseError(f"{name}: {key} must be numeric, not {values.dtype}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            sample, *index = np.argwhere(~np.isfinite(values))[0].tolist()
            at = f", index {index}" if index else ""
            raise EdgesparseError(
                f"{name}: {key} contains NaN or inf; first at sample {sample}{at}"
            )
    for values in targets.values():
        if is_label(values) and values.min() < 0:
            raise EdgesparseError(f"{name}: labels must count from 0; the lowest is {values.min()}")


def load(source: Source, base: Path) -> Dataset:
    """Load the dataset that a pipeline names; `base` is the folder of its YAML file.

    Raises:
        UsageError: the loader fails or returns something else than a Dataset.
    """
    target = references.find("data", source.name, source.ref, base)
    dataset = references.call(target, source.args, {"base": base})
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"{target.label} returned {type(dataset).__name__}; it must return an "
            "edgesparse.data.Dataset (edgesparse.data.from_arrays builds one)"
        )
    return dataset
