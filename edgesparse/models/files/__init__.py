"""Saved models of every kind that people have, as Keras 2 models."""
