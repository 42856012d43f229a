"""TensorFlow Model Optimization, imported without Keras 3.

The toolkit looks in package `keras` for internals of Keras 2, finds Keras 3 there and does without
them. Looking imports all of Keras 3, and with it Matplotlib and scikit-learn where they are
installed: a third of the time that a worker process takes to start.
"""

import sys

_hidden = "keras" not in sys.modules
if _hidden:
    sys.modules["keras"] = None  # type: ignore[assignment]  # An import of it fails.
try:
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.clustering_registry import (
        ClusteringRegistry,
    )
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
        model_transformer,
    )
finally:
    if _hidden:
        del sys.modules["keras"]

__all__ = [
    "ClusteringRegistry",
    "default_8bit_quantize_registry",
    "model_transformer",
    "quant_ops",
    "tfmot",
]
