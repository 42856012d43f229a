"""Sparse neural networks on real edge devices: train, store the zeros, deploy, measure."""

import os

__version__ = "0.1.0"

# TensorFlow's model optimization toolkit works with Keras 2 only. This must be set before anybody
# imports TensorFlow, and nothing of ours is imported before this file.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
