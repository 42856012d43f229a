"""Saved models of every format, loaded as Keras 2 models."""
