"""Raw files to inputs of a model, with the preprocessing of its training data.

`transform` describes the preprocessing; its "kind" selects the function in KINDS. It is written by
transforms.py and is in a release as transform.json, beside a copy of this file: Python 3.7, numpy,
and Pillow for images; nothing else of edgesparse.
"""

import csv
import json
import math
import os
import re
import wave
import zlib

import numpy


def read(path, transform, shape):
    """Read a file as an input.

    Args:
        transform: the preprocessing, or None: the file must be a .npy of the input itself.
        shape: of the model's input, with the batch; None for a dynamic shape.

    Returns:
        Values of `shape`, or of the file's own shape.

    Raises:
        ValueError: the file does not fit the transform or the shape.
    """
    kind = (transform or {}).get("kind")
    if path.endswith(".npy") and kind != "numbers":
        values = numpy.load(path, allow_pickle=False)
    elif kind is None:
        raise ValueError(
            "%s: the data declares no preprocessing for raw files; pass the model's input as a .npy "
            "file" % path
        )
    else:
        values = KINDS[kind](path, transform)
    return shaped(path + ": has", values, shape)


def convert(value, transform, shape):
    """Convert a value of a program to an input: a path, or what a raw file has.

    Args:
        value: for "image" integers [height, width] or [height, width, channels] in RGB; for
            "log-mel" integers [length]; for "columns" a dict by column, or a list of `window`
            dicts; for "text" a str; for "numbers" raw values. Floats of the others, and all values
            without a transform, are the input itself.
        transform, shape: as for `read`.

    Raises:
        ValueError: the value does not fit the transform or the shape.
    """
    if isinstance(value, (str, os.PathLike)):
        return read(os.fspath(value), transform, shape)
    kind = (transform or {}).get("kind")
    if kind == "columns" and isinstance(value, (dict, list)) and is_rows(value):
        return shaped("has", row_array("row", value, transform), shape)
    values = numpy.asarray(value)
    if values.dtype.kind not in "fiub":
        raise ValueError("needs an array of numbers, not %s" % type(value).__name__)
    if kind in RAW_ARRAYS and (kind == "numbers" or values.dtype.kind in "iu"):
        values = RAW_ARRAYS[kind](values, transform)
    return shaped("has", values, shape)


def shaped(subject, values, shape):
    """Return values in the shape of the model's input."""
    if shape is None:
        return values
    if int(numpy.prod(values.shape)) != int(numpy.prod(shape)):
        raise ValueError("%s shape %s, but the model needs %s" % (subject, values.shape, shape[1:]))
    return values.reshape(shape)


def image(path, transform):
    """Decode an image and convert it by `pixels`."""
    from PIL import Image

    grey = transform["order"] == "grey"
    return pixels(numpy.asarray(Image.open(path).convert("L" if grey else "RGB")), transform)


def pixels(values, transform):
    """Resize an image, [height, width] or [height, width, channels] in RGB, to float32 [height,
    width, channels]: pixels * scale + offset, in the order of colours; "grey" repeats its one
    channel."""
    order, (height, width) = transform["order"], transform["size"]
    if values.ndim not in (2, 3):
        raise ValueError("has shape %s, but an image has 2 or 3 dimensions" % (values.shape,))
    values = values[:, :, None] if values.ndim == 2 else values[:, :, :3]
    if order == "grey" and values.shape[2] == 3:  # In integers, as Pillow does.
        weighted = values.astype(numpy.int64).dot([19595, 38470, 7471])
        values = ((weighted + 0x8000) >> 16)[:, :, None]
    elif order != "grey" and values.shape[2] == 1:
        values = numpy.repeat(values, 3, 2)
    values = resize(values.astype(numpy.float32), height, width)
    values = numpy.repeat(values, transform["channels"], 2) if order == "grey" else values
    values = values[:, :, ::-1] if order == "bgr" else values
    return values * numpy.float32(transform["scale"]) + numpy.float32(transform["offset"])


def resize(values, height, width):
    """Resize [height, width, channels] bilinearly with half-pixel centers, as tf.image.resize."""
    for axis, size in ((0, height), (1, width)):
        length = values.shape[axis]
        position = (numpy.arange(size) + 0.5) * (length / float(size)) - 0.5
        low = numpy.floor(position)
        weight = (position - low).astype(numpy.float32)
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first = numpy.clip(low, 0, length - 1).astype(int)
        second = numpy.clip(low + 1, 0, length - 1).astype(int)
        values = numpy.take(values, first, axis) * (1 - weight) + (
            numpy.take(values, second, axis) * weight
        )
    return values


def numbers(path, transform):
    """Read a .npy file of raw values: values * scale + offset."""
    return scaled(numpy.load(path, allow_pickle=False), transform)


def scaled(values, transform):
    """Scale raw values: values * scale + offset."""
    return values.astype(numpy.float32) * numpy.float32(transform["scale"]) + numpy.float32(
        transform["offset"]
    )


def columns(path, transform):
    """Read the first row of a CSV file with column names as float32 [columns], or its first rows as
    [window, columns]. A number becomes (value - mean) / deviation, a category is one-hot encoded,
    all zeros if it was not in the training data."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, delimiter=str(transform["separator"])) if row]
    count = transform.get("window", 1)
    if len(rows) <= count:
        raise ValueError("%s: needs a line of column names and %d rows" % (path, count))
    names = [name.strip() for name in rows[0]]
    records = [dict(zip(names, row)) for row in rows[1 : count + 1]]
    return row_array(path, records, transform)


def row_array(source, rows, transform):
    """Convert a row, values by column name, or a list of them, to float32 as `columns` does."""
    rows = [rows] if isinstance(rows, dict) else rows
    values = [row_values(source, row, transform) for row in rows]
    return numpy.array(values if "window" in transform else values[0], numpy.float32)


def is_rows(value):
    return isinstance(value, dict) or (bool(value) and all(isinstance(r, dict) for r in value))


def row_values(path, row, transform):
    """Return the values of a row, texts or numbers by column name."""
    values = []
    for column in transform["columns"]:
        if column["name"] not in row:
            raise ValueError("%s: no column %s" % (path, column["name"]))
        text = row[column["name"]]
        if "categories" in column:
            values += [float(str(text) == category) for category in column["categories"]]
        else:
            values.append((float(text) - column["mean"]) / column["deviation"])
    return values


def log_mel(path, transform):
    """Read a 16-bit WAV file and convert it by `spectrogram`."""
    with wave.open(path) as file:
        if file.getframerate() != transform["sample_rate"] or file.getsampwidth() != 2:
            raise ValueError("%s: must have 16 bits at %d Hz" % (path, transform["sample_rate"]))
        sound = numpy.frombuffer(file.readframes(file.getnframes()), "<i2")
        sound = sound.reshape(-1, file.getnchannels())[:, 0]
    return spectrogram(sound, transform)


def spectrogram(sound, transform):
    """Compute the log-mel spectrogram of int16 [length]: float32 [frames, mels, 1]."""
    sound = sound.reshape(-1).astype(numpy.float32) / 32768
    length, window, hop = (transform[key] for key in ("length", "window", "hop"))
    sound = numpy.concatenate([sound[:length], numpy.zeros(max(0, length - len(sound)))])
    starts = range(0, length - window + 1, hop)
    # A periodic Hann window, as TensorFlow's.
    weights = 0.5 - 0.5 * numpy.cos(2 * math.pi * numpy.arange(window) / window)
    frames = numpy.stack([sound[start : start + window] * weights for start in starts])
    size = 1 << (window - 1).bit_length()
    spectrum = numpy.abs(numpy.fft.rfft(frames, size)) ** 2
    energy = numpy.log(spectrum.dot(mel_bands(size // 2 + 1, transform)) + 1e-6)
    return energy.astype(numpy.float32)[:, :, None]


WORD = re.compile(r"[a-z0-9']+")


def text(path, transform):
    """Encode a text as one of its arrays [length]; `path` is a .txt file or the sentence itself."""
    content = path
    if path.endswith(".txt"):
        with open(path, encoding="utf-8") as file:
            content = file.read()
    ids, counts = encode_text(content, transform)
    values = counts if transform["give"] == "counts" else ids
    return numpy.array(values, numpy.float32 if transform["give"] == "counts" else numpy.int32)


def word_index(word, vocabulary, size):
    """Return a word's index below `size`, None if unknown; without a vocabulary it is hashed."""
    return vocabulary.get(word) if vocabulary else zlib.crc32(word.encode()) % size


def encode_text(content, transform, vocabulary=None):
    """Encode a text as ids and values, lists of [length].

    "counts": the most frequent words of the vocabulary in the text and their counts, padded with
    values of 0; with "idf" each value is (1 + ln count) idf, scaled to a vector of length 1.
    "tokens": its words in order, padded with 0, 1 for unknown words.

    Args:
        vocabulary: index by word; default: the transform's words. Callers with many texts pass it.
    """
    words, length, size = WORD.findall(content.lower()), transform["length"], transform["size"]
    if vocabulary is None:
        vocabulary = {word: index for index, word in enumerate(transform["words"])}
    first = 2 if transform["form"] == "tokens" else 0
    indices = [word_index(word, vocabulary, size - first) for word in words]
    if transform["form"] == "tokens":
        ids = [1 if index is None else index + first for index in indices[:length]]
        return ids + [0] * (length - len(ids)), [0.0] * length
    counts = {}
    for index in indices:
        if index is not None:
            counts[index] = counts.get(index, 0) + 1
    # Of equal counts the lower index comes first: the more frequent word of all texts.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:length]
    values = [float(count) for _, count in ordered]
    if transform["idf"]:
        pairs = zip(ordered, values)
        values = [(1 + math.log(count)) * transform["idf"][index] for (index, _), count in pairs]
        norm = math.sqrt(sum(value * value for value in values)) or 1.0
        values = [value / norm for value in values]
    padding = length - len(ordered)
    return [index for index, _ in ordered] + [0] * padding, values + [0.0] * padding


def mel_bands(bins, transform):
    """Return float64 [bins, mels]: triangular bands, equally spaced on HTK's mel scale; the first
    bin (0 Hz) has no weight, as in tf.signal.linear_to_mel_weight_matrix."""

    def mel(hz):
        return 1127.0 * numpy.log(1.0 + numpy.asarray(hz, numpy.float64) / 700.0)

    rate, count = transform["sample_rate"], transform["mels"]
    frequencies = mel(numpy.linspace(0.0, rate / 2.0, bins)[1:])[:, None]
    edges = numpy.linspace(mel(transform["lowest_hz"]), mel(transform["highest_hz"]), count + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies - low) / (middle - low)
    falling = (high - frequencies) / (high - middle)
    bands = numpy.maximum(0.0, numpy.minimum(rising, falling))
    return numpy.concatenate([numpy.zeros((1, count)), bands])


RAW_ARRAYS = {"image": pixels, "numbers": scaled, "log-mel": spectrogram}
KINDS = {"image": image, "numbers": numbers, "columns": columns, "log-mel": log_mel, "text": text}


def read_transforms(path):
    """Read transform.json: transforms by input, or None; empty if the file does not exist."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return {}
