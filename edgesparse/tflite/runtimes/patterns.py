"""Predicts before training which zeros a target exploits in a model, and chooses patterns.

Works on the graph of the untrained model as an f32 .tflite file, which has all shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, cast

from edgesparse.delegate.constants import CPUS
from edgesparse.delegate.cost import cpu_of
from edgesparse.spec.pipeline import Numbers
from edgesparse.spec.sparsify import LayerChoice, PatternChoice
from edgesparse.spec.step import Block, Pattern, block_shape, expected_zeros
from edgesparse.tflite.format.flatbuffer import Constant, constants, damaged, open_model
from edgesparse.tflite.format.sparse_layout import Form, blocks, fits
from edgesparse.tflite.runtimes.compatibility import KERNELS, Cell, Op, Profile, SparsePath
from edgesparse.tflite.runtimes.compatibility import Scheme as CellScheme
from edgesparse.tflite.runtimes.delegated import (
    GAIN_FROM,
    Gain,
    Network,
    layer_gains,
    network_of,
    with_zeros,
)
from edgesparse.tflite.runtimes.storage import BLOCK_WIDTH, is_candidate
from edgesparse.tflite.runtimes.xnnpack import Path, sparse_paths

SMALLEST_BLOCK = "block-1x4"
"""The smallest pattern whose zeros edgesparse's delegate skips on every CPU."""
FEW_BLOCKS = "too few of its blocks of 4 inputs are zero for delegate edgesparse"
DELEGATE_BLOCKS: tuple[Block, ...] = ("block-1x4", "block-2x4", "block-4x4")
"""Blocks that edgesparse's delegate multiplies, the smallest first."""
NEARLY = 0.9
"""Share of the largest speed-up with which a smaller block is chosen: it loses less accuracy."""
LIKELY_SPARSITY = 0.9
"""The sparsity that is assumed for `sparsity: auto`."""
_PATTERNS: dict[Form, Pattern] = {
    "random": "unstructured",
    "block-1x4": "block-1x4",
    "block-1x16": "block-1x16",
}


@dataclass(frozen=True)
class ModelGraph:
    """A model's graph. `weights` are those that methods prune: without depthwise convolutions and
    the first one of an image; `kernels` are those of every operator."""

    model: Any
    kernels: tuple[Constant, ...]
    weights: tuple[Constant, ...]
    all_constants: tuple[Constant, ...] = ()

    @cached_property
    def int8(self) -> Network:
        """The nodes of the int8 file of the same network, for edgesparse's delegate."""
        return network_of(self.model, self.all_constants, as_int8=True)

    def paths(self, path: SparsePath, sparsity: float) -> dict[tuple[int, int], Path]:
        """Return where XNNPACK would skip zeros, if every weight had that sparsity."""
        return sparse_paths(self.model, self.kernels, path, sparsity) if path.exists else {}


def read_graph(content: bytes) -> ModelGraph:
    """Read the graph of a .tflite file. Raises UsageError where it is damaged."""
    model = open_model(content, "untrained.tflite")
    with damaged("untrained.tflite"):
        all_constants = tuple(constants(model, content))
    kernels = tuple(c for c in all_constants if c.slot == 1)
    weights = (
        c
        for c in kernels
        if is_candidate(c)
        # The weights that methods prune; see methods/network/kernels.py.
        and (c.op == "FULLY_CONNECTED" or (c.op == "CONV_2D" and c.values.shape[3] > 4))
    )
    return ModelGraph(model, kernels, tuple(weights), all_constants)


@dataclass(frozen=True)
class Exploits:
    """The zeros that a target's runtimes exploit, at a sparsity and with a scheme.

    `fully_connected`: patterns with which a runtime is faster, the fastest first. `paths`: the
    properties of the runtimes' sparse paths. `delegates`: the CPU's constants and the runtime of
    each that loads edgesparse's delegate, by their names.
    """

    fully_connected: tuple[Pattern, ...]
    paths: tuple[SparsePath, ...]
    delegates: tuple[tuple[str, str], ...] = ()


def exploits(profiles: Iterable[Profile], scheme: Numbers, sparsity: float) -> Exploits:
    """Return what a target exploits; devices with the same result share trained models."""
    if scheme == "int16x8":  # It has no sparse kernels.
        return Exploits((), ())
    gains: dict[Pattern, float] = {}
    paths: list[SparsePath] = []
    delegates: list[tuple[str, str]] = []
    for profile in profiles:
        if profile.cpu is not None and scheme == "int8":
            delegates.append((profile.cpu.name, profile.machine.runtime))
        for form in KERNELS:
            verdict = profile.verdict(Cell("FULLY_CONNECTED", scheme, form))
            if verdict.exploits(1 - sparsity) and verdict.cost is not None:
                pattern = _PATTERNS[form]
                gains[pattern] = min(gains.get(pattern, verdict.cost), verdict.cost)
        path = profile.sparse_path
        if path.exists and scheme in ("f32", "f16") and path not in paths:
            paths.append(path)
    fully_connected = tuple(sorted(gains, key=lambda pattern: gains[pattern]))
    return Exploits(fully_connected, tuple(paths), tuple(delegates))


def choose(graph: ModelGraph, exploited: Exploits, sparsity: float) -> dict[str, LayerChoice]:
    """Choose for each layer the pattern that the target exploits there, else channels."""
    chosen: dict[str, LayerChoice] = {}
    skipped = _skipped_blocks(graph, exploited, sparsity)
    paths_by_runtime = [graph.paths(path, sparsity) for path in exploited.paths]
    for constant in graph.weights:
        if constant.label in skipped:
            chosen[constant.label] = skipped[constant.label]
        elif constant.op == "FULLY_CONNECTED":
            fitting = [p for p in exploited.fully_connected if _fits(constant, p)]
            chosen[constant.label] = fitting[0] if fitting else "channels"
        elif constant.op == "CONV_2D":
            key = (constant.graph, constant.operator)
            taken = any(p[key].state == "taken" for p in paths_by_runtime if key in p)
            chosen[constant.label] = "unstructured" if taken else "channels"
    return chosen


def _skipped_blocks(
    graph: ModelGraph, exploited: Exploits, sparsity: float
) -> dict[str, LayerChoice]:
    """Choose the smallest blocks with which edgesparse's delegate is nearly as fast as with any, on
    each runtime; for the layers that are faster with them."""
    if not exploited.delegates:
        return {}
    gains: dict[LayerChoice, list[Gain]] = {}
    for block in DELEGATE_BLOCKS:
        zeros = {c.label: (sparsity, block_shape(block)) for c in graph.weights}
        network = with_zeros(graph.int8, zeros)
        gains[block] = [layer_gains(network, CPUS[cpu], r) for cpu, r in exploited.delegates]
    best = [max(g.ratio for g in column) for column in zip(*gains.values(), strict=True)]
    nearly_best = (
        p
        for p, each in gains.items()
        if all(g.ratio >= NEARLY * most for g, most in zip(each, best, strict=True))
    )
    pattern = next(nearly_best, DELEGATE_BLOCKS[-1])
    paying = [{layer.name for layer in gain.paying} for gain in gains[pattern]]
    return dict.fromkeys(set.union(*paying), pattern)


def advice(
    graph: ModelGraph,
    profile: Profile,
    scheme: Numbers,
    sparsity: float,
    pattern: PatternChoice,
    exclude: Sequence[str] = (),
) -> dict[str, int]:
    """Count the layers in which zeros would not save time, by reason."""
    arguments = (graph, profile, scheme, sparsity, pattern, exclude)
    return dict(Counter(why for _, why in _obstacles(*arguments) if why))


def exploited_share(
    graph: ModelGraph,
    profile: Profile,
    scheme: Numbers,
    sparsity: float,
    pattern: PatternChoice,
    exclude: Sequence[str] = (),
) -> float:
    """Return the share of prunable weights whose zeros would save time."""
    obstacles = list(_obstacles(graph, profile, scheme, sparsity, pattern, exclude))
    size = sum(constant.values.size for constant, _ in obstacles)
    return sum(constant.values.size for constant, why in obstacles if not why) / max(1, size)


def _obstacles(
    graph: ModelGraph,
    profile: Profile,
    scheme: Numbers,
    sparsity: float,
    pattern: PatternChoice,
    exclude: Sequence[str],
) -> Iterator[tuple[Constant, str | None]]:
    """Yield each weight with the reason why its zeros would not save time, or ""."""
    paths = graph.paths(profile.sparse_path, sparsity)
    kernels = exploits([profile], scheme, sparsity).fully_connected
    delegated = _delegated_dense(graph, profile, sparsity, pattern, exclude)
    for constant in graph.weights:
        if any(fnmatchcase(constant.label, glob) for glob in exclude):
            continue
        if scheme == "int8" and delegated.get(constant.label) == "":
            yield constant, ""
        elif constant.op == "FULLY_CONNECTED":
            yield constant, _fully_connected_dense(constant, kernels, scheme, sparsity, pattern)
        elif scheme == "int8" and constant.label in delegated:
            yield constant, delegated[constant.label]
        else:
            yield constant, _convolution_dense(constant, profile, paths, scheme)


def _delegated_dense(
    graph: ModelGraph,
    profile: Profile,
    sparsity: float,
    pattern: PatternChoice,
    exclude: Sequence[str],
) -> dict[str, str]:
    """Return why edgesparse's delegate would not make a layer faster by its zeros, by its name;
    empty reasons for those that it would. Nothing where the delegate is not loaded."""
    cpu = profile.cpu
    if cpu is None:
        return {}
    expected = expected_zeros(SMALLEST_BLOCK if pattern == "auto" else pattern, sparsity)
    zeros = {
        c.label: expected
        for c in graph.weights
        if not any(fnmatchcase(c.label, glob) for glob in exclude)
    }
    gains = layer_gains(with_zeros(graph.int8, zeros), cpu, profile.machine.runtime)
    return {
        gain.name: gain.why or ("" if gain.ratio >= GAIN_FROM else FEW_BLOCKS)
        for gain in gains.layers
        if gain.name in zeros
    }


def refusals(
    graph: ModelGraph, profile: Profile, scheme: Numbers, *, one_scale: bool = False
) -> list[str]:
    """Return why a runtime refuses a model with that scheme in any storage; empty if it does not.

    Args:
        one_scale: fully connected weights have a single scale.
    """
    if scheme == "int16x8":
        return []
    reasons: dict[str, None] = {}
    for constant in graph.weights:
        cell_scheme: CellScheme = scheme
        per_channel = constant.op == "FULLY_CONNECTED" and not one_scale
        if per_channel and scheme in ("int8", "dynamic"):
            cell_scheme = "int8-per-channel" if scheme == "int8" else "dynamic-per-channel"
        verdict = profile.verdict(Cell(cast(Op, constant.op), cell_scheme, "dense"))
        if not verdict.runs:
            reasons[verdict.why] = None
    return list(reasons)


def _fully_connected_dense(
    constant: Constant,
    kernels: Sequence[Pattern],
    scheme: Numbers,
    sparsity: float,
    pattern: PatternChoice,
) -> str:
    usable = [kernel for kernel in kernels if _fits(constant, kernel)]
    if not usable:
        return f"no sparse {scheme} kernel is faster for fully connected layers at {sparsity:.0%}"
    # A kernel exploits larger blocks, too; that for single zeros all of them.
    if pattern == "auto" or any(_covers(pattern, kernel) for kernel in usable):
        return ""
    return f"its {scheme} kernel requires pattern {usable[0]} (or auto), not {pattern}"


def _convolution_dense(
    constant: Constant, profile: Profile, paths: Mapping[tuple[int, int], Path], scheme: Numbers
) -> str:
    if scheme not in ("f32", "f16"):
        dense = f"it has no sparse convolution for {scheme}"
        # A device that chose another delegate, or a runtime that cannot load it.
        ours = scheme == "int8" and cpu_of(profile.machine.machine, profile.machine.features)
        return f"{dense} without delegate edgesparse" if ours else dense
    if not profile.sparse_path.exists:
        return profile.sparse_path.why
    path = paths.get((constant.graph, constant.operator))
    if path is None:
        return "only 1x1 convolutions can be sparse"
    return "" if path.state == "taken" else path.reason


def _covers(pattern: Pattern, kernel: Pattern) -> bool:
    """Return whether blocks of a pattern consist of a kernel's."""
    if kernel == "unstructured":
        return True
    pairs = zip(block_shape(pattern), block_shape(kernel), strict=True)
    return pattern != "2:4" and all(size % part == 0 for size, part in pairs)


def _fits(constant: Constant, pattern: Pattern) -> bool:
    width = next((w for form, w in BLOCK_WIDTH.items() if _PATTERNS[form] == pattern), None)
    return width is None or fits(blocks(2, width), constant.values.shape)
