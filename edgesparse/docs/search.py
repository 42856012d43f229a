"""Search in the documentation, without an index: pages are few and short."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgesparse.docs import Topic, offline, topics

_WORD = re.compile(r"[a-z0-9]+")
_COMMON = frozenset(
    _WORD.findall(
        "a an and are as at be by can do does for from have how i in is it its me my no not of on "
        "or so that the this to use was what when where which why will with you your"
    )
)
_IN_HEADING, _IN_TITLE = 4.0, 2.0
"""What a word in a section's heading, or in its page's title, counts more than one in its text."""
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

    Sections with all of its words come first; a rare word counts more than a frequent one, and one
    in a heading more than one in the text.
    """
    terms = [w for w in dict.fromkeys(_words(query.lower())) if w not in _COMMON]
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
        share = sum(weight > 0 for weight in weights) / max(1, len(terms))
        if share > 0:
            line = _best_line(section.lines, terms)
            matches.append(Match(section, sum(weights) * share**3, line))
    return sorted(matches, key=lambda match: -match.score)[:limit]


def _best_line(lines: Sequence[str], terms: Sequence[str]) -> str:
    """Return the line with most of the words, the first of several."""
    return max(lines, key=lambda line: len(set(terms) & set(_words(line.lower()))), default="")
