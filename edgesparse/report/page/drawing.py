"""Matplotlib figures as SVG that takes its colours from the page: dark or light, as readers like.

Text stays text, so that it can be searched, copied and read aloud.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SERIES = 8
MARKERS = "os^DvPX*<>"
_NAMED = 16
"""More series than this have no legend; they are named when they are pointed at."""
_INK, _LINE, _GRID = "#010101", "#020202", "#030303"
_COLOURS = {
    _INK: "var(--ink)",
    _LINE: "var(--line)",
    _GRID: "var(--grid)",
    **{f"#0{place}0a0b": f"var(--s{place})" for place in range(SERIES)},
}
"""Stand-ins, which no chart has by chance, for what the page's style says."""
_SETTINGS: Any = {
    "svg.hashsalt": "edgesparse",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.6,
}
_ID = re.compile(r'(\bid="|url\(#|href="#)')


def colour(place: int) -> str:
    """Of a series, the same in every chart of a page."""
    return f"#0{place % SERIES}0a0b"


def marker(place: int) -> str:
    """Told apart without colour, too."""
    return MARKERS[place % len(MARKERS)]


@dataclass
class Drawing:
    """A figure that is being drawn; `named` are texts for parts of it, shown when pointed at."""

    figure: Figure
    named: dict[str, str] = field(default_factory=dict)

    def name(self, artist: Any, text: str) -> None:
        """Let a part be named when somebody points at it."""
        gid = f"part{len(self.named)}"
        artist.set_gid(gid)
        self.named[gid] = text

    def axes(self, count: int) -> Sequence[Axes]:
        found = self.figure.subplots(1, count, squeeze=False)[0]
        return list(found)


def drawn(
    label: str, draw: Callable[[Drawing], None], width: float = 6.4, height: float = 3.6
) -> Markup:
    """What `draw` puts into a figure of so many inches, as SVG; `label` says it in words."""
    with mpl.rc_context(_SETTINGS):
        # Fixed margins: finding the best ones draws everything twice.
        drawing = Drawing(Figure(figsize=(width, height)))
        drawing.figure.subplots_adjust(0.11, 0.14 * 3.6 / height, 0.98, 1 - 0.3 / height, 0.25)
        draw(drawing)
        canvas = FigureCanvasSVG(drawing.figure)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(stream, metadata=nothing)  # type: ignore[no-untyped-call]
    return _embedded(stream.getvalue(), label, drawing.named)


def _embedded(text: str, label: str, named: dict[str, str]) -> Markup:
    """An SVG document as a part of the page; what it holds is matplotlib's, which escapes texts."""
    text = text[text.index("<svg") :]
    for stand_in, own in _COLOURS.items():
        text = text.replace(stand_in, own)
    for gid, said in named.items():
        text = text.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(said)}</title>')
    # Of all charts of a page no two parts have one name.
    prefix = f"c{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    text = _ID.sub(lambda found: found.group(1) + prefix, text)
    head = f'<svg role="img" aria-label="{escape(label)}"'
    text = re.sub(r"^<svg|(?<=^<svg)[^>]*?(?= viewBox)", "", text, count=2)
    return Markup(head + text)  # noqa: S704 (escaped above)


def legend(axes: Axes, count: int) -> None:
    """Beside the axes, as long as it can be read."""
    if 1 < count <= _NAMED:
        longest = max(len(name) for name in axes.get_legend_handles_labels()[1])
        right = 0.93 - min(0.45, 0.0115 * longest)
        axes.figure.subplots_adjust(right=right)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)


def places(names: Iterator[str] | Sequence[str]) -> dict[str, int]:
    """A number for each name, in order."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
