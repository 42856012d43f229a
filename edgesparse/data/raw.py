"""From a raw file to what a model takes, as its training data did it.

`transform` says how, by "kind"; what each means is written at its function in KINDS. It is made by
transforms.py and lies in a release as transform.json, beside a copy of this file: Python 3.7, numpy,
and Pillow for images; nothing of ours.
"""

import csv
import json
import math
import re
import wave
import zlib

import numpy


def read(path, transform, shape):
    """The values of a file, of `shape`, the model's, or None for whatever it has.

    Raises:
        ValueError: the file is none that the data says how to read.
    """
    kind = (transform or {}).get("kind")
    if path.endswith(".npy") and kind != "numbers":
        values = numpy.load(path, allow_pickle=False)
    elif kind is None:
        raise ValueError(
            "%s: the data does not say how it becomes an input; give the values as the model takes "
            "them, as a .npy file" % path
        )
    else:
        values = KINDS[kind](path, transform)
    if shape is None:
        return values
    if int(numpy.prod(values.shape)) != int(numpy.prod(shape)):
        raise ValueError("%s: has shape %s, the model takes %s" % (path, values.shape, shape[1:]))
    return values.reshape(shape)


def image(path, transform):
    """[height, width, channels]: decoded, resized, pixels * scale + offset, in an order of
    colours; "grey" repeats its one channel."""
    from PIL import Image

    order, (height, width) = transform["order"], transform["size"]
    picture = Image.open(path).convert("L" if order == "grey" else "RGB")
    values = numpy.asarray(picture, numpy.float32)
    values = values[:, :, None] if values.ndim == 2 else values
    values = resized(values, height, width)
    values = numpy.repeat(values, transform["channels"], 2) if order == "grey" else values
    values = values[:, :, ::-1] if order == "bgr" else values
    return values * numpy.float32(transform["scale"]) + numpy.float32(transform["offset"])


def resized(values, height, width):
    """Bilinear, with the middles of pixels as their places, as tf.image.resize."""
    for axis, size in ((0, height), (1, width)):
        have = values.shape[axis]
        place = (numpy.arange(size) + 0.5) * (have / float(size)) - 0.5
        low = numpy.floor(place)
        share = (place - low).astype(numpy.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first = numpy.clip(low, 0, have - 1).astype(int)
        second = numpy.clip(low + 1, 0, have - 1).astype(int)
        values = numpy.take(values, first, axis) * (1 - share) + (
            numpy.take(values, second, axis) * share
        )
    return values


def numbers(path, transform):
    """A .npy file of raw values: values * scale + offset."""
    values = numpy.load(path, allow_pickle=False).astype(numpy.float32)
    return values * numpy.float32(transform["scale"]) + numpy.float32(transform["offset"])


def columns(path, transform):
    """[columns] of the first row of a CSV file whose first line names them, or [window, columns] of
    its first rows. A number is (value - mean) / deviation, a category a 0 or 1 for each that is
    known."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, delimiter=str(transform["separator"])) if row]
    wanted = transform.get("window", 1)
    if len(rows) <= wanted:
        raise ValueError("%s: needs a line of column names, and %d rows" % (path, wanted))
    names = [name.strip() for name in rows[0]]
    values = [row_values(path, dict(zip(names, row)), transform) for row in rows[1 : wanted + 1]]
    return numpy.array(values if "window" in transform else values[0], numpy.float32)


def row_values(path, row, transform):
    values = []
    for column in transform["columns"]:
        if column["name"] not in row:
            raise ValueError("%s: no column %s" % (path, column["name"]))
        text = row[column["name"]]
        if "categories" in column:
            values += [float(text == one) for one in column["categories"]]
        else:
            values.append((float(text) - column["mean"]) / column["deviation"])
    return values


def log_mel(path, transform):
    """[frames, mels, 1]: the logarithm of a WAV file's energy by time and pitch."""
    with wave.open(path) as file:
        if file.getframerate() != transform["sample_rate"] or file.getsampwidth() != 2:
            raise ValueError("%s: needs 16 bits at %d Hz" % (path, transform["sample_rate"]))
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
    """One of a text's arrays [length]: of a file, or of the sentence itself."""
    given = path
    if path.endswith(".txt"):
        with open(path, encoding="utf-8") as file:
            given = file.read()
    ids, counts = encoded(given, transform)
    values = counts if transform["give"] == "counts" else ids
    return numpy.array(values, numpy.float32 if transform["give"] == "counts" else numpy.int32)


def place_of(word, places, size):
    """A word's place among `size`; None where it is unknown. Without places it is hashed."""
    return places.get(word) if places else zlib.crc32(word.encode()) % size


def encoded(given, transform, places=None):
    """A text as ids and values, lists of [length].

    "counts": the most frequent of its known words, and how often each is there, padded with values
    of 0; with "idf" each is (1 + ln count) idf, and all of them have length 1. "tokens": its words
    in their order, padded with 0, 1 for unknown ones. `places`: of each word, where that is known.
    """
    words, length, size = WORD.findall(given.lower()), transform["length"], transform["size"]
    if places is None:
        places = {word: place for place, word in enumerate(transform["words"])}
    first = 2 if transform["form"] == "tokens" else 0
    found = [place_of(word, places, size - first) for word in words]
    if transform["form"] == "tokens":
        ids = [1 if place is None else place + first for place in found[:length]]
        return ids + [0] * (length - len(ids)), [0.0] * length
    counts = {}
    for place in found:
        if place is not None:
            counts[place] = counts.get(place, 0) + 1
    # The first of equals is the more frequent word of all texts.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:length]
    values = [float(count) for _, count in ordered]
    if transform["idf"]:
        pairs = zip(ordered, values)
        values = [(1 + math.log(count)) * transform["idf"][place] for (place, _), count in pairs]
        norm = math.sqrt(sum(value * value for value in values)) or 1.0
        values = [value / norm for value in values]
    rest = length - len(ordered)
    return [place for place, _ in ordered] + [0] * rest, values + [0.0] * rest


def mel_bands(bins, transform):
    """[bins, mels]: triangles that are equally far from one another on HTK's mel scale; the first
    bin counts nothing."""

    def mel(hz):
        return 1127.0 * numpy.log(1.0 + numpy.asarray(hz, numpy.float64) / 700.0)

    rate, count = transform["sample_rate"], transform["mels"]
    heard = mel(numpy.linspace(0.0, rate / 2.0, bins)[1:])[:, None]
    edges = numpy.linspace(mel(transform["lowest_hz"]), mel(transform["highest_hz"]), count + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (heard - low) / (middle - low), (high - heard) / (high - middle)
    bands = numpy.maximum(0.0, numpy.minimum(rising, falling))
    return numpy.concatenate([numpy.zeros((1, count)), bands])


KINDS = {"image": image, "numbers": numbers, "columns": columns, "log-mel": log_mel, "text": text}


def transforms(path):
    """By input. Empty where there are none."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return {}
