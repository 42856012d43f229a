"""Weight sharing by clustering, with TensorFlow's model optimization toolkit.

Each kernel keeps a few distinct values, its centroids, which are fine-tuned (Han et al. 2015, "Deep
Compression", arXiv 1510.00149). Files become smaller when compressed, as for a download; no runtime
is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.coverage import LayerSparsity, Sparsified, measure
from edgesparse.methods.network.kernels import Kernel, choose, kernels
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import comparison_samples, fit
from edgesparse.models.files.equivalence import require_equal
from edgesparse.models.files.tfmot import ClusteringRegistry, tfmot
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import WeightSharing

MIN_SPARSITY = 0.05


def weight_sharing(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: WeightSharing, progress: Progress
) -> Sparsified:
    """Cluster the weights of each kernel into `spec.clusters` values; zeros stay zeros.

    Raises:
        UsageError: a glob matches nothing, or no layer is left.
        EdgesparseError: a kernel has more values after training.
    """
    every = kernels(model)
    possible, others = choose(model, spec.exclude)
    left = {name: why for name, (_, why) in others.items()}
    left |= {name: why for name, kernel in possible.items() if (why := _why_not(kernel))}
    chosen = {kernel.layer for name, kernel in every.items() if name not in left}
    if not chosen:
        raise UsageError(f"no layer can be clustered ({_reasons(left)})")
    zeros = any(np.mean(k.variable.numpy() == 0) > MIN_SPARSITY for k in every.values())

    def wrap(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        return tfmot.clustering.keras.cluster_weights(
            layer,
            number_of_clusters=spec.clusters,
            cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=zeros,
        )

    wrapped = tf.keras.models.clone_model(model, clone_function=wrap)
    history = fit(wrapped, dataset, train, progress)
    stripped = tfmot.clustering.keras.strip_clustering(wrapped)
    samples = comparison_samples(model, dataset)
    require_equal("stripping clustering wrappers", wrapped, stripped, samples)
    layers = tuple(_measure(k, spec) for n, k in kernels(stripped).items() if n not in left)
    note = f"{len(layers)} kernels have {spec.clusters} values each: smaller once compressed"
    if left:
        total = sum(kernel.size for kernel in every.values())
        share = sum(every[name].size for name in left) / total
        note += f"; unchanged ({share:.0%} of the weights): {_reasons(left)}"
    return Sparsified(stripped, history, layers, (note,), keeps_layers=True)


def _why_not(kernel: Kernel) -> str:
    is_supported = ClusteringRegistry.supports(kernel.owner) and kernel.name == kernel.owner.name
    if not is_supported or isinstance(kernel.owner, tf.keras.layers.RNN):
        return f"the toolkit cannot cluster this {type(kernel.owner).__name__}"
    return ""


def _reasons(left: dict[str, str]) -> str:
    return listed([f"{name}: {why}" for name, why in left.items()], 3, "; ")


def _measure(kernel: Kernel, spec: WeightSharing) -> LayerSparsity:
    different = len(np.unique(kernel.variable.numpy()))
    # Preserved zeros are an additional value.
    if different > spec.clusters + 1:
        raise EdgesparseError(f"layer {kernel.name} has {different} values, not {spec.clusters}")
    return measure(kernel, "clusters", 0.0)
