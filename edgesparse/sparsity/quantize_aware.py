"""Quantization-aware training that keeps zeros (pruning-preserving QAT, PQAT).

Fake-quantization after Jacob et al. 2017 (arXiv 1712.05877), with TensorFlow's toolkit; its
prune-preserving scheme multiplies each kernel by the mask of its zeros in every step.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from edgesparse.data import Dataset
from edgesparse.sparsity.training import History, Progress, fit
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train

# A kernel with fewer zeros than this was not pruned; masking it would only slow training down.
MIN_SPARSITY = 0.05


def prepare(model: tf.keras.Model) -> tf.keras.Model:
    """`model` with fake-quantization around its layers, zeros preserved where there are any.

    Raises:
        EdgesparseError: the toolkit cannot quantize one of the model's layers.
    """
    kernels = [w.numpy() for w in model.trainable_weights if len(w.shape) >= 2]
    sparse = any(np.mean(kernel == 0) > MIN_SPARSITY for kernel in kernels)
    keras = tfmot.quantization.keras
    try:
        annotated = keras.quantize_annotate_model(model)
        if not sparse:
            return keras.quantize_apply(annotated)
        scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
        return keras.quantize_apply(annotated, scheme)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise EdgesparseError(
            f"quantization-aware training does not take this model: {reason}; "
            "leave out 'aware: true'"
        ) from error


def quantize_aware(
    model: tf.keras.Model, dataset: Dataset, train: Train, progress: Progress
) -> tuple[tf.keras.Model, History]:
    """Fine-tune `model` under fake-quantization."""
    prepared = prepare(model)
    history = fit(prepared, dataset, train, progress)
    return prepared, history
