"""Texts as word counts or as sequences of tokens."""

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
    from_splits,
    raw,
    transforms,
)
from edgesparse.data.splits import files_by_class, stratified_indices
from edgesparse.spec.errors import UsageError, did_you_mean

IDS, COUNTS, TOKENS = "ids", "counts", "tokens"
FIRST = 2
"""First token of a word: 0 is padding, 1 an unknown word."""
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
    min_df: int = 1,
    separator: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Load texts of a CSV or TSV file, or of a folder of .txt files per class; split 70/10/20 by
    class. The vocabulary is that of the training split only.

    Args:
        path: the file or folder, relative to the YAML file.
        text, target: the columns of a file.
        form: `counts`: ids int32 [length] and counts float32 [length] of the most frequent words
            of a text, padded with counts of 0; `tokens`: int32 [length], in the order of the text,
            padded with 0, 1 for unknown words.
        vocabulary: size of the vocabulary: the most frequent words.
        hashing: words are indexed by their CRC-32 instead of a vocabulary.
        tf_idf: counts become (1 + ln count) ln((1 + texts) / (1 + texts with the word)), scaled to
            a vector of length 1.
        min_df: minimum number of training texts with a word of the vocabulary.
        separator: of columns; default: a tab in .tsv files, else a comma.

    Raises:
        UsageError: the file or an argument is invalid.
    """
    source = base / path
    if source.is_dir():
        names, files, labels = files_by_class(source, path, (".txt",))
        texts = [Path(file).read_text(encoding="utf-8", errors="replace") for file in files]
    else:
        texts, targets = _columns(source, path, text, target, separator)
        names = sorted(set(targets))
        labels = np.array([names.index(value) for value in targets])
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
        min_df=min_df,
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
    min_df: int = 1,
    seed: int = 0,
) -> Dataset:
    """Build the dataset of `text` from texts in memory, with an integer label for each."""
    if form not in ("counts", "tokens"):
        raise UsageError(f"text: form must be 'counts' or 'tokens', not {form!r}")
    if form == "tokens" and tf_idf:
        raise UsageError("text: tf_idf needs form 'counts'")
    indices_by_split = stratified_indices(labels, seed)
    training = [texts[i] for i in indices_by_split[0]]
    words = [] if hashing else _vocabulary(training, vocabulary, min_df)
    if not hashing and not words:
        raise UsageError(f"{name}: no word occurs in {min_df} training texts; lower min_df")
    size = vocabulary if hashing else len(words)
    index = {word: i for i, word in enumerate(words)}
    encoding: dict[str, Any] = {
        "kind": "text",
        "file": "txt",
        "form": form,
        "words": words,
        "size": size + (FIRST if form == "tokens" else 0),
        "length": length,
        "idf": _idf(training, index, size) if tf_idf else [],
    }
    encoded = [raw.encode_text(text, encoding, index) for text in texts]
    ids = np.array([ids for ids, _ in encoded], np.int32)
    counts = np.array([counts for _, counts in encoded], np.float32)
    arrays: Arrays = {TOKENS: ids} if form == "tokens" else {IDS: ids, COUNTS: counts}
    by_input = {key: transforms.text(encoding, key) for key in arrays}
    train, validation, test = (
        ({key: values[indices] for key, values in arrays.items()}, labels[indices])
        for indices in indices_by_split
    )
    return from_splits(name, train, validation, test, list(class_names), by_input)


def _words(text: str) -> list[str]:
    words: list[str] = raw.WORD.findall(text.lower())
    return words


def _vocabulary(texts: Sequence[str], size: int, min_df: int) -> list[str]:
    """Return the words that occur in most texts, the most frequent first."""
    frequencies = Counter(word for text in texts for word in set(_words(text)))
    ordered = sorted(frequencies.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ordered[:size] if count >= min_df]


def _idf(texts: Sequence[str], vocabulary: dict[str, int], size: int) -> list[float]:
    """Return the inverse document frequency of each index, [size]."""
    frequencies = np.zeros(size)
    for text in texts:
        for index in {raw.word_index(word, vocabulary, size) for word in _words(text)}:
            if index is not None:
                frequencies[index] += 1
    return [round(math.log((1 + len(texts)) / (1 + count)), 5) for count in frequencies]


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
        raise UsageError(f"{path}: needs a line of column names and rows")
    for name in (text, target):
        if name not in rows[0]:
            columns = [str(key) for key in rows[0]]
            raise UsageError(f"{path}: no column {name!r}{did_you_mean(name, columns)}")
    for number, row in enumerate(rows, start=2):
        if not row[text] or row[target] is None:
            missing = target if row[text] else text
            raise UsageError(f"{path}: row {number} has no value in column {missing!r}")
    return [row[text] for row in rows], [row[target] for row in rows]
