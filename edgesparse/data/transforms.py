"""Preprocessing of raw inputs, described as data so that a device can repeat it.

A `Dataset` has a transform for each input whose preprocessing it declares; a release contains them,
and its predict.py reads raw files by them. raw.py applies them.
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
    """Describe an image file as [height, width, channels]: resized bilinearly, then
    (pixel * scale - mean) / deviation of pixels 0 to 255.

    Args:
        shape: [height, width, channels].
        mean, deviation: a number, or one for each channel.
        order: of colours: rgb, bgr or grey, whose one channel is repeated; default by channels.

    Raises:
        UsageError: channels and order do not match.
    """
    height, width, channels = shape
    order = order or ("grey" if channels == 1 else "rgb")
    if order not in ORDERS or (order != "grey" and channels != 3):
        raise UsageError(
            f"invalid order {order!r} for an image of {channels} channels; valid: "
            f"{', '.join(ORDERS)} (rgb and bgr need 3 channels)"
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


def _by_channel(value: float | Sequence[float], channels: int) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * channels
    if len(values) != channels:
        raise UsageError(f"{len(values)} values for {channels} channels")
    return values


def value_names(transforms: Mapping[str, Transform | None]) -> dict[str, tuple[str, ...]]:
    """Return the names of an input's values, by input, for texts and tables: words or columns."""
    names = {}
    for input_name, transform in transforms.items():
        if transform is None:
            continue
        if transform["kind"] == "text":
            names[input_name] = tuple(transform["words"])
        elif transform["kind"] == "columns" and "window" not in transform:
            names[input_name] = tuple(
                label
                for column in transform["columns"]
                for label in (
                    [f"{column['name']}={category}" for category in column["categories"]]
                    if "categories" in column
                    else [column["name"]]
                )
            )
    return names


def numbers(scale: float = 1.0, offset: float = 0.0) -> Transform:
    """Describe a .npy file of raw values: value * scale + offset."""
    return {"kind": "numbers", "file": "npy", "scale": float(scale), "offset": float(offset)}


def columns(
    features: Sequence[Mapping[str, Any]], separator: str = ",", window: int | None = None
) -> Transform:
    """Describe a row of a CSV file, or `window` rows.

    Args:
        features: columns, each with its `name`, and `mean` and `deviation` or `categories`.
    """
    entries = [dict(feature) for feature in features]
    transform = {"kind": "columns", "file": "csv", "columns": entries, "separator": separator}
    return {**transform, **({} if window is None else {"window": window})}


def text(encoding: Mapping[str, Any], give: str) -> Transform:
    """Describe a text, or a sentence on the command line, as in data/text.py; `give` is the array
    of the encoding that the input takes: ids, counts or tokens."""
    return {**encoding, "give": give}


def log_mel(
    sample_rate: int,
    length: int,
    window: int,
    hop: int,
    mels: int,
    lowest_hz: float,
    highest_hz: float,
) -> Transform:
    """Describe a WAV file as a log-mel spectrogram, as in data/audio_folder.py; `length`, `window`
    and `hop` are in audio samples."""
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
