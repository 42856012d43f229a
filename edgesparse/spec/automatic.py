"""What `variants: auto` stands for: what is worth a try, before anybody knows the device."""

from __future__ import annotations

from typing import Any

EPOCHS = 10
"""Of fine-tuning, where training has more."""


def automatic(train_epochs: int) -> dict[str, Any]:
    """Variants by name, as a pipeline file has them: dense ones, fewer channels, half precision,
    zeros that XNNPACK skips in convolutions, both, and blocks for fully connected layers. A device
    leaves out those that gain nothing there. Without training, what needs none."""
    if not train_epochs:
        return without_training(0.7)
    epochs = max(1, min(EPOCHS, train_epochs))
    channels = {"method": "channels", "macs": 0.4, "epochs": epochs}
    magnitude = {"method": "magnitude", "epochs": epochs}
    return {
        "dense-f32": {},
        "dense-int8": {"quantize": "int8"},
        "channels-int8": {"sparsify": channels, "quantize": "int8"},
        "half-f16": {"quantize": {"scheme": "f16", "compute": "f16"}},
        "sparse-f32": {"sparsify": {**magnitude, "sparsity": 0.85}},
        "channels-sparse-f32": {"sparsify": [channels, {**magnitude, "sparsity": 0.8}]},
        "blocks-f32": {"sparsify": {**magnitude, "sparsity": 0.9, "pattern": "block-1x4"}},
        "blocks-int8": {
            "sparsify": {**magnitude, "sparsity": 0.9, "pattern": "block-1x16"},
            "quantize": "int8",
        },
    }


def without_training(sparsity: float) -> dict[str, Any]:
    """The same for a model that is trained already, without its labels."""
    one_shot = {"method": "one-shot", "sparsity": sparsity, "allow_partial": True}
    return {
        "dense-f32": {},
        "dense-int8": {"quantize": "int8"},
        "half-f16": {"quantize": {"scheme": "f16", "compute": "f16"}},
        "sparse-f32": {"sparsify": one_shot},
        "blocks-f32": {"sparsify": {**one_shot, "pattern": "block-1x4"}},
        "blocks-int8": {"sparsify": {**one_shot, "pattern": "block-1x16"}, "quantize": "int8"},
    }
