"""Texts as word counts or as sequences of words."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgesparse.data import (
    Arrays,
    Dataset,
    files_by_class,
    from_splits,
    raw,
    transforms,
)
from edgesparse.data.splits import stratified_indices
from edgesparse.spec.errors import UsageError, did_you_mean

IDS, COUNTS, TOKENS = "ids", "counts", "tokens"
FIRST = 2
"""Tokens of words begin here: 0 is padding, 1 a word that is not in the vocabulary."""
Form = Literal["counts", "tokens"]


def text(
    path: str,
    base: Path,
    text: str = "text",
    target: str = "label",
    form: Form = "counts",
    vocabulary: int = 20_000,
    length: int = 128,
    hashing: bool = False,
    tf_idf: bool = False,
    least: int = 1,
    separator: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Texts of a CSV or TSV file, or of a folder of .txt files for each class; split 70/10/20 by
    class. The vocabulary is that of the training split only.

    Args:
        path: the file or folder, relative to the YAML file.
        text, target: the columns of a file.
        form: `counts`: ids int32 [length] and counts float32 [length], of the most frequent words
            of a text where it has more, padded with counts of 0; `tokens`: int32 [length], in the
            order of the text, padded with 0, 1 for unknown words.
        vocabulary: how many words are known at most, the most frequent.
        hashing: words go to places by their CRC-32 instead, so that there is no vocabulary.
        tf_idf: counts become (1 + ln count) ln((1 + texts) / (1 + texts with it)), of length 1.
        least: how many training texts have a word of the vocabulary, at least.
        separator: of columns; default: a tab in .tsv files, else a comma.
    """
    place = base / path
    if place.is_dir():
        names, files, labels = files_by_class(place, path, (".txt",))
        texts = [Path(file).read_text(encoding="utf-8", errors="replace") for file in files]
    else:
        texts, given = _columns(place, path, text, target, separator)
        names = sorted(set(given))
        labels = np.array([names.index(one) for one in given])
    return from_texts(
        Path(path).stem,
        texts,
        labels,
        names,
        form=form,
        vocabulary=vocabulary,
        length=length,
        hashing=hashing,
        tf_idf=tf_idf,
        least=least,
        seed=seed,
    )


def from_texts(
    name: str,
    texts: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    form: Form = "counts",
    vocabulary: int = 20_000,
    length: int = 128,
    hashing: bool = False,
    tf_idf: bool = False,
    least: int = 1,
    seed: int = 0,
) -> Dataset:
    """The same from texts that are in memory, with an integer label for each."""
    if form not in ("counts", "tokens"):
        raise UsageError(f"text: form is 'counts' or 'tokens', not {form!r}")
    if form == "tokens" and tf_idf:
        raise UsageError("text: tf_idf goes with form 'counts'")
    places = stratified_indices(labels, seed)
    training = [texts[i] for i in places[0]]
    known = [] if hashing else _vocabulary(training, vocabulary, least)
    if not hashing and not known:
        raise UsageError(f"{name}: no word is in {least} training texts")
    size = vocabulary if hashing else len(known)
    index = {word: i for i, word in enumerate(known)}
    reading: dict[str, Any] = {
        "kind": "text",
        "file": "txt",
        "form": form,
        "words": known,
        "size": size + (FIRST if form == "tokens" else 0),
        "length": length,
        "idf": _idf(training, index, size) if tf_idf else [],
    }
    encoded = [raw.encoded(one, reading, index) for one in texts]
    arrays: Arrays
    if form == "tokens":
        arrays = {TOKENS: np.array([one for one, _ in encoded], np.int32)}
    else:
        arrays = {
            IDS: np.array([one for one, _ in encoded], np.int32),
            COUNTS: np.array([two for _, two in encoded], np.float32),
        }
    said = {given: transforms.text(reading, given) for given in arrays}
    train, validation, test = (
        ({key: values[place] for key, values in arrays.items()}, labels[place]) for place in places
    )
    return from_splits(name, train, validation, test, list(class_names), said)


def _words(given: str) -> list[str]:
    found: list[str] = raw.WORD.findall(given.lower())
    return found


def _vocabulary(texts: Sequence[str], size: int, least: int) -> list[str]:
    """The words that are in most texts, the most frequent first."""
    found = Counter(word for one in texts for word in set(_words(one)))
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ordered[:size] if count >= least]


def _idf(texts: Sequence[str], places: dict[str, int], size: int) -> list[float]:
    found = np.zeros(size)
    for one in texts:
        for number in {raw.place_of(word, places, size) for word in _words(one)}:
            if number is not None:
                found[number] += 1
    return [round(math.log((1 + len(texts)) / (1 + count)), 5) for count in found]


def _columns(
    file: Path, path: str, text: str, target: str, separator: str | None
) -> tuple[list[str], list[str]]:
    delimiter = separator or ("\t" if file.suffix == ".tsv" else ",")
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened, delimiter=delimiter))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file or folder beside the YAML file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    if not rows:
        raise UsageError(f"{path}: needs a line of column names, and rows")
    for name in (text, target):
        if name not in rows[0]:
            known = [str(key) for key in rows[0]]
            raise UsageError(f"{path}: no column {name!r}{did_you_mean(name, known)}")
    for number, row in enumerate(rows, start=2):
        if not row[text] or row[target] is None:
            raise UsageError(f"{path}: row {number} has no {text if not row[text] else target}")
    return [row[text] for row in rows], [row[target] for row in rows]
