"""Which weights of a layer may go, and what the others become, from its inputs alone.

A layer's outputs are to stay what they are: weights go in the order of the error that this causes
(optimal brain surgeon, Hassibi and Stork 1992; column by column as in SparseGPT, Frantar and
Alistarh 2023, arXiv 2301.00774), and those that are left are the least-squares solution on what is
left (optimal brain compression, Frantar and Alistarh 2022, arXiv 2208.11580). Only NumPy is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgesparse.methods.network.keep_mask import kept
from edgesparse.spec.sparsify import Pattern

DAMPING = 0.01
"""Of the mean of the inputs' squares: what the calibration data does not tell stays as it was."""
COLUMNS = 128
"""So many inputs at a time; a multiple of every block."""
TILE = 5120
"""So many inputs have their moments with one another; so many outputs go at a time."""
JUDGED = 1024
"""Outputs that tell what a layer bears."""
MOST_BYTES = 8e9
"""Layers that need more memory stay dense."""
MOST_FLOPS = 4e12
"""Larger least-squares problems are left as the columns' updates left them."""


@dataclass
class Seen:
    """What is known of a layer over calibration data: second moments of its inputs [d, d], and of
    inputs with the outputs that are wanted [d, m]; means; and of how many rows."""

    inputs: np.ndarray
    wanted: np.ndarray
    mean_input: np.ndarray
    mean_wanted: np.ndarray
    square: float = 0.0
    """The mean over rows of the wanted outputs' squares, over all of them."""
    rows: int = 0

    @classmethod
    def nothing(cls, inputs: int, outputs: int) -> Seen:
        return cls(
            np.zeros((inputs, inputs)),
            np.zeros((inputs, outputs)),
            np.zeros(inputs),
            np.zeros(outputs),
        )

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """More rows: x [n, d] as the layer gets them now, y [n, m] as it gave them before."""
        total = self.rows + len(x)
        for moment, new in (
            (self.inputs, x.T @ x),
            (self.wanted, x.T @ y),
            (self.mean_input, x.sum(axis=0)),
            (self.mean_wanted, y.sum(axis=0)),
        ):
            moment *= self.rows / total
            moment += new / total
        self.square += (float(np.square(y).sum()) - len(y) * self.square) / total
        self.rows = total

    def centred(self) -> Seen:
        """The same without means, for a layer with a bias."""
        return Seen(
            self.inputs - np.outer(self.mean_input, self.mean_input),
            self.wanted - np.outer(self.mean_input, self.mean_wanted),
            self.mean_input,
            self.mean_wanted,
            self.square - float(np.square(self.mean_wanted).sum()),
            self.rows,
        )

    def error(self, weights: np.ndarray) -> float:
        """How far outputs with these weights [d, m] are from the wanted ones: mean squares, as a
        share of theirs."""
        own = np.einsum("im,ij,jm->", weights, self.inputs, weights, optimize=True)
        off = own - 2 * float(np.sum(weights * self.wanted)) + self.square
        return max(0.0, float(off)) / max(self.square, 1e-20)


@dataclass
class Tiles:
    """The same of a layer with so many inputs that their moments with one another fill no memory:
    those within each of `spans` only. Each part is to give what the dense weights [d, m] gave of
    the output, and what is missing of that."""

    spans: Sequence[slice]
    parts: Sequence[Seen]
    dense: np.ndarray
    without_means: bool = False

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """More rows; see Seen."""
        missing = y - x @ self.dense
        for span, part in zip(self.spans, self.parts, strict=True):
            part.add(x[:, span], missing + x[:, span] @ self.dense[span])

    def centred(self) -> Tiles:
        """The same without means."""
        return replace(self, without_means=True)

    def each(self) -> Iterator[tuple[slice, Seen]]:
        """The parts; what is computed of one is gone with the next."""
        for span, part in zip(self.spans, self.parts, strict=True):
            yield span, part.centred() if self.without_means else part

    @property
    def mean_input(self) -> np.ndarray:
        return np.concatenate([part.mean_input for part in self.parts])

    @property
    def mean_wanted(self) -> np.ndarray:
        first = self.spans[0].stop
        rest = self.mean_input[first:] @ self.dense[first:]
        return np.asarray(self.parts[0].mean_wanted + rest)

    def error(self, weights: np.ndarray) -> float:
        """As a share of what the parts are to give."""
        found = [(part.error(weights[span]), part.square) for span, part in self.each()]
        return sum(e * square for e, square in found) / max(sum(s for _, s in found), 1e-20)


def watching(weights: np.ndarray) -> Seen | Tiles:
    """What will be known of a layer with these dense weights [d, m]; nothing so far."""
    inputs, outputs = weights.shape
    spans = _spans(inputs)
    if len(spans) == 1:
        return Seen.nothing(inputs, outputs)
    parts = [Seen.nothing(span.stop - span.start, outputs) for span in spans]
    return Tiles(spans, parts, weights)


def needed_bytes(inputs: int, outputs: int) -> int:
    """The memory that a layer's reconstruction takes, about: what is known of it, and what is
    computed with a part of that."""
    side, width = min(inputs, TILE), min(outputs, TILE)
    return 8 * (side * inputs + 3 * inputs * outputs + 7 * side**2 + 9 * side * width)


def too_large(inputs: int, outputs: int) -> str:
    """Why a layer is not reconstructed; empty where it can be."""
    needed = needed_bytes(inputs, outputs)
    if needed <= MOST_BYTES:
        return ""
    return (
        f"too large to reconstruct: {inputs:,} x {outputs:,} weights need {needed / 1e9:.0f} GB, "
        f"at most {MOST_BYTES / 1e9:.0f} are used"
    )


def _spans(size: int) -> list[slice]:
    """Equal parts of at most TILE, that no block lies across."""
    count = -(-size // TILE)
    width = -(-size // count // COLUMNS) * COLUMNS if count > 1 else size
    return [slice(start, min(start + width, size)) for start in range(0, size, width)]


@dataclass(frozen=True)
class _Factors:
    """What pruning needs of a layer, whatever the share of zeros: damped moments [d, d], what is
    wanted and the dense solution [d, m], and of the inverse its diagonal and Cholesky factor."""

    moments: np.ndarray
    target: np.ndarray
    dense: np.ndarray
    diagonal: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, seen: Seen) -> _Factors:
        damping = DAMPING * float(np.mean(np.diag(seen.inputs))) or 1e-12
        moments = seen.inputs.copy()
        moments.flat[:: len(moments) + 1] += damping
        target = seen.wanted + damping * weights
        dense = np.linalg.solve(moments, target)
        inverse = np.linalg.inv(moments)
        diagonal = np.diag(inverse).copy()
        upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
        return cls(moments, target, dense, diagonal, upper)

    def outputs(self, span: slice) -> _Factors:
        """The same of some outputs."""
        return replace(self, target=self.target[:, span], dense=self.dense[:, span])


def pruned(
    weights: np.ndarray,
    seen: Seen | Tiles,
    sparsity: float,
    pattern: Pattern,
    *,
    refit: bool = True,
) -> np.ndarray:
    """The weights [d, m] with a share of zeros, in a pattern along the inputs, whose outputs are
    nearest to the wanted ones; without `refit` nearly so."""
    if isinstance(seen, Tiles):
        parts = [
            pruned(weights[span], part, sparsity, pattern, refit=refit)
            for span, part in seen.each()
        ]
        return np.concatenate(parts)
    return next(_at_each(weights, seen, (sparsity,), pattern, refit))


def losses(weights: np.ndarray, seen: Seen | Tiles, pattern: Pattern) -> list[float]:
    """The error that is left at each of LEVELS, about; for wanted outputs that the dense weights
    give. Of many outputs, some stand for all."""
    if isinstance(seen, Tiles):
        parts, squares = [], []
        for span, part in seen.each():
            parts.append(losses(weights[span], part, pattern))
            squares.append(max(part.square, 1e-20))
        return [float(value) for value in np.average(parts, axis=0, weights=squares)]
    step = -(-weights.shape[1] // JUDGED)
    if step > 1:
        weights, wanted = weights[:, ::step], seen.wanted[:, ::step]
        square = float(np.sum(weights * wanted))
        seen = replace(seen, wanted=wanted, mean_wanted=seen.mean_wanted[::step], square=square)
    return [seen.error(found) for found in _at_each(weights, seen, LEVELS, pattern, False)]


def _at_each(
    weights: np.ndarray,
    seen: Seen,
    levels: Sequence[float],
    pattern: Pattern,
    refit: bool,
) -> Iterator[np.ndarray]:
    """The weights at each share of zeros; some outputs at a time."""
    factors, columns = _Factors.of(weights, seen), _spans(weights.shape[1])
    for level in levels:
        parts = []
        for own in columns:
            known = replace(seen, wanted=seen.wanted[:, own])
            some = factors.outputs(own)
            parts.append(_pruned(weights[:, own], known, some, level, pattern, refit))
        yield np.concatenate(parts, axis=1)


def _pruned(
    weights: np.ndarray,
    seen: Seen,
    factors: _Factors,
    sparsity: float,
    pattern: Pattern,
    refit: bool,
) -> np.ndarray:
    moments, target, dense = factors.moments, factors.target, factors.dense
    updated, chosen = _columns(dense, factors.upper, sparsity, pattern)
    if not refit:
        return updated
    # Column by column, the first inputs are thought to be made up for by all the others, which may
    # go later: where much goes, what each weight does alone may choose better.
    alone = np.square(dense) / factors.diagonal[:, None]
    plain = np.square(weights) * np.diag(moments)[:, None]
    masks = [chosen, *(kept(score, sparsity, pattern) for score in (alone, plain))]
    found = [_refitted(updated if mask is chosen else dense * mask, mask, moments, target)
             for mask in masks]  # fmt: skip
    return min(found, key=seen.error)


LEVELS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def allocated(
    errors: Mapping[str, Sequence[float]], sizes: Mapping[str, int], sparsity: float
) -> dict[str, float]:
    """Which share of zeros each layer gets, so that together they have as many as are asked for and
    the sum of their errors is small: the next zeros go where they cost least.

    Args:
        errors: of each layer at each of LEVELS.
    """
    places, last = dict.fromkeys(errors, 0), ""

    def zeros() -> float:
        return sum(sizes[name] * LEVELS[place] for name, place in places.items())

    wanted = sparsity * sum(sizes.values())
    while zeros() < wanted:
        free = [name for name, place in places.items() if place + 1 < len(LEVELS)]
        if not free:
            break

        def cost(name: str) -> float:
            place = places[name]
            more = sizes[name] * (LEVELS[place + 1] - LEVELS[place])
            return (errors[name][place + 1] - errors[name][place]) / more

        last = min(free, key=cost)
        places[last] += 1
    found = {name: LEVELS[place] for name, place in places.items()}
    if last and zeros() > wanted:  # The last step was too large.
        found[last] -= (zeros() - wanted) / sizes[last]
    return found


def _columns(
    dense: np.ndarray, upper: np.ndarray, sparsity: float, pattern: Pattern
) -> tuple[np.ndarray, np.ndarray]:
    """Column by column: what goes is made up for by the inputs behind it."""
    weights, stays = dense.copy(), np.ones(dense.shape, bool)
    for start in range(0, len(weights), COLUMNS):
        place = slice(start, min(start + COLUMNS, len(weights)))
        score = np.square(weights[place] / np.diag(upper)[place, None])
        stays[place] = kept(score, sparsity, pattern)
        errors = np.zeros_like(weights[place])
        for column in range(place.start, place.stop):
            gone = np.where(stays[column], 0.0, weights[column])
            errors[column - start] = gone / upper[column, column]
            weights[column : place.stop] -= np.outer(
                upper[column, column : place.stop], errors[column - start]
            )
        weights[place.stop :] -= upper[place, place.stop :].T @ errors
    return np.where(stays, weights, 0.0), stays


def _refitted(
    weights: np.ndarray, stays: np.ndarray, moments: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """The best weights where some are zero, output by output."""
    flops = sum(float(count) ** 3 / 3 for count in stays.sum(axis=0))
    if flops > MOST_FLOPS:
        return weights
    found = np.zeros_like(weights)
    for output in range(weights.shape[1]):
        (places,) = np.nonzero(stays[:, output])
        if len(places):
            own = moments[np.ix_(places, places)]
            found[places, output] = np.linalg.solve(own, target[places, output])
    return found
