"""Typed datasets: three splits of samples with targets. One file per dataset or format.

Each loader is a function that returns a `Dataset`; `from_arrays` makes one from NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.data.splits import Order, is_integer, is_label, places_of, shuffled
from edgesparse.data.transforms import Transform
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError, cause_of
from edgesparse.spec.pipeline import Source

if TYPE_CHECKING:
    import tensorflow as tf

Arrays = dict[str, np.ndarray]
Given = np.ndarray | Mapping[str, np.ndarray]
X, Y = "x", "y"
"""What the one input and the one target are called where nobody names them."""
MOST_CLASSES = 10_000
"""Of integer targets that have no class names, unless there are very many samples."""


@dataclass(frozen=True)
class Tensor:
    """One input or target: `shape` is a sample's, without the batch, None where it varies."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Split:
    """`count` samples in a fixed order: pairs (x, y), or (x, y, weight) with a number for how much
    a sample counts. x and y are tensors, or mappings of them by name where there are several."""

    count: int
    samples: tf.data.Dataset


@dataclass(frozen=True)
class Dataset:
    """Samples in three splits that stream.

    `inputs` and `targets` are in the order of the model's. Labels count from 0 in `class_names`,
    which is empty where targets are no labels. `target_is_input`: what the model is given is what
    it is to give. `transforms`: how raw files become inputs, by their names, where that is known
    (see transforms.py). `damaged`: looks for the file that TensorFlow failed to read, and says why.
    `recipe`: how models are trained on it, put there by a pipeline.
    `interrupted`: where trainings on it are kept while they last, put there by a stage.
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
    damaged: Callable[[], str | None] = lambda: None
    recipe: Any = None
    interrupted: Any = None

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of the first input, which is the only one of most."""
        return next(iter(self.inputs.values())).shape

    @property
    def dtype(self) -> str:
        """Of the first input."""
        return next(iter(self.inputs.values())).dtype


def arrays(split: Split, count: int) -> tuple[Arrays, Arrays]:
    """The first `count` samples (or all), inputs and targets by name, each [n, ...]."""
    count = min(count, split.count)
    if count == 0:
        raise EdgesparseError("the dataset has an empty split; give it more samples")
    x, y, *_ = next(iter(split.samples.take(count).batch(count)))
    found = _named(x, X), _named(y, Y)
    came = len(next(iter(found[0].values())))
    if came != count:
        raise EdgesparseError(f"a split says that it has {split.count} samples, and has {came}")
    return found


def _named(tensors: Any, name: str) -> Arrays:
    given = tensors if isinstance(tensors, Mapping) else {name: tensors}
    return {key: tensor.numpy() for key, tensor in given.items()}


def representative(dataset: Dataset, count: int) -> Arrays:
    """Samples for calibrating a quantizer, each input [n, ...]; from training data only."""
    return arrays(dataset.train, count)[0]


def from_arrays(
    name: str,
    x: Given,
    y: Given | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    sample_weight: np.ndarray | None = None,
    transforms: Mapping[str, Transform] | Transform | None = None,
    split: Order = "random",
    gap: int = 0,
) -> Dataset:
    """A dataset from samples [n, ...], split 70/10/20.

    Args:
        x: an array, or arrays by the names of the model's inputs.
        y: targets: integer labels [n]; or numbers, masks, 0 and 1 for each label; or arrays by the
            names of the model's outputs. None: the model is to give its input again.
        sample_weight: how much each sample counts in training, [n].
        transforms: what was done to raw files, of the one input or by input.
        split: `random`: labels class by class; `time`: samples are in the order of their time, and
            those to train with come first, those to test last.
        gap: with `time`, how many samples are left out between two splits; with windows of n rows,
            one after each row, n - 1, so that no row is in two splits.
    """
    inputs, again = _arrays(x, X), y is None
    if y is None and len(inputs) > 1:
        raise EdgesparseError(f"{name}: several inputs need targets")
    targets = {Y: next(iter(inputs.values()))} if y is None else _arrays(y, Y)
    weights = None if sample_weight is None else np.asarray(sample_weight, np.float32)
    _check(name, inputs, targets, weights)
    first = next(iter(targets.values()))
    single = len(targets) == 1 or split == "time"
    places = (
        places_of(name, first, seed, split, gap) if single else shuffled(name, len(first), seed)
    )
    parts = [
        (
            {key: values[place] for key, values in inputs.items()},
            {key: values[place] for key, values in targets.items()},
            None if weights is None else weights[place],
        )
        for place in places
    ]
    return _dataset(name, parts, class_names, again, transforms)


def from_splits(
    name: str,
    train: Sequence[Any],
    validation: Sequence[Any],
    test: Sequence[Any],
    class_names: Sequence[str] | None = None,
    transforms: Mapping[str, Transform] | Transform | None = None,
) -> Dataset:
    """A dataset from three ready splits, each (x, y) or (x, y, sample weights), as in
    `from_arrays`."""
    parts: list[tuple[Arrays, Arrays, np.ndarray | None]] = []
    for given in (train, validation, test):
        x, y, *weights = given
        weight = np.asarray(weights[0], np.float32) if weights else None
        inputs, targets = _arrays(x, X), _arrays(y, Y)
        _check(name, inputs, targets, weight)
        for values, known in ((inputs, parts[0][0]), (targets, parts[0][1])) if parts else ():
            for key in known:
                if key not in values or values[key].shape[1:] != known[key].shape[1:]:
                    own = values[key].shape[1:] if key in values else "nothing"
                    raise EdgesparseError(
                        f"{name}: samples of shape {own} and {known[key].shape[1:]} in one dataset"
                    )
        parts.append((inputs, targets, weight))
    return _dataset(name, parts, class_names, False, transforms)


def from_datasets(
    name: str,
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    test: tf.data.Dataset,
    class_names: Sequence[str] = (),
    transforms: Mapping[str, Transform] | Transform | None = None,
) -> Dataset:
    """A dataset from three that stream single samples, (x, y) or (x, y, weight), not batched; x and
    y are tensors or mappings of them by name. Each is counted once, by going through it, where
    TensorFlow does not know its length.

    Raises:
        EdgesparseError: one is empty, endless, or gives something else.
    """
    first, second, third = (
        Split(_counted(name, given), given) for given in (train, validation, test)
    )
    parts = train.element_spec
    if not isinstance(parts, tuple) or len(parts) not in (2, 3):
        raise EdgesparseError(f"{name}: its samples must be (x, y) or (x, y, weight)")
    inputs, targets = ({} if part is None else _specs(part, key) for part, key in
                       zip(parts, (X, Y), strict=False))  # fmt: skip
    named, raw = tuple(class_names), _by_input(transforms, inputs)
    return Dataset(name, inputs, targets, named, first, second, third, transforms=raw)


def damaged_file(
    files: Sequence[str], base: Path, read: Callable[[str], object]
) -> Callable[[], str | None]:
    """For `Dataset.damaged`: the first file, relative to `base`, that `read` cannot read, and why.
    TensorFlow's own errors do not name the file."""

    def first() -> str | None:
        import tensorflow as tf

        for file in files:
            try:
                read(file)
            except tf.errors.OpError as error:
                place = Path(file)
                shown = place.relative_to(base) if place.is_relative_to(base) else place
                return f"{shown}: cannot be read: {cause_of(error)}"
        return None

    return first


def _by_input(
    given: Mapping[str, Transform] | Transform | None, inputs: Mapping[str, Tensor]
) -> Mapping[str, Transform]:
    if not given:
        return {}
    return {next(iter(inputs)): given} if "kind" in given else given


def _specs(part: Any, name: str) -> dict[str, Tensor]:
    given = part if isinstance(part, Mapping) else {name: part}
    return {key: Tensor(tuple(spec.shape), spec.dtype.name) for key, spec in given.items()}


def _counted(name: str, samples: tf.data.Dataset) -> int:
    count = int(samples.cardinality())
    if count == -1:
        raise EdgesparseError(f"{name}: a split never ends; give it a length, .take(N)")
    if count < 0:  # Unknown.
        count = sum(1 for _ in samples)
    if count == 0:
        raise EdgesparseError(f"{name}: a split is empty")
    return count


def _dataset(
    name: str,
    parts: Sequence[tuple[Arrays, Arrays, np.ndarray | None]],
    class_names: Sequence[str] | None,
    again: bool,
    transforms: Mapping[str, Transform] | Transform | None,
) -> Dataset:
    import tensorflow as tf

    splits = []
    for inputs, targets, weights in parts:
        # Kept on the host as NumPy until TensorFlow asks for it.
        given = [_packed(inputs, X), _packed(targets, Y)]
        given += [] if weights is None else [weights]
        count = len(next(iter(inputs.values())))
        splits.append(Split(count, tf.data.Dataset.from_tensor_slices(tuple(given))))
    inputs, targets, _ = parts[0]
    labels = [t for _, found, _ in parts for t in found.values() if is_integer(t) and not again]
    classes = int(max((values.max() for values in labels), default=-1)) + 1
    if not class_names and classes > max(MOST_CLASSES, 10 * sum(v.size for v in labels)):
        raise EdgesparseError(
            f"{name}: labels go up to {classes - 1}; labels count from 0 to the number of classes "
            "less 1; targets that are numbers are floats"
        )
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(classes))
    if len(names) < classes:
        lowest = min(int(values.min()) for values in labels)
        hint = "; labels count from 0: y - 1" if lowest == 1 and len(names) == classes - 1 else ""
        raise EdgesparseError(
            f"{name}: labels go up to {classes - 1}, but {len(names)} class names{hint}"
        )
    first, second, third = splits
    known, wanted = _described(inputs), _described(targets)
    raw = _by_input(transforms, known)
    return Dataset(name, known, wanted, names, first, second, third, again, raw)


def _described(arrays: Arrays) -> dict[str, Tensor]:
    return {key: Tensor(tuple(v.shape[1:]), str(v.dtype)) for key, v in arrays.items()}


def _arrays(given: Given, name: str) -> Arrays:
    """By name, in the types that models take: floats of 32 bits, integers as they are."""
    named = given if isinstance(given, Mapping) else {name: given}
    found = {}
    for key, values in named.items():
        array = np.asarray(values)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        elif array.dtype.kind in "iu" and name == Y:
            array = array.astype(np.int64)
        elif array.dtype == np.int64:
            array = array.astype(np.int32)
        found[str(key)] = array
    return found


def _packed(arrays: Arrays, name: str) -> Any:
    return arrays[name] if list(arrays) == [name] else arrays


def files_by_class(
    folder: Path, path: str, suffixes: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray]:
    """Class names, files and their labels int64 [files], of a folder with a folder per class."""
    if not folder.is_dir():
        raise UsageError(f"{path}: no such folder beside the YAML file")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        every = (folder / name).iterdir()
        own = sorted(p for p in every if p.suffix.lower() in suffixes and p.is_file())
        files += [str(p) for p in own]
        labels += [label] * len(own)
    if len(names) < 2 or not files:
        raise UsageError(f"{path}: needs a folder of files ({', '.join(suffixes)}) per class")
    return names, files, np.array(labels, np.int64)


def _check(name: str, inputs: Arrays, targets: Arrays, weights: np.ndarray | None) -> None:
    counts = {len(values) if values.ndim else 0 for values in (*inputs.values(), *targets.values())}
    if weights is not None:
        counts.add(len(weights))
    if len(counts) != 1 or counts == {0} or any(v.ndim < 2 for v in inputs.values()):
        shapes = " and ".join(
            f"{key} {values.shape}" for key, values in (*inputs.items(), *targets.items())
        )
        raise EdgesparseError(
            f"{name}: {shapes} do not go together; x is [samples, ...] and y has as many"
        )
    for key, values in (*inputs.items(), *targets.items()):
        if values.dtype.kind not in "fiub":
            raise EdgesparseError(f"{name}: {key} must be numbers, not {values.dtype}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0]
            raise EdgesparseError(
                f"{name}: {key} has values that are no numbers, the first in sample {place[0]} at "
                f"{place[1:].tolist()}"
            )
    for values in targets.values():
        if is_label(values) and values.min() < 0:
            raise EdgesparseError(f"{name}: labels must be integers from 0, not {values.min()}")


def load(source: Source, base: Path) -> Dataset:
    """The dataset that a pipeline names; `base` is the folder of its YAML file."""
    target = references.find("data", source.name, source.ref, base)
    dataset = references.call(target, source.args, {"base": base})
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"{target.label} returned {type(dataset).__name__}; it must return an "
            "edgesparse.data.Dataset (edgesparse.data.from_arrays makes one)"
        )
    return dataset
