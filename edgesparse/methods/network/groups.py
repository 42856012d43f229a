"""Groups of weights that become zero together: single weights, blocks, inputs, channels.

Sizes are root mean squares, relative to the kernel's before training, so that a layer of small
weights is not emptied first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.dependencies import Dependencies, Group
from edgesparse.methods.network.kernels import Kernel
from edgesparse.spec.step import Pattern, block_shape


class Groups(Protocol):
    """`count` groups of weights."""

    count: int

    def shrink(self, amount: float, limit: float) -> float:
        """Shrink every group of at most `limit` by `amount`, down to zero; return the share of
        groups that are zero."""

    def sizes(self) -> np.ndarray:
        """Return the groups' sizes, float [count]."""

    def keep(self, kept: np.ndarray) -> None:
        """Set the groups that can be nonzero from now on, bool [count]."""

    def hold(self) -> None:
        """Set the other groups to zero."""


def _unit(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) or 1.0


def _factor(sizes: Any, amount: Any, limit: Any) -> Any:
    """Return the factor that shrinks each group by `amount`, down to zero; 1 for those larger than
    `limit`."""
    shrunk = tf.maximum(0.0, 1.0 - amount / tf.maximum(sizes, 1e-20))
    return tf.where(sizes <= limit, shrunk, tf.ones_like(shrunk))


class Blocks:
    """Blocks of a pattern, or single weights, of a kernel. Those at the edge are padded by zeros.
    Each output's largest does not shrink, so that no output is left without weights."""

    axes: tuple[int, ...] = (1, 3)

    def __init__(self, kernel: Kernel, pattern: Pattern) -> None:
        self.kernel, self.variable = kernel, kernel.variable
        height, width = block_shape(pattern)
        self._rows = kernel.by_output(np.empty(kernel.shape, bool)).shape
        *before, inputs, outputs = self._rows
        inputs, outputs = -(-inputs // width) * width, -(-outputs // height) * height
        self._padded = (*before, inputs, outputs)
        self.padding = [(0, new - old) for new, old in zip(self._padded, self._rows, strict=True)]
        self.shape = (math.prod(before) * inputs // width, width, outputs // height, height)
        self._begin()

    def _begin(self) -> None:
        self.unit = _unit(self.variable.numpy())
        self.mask: Any = None
        self.count = len(self.sizes())
        self._step = tf.function(self._shrunk)

    def _blocks(self) -> Any:
        values = tf.convert_to_tensor(self.variable)
        if self.kernel.is_transposed:
            values = tf.linalg.matrix_transpose(values)
        return tf.reshape(tf.pad(tf.reshape(values, self._rows), self.padding), self.shape)

    def _as_kernel(self, blocks: Any) -> Any:
        padded = tf.reshape(blocks, self._padded)
        values = padded[tuple(slice(0, size) for size in self._rows)]
        if self.kernel.is_transposed:
            return tf.linalg.matrix_transpose(values)
        return tf.reshape(values, self.variable.shape)

    def _norms(self, blocks: Any) -> Any:
        return tf.sqrt(tf.reduce_mean(tf.square(blocks), self.axes, keepdims=True))

    def _stay(self, norms: Any) -> Any:
        """Return True for groups that do not shrink."""
        return norms == tf.reduce_max(norms, 0, keepdims=True)

    def _shrunk(self, amount: Any, limit: Any) -> Any:
        blocks = self._blocks()
        norms = self._norms(blocks)
        factor = _factor(norms / self.unit, amount, limit)
        factor = tf.where(self._stay(norms), tf.ones_like(factor), factor)
        self.variable.assign(self._as_kernel(blocks * factor))
        return tf.reduce_mean(tf.cast(factor == 0.0, tf.float32))

    def shrink(self, amount: float, limit: float) -> float:
        dtype = self.variable.dtype
        return float(self._step(tf.constant(amount, dtype), tf.constant(limit, dtype)))

    def sizes(self) -> np.ndarray:
        return np.asarray(self._norms(self._blocks()).numpy().ravel() / self.unit)

    def keep(self, kept: np.ndarray) -> None:
        blocks = self._blocks()
        norms = self._norms(blocks)
        wide = kept.reshape(norms.shape) | self._stay(norms).numpy()
        self.mask = self._as_kernel(tf.constant(wide, blocks.dtype) * tf.ones_like(blocks))

    def hold(self) -> None:
        if self.mask is not None:
            self.variable.assign(self.variable * self.mask)


class Inputs(Blocks):
    """The weights of each input of a kernel [..., inputs, outputs]. The largest does not shrink."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.variable = kernel, kernel.variable
        rank = len(kernel.shape)
        self.axes = tuple(axis for axis in range(rank) if axis != rank - 2)
        self._begin()

    def _blocks(self) -> Any:
        return tf.convert_to_tensor(self.variable)

    def _as_kernel(self, blocks: Any) -> Any:
        return blocks

    def _stay(self, norms: Any) -> Any:
        return norms == tf.reduce_max(norms)


class Atoms:
    """Channels, each with all layers that have it: kernels, or the scale of the batch normalization
    behind them (Liu et al. 2017, arXiv 1708.06519), and biases."""

    def __init__(self, dependencies: Dependencies, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.atoms = np.unique(np.concatenate([group.atoms for group in groups]))
        self.size = len(dependencies.fixed)
        self.free = np.zeros(self.size, bool)
        self.free[self.atoms] = True
        self.members: list[tuple[Any, int, np.ndarray, float]] = []
        self.followers: list[tuple[Any, np.ndarray]] = []
        for c in dependencies.layers.values():
            if c.produces and self.free[c.outputs].any():
                self._add(c)
        self.count = len(self.atoms)
        self.alive = np.ones(self.size, bool)
        self._times = np.zeros(self.size)
        for _, _, atoms, _ in self.members:
            np.add.at(self._times, atoms, 1)
        self._step = tf.function(self._shrunk)

    def _add(self, c: Any) -> None:
        if c.normalizer is not None and c.normalizer.scale:
            gamma = c.normalizer.gamma
            self.members.append((gamma, 0, c.outputs, _unit(gamma.numpy())))
            if c.normalizer.center:
                self.followers.append((c.normalizer.beta, c.outputs))
            return
        weights, axes = c.layer.weights, c.axes
        of = [i for i, a in enumerate(axes) if "out" in a.values() and len(weights[i].shape) > 1]
        (axis,) = [a for a, kind in axes[of[-1]].items() if kind == "out"]
        weight = weights[of[-1]]
        self.members.append((weight, axis, c.outputs, _unit(weight.numpy())))
        for parameter, roles in zip(weights, axes, strict=True):
            if len(parameter.shape) == 1 and roles == {0: "out"}:
                self.followers.append((parameter, c.outputs))

    def _norms(self) -> Any:
        total = tf.zeros(self.size)
        for variable, axis, atoms, unit in self.members:
            others = [a for a in range(len(variable.shape)) if a != axis]
            square = tf.reduce_mean(tf.square(variable / unit), others)
            total = tf.tensor_scatter_nd_add(total, atoms[:, None], tf.cast(square, tf.float32))
        return tf.sqrt(total / np.maximum(self._times, 1).astype(np.float32))

    def _scale(self, factor: Any) -> None:
        for variable, axis, atoms, _ in self.members:
            shape = [1] * len(variable.shape)
            shape[axis] = -1
            variable.assign(variable * tf.reshape(tf.gather(factor, atoms), shape))
        for variable, atoms in self.followers:
            variable.assign(variable * tf.gather(factor, atoms))

    def _shrunk(self, amount: Any, limit: Any) -> Any:
        factor = _factor(self._norms(), amount, limit)
        factor = tf.where(tf.constant(self.free), factor, 1.0)
        self._scale(factor)
        return tf.reduce_mean(tf.cast(tf.gather(factor, self.atoms) == 0.0, tf.float32))

    def shrink(self, amount: float, limit: float) -> float:
        return float(self._step(tf.constant(amount, tf.float32), tf.constant(limit, tf.float32)))

    def sizes(self) -> np.ndarray:
        return np.asarray(self._norms().numpy()[self.atoms])

    def keep(self, kept: np.ndarray) -> None:
        self.alive[self.atoms] = kept
        sizes = self._norms().numpy()
        for group in self.groups:  # A layer without channels would cut the network.
            if not self.alive[group.atoms].any():
                self.alive[group.atoms[np.argmax(sizes[group.atoms])]] = True

    def kept(self) -> np.ndarray:
        """Return the model's atoms to keep, bool [atoms]."""
        return self.alive

    def hold(self) -> None:
        self._scale(tf.constant(self.alive.astype(np.float32)))
