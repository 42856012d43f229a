"""Sanitizes text from outside; the only place that does.

Outside are devices (names, versions, errors, output), files (names, tensors, results of an earlier
run) and programs (ssh, compilers). A terminal acts on control characters: they set its title, fill
the clipboard, move the cursor over earlier output (CWE-150); bidirectional controls make a text
read as another (CVE-2021-42574). Each is replaced by its escape, which shows what was there.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_JSON = 2_000_000
# Controls, formats (directions, zero widths, tags), surrogates, private use, unassigned, and line
# breaks other than a line feed.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Every combining mark over one letter draws over the lines around it.
_MAX_MARKS = 4
_CREDENTIALS = re.compile(r"://[^/\s]*@")


def clean(text: str, limit: int | None = None) -> str:
    """Return text as one harmless line of at most `limit` characters."""
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
    """Return text of several lines with each line cleaned."""
    return "\n".join(clean(line) for line in text.split("\n"))


def listed(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first `most` texts joined, and the number of further ones."""
    shown, more = separator.join(texts[:most]), len(texts) - most
    return f"{shown}{';' if separator == '; ' else ''} and {more} more" if more > 0 else shown


def without_credentials(text: str, shown: str = "***@") -> str:
    """Return a text with user names and passwords in URLs replaced by `shown`."""
    return _CREDENTIALS.sub(f"://{shown}", text)


def clean_all(value: Any) -> Any:
    """Return JSON-like data with every text cleaned, keys too."""
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
    """Parse JSON from outside, with its texts cleaned; None where it is invalid, longer than
    `limit`, or nested too deeply."""
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
