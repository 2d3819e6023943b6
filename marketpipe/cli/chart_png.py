"""A chart as a PNG picture, by matplotlib: without pyplot, so that nothing global is touched and no window opens."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from marketpipe.cli import figures
from marketpipe.cli.chart_marks import Drawing, Kind, Mark
from marketpipe.cli.chart_paint import FAINT, GRID, INK, UNKNOWN, UNKNOWN_EDGE, Colors, legend
from marketpipe.cli.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PNG_ROOM", "figure", "png"]

WIDTH, HEIGHT, DPI = 1600, 900, 100
# What is left of it for prices, about; labels take the rest.
PLOT_WIDTH, PLOT_HEIGHT, TAG_HEIGHT = 1460, 600, 20
# A slot has room for a body and for what parts it from the next one; and nine years are shown in weeks.
PNG_ROOM = 480
DAY_MS = 86_400_000
PIXEL = 72 / DPI
# How much of its slot a body fills, and how many pixels it takes at the most.
FILL, WIDEST = 0.8, 80
# Volumes from here on are written as 20M or 60B.
MANY = 10_000_000
HANGUL = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")


def png(drawing: Drawing, colors: Colors) -> bytes:
    """The picture. ``RuntimeError`` if matplotlib is not installed."""
    out = io.BytesIO()
    figure(drawing, colors).savefig(out, format="png")
    return out.getvalue()


def figure(drawing: Drawing, colors: Colors) -> Figure:
    """The picture as matplotlib knows it: an axis for prices, and one for volumes below it."""
    with needs("matplotlib", "plot", "a .png chart"):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, hspace=0.01)
    drawn = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white", layout=layout)
    prices, volumes = drawn.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    for axes in (prices, volumes):
        _plain(axes)
        axes.broken_barh(
            [(_x(start_ms), _x(end_ms - start_ms)) for start_ms, end_ms in drawing.unknown],
            (0, 1),
            transform=axes.get_xaxis_transform(),
            facecolor=UNKNOWN,
            edgecolor=UNKNOWN_EDGE,
            linewidth=PIXEL,
            zorder=0.5,
        )
    _prices(prices, drawing, colors)
    _volumes(volumes, drawing, colors)
    _time(volumes, drawing)
    _words(prices, drawing, colors)
    drawn.align_ylabels([prices, volumes])
    return drawn


def _plain(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(colors=INK, length=0, labelsize=10)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _prices(axes: Axes, drawing: Drawing, colors: Colors) -> None:
    from matplotlib.collections import LineCollection

    marks = drawing.marks
    axes.add_collection(
        LineCollection(
            [[(_middle(mark), float(one)), (_middle(mark), float(two))] for mark in marks for one, two in mark.wicks],
            colors=[colors.of(mark) for mark in marks for _ in mark.wicks],
            linewidths=PIXEL * (1 if len(marks) > 100 else 1.5),
            zorder=2,
        )
    )
    _boxes(axes, drawing, [(mark.open, mark.close) for mark in marks], colors)
    axes.set_ylim(*drawing.prices)
    _ticks(axes, 9, tag=float(marks[-1].close), label=_price)
    axes.set_ylabel(f"price ({drawing.quote})", color=FAINT, fontsize=10)
    last = marks[-1]
    axes.axhline(float(last.close), color=colors.of(last), linewidth=0.8, linestyle=(0, (2, 3)), zorder=1.5)
    axes.annotate(
        figures.exact(last.close),
        (1, float(last.close)),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color="white",
        bbox={"boxstyle": "square,pad=0.25", "facecolor": colors.of(last), "edgecolor": "none"},
    )


def _volumes(axes: Axes, drawing: Drawing, colors: Colors) -> None:
    marks = drawing.marks
    _boxes(axes, drawing, [(Decimal(0), mark.volume) for mark in marks], colors)
    axes.set_ylim(*drawing.volumes)
    _ticks(axes, 5, tag=0, label=_volume)  # where volumes begin, needs no words
    axes.set_ylabel(f"volume ({drawing.base})", color=FAINT, fontsize=10)


def _boxes(axes: Axes, drawing: Drawing, edges: Sequence[tuple[Decimal, Decimal]], colors: Colors) -> None:
    """A box from one edge to the other for each mark; hollow, while its bar is running."""
    from matplotlib.collections import PolyCollection

    marks, shapes = drawing.marks, []
    pixel = _x(drawing.end_ms - drawing.start_ms) / PLOT_WIDTH
    for mark, (one, other) in zip(marks, map(sorted, edges), strict=True):
        # The outline, which makes a body without height visible, adds a pixel.
        half = max(min(_x(mark.end_ms - mark.start_ms) * FILL, WIDEST * pixel) - pixel, 0) / 2
        left, right = _middle(mark) - half, _middle(mark) + half
        bottom, top = float(one), float(other)
        shapes.append([(left, bottom), (left, top), (right, top), (right, bottom)])
    paints = [colors.of(mark) for mark in marks]
    insides = ["white" if mark.kind is Kind.RUNNING else paint for mark, paint in zip(marks, paints, strict=True)]
    # A body without height is nothing but its outline.
    outlines = [PIXEL * (2 if one == other else 1) for one, other in edges]
    axes.add_collection(PolyCollection(shapes, facecolors=insides, edgecolors=paints, linewidths=outlines, zorder=3))


def _ticks(axes: Axes, most: int, *, tag: float, label: Callable[[Decimal, int], str]) -> None:
    """Round numbers with equally many decimals, but none where ``tag`` stands."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_ylim()
    places = [place for place in MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= place <= high]
    # Twelve digits: what is beyond them is the dust of binary fractions.
    numbers = [Decimal(f"{place:.12g}") for place in places]
    decimals = max([0, *(-int(number.normalize().as_tuple().exponent) for number in numbers)])
    apart = (high - low) / PLOT_HEIGHT * TAG_HEIGHT
    axes.set_yticks(
        places,
        [
            label(number, decimals) if abs(place - tag) > apart else ""
            for place, number in zip(places, numbers, strict=True)
        ],
    )


def _price(number: Decimal, decimals: int) -> str:
    return f"{number:,.{decimals}f}"


def _volume(number: Decimal, decimals: int) -> str:
    if number < MANY:
        return f"{number:,.{decimals}f}"
    text = figures.amount(number)
    return figures.exact(Decimal(text[:-1])) + text[-1]


def _time(axes: Axes, drawing: Drawing) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes.set_xlim(_x(drawing.start_ms), _x(drawing.end_ms))
    slots = (drawing.end_ms - drawing.start_ms) // (drawing.marks[0].end_ms - drawing.marks[0].start_ms)
    locator = AutoDateLocator(tz=drawing.zone, minticks=max(2, min(slots, 6)), maxticks=14)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=drawing.zone))
    axes.set_xlabel(drawing.time_name, color=FAINT, fontsize=10)


def _words(axes: Axes, drawing: Drawing, colors: Colors) -> None:
    from matplotlib.patches import Patch

    family = _family(drawing.title)
    axes.set_title(
        drawing.title,
        loc="left",
        pad=24,
        color=INK,
        fontsize=15,
        fontweight="bold",
        fontfamily=family,
        parse_math=False,  # a dollar is a dollar
    )
    axes.annotate(
        drawing.subtitle, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", color=FAINT, fontsize=10
    )
    entries = [Patch(facecolor=inside, edgecolor=edge, label=name) for name, inside, edge in legend(drawing, colors)]
    axes.legend(
        handles=entries,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(entries),
        frameon=False,
        fontsize=10,
        labelcolor=FAINT,
        handlelength=1,
        handleheight=1,
        borderaxespad=0.4,
    )


def _family(text: str) -> list[str]:
    from matplotlib.font_manager import get_font_names

    at_hand = [] if text.isascii() else sorted(set(HANGUL) & set(get_font_names()))
    return ["DejaVu Sans", *at_hand]


def _middle(mark: Mark) -> float:
    return _x(mark.start_ms + mark.end_ms) / 2


def _x(at_ms: int) -> float:
    return at_ms / DAY_MS
