"""Pruning of a layer by least squares, from its inputs and target outputs alone.

Weights are removed in the order of the output error that this causes (optimal brain surgeon,
Hassibi and Stork 1992; column by column as in SparseGPT, Frantar and Alistarh 2023, arXiv
2301.00774), and the remaining ones are the least-squares solution (optimal brain compression,
Frantar and Alistarh 2022, arXiv 2208.11580). Without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import linalg  # With scikit-learn.
from threadpoolctl import threadpool_limits

from edgesparse.methods.network.keep_mask import Grid, mask_rows
from edgesparse.spec.step import Pattern

DAMPING = 0.01
"""Relative to the mean of the inputs' squares, as in SparseGPT: weights of inputs without
calibration data stay unchanged."""
COLUMNS = 128
"""Inputs per update, as in SparseGPT; a multiple of every block's width."""
TILE = 5120
"""Inputs whose moments with one another are kept, and outputs that are computed at a time: 200 MB
for each matrix."""
SAMPLED_OUTPUTS = 256
"""Outputs from which a layer's sensitivity is estimated."""
COMPARED_OUTPUTS = 64
"""Outputs that are refitted with each of several masks, of which one is chosen."""
MOST_BYTES = 8e9
"""Layers that need more memory stay dense."""
MOST_FLOPS = 2e12
"""Larger least-squares problems keep the result of the column updates."""


@dataclass
class LayerStatistics:
    """Statistics of a layer over calibration data: second moments of its inputs [d, d], and of
    inputs with target outputs [d, m]; means; and the number of rows."""

    inputs: np.ndarray
    cross_moments: np.ndarray
    mean_input: np.ndarray
    mean_output: np.ndarray
    square: float = 0.0
    """Mean over rows of the sum of the target outputs' squares."""
    rows: int = 0

    @classmethod
    def empty(cls, inputs: int, outputs: int) -> LayerStatistics:
        return cls(
            np.zeros((inputs, inputs)),
            np.zeros((inputs, outputs)),
            np.zeros(inputs),
            np.zeros(outputs),
        )

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add rows: x [n, d], the layer's present inputs, y [n, m], its target outputs."""
        total = self.rows + len(x)
        for moment, new in (
            (self.inputs, x.T @ x),
            (self.cross_moments, x.T @ y),
            (self.mean_input, x.sum(axis=0)),
            (self.mean_output, y.sum(axis=0)),
        ):
            moment *= self.rows / total
            moment += new / total
        self.square += (float(np.square(y).sum()) - len(y) * self.square) / total
        self.rows = total

    def centred(self) -> LayerStatistics:
        """Return the statistics without means, for a layer with a bias."""
        return LayerStatistics(
            self.inputs - np.outer(self.mean_input, self.mean_input),
            self.cross_moments - np.outer(self.mean_input, self.mean_output),
            self.mean_input,
            self.mean_output,
            self.square - float(np.square(self.mean_output).sum()),
            self.rows,
        )

    def error(self, weights: np.ndarray) -> float:
        """Return the mean squared error of outputs with weights [d, m], relative to the target's
        mean square."""
        power = np.einsum("im,ij,jm->", weights, self.inputs, weights, optimize=True)
        squared_error = power - 2 * float(np.sum(weights * self.cross_moments)) + self.square
        return max(0.0, float(squared_error)) / max(self.square, 1e-20)


@dataclass
class TiledStatistics:
    """Statistics of a layer with too many inputs for the moments of all pairs: only those within
    each of `spans`. The target of each part is its share of the output with the dense weights
    [d, m], plus the error so far."""

    spans: Sequence[slice]
    parts: Sequence[LayerStatistics]
    dense: np.ndarray
    without_means: bool = False

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add rows; see LayerStatistics."""
        missing = y - x @ self.dense
        for span, part in zip(self.spans, self.parts, strict=True):
            part.add(x[:, span], missing + x[:, span] @ self.dense[span])

    def centred(self) -> TiledStatistics:
        """Return the statistics without means."""
        return replace(self, without_means=True)

    def each(self) -> Iterator[tuple[slice, LayerStatistics]]:
        """Yield spans and parts; a centred part exists only until the next."""
        for span, part in zip(self.spans, self.parts, strict=True):
            yield span, part.centred() if self.without_means else part

    @property
    def mean_input(self) -> np.ndarray:
        return np.concatenate([part.mean_input for part in self.parts])

    @property
    def mean_output(self) -> np.ndarray:
        first = self.spans[0].stop
        rest = self.mean_input[first:] @ self.dense[first:]
        return np.asarray(self.parts[0].mean_output + rest)


def empty_statistics(
    weights: np.ndarray, channels: int | None = None
) -> LayerStatistics | TiledStatistics:
    """Return empty statistics for a layer with dense weights [d, m], whose positions have
    `channels` inputs each; by default it has one position."""
    inputs, outputs = weights.shape
    spans = _spans(inputs, channels)
    if len(spans) == 1:
        return LayerStatistics.empty(inputs, outputs)
    parts = [LayerStatistics.empty(span.stop - span.start, outputs) for span in spans]
    return TiledStatistics(spans, parts, weights)


def statistics_bytes(inputs: int, outputs: int) -> int:
    """Return the memory of a layer's statistics."""
    return 8 * (min(inputs, TILE) * inputs + inputs * outputs)


def needed_bytes(inputs: int, outputs: int) -> int:
    """Return the approximate memory of a layer's reconstruction: statistics and working copies."""
    side, width = min(inputs, TILE), min(outputs, TILE)
    copies = 2 * inputs * outputs + 7 * side**2 + 9 * side * width
    return statistics_bytes(inputs, outputs) + 8 * copies


def too_large(inputs: int, outputs: int) -> str:
    """Return the reason why a layer is too large; empty where it is not."""
    needed = needed_bytes(inputs, outputs)
    if needed <= MOST_BYTES:
        return ""
    return (
        f"too large to reconstruct: {inputs:,} x {outputs:,} weights require {needed / 1e9:.0f} "
        f"GB; the limit is {MOST_BYTES / 1e9:.0f} GB"
    )


def _spans(size: int, channels: int | None = None) -> list[slice]:
    """Split into nearly equal parts of about TILE, at boundaries of blocks."""
    count = -(-size // TILE)
    if count == 1:
        return [slice(0, size)]
    channels = channels or size
    cuts = np.arange(0, channels, COLUMNS) + np.arange(0, size, channels)[:, None]
    targets = np.arange(count + 1) * size / count
    nearest = np.abs(cuts.ravel()[:, None] - targets[:-1]).argmin(axis=0)
    edges = [*np.unique(cuts.ravel()[nearest]), size]
    return [slice(int(start), int(stop)) for start, stop in pairwise(edges)]


@dataclass(frozen=True)
class _Factors:
    """Matrices of a layer's pruning at any sparsity: damped moments [d, d], target and dense
    solution [d, m], and the inverse's diagonal and Cholesky factor."""

    moments: np.ndarray
    target: np.ndarray
    dense: np.ndarray
    diagonal: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, seen: LayerStatistics) -> _Factors:
        damping = DAMPING * float(np.mean(np.diag(seen.inputs))) or 1e-12
        moments = seen.inputs.copy()
        moments.flat[:: len(moments) + 1] += damping
        target = seen.cross_moments + damping * weights
        # With moments = U U^T, the inverse's factor is U^-1; U is that of the moments reversed. A
        # fifth of the operations of an inverse and its factor.
        lower = linalg.cholesky(moments[::-1, ::-1], lower=True, check_finite=False)
        inverse, _ = linalg.lapack.dtrtri(lower, lower=1, overwrite_c=1)
        upper = np.ascontiguousarray(inverse[::-1, ::-1])  # BLAS takes no negative strides.
        dense = upper.T @ (upper @ target)
        return cls(moments, target, dense, np.square(upper).sum(axis=0), upper)

    def outputs(self, span: slice) -> _Factors:
        """Return the factors for some outputs."""
        return replace(self, target=self.target[:, span], dense=self.dense[:, span])


def prune_weights(
    weights: np.ndarray,
    seen: LayerStatistics | TiledStatistics,
    sparsity: float,
    pattern: Pattern,
    channels: int | None = None,
    *,
    refit: bool = True,
) -> np.ndarray:
    """Prune weights to a sparsity, in a pattern, with the least output error.

    Args:
        weights: the layer's weights [d, m].
        seen: its statistics.
        sparsity: share of zeros.
        pattern: pattern of zeros.
        channels: inputs of each position of the kernel, within which blocks lie; default: d.
        refit: solve least squares for the remaining weights; without it, approximately.

    Returns:
        The weights [d, m] with zeros.
    """
    grid = Grid.of(len(weights), channels or len(weights), pattern)
    if isinstance(seen, TiledStatistics):
        parts = [
            next(_at_each(weights[span], part, (sparsity,), grid.rows(span), refit))
            for span, part in seen.each()
        ]
        return np.concatenate(parts)
    return next(_at_each(weights, seen, (sparsity,), grid, refit))


def reconstruction_errors(
    weights: np.ndarray,
    seen: LayerStatistics | TiledStatistics,
    pattern: Pattern,
    channels: int | None = None,
) -> list[float]:
    """Return the approximate error at each of LEVELS, for targets that are the dense outputs; of
    many outputs, from a sample of them. Arguments as those of prune_weights."""
    grid = Grid.of(len(weights), channels or len(weights), pattern)
    if isinstance(seen, TiledStatistics):
        parts, squares = [], []
        for span, part in seen.each():
            parts.append(_errors(weights[span], part, grid.rows(span)))
            squares.append(max(part.square, 1e-20))
        return [float(value) for value in np.average(parts, axis=0, weights=squares)]
    return _errors(weights, seen, grid)


def _errors(weights: np.ndarray, seen: LayerStatistics, grid: Grid) -> list[float]:
    step = -(-weights.shape[1] // SAMPLED_OUTPUTS)
    if step > 1:
        weights, cross = weights[:, ::step], seen.cross_moments[:, ::step]
        seen = replace(seen, cross_moments=cross, square=float(np.sum(weights * cross)))
    return [seen.error(values) for values in _at_each(weights, seen, LEVELS, grid, False)]


def _at_each(
    weights: np.ndarray,
    seen: LayerStatistics,
    levels: Sequence[float],
    grid: Grid,
    refit: bool,
) -> Iterator[np.ndarray]:
    """Yield the weights at each sparsity; computed for some outputs at a time."""
    factors, columns = _Factors.of(weights, seen), _spans(weights.shape[1])
    for level in levels:
        parts = []
        for span in columns:
            part = replace(seen, cross_moments=seen.cross_moments[:, span])
            some = factors.outputs(span)
            parts.append(_prune_block(weights[:, span], part, some, level, grid, refit))
        yield np.concatenate(parts, axis=1)


def _prune_block(
    weights: np.ndarray,
    seen: LayerStatistics,
    factors: _Factors,
    sparsity: float,
    grid: Grid,
    refit: bool,
) -> np.ndarray:
    moments, target, dense = factors.moments, factors.target, factors.dense
    updated, chosen = _columns(dense, factors.upper, sparsity, grid)
    if not refit:
        return updated
    # Column updates assume that all later inputs compensate, some of which are removed later: at
    # high sparsity, scores of weights alone can choose better.
    alone = np.square(dense) / factors.diagonal[:, None]
    plain = np.square(weights) * np.diag(moments)[:, None]
    masks = [chosen, *(mask_rows(score, sparsity, grid) for score in (alone, plain))]

    def refitted(mask: np.ndarray, outputs: slice) -> np.ndarray:
        start = updated if mask is chosen else dense * mask
        return _refit(start[:, outputs], mask[:, outputs], moments, target[:, outputs])

    # Of many outputs a sample shows which mask is the best.
    some = slice(None, None, max(1, weights.shape[1] // COMPARED_OUTPUTS))
    part = replace(seen, cross_moments=seen.cross_moments[:, some])
    every = [refitted(mask, some) for mask in masks]
    best = int(np.argmin([part.error(values) for values in every]))
    return every[best] if some.step == 1 else refitted(masks[best], slice(None))


LEVELS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def allocate_sparsity(
    errors: Mapping[str, Sequence[float]], sizes: Mapping[str, int], sparsity: float
) -> dict[str, float]:
    """Allocate sparsity to layers with a small sum of errors: the next zeros go where they increase
    it least.

    Args:
        errors: error of each layer at each of LEVELS.
        sizes: number of weights of each layer.
        sparsity: target share of zeros over all of them.

    Returns:
        Sparsity by layer.
    """
    index_of, last = dict.fromkeys(errors, 0), ""

    def zeros() -> float:
        return sum(sizes[name] * LEVELS[index] for name, index in index_of.items())

    budget = sparsity * sum(sizes.values())
    while zeros() < budget:
        free = [name for name, index in index_of.items() if index + 1 < len(LEVELS)]
        if not free:
            break

        def cost(name: str) -> float:
            index = index_of[name]
            more = sizes[name] * (LEVELS[index + 1] - LEVELS[index])
            return (errors[name][index + 1] - errors[name][index]) / more

        last = min(free, key=cost)
        index_of[last] += 1
    sparsities = {name: LEVELS[index] for name, index in index_of.items()}
    if last and zeros() > budget:  # The last step was too large.
        sparsities[last] -= (zeros() - budget) / sizes[last]
    return sparsities


def _columns(
    dense: np.ndarray, upper: np.ndarray, sparsity: float, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Prune column by column; the inputs behind each column compensate for its error."""
    weights, stays = dense.copy(), np.ones(dense.shape, bool)
    for block in grid.spans(COLUMNS):
        score = np.square(weights[block] / np.diag(upper)[block, None])
        stays[block] = mask_rows(score, sparsity, grid.rows(block), every_output=False)
        errors = np.zeros_like(weights[block])
        for column in range(block.start, block.stop):
            gone = np.where(stays[column], 0.0, weights[column])
            errors[column - block.start] = gone / upper[column, column]
            weights[column : block.stop] -= np.outer(
                upper[column, column : block.stop], errors[column - block.start]
            )
        weights[block.stop :] -= upper[block, block.stop :].T @ errors
    # Each part may leave an output without weights; the whole layer may not.
    empty = ~stays.any(axis=0)
    if empty.any():
        rest = mask_rows(np.square(dense / np.diag(upper)[:, None]), 1.0, grid) & empty
        weights, stays = np.where(rest, dense, weights), stays | rest
    return np.where(stays, weights, 0.0), stays


def _refit(
    weights: np.ndarray, stays: np.ndarray, moments: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Solve least squares for the remaining weights, output by output; in single precision: DAMPING
    bounds the moments' condition, and so its error, to 1e-5 of the outputs' power."""
    if sum(float(count) ** 3 / 3 for count in stays.sum(axis=0)) > MOST_FLOPS:
        return weights
    single, goal = moments.astype(np.float32), target.astype(np.float32)
    solution = np.zeros_like(weights)
    # BLAS' threads wait for one another, 40 times as long where other programs run.
    with threadpool_limits(1, "blas"):
        for output in range(weights.shape[1]):
            if len(rows := np.flatnonzero(stays[:, output])):
                matrix = single[rows][:, rows].T  # Symmetric; LAPACK's matrices are by columns.
                _, solved, failed = linalg.lapack.sposv(matrix, goal[rows, output], overwrite_a=1)
                if failed:
                    solved = np.linalg.solve(moments[np.ix_(rows, rows)], target[rows, output])
                solution[rows, output] = solved
    return solution
