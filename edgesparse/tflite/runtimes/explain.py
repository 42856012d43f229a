"""Explains the storage of a .tflite file, weight by weight: its form, its cost, and its effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from edgesparse.delegate.cost import PRODUCTS
from edgesparse.delegate.node_summary import summarize
from edgesparse.tflite.format.flatbuffer import Constant, constants, damaged, open_model
from edgesparse.tflite.format.half_precision import allows_half
from edgesparse.tflite.format.inspect import WeightInfo, weight_info
from edgesparse.tflite.format.sparse_layout import Dense, Form, blocks, fits
from edgesparse.tflite.runtimes.compatibility import Cell, Op, Profile
from edgesparse.tflite.runtimes.delegated import (
    GAIN_FROM,
    LayerGain,
    claim,
    layer_gains,
    network_of,
    read_network,
    times,
)
from edgesparse.tflite.runtimes.storage import (
    HALF_IS_DENSE,
    Paths,
    decide,
    densify_obstacle,
    is_candidate,
    paths_in,
    reason_for,
    scheme_of,
)

BLOCKS = (16, 4)
KEPT = 0.9
"""Zeros count as blocks when blocks contain more than this share of them; the converter's limit for
floats."""
WORTH_NAMING = 0.05
"""Share of zeros from which on a pattern is shown."""


@dataclass(frozen=True)
class TensorInfo(WeightInfo):
    """A weight of a file under its layer's name.

    `pattern` is the widest pattern of its zeros. `entropy_bytes` is a lower bound for lossless
    coding of the mask and of single values; see `entropy_bytes`.
    """

    pattern: str
    dense_bytes: int
    entropy_bytes: int


@dataclass(frozen=True)
class Explanation:
    """The effect of a weight's storage with a runtime on a machine.

    `op` reads it; `advised` is the form that storage auto would choose.
    """

    name: str
    op: str
    accepted: bool
    exploited: bool
    reason: str
    advised: Form


def describe(content: bytes, name: str = "model.tflite") -> tuple[TensorInfo, ...]:
    """Describe every weight of a file. Raises UsageError where it is damaged."""
    model = open_model(content, name)
    with damaged(name):
        return tuple(_describe(c) for c in constants(model, content) if c.is_weight)


def explain(
    content: bytes, profile: Profile, name: str = "model.tflite"
) -> tuple[Explanation, ...]:
    """Explain whether the zeros of each weight save time. Raises UsageError."""
    model = open_model(content, name)
    with damaged(name):
        all_constants = list(constants(model, content))
        paths = paths_in(model, all_constants, profile)
        by_operator = _delegated(model, all_constants, profile)
    weights = [c for c in all_constants if is_candidate(c)]
    # With one sparse weight, XNNPACK searches all of them for zeros.
    searches_zeros = any(c.densified for c in weights)
    half = allows_half(model)
    explained = (_explain(constant, profile, paths, searches_zeros, half) for constant in weights)
    return tuple(
        _with_delegate(explanation, constant, by_operator.get(constant.operator))
        for constant, explanation in zip(weights, explained, strict=True)
    )


@dataclass(frozen=True)
class Delegated:
    """Nodes of a file that edgesparse's delegate runs with a runtime, and what they gain.

    `text` counts the nodes that it runs and says why not the others; `ratio` is how much faster the
    file is expected to be than dense int8.
    """

    text: str
    ratio: float


def delegated(content: bytes, profile: Profile, name: str = "model.tflite") -> Delegated | None:
    """Predict which nodes of a file edgesparse's delegate runs; None where it is not loaded or the
    file has no int8 products. Raises UsageError where the file is damaged."""
    network = read_network(content, name)
    if profile.cpu is None or not any(n.op in PRODUCTS and not n.why for n in network.nodes):
        return None
    network = claim(network, profile.cpu)
    nodes = [(n.op, "taken" if n.taken else "left", n.why) for n in network.nodes]
    ratio = times(network, profile.cpu, profile.machine.runtime).ratio
    return Delegated(summarize(nodes), ratio)


def _delegated(
    model: Any, all_constants: Sequence[Constant], profile: Profile
) -> dict[int, LayerGain]:
    """Return what edgesparse's delegate gains by the zeros of each int8 layer, by its operator."""
    if profile.cpu is None:
        return {}
    network = network_of(model, all_constants)
    gains = layer_gains(network, profile.cpu, profile.machine.runtime).layers
    return {gain.operator: gain for gain in gains}


def _with_delegate(
    explanation: Explanation, constant: Constant, gain: LayerGain | None
) -> Explanation:
    """Add what edgesparse's delegate makes of an int8 weight of the first subgraph."""
    if gain is None or constant.graph or scheme_of(constant) not in ("int8", "int8-per-channel"):
        return explanation
    if gain.why and gain.zeros:
        reason = f"{explanation.reason}; delegate edgesparse leaves it: {gain.why}"
        return replace(explanation, reason=reason)
    if gain.ratio >= GAIN_FROM and gain.zeros:
        reason = f"delegate edgesparse skips its zeros, about {gain.ratio:.1f}x faster than dense"
        return replace(explanation, exploited=True, reason=reason)
    if not gain.zeros:
        return explanation
    reason = "delegate edgesparse runs it, but too few of its blocks of 4 inputs are zero"
    return replace(explanation, reason=reason)


def _explain(
    constant: Constant, profile: Profile, paths: Paths, searches_zeros: bool, half: bool
) -> Explanation:
    """Explain a weight.

    Args:
        searches_zeros: a weight is stored sparse, so that XNNPACK searches all of them for zeros.
        half: the file allows half-precision arithmetic.
    """
    decision, _ = decide(constant, profile, "half" if half else "auto", paths)
    form, scheme = constant.form, scheme_of(constant)
    path = paths.get((constant.graph, constant.operator))
    accepted, exploited, reason = True, False, decision.reason
    taken = path is not None and path.state == "taken"
    if form in ("dense", "densify") and searches_zeros and taken and constant.zeros:
        exploited = True
    if form == "dense":
        verdict = profile.verdict(Cell(cast(Op, constant.op), scheme or "f32", form))
        if not verdict.runs:
            accepted, reason = False, verdict.why
        elif decision.form != "dense" and not exploited:
            reason = f"stored dense; as {decision.form}: {reason}"
    elif half and profile.half_precision.exists:
        accepted, exploited, reason = False, False, HALF_IS_DENSE
    elif scheme is None:
        accepted, reason = False, "sparse weights of this dtype were not measured"
    else:
        verdict = profile.verdict(Cell(cast(Op, constant.op), scheme, form))
        why = densify_obstacle(paths) if form == "densify" and scheme in ("f32", "f16") else ""
        accepted = verdict.runs and not why
        if not accepted:
            exploited, reason = False, why or verdict.why
        elif form != "densify":
            stored = constant.stored.values.size if constant.stored else constant.values.size
            share = stored / max(1, constant.values.size)
            exploited = verdict.exploits(share)
            reason = reason_for(profile, constant.op, share, verdict, None)
        elif decision.form != "densify":
            reason = reason_for(profile, constant.op, 1.0, verdict, path)
    return Explanation(constant.label, constant.op, accepted, exploited, reason, decision.form)


def _describe(constant: Constant) -> TensorInfo:
    values = constant.values
    dense = Dense(values if not constant.zero_point else values - constant.zero_point)
    pattern = pattern_of(dense)
    info = {**vars(weight_info(constant)), "name": constant.label, "zeros": dense.zeros}
    return TensorInfo(
        **info,
        pattern=pattern,
        dense_bytes=values.nbytes,
        entropy_bytes=entropy_bytes(dense.values, pattern),
    )


def pattern_of(dense: Dense) -> str:
    """Return the widest pattern with most of a weight's zeros: outputs, blocks, random, or "-"."""
    zeros = dense.zeros
    if zeros < WORTH_NAMING * dense.values.size:
        return "-"
    outputs = ~dense.nonzero.reshape(len(dense.values), -1).any(axis=1)
    if outputs.sum() * dense.values[0].size > KEPT * zeros:
        return "outputs"
    rank = dense.values.ndim
    for width in BLOCKS:
        layout = blocks(rank, width)
        caught = (
            dense.values.size - dense.stored_elements(layout) if fits(layout, dense.shape) else 0
        )
        if caught > KEPT * zeros:
            return f"block-1x{width}"
    return "random"


def entropy_bytes(values: np.ndarray, pattern: str = "random") -> int:
    """Return the entropy of the zeros' mask and of the other values, in bytes rounded up.

    Zeros in blocks are coded block by block, where that is less. For floats a table of the distinct
    values is added.
    """
    bits = _bits(values != 0, values)
    for width in BLOCKS:
        layout = blocks(values.ndim, width)
        if pattern == f"block-1x{width}" and fits(layout, values.shape):
            mask = (values != 0).reshape(-1, width).any(axis=1)
            bits = min(bits, _bits(mask, values.reshape(-1, width)))
    return math.ceil(bits / 8)


def _bits(mask: np.ndarray, values: np.ndarray) -> float:
    """Return the bits of a mask, bool [...], and of the `values` [..., rest] that it keeps."""
    mask_bits = mask.size * _entropy_bits(np.array([mask.sum(), mask.size - mask.sum()]))
    stored = values[mask]
    different, counts = np.unique(stored, return_counts=True)
    value_bits = stored.size * _entropy_bits(counts)
    if values.dtype.kind == "f":
        value_bits += different.size * 8 * values.itemsize
    return mask_bits + min(value_bits, 8.0 * stored.nbytes)


def _entropy_bits(counts: np.ndarray) -> float:
    """Return the entropy of a symbol in bits, by the counts of the symbols."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum())
