"""What the READMEs and the documentation's pages contain: code blocks, commands, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgesparse.docs import PAGES
from tests.conftest import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "pipelines/README.md", "devices/README.md")),
    *sorted(Path(str(PAGES)).rglob("*.md")),
]
"""READMEs first: their commands are run in this order."""
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`(?:\.venv/bin/)?(edgesparse [a-z][^`]*)`")


def name_of(document: Path) -> str:
    """Return a document's path in the project."""
    return str(document.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of a language, in order.

    `sh` is run by tests, `console` needs what tests do not have (a board, a cluster): it is parsed.
    """
    return [text for kind, text in _BLOCK.findall(document.read_text()) if kind == language]


def lines(document: Path, language: str) -> list[str]:
    """Return a document's command lines, without comments; continued lines are joined."""
    text = "\n".join(blocks(document, language)).replace("\\\n", " ")
    stripped = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line]


def commands() -> list[str]:
    """Return the command lines that tests run, each once, in the order of the documents."""
    return list(dict.fromkeys(line for page in DOCUMENTS for line in lines(page, "sh")))


def mentions(document: Path) -> list[str]:
    """Return the edgesparse commands within sentences."""
    prose = _BLOCK.sub("", document.read_text())
    return [" ".join(text.split()) for text in _INLINE.findall(prose)]


def links(document: Path) -> Iterator[str]:
    """Yield the targets of a document's links, outside code."""
    yield from _LINK.findall(_BLOCK.sub("", document.read_text()))


def programs() -> dict[str, str]:
    """Return every Python example that begins with its file's name, by that name."""
    named = {}
    for document in DOCUMENTS:
        for text in blocks(document, "python"):
            match = re.match(r"# (\w+\.py)\n", text)
            if match:
                assert match[1] not in named, f"{match[1]} is there twice"
                named[match[1]] = text
    return named
