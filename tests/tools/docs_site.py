"""A hook of mkdocs (edgesparse/docs/mkdocs.yml): adds what pages take from the code."""

from __future__ import annotations

from typing import Any

from edgesparse.cli.main import main
from edgesparse.docs.generated import with_generated


def on_page_markdown(markdown: str, **_: Any) -> str:
    return with_generated(markdown, main)
