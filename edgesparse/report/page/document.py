"""Rendering of templates with style and script into one HTML file."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.files import replace_text
from edgesparse.spec.safe.text import clean_lines

HERE = Path(__file__).parent


def render(name: str, *, script_file: str = "page.js", **content: Any) -> str:
    """Render a template; every text of its content is escaped."""
    style, script = ((HERE / file).read_text() for file in ("page.css", script_file))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template(name)
    return str(template.render(**content, style=style, script=script, script_digest=digest))


@lru_cache(1)  # A live page is rendered once a second.
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _clean(value: Any) -> Any:
    """Clean text, but not markup, of control characters."""
    return clean_lines(value) if type(value) is str else value


def write(path: Path, text: str) -> Path:
    """Write a page whole, or not at all.

    Raises:
        EdgesparseError: the file cannot be written.
    """
    try:
        replace_text(path, text)
    except OSError as error:
        raise EdgesparseError(f"{path}: cannot write the page: {error.strerror}") from None
    return path
