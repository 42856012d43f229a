"""Threshold pruning: weights below a limit become zero, and the others are fine-tuned (Han et al.
2015, "Learning both weights and connections for efficient neural networks", arXiv 1506.02626)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.coverage import Sparsified, coverage, measure
from edgesparse.methods.masks import HoldMasks, Masked, kernel_mask
from edgesparse.methods.network.kernels import Kernel, choose, unfreeze
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import fit
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Threshold


def threshold(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Threshold, progress: Progress
) -> Sparsified:
    """Set weights below the limit to zero, and fine-tune the others in place.

    Raises:
        UsageError: a glob matches nothing, or no kernel is left.
        EdgesparseError: a kernel would be all zeros.
    """
    chosen, _ = choose(model, spec.exclude)
    notes = unfreeze(model, chosen.values())
    held = []
    for name, kernel in chosen.items():
        kept = np.abs(kernel.variable.numpy()) >= limit(kernel, spec)
        if not kept.any():
            raise EdgesparseError(f"{name}: all weights are below the limit; lower it")
        kept |= kernel_mask(kernel, 1.0, "unstructured")  # The largest of each output.
        held.append(Masked(kernel, mask=tf.constant(kept, kernel.variable.dtype)))
        held[-1].apply()
    history = fit(model, dataset, train, progress, callbacks=[HoldMasks(held)])
    for masked in held:
        masked.apply()
    reached = coverage(model, 0.0, {})
    layers = tuple(
        measure(kernel, "unstructured", float(np.mean(kernel.variable.numpy() == 0)))
        for kernel in chosen.values()
    )
    notes += (f"{reached.achieved:.1%} of the weights were below the limit",)
    return Sparsified(model, history, layers, notes, keeps_layers=True)


def limit(kernel: Kernel, spec: Threshold) -> float:
    """Return the limit of a kernel's weights."""
    if spec.value is not None:
        return spec.value
    assert spec.relative is not None
    return float(spec.relative * np.std(kernel.variable.numpy()))
