"""Extracts the patches that a convolution of a .tflite file reads (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema


def patches(image: np.ndarray[Any, Any], shape: Sequence[int], options: Any) -> Any:
    """Extract from an image batch [1, h, w, channels] the patches of a convolution whose weights
    have the shape [outputs, h, w, channels]: [positions, h * w * channels]."""
    _, high, wide, _ = shape
    sizes = []
    for size, kernel, stride, rate in (
        (image.shape[1], high, options.strideH, options.dilationHFactor),
        (image.shape[2], wide, options.strideW, options.dilationWFactor),
    ):
        reach = (kernel - 1) * rate + 1
        same = options.padding == schema.Padding.SAME
        count = -(-size // stride) if same else (size - reach) // stride + 1
        before = max(0, (count - 1) * stride + reach - size) if same else 0
        sizes.append((count, stride, rate, before))
    (rows, down, rate_y, pad_y), (columns, right, rate_x, pad_x) = sizes
    padded = np.pad(
        image,
        (
            (0, 0),
            (pad_y // 2, pad_y - pad_y // 2),
            (pad_x // 2, pad_x - pad_x // 2),
            (0, 0),
        ),
    )
    parts = [
        padded[
            0,
            y * rate_y : y * rate_y + (rows - 1) * down + 1 : down,
            x * rate_x : x * rate_x + (columns - 1) * right + 1 : right,
        ]
        for y in range(high)
        for x in range(wide)
    ]
    return np.concatenate(parts, axis=-1).reshape(rows * columns, -1)
