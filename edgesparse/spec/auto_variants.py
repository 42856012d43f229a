"""Variants of `variants: auto`, for a model to be trained and for a trained one."""

from __future__ import annotations

from typing import Any

EPOCHS = 10
"""Most epochs of fine-tuning; fewer where training has fewer."""


def default_variants(train_epochs: int) -> dict[str, Any]:
    """Return the variants of `variants: auto` by name, as a pipeline file has them.

    They are dense ones, fewer channels, half precision, zeros that XNNPACK skips in convolutions,
    blocks of them that edgesparse's delegate skips in int8, each also with fewer channels, and
    blocks for fully connected layers. A device skips those that are not faster there.
    Without training epochs: variants that need no training.
    """
    if not train_epochs:
        return untrained_variants(0.7)
    epochs = max(1, min(EPOCHS, train_epochs))
    channels = {"method": "channels", "macs": 0.4, "epochs": epochs}
    magnitude = {"method": "magnitude", "epochs": epochs}
    blocks = {**magnitude, "sparsity": 0.8, "pattern": "block-2x4"}
    return {
        "dense-f32": {},
        "dense-int8": {"quantize": "int8"},
        "channels-int8": {"sparsify": channels, "quantize": "int8"},
        "half-f16": {"quantize": {"scheme": "f16", "compute": "f16"}},
        "sparse-f32": {"sparsify": {**magnitude, "sparsity": 0.85}},
        "channels-sparse-f32": {"sparsify": [channels, {**magnitude, "sparsity": 0.8}]},
        "sparse-int8": {"sparsify": blocks, "quantize": "int8"},
        "channels-sparse-int8": {"sparsify": [channels, blocks], "quantize": "int8"},
        "blocks-f32": {"sparsify": {**magnitude, "sparsity": 0.9, "pattern": "block-1x4"}},
        "blocks-int8": {
            "sparsify": {**magnitude, "sparsity": 0.9, "pattern": "block-1x16"},
            "quantize": "int8",
        },
    }


def untrained_variants(sparsity: float) -> dict[str, Any]:
    """Return default variants of a model that is already trained, for data without labels."""
    one_shot = {"method": "one-shot", "sparsity": sparsity, "allow_partial": True}
    return {
        "dense-f32": {},
        "dense-int8": {"quantize": "int8"},
        "half-f16": {"quantize": {"scheme": "f16", "compute": "f16"}},
        "sparse-f32": {"sparsify": one_shot},
        "blocks-f32": {"sparsify": {**one_shot, "pattern": "block-1x4"}},
        "blocks-int8": {"sparsify": {**one_shot, "pattern": "block-1x16"}, "quantize": "int8"},
    }
