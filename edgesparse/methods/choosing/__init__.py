"""Automatic choice of sparsity and pattern for each layer."""
