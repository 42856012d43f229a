"""Raw files to inputs of a model, with the preprocessing of its training data.

`transform` describes the preprocessing; its "kind" selects the function in KINDS. It is written by
transforms.py and is in a release as transform.json, beside a copy of this file: Python 3.7, numpy,
and Pillow for images; nothing else of edgesparse.
"""

import csv
import json
import math
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
    if shape is None:
        return values
    if int(numpy.prod(values.shape)) != int(numpy.prod(shape)):
        raise ValueError(
            "%s: has shape %s, but the model needs %s" % (path, values.shape, shape[1:])
        )
    return values.reshape(shape)


def image(path, transform):
    """Decode and resize an image to float32 [height, width, channels]: pixels * scale + offset, in
    the order of colours; "grey" repeats its one channel."""
    from PIL import Image

    order, (height, width) = transform["order"], transform["size"]
    picture = Image.open(path).convert("L" if order == "grey" else "RGB")
    values = numpy.asarray(picture, numpy.float32)
    values = values[:, :, None] if values.ndim == 2 else values
    values = resize(values, height, width)
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
    values = numpy.load(path, allow_pickle=False).astype(numpy.float32)
    return values * numpy.float32(transform["scale"]) + numpy.float32(transform["offset"])


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
    values = [row_values(path, dict(zip(names, row)), transform) for row in rows[1 : count + 1]]
    return numpy.array(values if "window" in transform else values[0], numpy.float32)


def row_values(path, row, transform):
    """Return the values of a row, texts by column name."""
    values = []
    for column in transform["columns"]:
        if column["name"] not in row:
            raise ValueError("%s: no column %s" % (path, column["name"]))
        text = row[column["name"]]
        if "categories" in column:
            values += [float(text == category) for category in column["categories"]]
        else:
            values.append((float(text) - column["mean"]) / column["deviation"])
    return values


def log_mel(path, transform):
    """Compute the log-mel spectrogram of a 16-bit WAV file: float32 [frames, mels, 1]."""
    with wave.open(path) as file:
        if file.getframerate() != transform["sample_rate"] or file.getsampwidth() != 2:
            raise ValueError("%s: must have 16 bits at %d Hz" % (path, transform["sample_rate"]))
        raw = numpy.frombuffer(file.readframes(file.getnframes()), "<i2")
        sound = raw.reshape(-1, file.getnchannels())[:, 0].astype(numpy.float32) / 32768
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


KINDS = {"image": image, "numbers": numbers, "columns": columns, "log-mel": log_mel, "text": text}


def read_transforms(path):
    """Read transform.json: transforms by input; empty if the file does not exist."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return {}
