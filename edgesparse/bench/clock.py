"""What a clock can say: instructions are no time.

An emulated board counts instructions, and is blind to how many of them a core carries out at once,
and to its memory. Within one number format the ratios of published figures come out; across formats
they do where that was checked, and not elsewhere: on a Cortex-A72 int8 is published at 3 times the
speed of f32, and takes 0.8 times as many instructions. `make calibrate` measures the networks of
devices/published.yaml and prints both side by side.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgesparse.bench.rows import Row

CHECKED = ("Cortex-A76",)
"""Cores whose ratios across formats are within 30 % of what is published of them."""
LIMIT = "instructions cannot tell number formats apart on this CPU"


def formats_apart(rows: Iterable[Row], cpu: str) -> bool:
    """Whether times of a device's rows may not be compared across number formats."""
    rows = [row for row in rows if row.clock == "instructions"]
    numbers = {row.numbers for row in rows if row.numbers is not None}
    return len(numbers) > 1 and not any(core in cpu for core in CHECKED)
