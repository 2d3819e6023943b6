"""What a stream tells, as lines of text for people. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
from rich.text import Text

from marketpipe.cli import figures
from marketpipe.cli.picture import picture
from marketpipe.models import Candle, CandleState, Gap, Side, Trade

__all__ = ["Columns", "bar_text", "direction", "gap_text", "trade_text"]


@attrs.define
class Columns:
    """Columns as wide as the widest text so far, so that nothing jumps to and fro."""

    _widths: dict[str, int] = attrs.field(factory=dict)

    def left(self, name: str, text: str) -> str:
        """``text`` with the blanks of its column behind it."""
        return text.ljust(self._width(name, text))

    def right(self, name: str, text: str) -> str:
        """``text`` with the blanks of its column before it."""
        return text.rjust(self._width(name, text))

    def _width(self, name: str, text: str) -> int:
        width = self._widths[name] = max(self._widths.get(name, 0), len(text))
        return width


def trade_text(trade: Trade, columns: Columns) -> Text:
    """Time, market, side, price, volume."""
    text = Text(f"{_time(trade.trade_ms)}  {columns.left('market', trade.market)}  ")
    text.append(f"{trade.side:<4}", style="green" if trade.side is Side.BUY else "red")
    price, volume = figures.exact(trade.price), figures.exact(trade.volume)
    return text.append(f"  {columns.right('price', price)}  {columns.right('volume', volume)}")


def bar_text(bar: Candle, columns: Columns, *, ascii_only: bool = False) -> Text:
    """Open time, market, timeframe, picture, close, volume, and what kind of bar it is."""
    time = figures.utc(bar.open_ms, digits="seconds" if bar.open_ms % 60_000 else "minutes")
    text = Text(f"{columns.left('time', time)}  {columns.left('market', bar.market)}  {bar.timeframe}  ")
    text.append(picture(bar, ascii_only=ascii_only), style=direction(bar))
    text.append(f"  {columns.right('close', figures.exact(bar.close))}", style=direction(bar))
    return text.append(f"  {columns.right('volume', figures.exact(bar.volume))}  {_kind(bar)}")


def gap_text(gap: Gap) -> Text:
    """That something may be missing, or how that ended."""
    if gap.is_open:
        return Text(f"gap  {gap.market}  since {_time(gap.start_ms)}: {gap.cause}", style="yellow")
    lasted = f"{(gap.end_ms - gap.start_ms) / 1000:.1f} s, {gap.cause}"
    ended = "mended" if gap.repaired else "not mended"
    return Text(f"gap  {gap.market}  {lasted}; {ended}: {gap.proof}", style="cyan" if gap.repaired else "red")


def direction(bar: Candle) -> str:
    """The colour of a bar."""
    return "green" if bar.close > bar.open else "red" if bar.close < bar.open else ""


def _kind(bar: Candle) -> str:
    if bar.state is CandleState.RUNNING:
        return "running"
    return f"amended {bar.revision}" if bar.revision else "final"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).time().isoformat("milliseconds")
