"""Candlestick charts as files: a picture (``.png``), or a page to zoom into (``.html``) that needs no network.

Time runs true on the axis: a slot without a trade is an empty place, and what was never fetched is shaded. Whoever
wants these files installs ``marketpipe[plot]``; without it, nothing here costs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, tzinfo
from pathlib import Path

from marketpipe.cli.chart_html import HTML_ROOM, html
from marketpipe.cli.chart_marks import Drawing, Span
from marketpipe.cli.chart_paint import Colors
from marketpipe.cli.chart_png import PNG_ROOM, png
from marketpipe.cli.files import replacing
from marketpipe.models import CandleSeries

__all__ = ["SUFFIXES", "Colors", "check_suffix", "draw"]

_PAINTERS: dict[str, tuple[int, Callable[[Drawing, Colors], bytes]]] = {
    ".png": (PNG_ROOM, png),
    ".html": (HTML_ROOM, html),
}
SUFFIXES = tuple(_PAINTERS)


def draw(
    series: CandleSeries,
    path: Path,
    *,
    unknown: Iterable[Span] = (),
    span: Span | None = None,
    zone: tzinfo = UTC,
    colors: Colors = Colors.KOREAN,
    title: str | None = None,
) -> None:
    """Write a chart of ``series`` to ``path``; its suffix says what kind. A file that is there is replaced.

    ``unknown``: spans (start, end; epoch ms) that were not fetched; they are shaded and named. ``span``: the time to
    show, otherwise as much as the bars and ``unknown`` take. ``zone``: whose clock stands on the axis. More bars than
    the picture has room for are merged into coarser ones, and the title says which.

    ``ValueError``: another suffix, or no bar to draw. ``RuntimeError``: the extra is not installed. ``OSError``: the
    file cannot be written. In each case nothing at ``path`` has changed.
    """
    check_suffix(path)
    room, paint = _PAINTERS[path.suffix.lower()]
    drawing = Drawing.of(series, room=room, zone=zone, unknown=unknown, span=span, title=title)
    content = paint(drawing, colors)
    with replacing(path) as file:
        file.write(content)


def check_suffix(path: Path) -> None:
    """``ValueError`` that names what is allowed; for whoever wants to know before anything is asked."""
    if path.suffix.lower() not in _PAINTERS:
        raise ValueError(f"a chart must be named {' or '.join(f'*{suffix}' for suffix in SUFFIXES)}, was {str(path)!r}")
