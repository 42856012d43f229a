"""Limits of a clock that counts instructions, which are not time.

An emulated board counts instructions, and is blind to how many of them a core carries out at once,
and to its memory. Within one number format the ratios of published figures come out; across formats
they do where that was checked, and not elsewhere: on a Cortex-A72 int8 is published at 3 times the
speed of f32, and takes 0.8 times as many instructions. It is the same on a Cortex-A76 with
tflite-runtime, whose int8 convolutions are not those that were published. `make calibrate` measures
the networks of devices/published.yaml and prints both side by side.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgesparse.measure.rows import Row

CHECKED = (("Cortex-A76", "ai-edge-litert"),)
"""Cores and runtimes whose ratios across formats are within 30 % of what is published of them."""
LIMIT = "instruction counts are not comparable across number formats"


def incomparable_formats(rows: Iterable[Row], cpu: str) -> str | None:
    """Reason why times of a device's rows cannot be compared across number formats, or None."""
    rows = [row for row in rows if row.clock == "instructions"]
    numbers = {row.compute_dtype for row in rows if row.compute_dtype is not None}
    checked = {runtime for core, runtime in CHECKED if core in cpu}
    unknown = sorted({row.runtime.name for row in rows} - checked)
    if len(numbers) < 2 or not unknown:
        return None
    return f"{LIMIT} for {' and '.join(unknown)} on this CPU"
