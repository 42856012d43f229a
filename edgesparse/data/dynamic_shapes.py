"""Inputs with dynamic shapes: their samples are brought to one size for training and measuring,
while the .tflite file keeps the dynamic size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgesparse.data import Dataset, Split, Tensor, X
from edgesparse.spec.errors import UsageError, did_you_mean

Shapes = Mapping[str, Sequence[int]]


def dynamic_inputs(dataset: Dataset) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of inputs with a dynamic size, by their names."""
    return {name: t.shape for name, t in dataset.inputs.items() if None in t.shape}


def with_fixed_shapes(dataset: Dataset, input_shapes: Shapes) -> Dataset:
    """Return the dataset with every sample cut, or padded with zeros, to `input_shapes`.

    Args:
        input_shapes: by input, without the batch: `benchmark.input_shapes` of the pipeline.

    Raises:
        UsageError: a dynamic input has no shape there, or a shape does not fit.
    """
    dynamic = dynamic_inputs(dataset)
    for name in input_shapes:
        if name not in dataset.inputs:
            hint = did_you_mean(name, dataset.inputs)
            raise UsageError(f"benchmark.input_shapes: the data has no input {name!r}{hint}")
    for name, shape in dynamic.items():
        if name not in input_shapes:
            raise UsageError(_missing_shape(dataset, name, shape))
    for name, fixed in input_shapes.items():
        shape = dataset.inputs[name].shape
        matches = len(fixed) == len(shape) and all(
            size is None or size == fixed_size
            for size, fixed_size in zip(shape, fixed, strict=True)
        )
        if not matches:
            raise UsageError(
                f"benchmark.input_shapes: {name} is {list(shape)} in the data, not {list(fixed)}"
            )
    if not dynamic:
        return dataset
    if dataset.target_is_input:
        raise UsageError(f"{dataset.name}: reconstruction needs inputs of one size")
    shapes = {name: tuple(input_shapes[name]) for name in dynamic}

    def resize(split: Split) -> Split:
        def resized(samples: Any) -> Any:
            return samples.map(lambda x, *y: (_resize_all(x, shapes), *y))

        at = split.at
        spread = None if at is None else lambda indices: resized(at(indices))
        return Split(split.count, resized(split.samples), spread)

    inputs = {
        name: Tensor(shapes.get(name, tensor.shape), tensor.dtype)
        for name, tensor in dataset.inputs.items()
    }
    train, validation, test = map(resize, (dataset.train, dataset.validation, dataset.test))
    return replace(dataset, inputs=inputs, train=train, validation=validation, test=test)


def _missing_shape(dataset: Dataset, name: str, shape: tuple[int | None, ...]) -> str:
    """Return the message for a dynamic input without a shape to train and measure with."""
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    key = f"'benchmark: {{input_shapes: {{{name}: [...]}}}}'"
    if _is_batched(dataset):
        return (
            f"{dataset.name}: {name} [{sizes}] seems to be batched; pass single samples: "
            f"dataset.unbatch(). If samples differ in size, set the shape to train and measure "
            f"with: {key}"
        )
    return (
        f"{dataset.name}: {name} has samples of different sizes [{sizes}]; set the shape to train "
        f"and measure with: {key}"
    )


def _is_batched(dataset: Dataset) -> bool:
    """Tell batches from samples: all inputs and targets begin with a dynamic size."""
    tensors = (*dataset.inputs.values(), *dataset.targets.values())
    return all(tensor.shape[:1] == (None,) for tensor in tensors)


def _resize_all(x: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    if not isinstance(x, Mapping):
        return _resize(x, shapes[X])
    return {name: _resize(v, shapes[name]) if name in shapes else v for name, v in x.items()}


def _resize(values: Any, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    cut = values[tuple(slice(0, size) for size in shape)]
    missing = tf.constant(shape) - tf.shape(cut)
    padded = tf.pad(cut, tf.stack([tf.zeros_like(missing), missing], axis=1))
    return tf.ensure_shape(padded, shape)
