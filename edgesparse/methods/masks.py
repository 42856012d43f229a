"""Masks of kernels, and callbacks that update and apply them in training.

A mask is multiplied into its kernel before each step, so that a masked weight can come back until
the schedule ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.keep_mask import distribute, keep_mask
from edgesparse.methods.network.kernels import Kernel
from edgesparse.spec.step import Distribution, Pattern


def magnitude_mask(values: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Return the weights [..., inputs, outputs] that stay: bool of their shape.

    Blocks are ranked by their sums of squares; 2:4 keeps the two largest of every four inputs and
    ignores `sparsity`.
    """
    return keep_mask(np.square(values), sparsity, pattern)


def kernel_mask(kernel: Kernel, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Return the weights of a kernel that stay: bool of its shape."""
    return kernel.as_kernel(keep_mask(squares(kernel), sparsity, pattern))


def squares(kernel: Kernel) -> np.ndarray:
    """Return the squares of a kernel's weights [..., inputs, outputs]."""
    return kernel.by_output(np.square(kernel.variable.numpy()))


@dataclass
class Masked:
    """A kernel with its pattern and mask, which has the kernel's shape."""

    kernel: Kernel
    pattern: Pattern = "unstructured"
    mask: Any = field(default=None)

    @property
    def variable(self) -> Any:
        return self.kernel.variable

    def prune(self, sparsity: float) -> None:
        """Update the mask to a sparsity, and apply it."""
        stays = kernel_mask(self.kernel, sparsity, self.pattern)
        self.mask = tf.constant(stays, self.variable.dtype)
        self.apply()

    def keep_zeros(self) -> None:
        """Set the mask to the present zeros."""
        self.mask = tf.constant(self.variable.numpy() != 0, self.variable.dtype)

    def apply(self) -> None:
        if self.mask is not None:
            self.variable.assign(self.variable * self.mask)


class HoldMasks(tf.keras.callbacks.Callback):
    """Applies the masks of kernels in training."""

    def __init__(self, masked: Sequence[Masked]) -> None:
        super().__init__()
        self.masked = tuple(masked)
        self.number = 0

    def state(self) -> dict[str, Any]:
        masks = {
            str(k): masked.mask for k, masked in enumerate(self.masked) if masked.mask is not None
        }
        return {"number": self.number, **masks}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.number = int(state["number"])
        for index, masked in enumerate(self.masked):
            if str(index) in state:
                masked.mask = tf.constant(state[str(index)], masked.variable.dtype)

    def apply(self) -> None:
        for masked in self.masked:
            masked.apply()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.apply()
        self.number += 1

    def on_test_begin(self, logs: Any = None) -> None:
        """Apply masks before validation: the optimizer's last step moved masked weights."""
        self.apply()


@dataclass(frozen=True)
class Goal:
    """Final sparsity of a kernel; `joint`: that of all joint kernels together."""

    sparsity: float
    joint: bool


class PruneGradually(HoldMasks):
    """Updates masks to growing sparsities (Zhu and Gupta 2017), and applies them.

    Args:
        masked: the kernels.
        goals: their final sparsities.
        distribution: how zeros are distributed over the joint ones.
        steps: numbers of the first and last update's training step, and the interval.
        constant: prune to the final sparsity from the first update on.
    """

    def __init__(
        self,
        masked: Sequence[Masked],
        goals: Sequence[Goal],
        distribution: Distribution,
        steps: tuple[int, int, int],
        *,
        constant: bool,
    ) -> None:
        super().__init__(masked)
        self.goals, self.distribution = tuple(goals), distribution
        self.steps, self.constant = steps, constant

    def prune(self, share: float = 1.0) -> None:
        """Prune to a share of the final sparsities."""
        joint = {
            index: (squares(self.masked[index].kernel), self.masked[index].pattern)
            for index, goal in enumerate(self.goals)
            if goal.joint
        }
        sparsities = [goal.sparsity * share for goal in self.goals]
        if joint:
            goal = sparsities[next(iter(joint))]
            named = {str(index): item for index, item in joint.items()}
            for index, sparsity in distribute(named, goal, self.distribution).items():
                sparsities[int(index)] = sparsity
        for masked, sparsity in zip(self.masked, sparsities, strict=True):
            masked.prune(sparsity)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        begin, end, frequency = self.steps
        since = self.number - begin
        if since >= 0 and self.number <= end and since % frequency == 0:
            left = 0.0 if self.constant else (end - self.number) / (end - begin)
            self.prune(1 - left**3)
        super().on_train_batch_begin(batch, logs)
