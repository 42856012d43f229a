"""Sparsity methods on Keras models: one file each."""
