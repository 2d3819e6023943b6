"""A chart as a page to zoom into, by plotly: one file with everything in it, for any browser, without network.

It takes 5 MB, most of it plotly.js. On its axis time has one offset from UTC throughout, since plotly knows no zones;
what is told of a single bar is told in the zone's own time.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from decimal import Decimal
from html import escape
from typing import Any

from marketpipe.cli import figures
from marketpipe.cli.chart_marks import Drawing, Kind, Mark, local
from marketpipe.cli.chart_paint import (
    FAINT,
    FILLED_NAME,
    GRID,
    INK,
    RUNNING_NAME,
    UNKNOWN,
    UNKNOWN_EDGE,
    Colors,
    legend,
)
from marketpipe.cli.extras import needs

__all__ = ["HTML_ROOM", "html"]

# With more candles than this a browser becomes slow.
HTML_ROOM = 2500
# How much of its slot a body fills, and how much of the page at the most.
FILL, WIDEST = 0.7, 0.05

AXIS = {"gridcolor": GRID, "linecolor": GRID, "mirror": True, "showline": True, "zeroline": False}
SPIKES = {"showspikes": True, "spikemode": "across", "spikecolor": FAINT, "spikethickness": -1}

# By name, since among plotly's own choice is one that uploads the chart.
BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
html, body {{ height: 100%; margin: 0; background: white; }}
body > div {{ height: 100%; }}
.hoverlayer .axistext {{ display: none; }}
</style>
</head>
<body>
{plot}
</body>
</html>
"""

# Prices and volumes follow the time that is zoomed into; plotly by itself would leave them where they are.
FOLLOW = """
const plot = document.getElementById("{plot_id}");
const marks = plot.layout.meta;
let shown = "";
plot.on("plotly_relayout", () => {
  const axis = plot._fullLayout.xaxis;
  const [from, to] = axis.range.map((at) => axis.r2l(at));
  if (shown === from + " " + to) return;
  shown = from + " " + to;
  let low = Infinity, high = -Infinity, most = 0;
  for (const [start, end, bottom, top, volume] of marks) {
    if (end <= from || start >= to) continue;
    low = Math.min(low, bottom);
    high = Math.max(high, top);
    most = Math.max(most, volume);
  }
  if (low > high) return;
  const margin = (high - low) * 0.05 || Math.abs(high) * 0.001 || 1;
  Plotly.relayout(plot, {"yaxis.range": [low - margin, high + margin], "yaxis2.range": [0, most * 1.08 || 1]});
});
"""


def html(drawing: Drawing, colors: Colors) -> bytes:
    """The page. ``RuntimeError`` if plotly is not installed."""
    with needs("plotly", "plot", "a .html chart"):
        from plotly.graph_objects import Figure

    page = _Page(drawing, colors)
    figure = Figure({"data": page.traces(), "layout": page.layout()})
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        post_script=FOLLOW,
        config={"displaylogo": False, "scrollZoom": True, "responsive": True, "modeBarButtons": [BUTTONS]},
    )
    return PAGE.format(title=escape(drawing.title), plot=plot).encode()


class _Page:
    """What plotly is told. Its moments are milliseconds on the clock of the axis."""

    def __init__(self, drawing: Drawing, colors: Colors) -> None:
        self.drawing = drawing
        self.marks = drawing.marks
        self.paints = [colors.of(mark) for mark in drawing.marks]
        self.colors = colors
        self.offset = local(drawing.end_ms, drawing.zone).utcoffset() or timedelta(0)

    def traces(self) -> list[dict[str, Any]]:
        bodies = [(min(mark.open, mark.close), abs(mark.change)) for mark in self.marks]
        return [
            *self._wicks(),
            {
                **self._bars(bodies),
                "hovertext": [self._told(mark) for mark in self.marks],
                "hovertemplate": "%{hovertext}<extra></extra>",
            },
            {**self._bars([(Decimal(0), mark.volume) for mark in self.marks]), "yaxis": "y2", "hoverinfo": "skip"},
            *self._legend(),
        ]

    def layout(self) -> dict[str, Any]:
        drawing, last = self.drawing, self.marks[-1]
        subtitle = f"<span style='font-size:12px;color:{FAINT}'>{escape(drawing.subtitle)}</span>"
        return {
            "meta": [
                (self._at(mark.start_ms), self._at(mark.end_ms), float(mark.low), float(mark.high), float(mark.volume))
                for mark in self.marks
            ],
            "title": {
                "text": f"<b>{escape(drawing.title)}</b><br>{subtitle}",
                "x": 0.01,
                "font": {"color": INK, "size": 18},
            },
            "font": {"color": INK, "size": 12},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "margin": {"l": 20, "r": 120, "t": 80, "b": 50},
            "barmode": "overlay",
            "dragmode": "pan",
            "hovermode": "x",
            "hoverlabel": {"bgcolor": "white", "font": {"color": INK}, "align": "left"},
            "legend": {
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.01,
                "yanchor": "bottom",
                "font": {"color": FAINT},
                "itemclick": False,
                "itemdoubleclick": False,
            },
            "xaxis": self._times(),
            "yaxis": self._prices(),
            "yaxis2": self._volumes(),
            "shapes": [*self._unknown(), self._line(last)],
            "annotations": [self._tag(last)],
        }

    def _times(self) -> dict[str, Any]:
        return {
            **AXIS,
            **SPIKES,
            "type": "date",
            "range": [self._at(self.drawing.start_ms), self._at(self.drawing.end_ms)],
            "anchor": "y2",
            "title": _axis_title(escape(self._time_name())),
        }

    def _prices(self) -> dict[str, Any]:
        return {
            **AXIS,
            **SPIKES,
            "domain": [0.24, 1],
            "side": "right",
            "range": self.drawing.prices,
            "exponentformat": "none",
            "separatethousands": True,
            "title": _axis_title(f"price ({self.drawing.quote})"),
        }

    def _volumes(self) -> dict[str, Any]:
        return {
            **AXIS,
            "domain": [0, 0.21],
            "side": "right",
            "range": self.drawing.volumes,
            "nticks": 5,
            "exponentformat": "B",
            "separatethousands": True,
            "title": _axis_title(f"volume ({self.drawing.base})"),
        }

    def _wicks(self) -> list[dict[str, Any]]:
        # One trace for each colour: the pieces of a line cannot have their own. A None parts them.
        points: dict[str, tuple[list[float | None], list[float | None]]] = {}
        for mark, paint in zip(self.marks, self.paints, strict=True):
            x, y = points.setdefault(paint, ([], []))
            for end, body in mark.wicks:
                x += [self._middle(mark), self._middle(mark), None]
                y += [float(end), float(body), None]
        return [
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "line": {"color": paint, "width": 1},
                "hoverinfo": "skip",
                "showlegend": False,
            }
            for paint, (x, y) in points.items()
        ]

    def _bars(self, boxes: list[tuple[Decimal, Decimal]]) -> dict[str, Any]:
        widest = (self.drawing.end_ms - self.drawing.start_ms) * WIDEST
        insides = [
            "white" if mark.kind is Kind.RUNNING else paint for mark, paint in zip(self.marks, self.paints, strict=True)
        ]
        return {
            "type": "bar",
            "x": [self._middle(mark) for mark in self.marks],
            "base": [float(bottom) for bottom, _ in boxes],
            "y": [float(height) for _, height in boxes],
            "width": [min((mark.end_ms - mark.start_ms) * FILL, widest) for mark in self.marks],
            "marker": {"color": insides, "line": {"color": self.paints, "width": 1}},
            "showlegend": False,
        }

    def _legend(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [None],
                "y": [None],
                "name": name,
                "marker": {"symbol": "square", "size": 11, "color": inside, "line": {"color": edge, "width": 1}},
            }
            for name, inside, edge in legend(self.drawing, self.colors)
        ]

    def _unknown(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": self._at(start_ms),
                "x1": self._at(end_ms),
                "y0": 0,
                "y1": 1,
                "fillcolor": UNKNOWN,
                "line": {"color": UNKNOWN_EDGE, "width": 1},
                "layer": "below",
            }
            for start_ms, end_ms in self.drawing.unknown
        ]

    def _line(self, last: Mark) -> dict[str, Any]:
        line = {"color": self.paints[-1], "width": 1, "dash": "dot"}
        return {
            "type": "line",
            "xref": "paper",
            "yref": "y",
            "x0": 0,
            "x1": 1,
            "y0": float(last.close),
            "y1": float(last.close),
            "line": line,
            "layer": "below",
        }

    def _tag(self, last: Mark) -> dict[str, Any]:
        return {
            "text": figures.exact(last.close),
            "xref": "paper",
            "yref": "y",
            "x": 1,
            "y": float(last.close),
            "xanchor": "left",
            "showarrow": False,
            "font": {"color": "white"},
            "bgcolor": self.paints[-1],
            "borderpad": 3,
        }

    def _told(self, mark: Mark) -> str:
        opens = local(mark.start_ms, self.drawing.zone)
        words = [f"<b>{opens.replace(tzinfo=None).isoformat(' ', timespec='seconds')}</b>"]
        words += [f"{name} {figures.exact(getattr(mark, name))}" for name in ("open", "high", "low", "close", "volume")]
        if mark.bars > 1:
            words.append(f"{mark.bars:,} bars")
        if mark.kind is not Kind.TRADED:
            words.append(RUNNING_NAME if mark.kind is Kind.RUNNING else FILLED_NAME)
        return "<br>".join(words)

    def _time_name(self) -> str:
        drawing = self.drawing
        if local(drawing.start_ms, drawing.zone).utcoffset() == self.offset:
            return drawing.time_name
        name = drawing.time_name.partition(",")[0]
        return f"{name}, {timezone(self.offset)} throughout)"

    def _middle(self, mark: Mark) -> float:
        return self._at(mark.start_ms) / 2 + self._at(mark.end_ms) / 2

    def _at(self, at_ms: int) -> int:
        return at_ms + self.offset // timedelta(milliseconds=1)


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"color": FAINT, "size": 12}}
