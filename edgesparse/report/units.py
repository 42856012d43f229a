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


def time_unit(clock: str) -> str:
    """Return the unit of a latency by its clock: an instruction count is not time."""
    return "ms (simulated)" if clock == "instructions" else "ms"


def ratio_text(ratio: float) -> str:
    """Format a ratio with two decimals, below 0.05 with two significant digits."""
    return f"{ratio:.2f}" if ratio >= 0.05 else f"{ratio:.2g}"


_SLOWER_FROM = 2
"""From this factor on a slowdown is shown as such: "23x slower" rather than 0.044x."""


def speed_text(ratio: float) -> str:
    """Format a speed-up: 1.97x, 0.85x, 23x slower."""
    if ratio * _SLOWER_FROM > 1 or ratio <= 0:
        return f"{ratio_text(ratio)}x"
    return f"{_factor(1 / ratio)}x slower"


def speed_interval_text(interval: tuple[float, float], ratio: float) -> str:
    """Format the interval of a speed-up in the terms of `speed_text` of its ratio."""
    low, high = interval
    if ratio * _SLOWER_FROM > 1 or low <= 0:
        return f"{ratio_text(low)}-{ratio_text(high)}"
    return f"{_factor(1 / high)}-{_factor(1 / low)}"


def _factor(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def percent_text(share: float) -> str:
    """Format a share of 1 as percent with one decimal, without the sign."""
    return f"{share * 100:.1f}"


def metric_text(value: float, unit: str) -> str:
    """Format a metric's value without its unit; a share of 1 where the unit is "%"."""
    return percent_text(value) if unit == "%" else f"{value:.3g}"
