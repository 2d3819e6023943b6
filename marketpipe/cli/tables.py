"""Answers as tables for people: numbers to the right, colours for direction, age and source beside each value.

Codes, prices and times are whole at any width; of the rest, the least important goes first, see `sheet`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.text import Text

from marketpipe.cli import figures
from marketpipe.cli.sheet import Column, Sheet
from marketpipe.models import Candle, CandleSeries, CandleState, Change, Market, Orderbook, Side, Ticker, Trade

__all__ = ["candle_table", "market_table", "orderbook_table", "ticker_table", "trade_table"]

# Colours of direction, as most of the world reads them (in Korea red means up).
_DIRECTION = {Change.RISE: "green", Change.FALL: "red", Change.EVEN: "default"}
_SIDE = {Side.BUY: "green", Side.SELL: "red"}

# Longer names take a second line.
NAME_WIDTH = 24


def ticker_table(tickers: Iterable[Ticker], now_ms: int) -> Sheet:
    """One line a market."""
    table = _sheet(
        "market", ">price", ">change/1", ">high/2", ">low/3", ">value 24 h/4", ">traded/5", ">age/6", "source/7"
    )
    for ticker in tickers:
        table.add(
            ticker.market,
            figures.exact(ticker.price),
            Text(figures.percent(ticker.signed_change_rate), style=_DIRECTION[ticker.change]),
            figures.exact(ticker.high),
            figures.exact(ticker.low),
            figures.amount(ticker.quote_volume_24h),
            figures.age(now_ms - ticker.trade_ms) + " ago",
            *_origin(ticker, now_ms),
        )
    return table


def orderbook_table(book: Orderbook, now_ms: int) -> Sheet:
    """Asks above bids, best levels in the middle, as trading screens show it."""
    table = _sheet(">bid size", ">price", ">ask size", title=_title(book.market, book, now_ms))
    for level in reversed(book.asks):
        table.add("", Text(figures.exact(level.price), style="red"), figures.exact(level.size))
    spread = "" if book.spread is None else f"spread {figures.exact(book.spread)}"
    table.add("", Text(spread, style="dim"), "")
    for level in book.bids:
        table.add(figures.exact(level.size), Text(figures.exact(level.price), style="green"), "")
    return table


def trade_table(trades: Sequence[Trade], now_ms: int) -> Sheet:
    """Newest first."""
    title = _title(trades[0].market, trades[0], now_ms) if trades else "no trade is kept"
    table = _sheet("time (UTC)", "side/1", ">price", ">volume/2", ">sequential id/3", title=title)
    for trade in trades:
        time = figures.utc(trade.trade_ms, digits="milliseconds")
        side = Text(trade.side, style=_SIDE[trade.side])
        price, volume = figures.exact(trade.price), figures.exact(trade.volume)
        table.add(time, side, price, volume, str(trade.sequential_id))
    return table


def candle_table(series: CandleSeries, now_ms: int, nothing: str = "no bar there") -> Sheet:
    """Oldest first; a running bar is marked, a filled one is dim. ``nothing``: what it means if there is none."""
    title = f"{series.market} {series.timeframe}"
    title = _title(title, series[-1], now_ms) if series else f"{title}: {nothing}"
    table = _sheet("open time (UTC)", ">open/3", ">high/2", ">low/2", ">close", ">volume/5", "state/4", title=title)
    for candle in series:
        table.add(*_candle_row(candle), dim=candle.filled)
    return table


def market_table(markets: Iterable[Market], now_ms: int) -> Sheet:
    """One line a market, by code."""
    table = _sheet("market", "Korean name/3", "English name/1", "warning/2", "cautions/4")
    for market in markets:
        warning = Text("warning", style="red") if market.warning else ""
        table.add(market.market, market.korean_name, market.english_name, warning, ", ".join(sorted(market.cautions)))
    return table


def _candle_row(candle: Candle) -> tuple[str | Text, ...]:
    digits = "seconds" if candle.open_ms % 60_000 else "minutes"
    close = Text(figures.exact(candle.close), style="green" if candle.close >= candle.open else "red")
    state = "filled" if candle.filled else "running" if candle.state is CandleState.RUNNING else ""
    return (
        figures.utc(candle.open_ms, digits=digits),
        *(figures.exact(price) for price in (candle.open, candle.high, candle.low)),
        close,
        figures.exact(candle.volume),
        state,
    )


def _sheet(*columns: str, title: str | None = None) -> Sheet:
    return Sheet([_column(*column.partition("/")[::2]) for column in columns], title)


def _column(name: str, rank: str) -> Column:
    title = name.removeprefix(">")
    justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
    return Column(title, justify, int(rank or 0), NAME_WIDTH if title.endswith(" name") else None)


def _title(name: str, value: Orderbook | Trade | Candle, now_ms: int) -> str:
    age, source = _origin(value, now_ms)
    return f"{name}   {age} old, from {source}"


def _origin(value: Ticker | Orderbook | Trade | Candle, now_ms: int) -> tuple[str, str]:
    return figures.age(value.age_ms(now_ms)), value.source.value
