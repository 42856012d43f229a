"""A run's results as one HTML page.

It needs no network and no JavaScript; with JavaScript, tables can be sorted. Its texts come from
devices, which are not trusted: Jinja escapes every text, and a content security policy allows
nothing but the file's own style and script.
"""

from __future__ import annotations

from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.report.page.document import render, write

MAX_BYTES = 5_000_000
TRAINING_CHARTS = (60, 12, 0)
"""Largest number of trainings with charts; the next where the page would exceed MAX_BYTES, which
browsers still show at once."""


def html_text(results: Results) -> str:
    """Render the page."""
    from edgesparse.report.page.content import page_content

    content = page_content(results, TRAINING_CHARTS[0])
    trainings, count = content["trainings"], len(results.provenance.trainings)
    text = ""
    for limit in TRAINING_CHARTS:
        content["trainings"] = trainings[:limit]
        content["more_trainings"] = count - len(content["trainings"])
        text = render("page.html", **content)
        if len(text.encode()) <= MAX_BYTES:
            break
    return text


def write_page(results: Results, path: str | Path) -> Path:
    """Write the page of a run whole, or not at all.

    Args:
        path: the HTML file.

    Returns:
        The path.

    Raises:
        EdgesparseError: the file cannot be written.
    """
    return write(Path(path), html_text(results))
