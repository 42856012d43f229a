"""A run as one HTML file: everything that its results hold, to be looked at.

It needs no network and no JavaScript; with JavaScript, tables can be sorted. What it shows was
measured on devices, which may say anything: Jinja escapes every text, and a content security policy
lets nothing but this file's own style and script do anything.
"""

from __future__ import annotations

from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.report.page.document import render, write

MAX_BYTES = 5_000_000
CHARTS = (60, 12, 0)
"""Of trainings at most so many have charts; fewer where the page would be larger."""


def html_text(results: Results) -> str:
    """The page."""
    from edgesparse.report.page.content import content

    text, count = "", len(results.provenance.trainings)
    given = content(results, CHARTS[0])
    # Charts of trainings are many where variants are many: rather fewer of them than a page that
    # no browser likes.
    for most in CHARTS:
        shown = given["trainings"][:most]
        left = {"trainings": shown, "more_trainings": count - len(shown)}
        text = render("page.html", **{**given, **left})
        if len(text.encode()) <= MAX_BYTES:
            break
    return text


def write_page(results: Results, path: str | Path) -> Path:
    """Write the page of a run whole, or not at all.

    Raises:
        EdgesparseError: it cannot be written there.
    """
    return write(Path(path), html_text(results))
