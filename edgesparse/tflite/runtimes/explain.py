"""What pays in a .tflite file, weight by weight: how it is stored, what that costs, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from edgesparse.tflite.format.graph import Constant, constants, damaged, open_model
from edgesparse.tflite.format.inspect import WeightInfo, weight_info
from edgesparse.tflite.format.layout import Dense, Form, blocks, fits
from edgesparse.tflite.format.precision import allows_half
from edgesparse.tflite.runtimes.compatibility import Cell, Op, Profile
from edgesparse.tflite.runtimes.storage import (
    HALF_IS_DENSE,
    Paths,
    decide,
    is_candidate,
    misled,
    paths_in,
    reason_for,
    scheme_of,
)

BLOCKS = (16, 4)
KEPT = 0.9
"""Zeros come in blocks when blocks catch more than this share of them; the converter's own limit
for floats."""
WORTH_NAMING = 0.05
"""Share of zeros from which on they count as a pattern."""


@dataclass(frozen=True)
class TensorInfo(WeightInfo):
    """A weight, as a file has it, under its layer's name.

    `pattern` is the widest in which its zeros come. `entropy_bytes` is a lower bound for any
    lossless form that knows where zeros are and how often values occur, but not more: mask entropy
    plus value entropy; see `entropy_bytes`.
    """

    pattern: str
    dense_bytes: int
    entropy_bytes: int


@dataclass(frozen=True)
class Explanation:
    """What one runtime on one machine makes of a weight as it is stored now.

    `advised` is the form that storage auto would give it there.
    """

    name: str
    accepted: bool
    exploited: bool
    reason: str
    advised: Form


def describe(content: bytes, name: str = "model.tflite") -> tuple[TensorInfo, ...]:
    """Every weight of a file. Raises UsageError where it is damaged."""
    model = open_model(content, name)
    with damaged(name):
        return tuple(_describe(c) for c in constants(model, content) if c.is_weight)


def explain(
    content: bytes, profile: Profile, name: str = "model.tflite"
) -> tuple[Explanation, ...]:
    """For every weight that could be sparse: whether its zeros pay. Raises UsageError."""
    model = open_model(content, name)
    with damaged(name):
        every = list(constants(model, content))
        paths = paths_in(model, every, profile)
    found = [c for c in every if is_candidate(c)]
    # One sparse weight is enough: XNNPACK then looks for zeros in all of them.
    looks = any(c.densified for c in found)
    half = allows_half(model)
    return tuple(_explain(constant, profile, paths, looks, half) for constant in found)


def _explain(
    constant: Constant, profile: Profile, paths: Paths, looks: bool, half: bool
) -> Explanation:
    """`looks`: some weight is stored sparse, so that XNNPACK looks for zeros in all of them.
    `half`: the file is computed in half precision where the CPU can."""
    decision, _ = decide(constant, profile, "half" if half else "auto", paths)
    form, scheme = constant.form, scheme_of(constant)
    path = paths.get((constant.graph, constant.operator))
    accepted, exploited, reason = True, False, decision.reason
    taken = path is not None and path.state == "taken"
    if form in ("dense", "densify") and looks and taken and constant.zeros:
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
        accepted, reason = False, "nobody measured sparse weights of this kind"
    else:
        verdict = profile.verdict(Cell(cast(Op, constant.op), scheme, form))
        why = misled(paths) if form == "densify" and scheme in ("f32", "f16") else ""
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
    return Explanation(constant.label, accepted, exploited, reason, decision.form)


def _describe(constant: Constant) -> TensorInfo:
    values = constant.values
    dense = Dense(values if not constant.zero_point else values - constant.zero_point)
    pattern = pattern_of(dense)
    own = {**vars(weight_info(constant)), "name": constant.label, "zeros": dense.zeros}
    return TensorInfo(
        **own,
        pattern=pattern,
        dense_bytes=values.nbytes,
        entropy_bytes=entropy_bytes(dense.values, pattern),
    )


def pattern_of(dense: Dense) -> str:
    """The widest pattern that catches most of a weight's zeros: whole outputs, blocks, or none."""
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
    """Entropy of which elements are zero, and of the values of the others, rounded up.

    Zeros that come in blocks are told block by block, where that is less. Floats have no known
    alphabet: their different values count once in full.
    """
    bits = _bits(values != 0, values)
    for width in BLOCKS:
        layout = blocks(values.ndim, width)
        if pattern == f"block-1x{width}" and fits(layout, values.shape):
            kept = (values != 0).reshape(-1, width).any(axis=1)
            bits = min(bits, _bits(kept, values.reshape(-1, width)))
    return math.ceil(bits / 8)


def _bits(kept: np.ndarray, values: np.ndarray) -> float:
    """For a mask bool [...] and what it keeps of `values` [..., rest]."""
    mask_bits = kept.size * _entropy_bits(np.array([kept.sum(), kept.size - kept.sum()]))
    stored = values[kept]
    different, counts = np.unique(stored, return_counts=True)
    value_bits = stored.size * _entropy_bits(counts)
    if values.dtype.kind == "f":
        value_bits += different.size * 8 * values.itemsize
    return mask_bits + min(value_bits, 8.0 * stored.nbytes)


def _entropy_bits(counts: np.ndarray) -> float:
    """Of one of so many kinds, by how often each occurs."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum())
