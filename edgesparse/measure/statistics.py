"""Percentiles, intervals and ratios of latencies measured in rounds.

Rounds are the unit of resampling: runs within one process share its memory layout, CPU frequency
and neighbours, so they are far from independent, while processes are nearly so. Intervals are
percentile bootstraps (Efron 1979) over rounds and, within a round, over runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgesparse.measure.rows import Latency

Samples = npt.NDArray[np.float64]

# The usual number for percentile intervals (Efron and Tibshirani 1993).
RESAMPLES = 1000
# A round is thinned to this many of its order statistics before resampling: enough for a median,
# and on the safe side, since fewer values make wider intervals.
THINNED = 200
# Rounds a tenth apart: more than any change of a model that is worth a release.
UNSTABLE_SPREAD = 0.10
CHANGED_CLOCK = 0.10


@dataclass(frozen=True)
class Ratio:
    """Ratio of the first's time to the second's."""

    ratio: float
    ci95: tuple[float, float]


def summarize(rounds: Sequence[Samples], seed: int = 0) -> Latency:
    """Summarize latencies [ms], one array per round."""
    # Percentiles over all inferences: a user sees those, not rounds.
    pooled = np.concatenate(rounds)
    p50, p90, p99 = (float(v) for v in np.percentile(pooled, [50, 90, 99]))
    random = np.random.default_rng(seed)
    # Rounds differ in length: a faster model ran more often. Thinned, each counts alike.
    thinned = [_thin(values) for values in rounds]
    medians = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        chosen = random.integers(len(thinned), size=len(thinned))
        medians[i] = np.median(np.concatenate([_resample(thinned[c], random) for c in chosen]))
    low, high = (float(v) for v in np.percentile(medians, [2.5, 97.5]))
    return Latency(
        p50=p50,
        p90=p90,
        p99=p99,
        mean=float(pooled.mean()),
        std=float(pooled.std(ddof=1)) if len(pooled) > 1 else 0.0,
        samples=len(pooled),
        rounds=len(rounds),
        # A bootstrap of few rounds can miss the estimate itself.
        ci95=(min(low, p50), max(high, p50)),
        by_round=[float(np.median(values)) for values in rounds],
    )


def compare(first: Sequence[Samples], second: Sequence[Samples], seed: int = 0) -> Ratio:
    """Compute the ratio of medians, first over second, paired by round.

    The ratio is the geometric mean of the rounds' ratios: round by round both ran under the same
    conditions, so what slows both down cancels out.
    """
    pairs = [(_thin(a), _thin(b)) for a, b in zip(first, second, strict=False)]
    # Logarithms, so that twice as fast and half as fast cancel out.
    logs = [np.log(np.median(a) / np.median(b)) for a, b in zip(first, second, strict=False)]
    random = np.random.default_rng(seed)
    resampled = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        chosen = random.integers(len(pairs), size=len(pairs))
        resampled[i] = np.mean(
            [
                np.log(np.median(_resample(a, random)) / np.median(_resample(b, random)))
                for a, b in (pairs[c] for c in chosen)
            ]
        )
    ratio = float(np.exp(np.mean(logs)))
    low, high = (float(v) for v in np.exp(np.percentile(resampled, [2.5, 97.5])))
    return Ratio(ratio, (min(low, ratio), max(high, ratio)))


def spread(rounds: Sequence[Samples]) -> float:
    """Range of the rounds' medians as a share of their median."""
    medians = [float(np.median(values)) for values in rounds]
    return (max(medians) - min(medians)) / float(np.median(medians))


def _thin(values: Samples) -> Samples:
    if len(values) <= THINNED:
        return values
    thinned: Samples = np.quantile(values, (np.arange(THINNED) + 0.5) / THINNED)
    return thinned


def _resample(values: Samples, random: np.random.Generator) -> Samples:
    drawn: Samples = values[random.integers(len(values), size=len(values))]
    return drawn


@lru_cache(maxsize=1024)
def half_width(freedom: float, tests: int = 1) -> float:
    """Return the standard errors in the half-width of a 95 % interval (Student's t); of intervals
    that hold for several tests together (Bonferroni)."""
    from scipy.stats import t  # With scikit-learn; half a second, for those who need it.

    return float(t.ppf(1 - 0.05 / (2 * max(tests, 1)), freedom))
