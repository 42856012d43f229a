"""Inputs whose samples differ in size: brought to one size, while the file leaves it open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgesparse.data import Dataset, Split, Tensor, X
from edgesparse.spec.errors import UsageError, did_you_mean

Shapes = Mapping[str, Sequence[int]]


def open_inputs(dataset: Dataset) -> dict[str, tuple[int | None, ...]]:
    """The shapes of the inputs that leave a size open, by their names."""
    return {name: t.shape for name, t in dataset.inputs.items() if None in t.shape}


def closed(dataset: Dataset, named: Shapes) -> Dataset:
    """The same with every sample cut, or filled with zeros, to the shapes that are named.

    Raises:
        UsageError: an open input has no shape, or one that does not fit.
    """
    found = open_inputs(dataset)
    for name in named:
        if name not in dataset.inputs:
            hint = did_you_mean(name, dataset.inputs)
            raise UsageError(f"benchmark.input_shapes: the data has no input {name!r}{hint}")
    for name, shape in found.items():
        if name not in named:
            told = ", ".join("?" if size is None else str(size) for size in shape)
            if _seems_batched(dataset):
                raise UsageError(
                    f"{dataset.name}: {name} [{told}] seems to be batches; pass single samples: "
                    f"dataset.unbatch(). If its samples differ in size, say at which they are "
                    f"trained and measured: 'benchmark: {{input_shapes: {{{name}: [...]}}}}'"
                )
            raise UsageError(
                f"{dataset.name}: {name} has samples of different sizes [{told}]; say at which "
                f"they are trained and measured: 'benchmark: {{input_shapes: {{{name}: [...]}}}}'"
            )
    for name, given in named.items():
        known = dataset.inputs[name].shape
        fits = len(given) == len(known) and all(
            size is None or size == own for size, own in zip(known, given, strict=True)
        )
        if not fits:
            raise UsageError(
                f"benchmark.input_shapes: {name} is {list(known)} in the data, not {list(given)}"
            )
    if not found:
        return dataset
    if dataset.target_is_input:
        raise UsageError(
            f"{dataset.name}: a model gives its input again only where it has one size"
        )
    wanted = {name: tuple(named[name]) for name in found}

    def split(own: Split) -> Split:
        return Split(own.count, own.samples.map(lambda x, *rest: (_resized(x, wanted), *rest)))

    inputs = {
        name: Tensor(wanted.get(name, tensor.shape), tensor.dtype)
        for name, tensor in dataset.inputs.items()
    }
    train, validation, test = map(split, (dataset.train, dataset.validation, dataset.test))
    return replace(dataset, inputs=inputs, train=train, validation=validation, test=test)


def _seems_batched(dataset: Dataset) -> bool:
    """Whether inputs and targets alike begin with a size that varies."""
    tensors = (*dataset.inputs.values(), *dataset.targets.values())
    return all(tensor.shape[:1] == (None,) for tensor in tensors)


def _resized(x: Any, wanted: Mapping[str, tuple[int, ...]]) -> Any:
    if not isinstance(x, Mapping):
        return _fitted(x, wanted[X])
    return {name: _fitted(v, wanted[name]) if name in wanted else v for name, v in x.items()}


def _fitted(values: Any, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    cut = values[tuple(slice(0, size) for size in shape)]
    missing = tf.constant(shape) - tf.shape(cut)
    filled = tf.pad(cut, tf.stack([tf.zeros_like(missing), missing], axis=1))
    return tf.ensure_shape(filled, shape)
