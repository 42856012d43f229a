"""Which weights of a layer may go, and what the others become, from its inputs alone.

A layer's outputs are to stay what they are: weights go in the order of the error that this causes
(optimal brain surgeon, Hassibi and Stork 1992; column by column as in SparseGPT, Frantar and
Alistarh 2023, arXiv 2301.00774), and those that are left are the least-squares solution on what is
left (optimal brain compression, Frantar and Alistarh 2022, arXiv 2208.11580). Only NumPy is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgesparse.sparsity.network.kept import kept
from edgesparse.spec.sparsify import Pattern

DAMPING = 0.01
"""Of the mean of the inputs' squares: what the calibration data does not tell stays as it was."""
COLUMNS = 128
"""So many inputs at a time; a multiple of every block."""
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


def pruned(
    weights: np.ndarray, seen: Seen, sparsity: float, pattern: Pattern, *, refit: bool = True
) -> np.ndarray:
    """The weights [d, m] with a share of zeros, in a pattern along the inputs, whose outputs are
    nearest to the wanted ones; without `refit` nearly so."""
    damping = DAMPING * float(np.mean(np.diag(seen.inputs))) or 1e-12
    moments = seen.inputs + damping * np.eye(len(weights))
    target = seen.wanted + damping * weights
    dense = np.linalg.solve(moments, target)
    updated, chosen = _columns(dense, moments, sparsity, pattern)
    if not refit:
        return updated
    # Column by column, the first inputs are thought to be made up for by all the others, which may
    # go later: where much goes, what each weight does alone may choose better.
    alone = np.square(dense) / np.diag(np.linalg.inv(moments))[:, None]
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
    dense: np.ndarray, moments: np.ndarray, sparsity: float, pattern: Pattern
) -> tuple[np.ndarray, np.ndarray]:
    """Column by column: what goes is made up for by the inputs behind it."""
    weights, stays = dense.copy(), np.ones(dense.shape, bool)
    inverse = np.linalg.inv(moments)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
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
