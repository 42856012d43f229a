"""Predictions of how long int8 variants take where edgesparse's delegate skips their zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from edgesparse.commands.prediction.outcomes import Prediction
from edgesparse.delegate.cost import Pair
from edgesparse.methods.network.keep_mask import distribute, resolve_distribution
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.sparsify import L1, Channels, Magnitude, Sparsify, leaves_zeros
from edgesparse.spec.step import Pattern, expected_zeros
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile
from edgesparse.tflite.runtimes.delegated import (
    GAIN_FROM,
    Gain,
    Network,
    layer_gains,
    with_zeros,
)
from edgesparse.tflite.runtimes.fewer_channels import thinned

BETTER_FROM = 1.15
"""How much faster another pattern must be to be named."""


def predict_gains(
    variants: Mapping[str, Variant],
    graph: patterns.ModelGraph,
    profiles: Mapping[str, Profile],
    prefix: str,
) -> list[Prediction]:
    """Predict int8 variants on every runtime that loads edgesparse's delegate: the time of each of
    them, and what those with zeros gain.

    Args:
        graph: that of the untrained model.
        prefix: text before messages, such as a device's name.
    """
    predictions = []
    for runtime, profile in profiles.items():
        if profile.cpu is None:
            continue
        for name, variant in variants.items():
            if variant.quantize.numbers != "int8":
                continue
            gain = gain_of(variant, graph, profile)
            text = _text(variant, graph, profile, gain) if variant.has_zeros else ""
            ours = gain.ratio >= GAIN_FROM
            time, delegate = (gain.time, "edgesparse") if ours else (gain.dense, "xnnpack")
            predictions.append(
                Prediction("gain", text, (name,), (runtime,), prefix, time, delegate)
            )
    return predictions


def gain_of(
    variant: Variant,
    graph: patterns.ModelGraph,
    profile: Profile,
    pattern: str | None = None,
) -> Gain:
    """Predict the time of a variant of a model; with another pattern of zeros, if any.

    Args:
        profile: of a runtime that loads the delegate.
    """
    assert profile.cpu is not None
    network = _without_channels(graph.int8, variant, profile.channel_multiple.number)
    step = next((s for s in reversed(variant.sparsify) if leaves_zeros(s)), None)
    zeros = zeros_by_layer(step, graph, pattern) if step is not None else {}
    return layer_gains(with_zeros(network, zeros), profile.cpu, profile.machine.runtime)


def zeros_by_layer(
    step: Sparsify, graph: patterns.ModelGraph, pattern: str | None = None
) -> dict[str, tuple[float, Pair]]:
    """Expected share of zeros and block (outputs, inputs) of each layer that a step prunes.

    Zeros that are distributed over layers by their weights are those of the untrained ones.

    Args:
        pattern: in place of the step's.
    """
    zeros: dict[str, tuple[float, Pattern]] = {}
    exclude = getattr(step, "exclude", ())
    for constant in graph.weights:
        name = constant.label
        if any(fnmatchcase(name, glob) for glob in exclude):
            continue
        share: Any = getattr(step, "sparsity", None)
        chosen: Any = getattr(step, "pattern", "unstructured")
        if isinstance(step, Magnitude):
            share, chosen = step.for_kernel([name])
        if pattern is not None or chosen == "auto":
            chosen = pattern or patterns.SMALLEST_BLOCK
        likely = patterns.LIKELY_SPARSITY if share is None or isinstance(share, str) else share
        zeros[name] = (float(likely), chosen)
    shares = _distributed(step, graph, zeros)
    return {
        name: expected_zeros(chosen, shares.get(name, share))
        for name, (share, chosen) in zeros.items()
    }


def _distributed(
    step: Sparsify, graph: patterns.ModelGraph, zeros: Mapping[str, tuple[float, Pattern]]
) -> dict[str, float]:
    """Shares of zeros of layers, where a step distributes them other than uniformly."""
    sparsity, distribution = getattr(step, "sparsity", None), getattr(step, "distribution", None)
    if distribution in (None, "error") or not isinstance(sparsity, float):
        return {}
    weights = {c.label: np.moveaxis(c.values, 0, -1) for c in graph.weights if c.label in zeros}
    pruned = ((values.shape, zeros[n][1]) for n, values in weights.items() if zeros[n][0])
    resolved = resolve_distribution(distribution, pruned)
    # Layers with a sparsity of their own, and 2:4, keep theirs.
    joint = {
        name: (np.square(values.astype(np.float64)), zeros[name][1])
        for name, values in weights.items()
        if zeros[name][0] == sparsity and zeros[name][1] != "2:4"
    }
    if resolved == "uniform" or not joint:
        return {}
    return distribute(joint, sparsity, resolved)


def _without_channels(network: Network, variant: Variant, multiple: int) -> Network:
    """The network after the steps that remove channels, as if every layer lost the same share."""
    for step in variant.sparsify:
        if isinstance(step, Channels):
            rounded = multiple if step.round_to == "auto" else step.round_to
            budget = step.macs or step.latency
            if budget is not None:
                network = thinned(network, macs=budget, multiple=rounded)
            elif step.parameters is not None:
                network = thinned(network, width=math.sqrt(step.parameters), multiple=rounded)
            else:
                network = thinned(network, width=1 - (step.ratio or 0.0), multiple=rounded)
        elif isinstance(step, L1) and step.group == "channel":
            network = thinned(network, width=1 - (step.sparsity or 0.5))
    return network


def _text(variant: Variant, graph: patterns.ModelGraph, profile: Profile, gain: Gain) -> str:
    """Say what zeros gain, and which pattern would gain more; empty where nothing does."""
    text, runtime = "", profile.machine.runtime
    if gain.ratio >= GAIN_FROM and gain.paying:
        pruned = sum(layer.zeros > 0 for layer in gain.layers)
        share = sum(layer.share for layer in gain.paying)
        text = (
            f"{{variants}} is expected to be {gain.ratio:.1f}x as fast by its zeros on {runtime} "
            f"with delegate edgesparse: in {len(gain.paying)} of {pruned} layers, {share:.0%} of "
            "the time of dense int8"
        )
    blocks = patterns.DELEGATE_BLOCKS
    better = {p: gain_of(variant, graph, profile, p).ratio for p in blocks}
    best = next((p for p in blocks if better[p] >= 0.95 * max(better.values())), blocks[0])
    if better[best] >= BETTER_FROM * max(gain.ratio, 1.0):
        more = f"{better[best]:.1f}x with pattern {best}"
        text = f"{text}; {more}" if text else f"{{variants}} would be {more} on {runtime}"
    return text
