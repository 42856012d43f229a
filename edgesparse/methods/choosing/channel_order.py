"""An order of a model's channels in which blocks of zeros keep larger weights.

Blocks span neighbouring inputs, and the order of a layer's inputs is free: the outputs of the
layers before are ordered with them, so that nothing is moved at run time (Ji et al. 2018; Pool and
Yu 2021, "Channel Permutations for N:M Sparsity").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.channels import shrink
from edgesparse.methods.masks import squares
from edgesparse.methods.network.dependencies import Dependencies, trace
from edgesparse.methods.network.keep_mask import distribute
from edgesparse.methods.network.kernels import Kernel, kernels
from edgesparse.methods.network.layer_channels import LayerChannels
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.spec.step import BLOCKS, Pattern, block_shape

_ORDERED = (
    tf.keras.layers.Dense, tf.keras.layers.Conv1D, tf.keras.layers.Conv2D, tf.keras.layers.Conv3D,
)  # fmt: skip
_ZEROS = 0.1
"""Share of zeros from which on a kernel was pruned before."""
_SWEEPS = 4
_PARTNERS = 96
"""Channels with which each one is tried to change places, in a sweep; fewer in layers of millions
of weights, since a sweep is to take seconds."""
_MOST_SUMS = 400_000_000
"""Most sums of a sweep."""
_GAIN = 1.001
"""A sweep that keeps less than that is the last."""


@dataclass(frozen=True)
class _Blocks:
    """A pruned kernel's squared weights, float [inputs, columns]: a column is a position of the
    kernel and a block's outputs. `width`: inputs of a block; `share`: of blocks that stay."""

    values: np.ndarray
    width: int
    share: float

    def least(self, order: np.ndarray) -> float:
        """Return the sum of the smallest block that stays, in an order of the inputs."""
        sums = self.values[order].reshape(-1, self.width, self.values.shape[1]).sum(axis=1)
        count = max(1, round(self.share * sums.size))
        return float(np.partition(sums, -count, axis=None)[-count])


def ordered(
    model: tf.keras.Model,
    pattern_of: Callable[[Kernel], Pattern | None],
    sparsity: float,
    samples: Any,
) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """Return the model with its channels in an order in which blocks keep more, and equal outputs.

    Args:
        model: a flat functional model.
        pattern_of: pattern of the zeros that a kernel will have; None: it stays dense.
        sparsity: share of zeros over all of these kernels.
        samples: inputs for which outputs are compared.

    Returns:
        The model and notes. Where outputs differ, since a layer depends on the order of its
        channels, or a layer cannot be copied, the model is as it was, and a note says why.
    """
    try:
        result = _ordered(model, pattern_of, sparsity)
        if result is not model:
            require_equal("ordering channels", model, result, samples)
    except Exception as error:  # An order only helps: the step goes on without it.
        kind = "" if isinstance(error, EdgesparseError) else f"{type(error).__name__}: "
        note = "channels stay in their order, in which blocks may keep smaller weights"
        return model, (f"{note}: {kind}{cause_of(error)}",)
    return result, ()


def _ordered(
    model: tf.keras.Model, pattern_of: Callable[[Kernel], Pattern | None], sparsity: float
) -> tf.keras.Model:
    dependencies = trace(model)
    result = shrink(model, dependencies, np.ones(len(dependencies.fixed), bool))
    dependencies = trace(result)
    chosen, fixed = {}, set()
    for kernel in kernels(result).values():
        pattern = pattern_of(kernel)
        # Of these the only matrix is that of the layer's inputs and outputs.
        if pattern in BLOCKS and kernel.takes_blocks and type(kernel.owner) in _ORDERED:
            chosen[kernel.layer] = kernel, pattern
        elif (kernel.variable.numpy() == 0).mean() > _ZEROS:
            fixed.add(kernel.layer)  # Its blocks of an earlier step must stay together.
    if not chosen:
        return model
    parts = {name: (squares(kernel), pattern) for name, (kernel, pattern) in chosen.items()}
    zeros = distribute(parts, sparsity, "lamp" if len(parts) > 1 else "uniform")
    # From the last to the first, since an order of inputs is one of the outputs before it.
    for group in reversed(dependencies.groups()):
        blocks = [
            _blocks(*chosen[name], 1 - zeros[name])
            for name, channels in dependencies.layers.items()
            if name in chosen and np.array_equal(channels.inputs, group.atoms)
        ]
        if blocks and _can_move(dependencies, group.atoms, fixed):
            _move(dependencies, group.atoms, group.atoms[_search(blocks, len(group.atoms))])
    return result


def _blocks(kernel: Kernel, pattern: Pattern, share: float) -> _Blocks:
    height, width = block_shape(pattern)
    values = squares(kernel).astype(np.float64)
    inputs, outputs = values.shape[-2:]
    values = values.reshape(-1, inputs, outputs)
    columns = np.add.reduceat(values, np.arange(0, outputs, height), axis=-1)
    return _Blocks(columns.transpose(1, 0, 2).reshape(inputs, -1), width, share)


def _search(blocks: Sequence[_Blocks], count: int) -> np.ndarray:
    """Return an order of `count` inputs, by swapping each with the one that gains most: where sums
    of blocks exceed the least that stays, they are kept."""
    width = max(kernel.width for kernel in blocks)
    order = np.arange(count)
    if width == 1 or count % width or count == width:
        return order
    # Columns of all consumers side by side, each relative to the least block that it keeps.
    values = np.concatenate([kernel.values for kernel in blocks], axis=1)
    places, random, best = np.arange(count) // width, np.random.default_rng(0), 0.0
    partners = int(np.clip(_MOST_SUMS // values.size, 4, _PARTNERS))
    for _ in range(_SWEEPS):
        limits = np.concatenate(
            [
                np.full(kernel.values.shape[1], kernel.least(order) * width / kernel.width)
                for kernel in blocks
            ]
        )
        sums = values[order].reshape(-1, width, values.shape[1]).sum(axis=1)
        kept = np.maximum(sums - limits, 0).sum(axis=1)
        if kept.sum() <= best * _GAIN:
            break
        best = float(kept.sum())
        for here in random.permutation(count):
            there = random.permutation(count)[:partners]
            there = there[places[there] != places[here]]
            mine, theirs = values[order[here]], values[order[there]]
            a, b = places[here], places[there]
            after_a = np.maximum(sums[a] - mine + theirs - limits, 0).sum(axis=1)
            after_b = np.maximum(sums[b] - theirs + mine - limits, 0).sum(axis=1)
            gains = after_a + after_b - kept[a] - kept[b]
            which = int(gains.argmax())
            if gains[which] > 0:
                change = theirs[which] - mine
                sums[a], sums[b[which]] = sums[a] + change, sums[b[which]] - change
                kept[a], kept[b[which]] = after_a[which], after_b[which]
                order[here], order[there[which]] = order[there[which]], order[here]
    return order


def _can_move(dependencies: Dependencies, atoms: np.ndarray, fixed: Set[str]) -> bool:
    """True where every layer with these channels has them along axes that are only theirs, and none
    of them is `fixed`."""
    return all(
        c.heads is None
        and {axis for axes in c.axes for axis in axes.values()} <= {"in", "out"}
        and name not in fixed
        for name, c in _layers_with(dependencies, atoms).items()
    )


def _layers_with(dependencies: Dependencies, atoms: np.ndarray) -> dict[str, LayerChannels]:
    """Return the layers that read or write one of the channels, by name."""
    return {
        name: c
        for name, c in dependencies.layers.items()
        if np.isin(atoms, np.concatenate([c.inputs, c.outputs])).any()
    }


def _move(dependencies: Dependencies, atoms: np.ndarray, moved: np.ndarray) -> None:
    """Put the weights of channels `moved` in place of those of `atoms`, in all layers."""
    instead = np.arange(len(dependencies.fixed))
    instead[atoms] = moved
    for c in _layers_with(dependencies, atoms).values():
        takes = {"in": _positions(c.inputs, instead), "out": _positions(c.outputs, instead)}
        c.layer.set_weights(
            [_taken(w, axes, takes) for w, axes in zip(c.layer.get_weights(), c.axes, strict=True)]
        )


def _positions(labels: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """Return for each position that of the atom to be there; of an atom at several positions, as
    behind a flattened image, the one of the same number."""
    places: dict[int, list[int]] = {}
    for position, atom in enumerate(labels.tolist()):
        places.setdefault(atom, []).append(position)
    numbers = dict.fromkeys(places, -1)
    result = []
    for atom in labels.tolist():
        numbers[atom] += 1
        result.append(places[int(instead[atom])][numbers[atom]])
    return np.array(result, int)


def _taken(
    weight: np.ndarray, axes: Mapping[int, str], takes: Mapping[str, np.ndarray]
) -> np.ndarray:
    for axis, name in axes.items():
        if name in takes and len(takes[name]) == weight.shape[axis]:
            weight = np.take(weight, takes[name], axis=axis)
    return weight
