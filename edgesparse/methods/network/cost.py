"""Cost of an inference of a Keras model, with all or some of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesparse.methods.network.dependencies import Dependencies
from edgesparse.methods.network.elementwise import is_elementwise
from edgesparse.methods.network.layer_channels import is_user_defined


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of an inference; and weights, with biases and statistics."""

    macs: int
    parameters: int


def cost(dependencies: Dependencies, kept: np.ndarray) -> Cost:
    """Return the cost of an inference with only the kept atoms, bool [atoms]."""
    macs = parameters = 0
    for c in dependencies.layers.values():
        masks = c.masks(kept)
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        if c.products:
            left = masks["out"] if c.heads is None else masks["heads"]
            macs += c.products if not len(left) else round(c.products * float(left.mean()))
        for weight, axes in zip(c.layer.weights, c.axes, strict=True):
            size = 1
            for axis, width in enumerate(weight.shape):
                size *= counts[axes[axis]] if axis in axes else int(width)
            parameters += size
            macs += c.positions * size if _is_multiplied(c.layer, weight) else 0
    return Cost(macs, parameters)


def _is_multiplied(layer: Any, weight: Any) -> bool:
    """Return True for a kernel, each of whose values is multiplied once per position."""
    plain = len(weight.shape) > 1 and "bias" not in weight.name
    return plain and not (is_user_defined(layer) and is_elementwise(layer, weight))
