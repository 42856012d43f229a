"""Matplotlib figures as SVG that takes its colours from the page, in dark and light mode.

Text stays text, so that it can be searched, copied and read aloud.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from edgesparse.measure.rows import Score

SERIES = 8
MARKERS = "os^DvPX*<>"
LOGARITHMIC_FROM = 4.0
"""Smallest ratio of largest to smallest value with a logarithmic axis."""
MAX_LEGEND = 24
"""Largest number of series with a legend; tooltips name more."""
_INK, _LINE, _GRID = "#010101", "#020202", "#030303"
_COLORS = {
    _INK: "var(--ink)",
    _LINE: "var(--line)",
    _GRID: "var(--grid)",
    **{f"#0{index}0a0b": f"var(--s{index})" for index in range(SERIES)},
}
"""Placeholder colours, which no chart has by chance, and the page's CSS variables for them."""
_SETTINGS: Any = {
    "svg.hashsalt": "edgesparse",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
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
# In inches: right of the axes; and a legend's lines, marks and letters.
_RIGHT = 0.14
_LEGEND_LINE, _LEGEND_MARK, _LEGEND_LETTER = 0.2, 0.42, 0.088
_ID = re.compile(r'(\bid="|url\(#|href="#)')


def color(index: int) -> str:
    """Return the colour of a series, the same in every chart of a page."""
    return f"#0{index % SERIES}0a0b"


def marker(index: int) -> str:
    """Return the marker of a series: it tells series apart without colour."""
    return MARKERS[index % len(MARKERS)]


class ShownFigure(Figure):
    """A figure that a notebook shows as the value of a cell, without pyplot."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


@dataclass
class Drawing:
    """A figure that is being drawn, with the tooltips of its parts by SVG id."""

    figure: Figure
    tooltips: dict[str, str] = field(default_factory=dict)

    def add_tooltip(self, artist: Any, text: str) -> None:
        """Show a text when the pointer is on an artist."""
        gid = f"part{len(self.tooltips)}"
        artist.set_gid(gid)
        self.tooltips[gid] = text

    def axes(self, count: int) -> Sequence[Axes]:
        """Add axes side by side."""
        return list(self.figure.subplots(1, count, squeeze=False)[0])


def render_svg(
    label: str,
    draw: Callable[[Drawing], None],
    width: float = 5.2,
    height: float = 3.0,
    *,
    margins: tuple[float, float, float] = (0.75, 0.5, 0.28),
) -> Markup:
    """Draw a figure as SVG: narrow enough that its text can be read on a phone.

    Args:
        label: its description for screen readers.
        draw: draws into the figure.
        width: in inches, as are the height and the margins left of the axes, below and above.
    """
    left, bottom, top = margins
    with mpl.rc_context(_SETTINGS):
        # Fixed margins: finding the best ones draws everything twice.
        drawing = Drawing(Figure(figsize=(width, height)))
        drawing.figure.subplots_adjust(
            left / width, bottom / height, 1 - _RIGHT / width, 1 - top / height, 0.3
        )
        draw(drawing)
        canvas = FigureCanvasSVG(drawing.figure)
        stream = io.StringIO()
        # No metadata: the same results give the same page.
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(stream, metadata=metadata)  # type: ignore[no-untyped-call]
    return _embedded(stream.getvalue(), label, drawing.tooltips)


def _embedded(text: str, label: str, tooltips: dict[str, str]) -> Markup:
    """Turn an SVG document of matplotlib, which escapes texts, into a part of the page."""
    text = text[text.index("<svg") :]
    for placeholder, variable in _COLORS.items():
        text = text.replace(placeholder, variable)
    for gid, tooltip in tooltips.items():
        text = text.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(tooltip)}</title>')
    # Ids must be unique on the page, which has several charts.
    prefix = f"c{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    text = _ID.sub(lambda match: match.group(1) + prefix, text)
    head = f'<svg role="img" aria-label="{escape(label)}"'
    text = re.sub(r"^<svg|(?<=^<svg)[^>]*?(?= viewBox)", "", text, count=2)
    return Markup(head + text)  # noqa: S704 (escaped above)


def legend(axes: Axes, count: int) -> None:
    """Add a legend under the axes, which the figure grows for, unless it would have more than
    `MAX_LEGEND` entries."""
    handles, names = axes.get_legend_handles_labels()
    if not names or not 1 < count <= MAX_LEGEND:
        return
    figure: Any = axes.figure
    width, height = figure.get_size_inches()
    entry = _LEGEND_MARK + _LEGEND_LETTER * max(map(len, names))
    columns = min(count, max(1, int((width - 0.1) / entry)))
    more = _LEGEND_LINE * math.ceil(len(names) / columns) + 0.1
    box = figure.subplotpars
    figure.set_size_inches(width, height + more)
    bottom = (box.bottom * height + more) / (height + more)
    figure.subplots_adjust(bottom=bottom, top=1 - (1 - box.top) * height / (height + more))
    figure.legend(
        handles, names, loc="lower left", ncols=columns, fontsize=10, borderaxespad=0.1,
        handlelength=1.4, handletextpad=0.4, columnspacing=1.0, labelspacing=0.3,
    )  # fmt: skip


def log_ticks(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Scale an axis ("x" or "y") logarithmically, with labels at 1, 2 and 5 of each decade, or at
    its powers where the values span many."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = min(values), max(values)
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 1.6 else (1, 3) if decades < 2.6 else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_formatter(NullFormatter())
    pad = 10 ** (0.06 * max(decades, 0.5))
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / pad, high * pad)


def series_label(name: str) -> str:
    """Return the label of a series: matplotlib hides those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


def scale_axis(
    axes: Axes, which: str, values: Sequence[float], text: Callable[[float], str]
) -> None:
    """Scale an axis ("x" or "y") to its values, and format its ticks."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if min(values) > 0 and max(values) > LOGARITHMIC_FROM * min(values):
        log_ticks(axes, which, values)
    else:
        axis.set_major_locator(MaxNLocator(nbins=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value) if value > 0 else "0"))


def plotted(score: Score, value: float | None) -> float:
    """Return a metric's value as it is plotted: shares in percent."""
    return (value or 0.0) * (100.0 if score.unit == "%" else 1.0)


def series_indices(names: Iterable[str]) -> dict[str, int]:
    """Number the distinct names in order, for `color` and `marker`."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}
