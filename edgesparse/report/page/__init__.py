"""A run as one HTML file: everything that its results hold, to be looked at.

It needs no network and no JavaScript; with JavaScript, tables can be sorted. What it shows was
measured on devices, which may say anything: Jinja escapes every text, and a content security policy
lets nothing but this file's own style and script do anything.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from edgesparse.bench.results import Results
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.files import replace_text

HERE = Path(__file__).parent
MAX_BYTES = 5_000_000


def html_text(results: Results) -> str:
    """The page."""
    import jinja2

    from edgesparse.report.page.content import content

    style, script = ((HERE / name).read_text() for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    text = ""
    # Charts of trainings are many where variants are many: rather fewer of them than a page that
    # no browser likes.
    for charts in (60, 12, 0):
        text = template.render(
            **content(results, charts), style=style, script=script, script_digest=digest
        )
        if len(text.encode()) <= MAX_BYTES:
            break
    return text


def write_page(results: Results, path: str | Path) -> Path:
    """Write the page of a run whole, or not at all.

    Raises:
        EdgesparseError: it cannot be written there.
    """
    path = Path(path)
    try:
        replace_text(path, html_text(results))
    except OSError as error:
        raise EdgesparseError(f"{path}: cannot be written: {error.strerror}") from None
    return path
