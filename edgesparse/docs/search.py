"""Search in the documentation, without an index: pages are few and short."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgesparse.docs import Topic, offline, topics

_WORD = re.compile(r"[a-z0-9]+")
_COMMON = frozenset(
    _WORD.findall(
        "a an and are as at be by can do does for from have how i in is it its me my no not of on "
        "or so that the this to use was what when where which why will with you your"
    )
)
_IN_HEADING, _IN_TITLE, _ADJACENT = 4.0, 2.0, 2.0
"""Weights, relative to that of a word in the text: of a word in a section's heading and in its
page's title; of words that follow each other as in the query, such as a message."""
_FREQUENT = 3
"""More occurrences of a word in a section count no more."""


@dataclass(frozen=True)
class Section:
    """Text under a heading of a page."""

    topic: Topic
    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """A section that a search found, and its line with most of the words."""

    section: Section
    score: float
    line: str


def sections(topic: Topic) -> Iterator[Section]:
    """Yield the sections of a page."""
    heading, lines, in_code = topic.title, list[str](), False
    for line in offline(topic.read()).splitlines():
        in_code ^= line.startswith("```")
        if line.startswith("#") and not in_code:
            if lines:
                yield Section(topic, heading, tuple(lines))
            heading, lines = line.lstrip("# "), []
        elif line.strip():
            lines.append(line.strip())
    yield Section(topic, heading, tuple(lines))


def _words(text: str) -> list[str]:
    """Split into lower-case words, the plural and some endings removed."""
    return [re.sub(r"(ies|es|s|ing|ed)$", "", w) if len(w) > 4 else w for w in _WORD.findall(text)]


def find(query: str, limit: int = 6) -> list[Match]:
    """Return the sections that fit a query best, the best first.

    Sections with all of its words come first; a rare word counts more than a frequent one, one in a
    heading more than one in the text, and words in the query's order more than others.
    """
    words = _words(query.lower())
    terms = [w for w in dict.fromkeys(words) if w not in _COMMON]
    pairs = [f" {first} {second} " for first, second in pairwise(words)]
    every = [section for topic in topics().values() for section in sections(topic)]
    counts = [Counter(_words(" ".join(section.lines).lower())) for section in every]
    heads = [set(_words(section.heading.lower())) for section in every]
    titles = [set(_words(section.topic.title.lower())) for section in every]
    rare = {
        word: math.log(1 + len(every) / (1 + sum(word in count for count in counts)))
        for word in terms
    }
    matches = []
    for section, count, head, title in zip(every, counts, heads, titles, strict=True):
        weights = [
            rare[w]
            * (min(count[w], _FREQUENT) + _IN_HEADING * (w in head) + _IN_TITLE * (w in title))
            for w in terms
        ]
        text = " ".join(["", *_words(" ".join([section.heading, *section.lines]).lower()), ""])
        adjacent = [sum(rare.get(w, 0) for w in pair.split()) for pair in pairs if pair in text]
        share = sum(weight > 0 for weight in weights) / max(1, len(terms))
        if share > 0:
            line = _best_line(section.lines, terms)
            score = (sum(weights) + _ADJACENT * sum(adjacent)) * share**3
            matches.append(Match(section, score, line))
    return sorted(matches, key=lambda match: -match.score)[:limit]


def _best_line(lines: Sequence[str], terms: Sequence[str]) -> str:
    """Return the line with most of the words, the first of several."""
    return max(lines, key=lambda line: len(set(terms) & set(_words(line.lower()))), default="")
