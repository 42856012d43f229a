"""The documentation: Markdown pages, the sources of the site and of `edgesparse docs`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgesparse.spec.errors import UsageError, did_you_mean

PAGES = Path(__file__).parent / "pages"
KINDS = ("", "tutorials", "reference", "explanation")
"""Folders of pages, in the order in which they are listed."""
_LINK = re.compile(r"!?\[([^\]]+)\]\((?!\w+://)([^)#\s]*)(#[^)\s]*)?\)")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


@dataclass(frozen=True)
class Topic:
    """A page, by the name that `edgesparse docs` knows it by."""

    name: str
    kind: str
    """Its folder; empty for pages outside of one."""
    title: str
    path: Path

    def read(self) -> str:
        """Return the page's Markdown."""
        return self.path.read_text(encoding="utf-8")


def topics() -> dict[str, Topic]:
    """Return every page by its topic's name, in the order of KINDS."""
    listed = {}
    for kind in KINDS:
        for path in sorted((PAGES / kind).glob("*.md")):
            with path.open(encoding="utf-8") as file:
                title = file.readline().lstrip("# ").strip()
            listed[path.stem] = Topic(path.stem, kind, title, path)
    return listed


def topic(name: str) -> Topic:
    """Return the page of a topic.

    Raises:
        UsageError: the topic is unknown.
    """
    every = topics()
    if name not in every:
        raise UsageError(
            f"no topic {name!r}{did_you_mean(name, every)}; 'edgesparse docs' lists topics, "
            f"'edgesparse docs --search WORDS' finds pages"
        )
    return every[name]


def offline(text: str) -> str:
    """Return a page's Markdown for reading without the site: links name the topic to type, and
    comments and pictures are left out.

    >>> offline("See [blocks](../explanation/zeros.md#blocks).")
    'See blocks (docs zeros).'
    """

    def named(match: re.Match[str]) -> str:
        path = match[2]
        if match[0].startswith("!"):
            return ""
        return f"{match[1]} (docs {Path(path).stem})" if path.endswith(".md") else match[1]

    return _LINK.sub(named, _COMMENT.sub("", text))
