"""Answers as tables for people: numbers to the right, colours for direction, age and source beside each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from marketpipe.cli import figures
from marketpipe.models import Candle, CandleSeries, CandleState, Change, Market, Orderbook, Side, Ticker, Trade

__all__ = ["candle_table", "market_table", "orderbook_table", "ticker_table", "trade_table"]

# Colours of direction, as most of the world reads them (in Korea red means up).
_DIRECTION = {Change.RISE: "green", Change.FALL: "red", Change.EVEN: "default"}
_SIDE = {Side.BUY: "green", Side.SELL: "red"}


def ticker_table(tickers: Iterable[Ticker], now_ms: int) -> Table:
    """One line a market."""
    table = _table("market", ">price", ">change", ">high", ">low", ">value 24 h", ">traded", ">age", "source")
    for ticker in tickers:
        table.add_row(
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


def orderbook_table(book: Orderbook, now_ms: int) -> Table:
    """Asks above bids, best levels in the middle, as trading screens show it."""
    table = _table(">bid size", ">price", ">ask size", title=_title(book.market, book, now_ms))
    for level in reversed(book.asks):
        table.add_row("", Text(figures.exact(level.price), style="red"), figures.exact(level.size))
    spread = "" if book.spread is None else f"spread {figures.exact(book.spread)}"
    table.add_row("", Text(spread, style="dim"), "")
    for level in book.bids:
        table.add_row(figures.exact(level.size), Text(figures.exact(level.price), style="green"), "")
    return table


def trade_table(trades: Sequence[Trade], now_ms: int) -> Table:
    """Newest first."""
    title = _title(trades[0].market, trades[0], now_ms) if trades else "no trade is kept"
    table = _table("time (UTC)", "side", ">price", ">volume", ">sequential id", title=title)
    for trade in trades:
        time = figures.utc(trade.trade_ms, digits="milliseconds")
        side = Text(trade.side, style=_SIDE[trade.side])
        price, volume = figures.exact(trade.price), figures.exact(trade.volume)
        table.add_row(time, side, price, volume, str(trade.sequential_id))
    return table


def candle_table(series: CandleSeries, now_ms: int) -> Table:
    """Oldest first; a running bar is marked, a filled one is dim."""
    title = f"{series.market} {series.timeframe}"
    title = _title(title, series[-1], now_ms) if series else f"{title}: no bar there"
    table = _table("open time (UTC)", ">open", ">high", ">low", ">close", ">volume", "state", title=title)
    for candle in series:
        table.add_row(*_candle_row(candle), style="dim" if candle.filled else None)
    return table


def market_table(markets: Iterable[Market], now_ms: int) -> Table:
    """One line a market, by code."""
    table = _table("market", "Korean name", "English name", "warning", "cautions")
    for market in markets:
        warning = Text("warning", style="red") if market.warning else ""
        table.add_row(
            market.market, market.korean_name, market.english_name, warning, ", ".join(sorted(market.cautions))
        )
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


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False, collapse_padding=True
    )
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table


def _title(name: str, value: Orderbook | Trade | Candle, now_ms: int) -> str:
    age, source = _origin(value, now_ms)
    return f"{name}   {age} old, from {source}"


def _origin(value: Ticker | Orderbook | Trade | Candle, now_ms: int) -> tuple[str, str]:
    return figures.age(value.age_ms(now_ms)), value.source.value
