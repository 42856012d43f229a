"""Numbers as text: sizes, times, ratios, shares, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

DASH = "-"
"""Text of a missing value."""


def size_text(size_bytes: int) -> str:
    """Format bytes in at most six characters and a unit (powers of 1000, as disks are sold)."""
    return _scaled(
        size_bytes,
        (" B", " KB", " MB", " GB"),
        lambda value: f"{value:.2f}" if value < 10 else f"{value:.4g}",
    )


def count_text(count: int) -> str:
    """Format a count with about three significant digits: 950, 12.3k, 4.56M."""
    return _scaled(count, ("", "k", "M", "G"), lambda value: f"{value:.3g}")


def _scaled(value: int, units: Sequence[str], text: Callable[[float], str]) -> str:
    for power, unit in enumerate(units[:-1]):
        # 999.6 would be printed as 1000.
        if value / 1000**power < 999.5:
            return (text(value / 1000**power) if power else str(value)) + unit
    return text(value / 1000 ** (len(units) - 1)) + units[-1]


def ms_text(value: float) -> str:
    """Format milliseconds with about three significant digits, never in exponent form."""
    if value < 0.01:
        return f"{value:.4f}"
    if value >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def ratio_text(ratio: float) -> str:
    """Format a ratio with two decimals, below 0.05 with two significant digits."""
    return f"{ratio:.2f}" if ratio >= 0.05 else f"{ratio:.2g}"


def percent_text(share: float) -> str:
    """Format a share of 1 as percent with one decimal, without the sign."""
    return f"{share * 100:.1f}"


def metric_text(value: float, unit: str) -> str:
    """Format a metric's value without its unit; a share of 1 where the unit is "%"."""
    return percent_text(value) if unit == "%" else f"{value:.3g}"
