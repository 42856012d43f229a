"""What data does to raw inputs, said so that a device can repeat it.

A `Dataset` carries one of these for each input that it knows; a release takes them along, and its
predict.py reads raw files by them. raw.py does what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgesparse.spec.errors import UsageError

Transform = Mapping[str, Any]
ORDERS = ("rgb", "bgr", "grey")


def image(
    shape: Sequence[int],
    scale: float = 1 / 255,
    mean: float | Sequence[float] = 0.0,
    deviation: float | Sequence[float] = 1.0,
    order: str | None = None,
) -> Transform:
    """An image file to [height, width, channels]: resized bilinearly, pixels of 0 to 255 times
    `scale`, minus `mean`, by `deviation`, each a number or one for each channel."""
    height, width, channels = shape
    order = order or ("grey" if channels == 1 else "rgb")
    if order not in ORDERS or (order != "grey" and channels != 3):
        raise UsageError(
            f"an image of {channels} channels has an order of {', '.join(ORDERS)}, not {order!r}"
        )
    means, deviations = _by_channel(mean, channels), _by_channel(deviation, channels)
    return {
        "kind": "image",
        "file": "png",
        "size": [int(height), int(width)],
        "channels": int(channels),
        "order": order,
        "scale": [scale / d for d in deviations],
        "offset": [-m / d for m, d in zip(means, deviations, strict=True)],
    }


def _by_channel(given: float | Sequence[float], channels: int) -> list[float]:
    found = [float(v) for v in given] if isinstance(given, Sequence) else [float(given)] * channels
    if len(found) != channels:
        raise UsageError(f"{len(found)} values for {channels} channels")
    return found


def value_names(transforms: Mapping[str, Transform]) -> dict[str, tuple[str, ...]]:
    """What an input's values are called, by the inputs' names, where data says so."""
    found = {}
    for name, said in transforms.items():
        if said["kind"] == "text":
            found[name] = tuple(said["words"])
        elif said["kind"] == "columns" and "window" not in said:
            found[name] = tuple(
                label
                for column in said["columns"]
                for label in (
                    [f"{column['name']}={one}" for one in column["categories"]]
                    if "categories" in column
                    else [column["name"]]
                )
            )
    return found


def numbers(scale: float = 1.0, offset: float = 0.0) -> Transform:
    """A .npy file of raw values: value * scale + offset."""
    return {"kind": "numbers", "file": "npy", "scale": float(scale), "offset": float(offset)}


def columns(
    found: Sequence[Mapping[str, Any]], separator: str = ",", window: int | None = None
) -> Transform:
    """A row of a CSV file, or `window` rows: each column with its `name`, and `mean` and
    `deviation` or `categories`."""
    read = {"kind": "columns", "file": "csv", "columns": [dict(one) for one in found]}
    return {**read, "separator": separator, **({} if window is None else {"window": window})}


def text(reading: Mapping[str, Any], give: str) -> Transform:
    """A text, or a sentence on the command line; `give` is which of its arrays an input takes. See
    data/text.py."""
    return {**reading, "give": give}


def log_mel(
    sample_rate: int,
    length: int,
    window: int,
    hop: int,
    mels: int,
    lowest_hz: float,
    highest_hz: float,
) -> Transform:
    """A WAV file; `length`, `window` and `hop` in samples. See data/audio_folder.py."""
    return {
        "kind": "log-mel",
        "file": "wav",
        "sample_rate": sample_rate,
        "length": length,
        "window": window,
        "hop": hop,
        "mels": mels,
        "lowest_hz": lowest_hz,
        "highest_hz": highest_hz,
    }
