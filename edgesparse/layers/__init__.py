"""Keras layers whose sparsity stock TFLite operators exploit: they skip the reads of zeros.

    from edgesparse.layers import Experts, SparseAttention, SparseDense, TopK

Each trains in batches and converts, with a batch of one, to operators that both runtimes have.
Installed packages add layers by entry points of the group edgesparse.layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesparse.layers.experts import Experts as Experts
    from edgesparse.layers.sparse_attention import SparseAttention as SparseAttention
    from edgesparse.layers.sparse_dense import SparseDense as SparseDense
    from edgesparse.layers.top_k import TopK as TopK

_HOME = {
    "Experts": "experts",
    "SparseAttention": "sparse_attention",
    "SparseDense": "sparse_dense",
    "TopK": "top_k",
}


def __getattr__(name: str) -> Any:
    import importlib

    from edgesparse.spec.base import plugins

    if name in _HOME:
        return getattr(importlib.import_module(f"edgesparse.layers.{_HOME[name]}"), name)
    installed = plugins("layers")
    if name not in installed:
        names = ", ".join([*_HOME, *installed])
        raise AttributeError(f"edgesparse.layers has no {name}; it has {names}")
    module, _, layer = installed[name].partition(":")
    return getattr(importlib.import_module(module), layer)
