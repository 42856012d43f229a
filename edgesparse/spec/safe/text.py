"""The one place where text from outside becomes text that does no harm.

Outside are devices (names, versions, errors, whatever they print), files (names, tensors, results
of an earlier run) and programs (ssh, compilers). A terminal acts on control characters: they set
its title, fill the clipboard, move the cursor over what was said before (CWE-150); controls of
direction make a text read as another one (CVE-2021-42574). Each is shown as its escape instead, so
that what was there can be seen.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_JSON = 2_000_000
# Controls, formats (directions, zero widths, tags), surrogates, private use, unassigned, and what
# breaks lines though it is no line feed.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Every combining mark over one letter draws over the lines around it.
_MAX_MARKS = 4


def clean(text: str, limit: int | None = None) -> str:
    """One line of text that does nothing but be read, of at most `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category == "Mn" else 0
        if category in _HARMFUL:
            shown.append(" " if character in "\n\t" else _escape(character))
        elif marks <= _MAX_MARKS:
            shown.append(character)
    cleaned = "".join(shown)
    return cleaned if limit is None else cleaned[:limit]


def clean_lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def listed(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first of them, and how many more there are."""
    shown, more = separator.join(texts[:most]), len(texts) - most
    return f"{shown}{';' if separator == '; ' else ''} and {more} more" if more > 0 else shown


def clean_all(value: Any) -> Any:
    """The same for every text in what a JSON document holds, keys too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): clean_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(clean_all(item) for item in value)
    return value


Clean = Annotated[str, AfterValidator(clean)]
"""A text from outside, in a pydantic model."""


def outside_json(text: str, limit: int = MAX_JSON) -> Any:
    """What a JSON text from outside holds, its texts cleaned; None for what is none, is longer than
    `limit`, or is nested without end."""
    if len(text) > limit:
        return None
    try:
        return clean_all(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
