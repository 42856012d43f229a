"""Draws a picture of a run's page for the README: its verdict and first two charts, as one SVG.

python -m tests.tools.page_picture [RUN]
"""

from __future__ import annotations

import re
import sys
import tempfile
from html import escape, unescape
from pathlib import Path

import edgesparse
from edgesparse.docs import PAGES
from edgesparse.report import page

PICTURE = PAGES / "page.svg"
WIDTH, TOP = 860, 96
CHARTS = (
    (0, "latency by variant [ms]", 10, 400),
    (1, "accuracy [%] against latency [ms]", 430, 420),
)
"""Number on the page, title, left edge and width in px."""


def compact(svg: str) -> str:
    """Return an SVG of matplotlib in half its size: rounded coordinates, no groups."""

    def rounded(tag: re.Match[str]) -> str:
        number = lambda match: f"{float(match[0]):.1f}".removesuffix(".0")  # noqa: E731
        return re.sub(r"-?\d+\.\d{2,}", number, tag[0])

    svg = re.sub(r"<(title|defs/).*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"</?g\b[^>]*>", "", svg)
    svg = re.sub(r"font-family: [^;]*; ?|; font-family: [^;\"]*", "", svg)
    svg = re.sub(r' transform="rotate\(-0[^"]*"', "", svg.replace("xlink:href", "href"))
    svg = re.sub(r"; stroke-(linecap: square|linejoin: miter|dashoffset: 0)", "", svg)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", rounded, svg)).replace("> <", "><")


def picture(results: edgesparse.Results) -> str:
    """Return the SVG, in the page's colours, light and dark."""
    with tempfile.TemporaryDirectory() as folder:
        html = edgesparse.write_page(results, Path(folder) / "page.html").read_text()
    style = (Path(page.__file__).parent / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    verdict = re.findall(r"^.*?>((?:ship|gains:|why:) .*?)<", html, re.MULTILINE)[:3]
    parts = [
        f"<style>svg{{{light}}}@media (prefers-color-scheme: dark){{svg{{{dark}}}}}"
        "text{font-family:sans-serif;fill:var(--ink)}</style>",
        f'<rect width="{WIDTH}" height="{TOP + 290}" fill="var(--paper)"/>',
        f'<rect x="10" y="10" width="{WIDTH - 20}" height="68" fill="var(--tint)"/>',
        '<rect x="10" y="10" width="3" height="68" fill="var(--good)"/>',
    ]
    for number, line in enumerate(verdict):
        size = "14px;font-weight:bold" if number == 0 else "13px"
        text = escape(unescape(line), quote=False)
        parts.append(f'<text x="24" y="{31 + 19 * number}" style="font-size:{size}">{text}</text>')
    for index, title, x, width in CHARTS:
        parts.append(f'<text x="{x + 4}" y="{TOP + 8}" style="font-size:13px">{title}</text>')
        place = f'<svg x="{x}" y="{TOP + 14}" width="{width}" height="270" '
        parts.append(compact(charts[index]).replace("<svg ", place, 1))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + 290}" role="img">'
    return head + "".join(parts) + "</svg>\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(edgesparse.load_results(*sys.argv[1:2])))
