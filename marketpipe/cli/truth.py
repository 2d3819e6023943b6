"""What the simulator's market really was, held against what came out of the pipe.

Each function returns one line for every value that differs; none is as it should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from marketpipe.models import Candle, CandleSeries, CandleState, Market, Orderbook, Side, Source, Ticker, Trade
from marketpipe.sim import World

__all__ = ["wrong_book", "wrong_candles", "wrong_markets", "wrong_streams", "wrong_tickers", "wrong_trades"]

DAY_MS = 86_400_000


def wrong_markets(world: World, listed: Iterable[Market], now_ms: int) -> list[str]:
    """The list must be complete, and nothing on it invented."""
    missing = set(world.listed(now_ms)) ^ {market.market for market in listed}
    return [f"{code}: listed on one side only" for code in sorted(missing)]


def wrong_tickers(world: World, tickers: Iterable[Ticker], asked_ms: int) -> list[str]:
    """A ticker must be what the market was at its last trade, and that trade the last before we asked, or later."""
    return [line for ticker in tickers for line in _wrong_ticker(world, ticker, asked_ms)]


def wrong_book(world: World, book: Orderbook) -> list[str]:
    """Every level of a book must be what it was when it last changed; padding is no level."""
    truth = world.orderbook(book.market, book.exchange_ms)
    sides = {"bids": (book.bids, truth.bids), "asks": (book.asks, truth.asks)}
    return [
        f"{book.market}: {name} differ"
        for name, (levels, true) in sides.items()
        if [(level.price, level.size) for level in levels] != [(_e8(price), _e8(size)) for price, size in true if size]
    ]


def wrong_trades(world: World, trades: Sequence[Trade], now_ms: int) -> list[str]:
    """The newest trades, newest first, without a gap or a double."""
    if not trades:
        return ["no trade came"]
    newest, oldest = trades[0], trades[-1]
    true = world.newest_trades(
        newest.market, oldest.trade_ms, newest.trade_ms + 1, now_ms, len(trades), newest.sequential_id + 1
    )
    ours = [(trade.sequential_id, trade.price, trade.volume, trade.side is Side.BUY) for trade in trades]
    theirs = [(deal.sequential_id, _e8(deal.price), _e8(deal.volume), deal.buy) for deal in true]
    return [] if ours == theirs else [f"{newest.market}: the trades differ"]


def wrong_streams(world: World, trades: Iterable[Trade], now_ms: int) -> list[str]:
    """Of each market every trade from its oldest to its newest, once.

    In which order streams tell trades of the same moment is the exchange's doing; those of a gap are in order.
    """
    markets: dict[str, list[Trade]] = {}
    for trade in trades:
        markets.setdefault(trade.market, []).append(trade)
    if not markets:
        return ["no trade came"]
    return [line for told in markets.values() for line in _wrong_stream(world, told, now_ms)]


def wrong_candles(world: World, series: CandleSeries, now_ms: int) -> list[str]:
    """Every closed bar between the first and the last; the running one has moved on since."""
    true = world.candles(series.market, series.timeframe, series[0].open_ms, series[-1].open_ms, now_ms)
    ours = [candle for candle in series[:-1] if candle.state is CandleState.FINAL]
    theirs = {bar.open_ms: tuple(map(_e8, (bar.opening, bar.high, bar.low, bar.close, bar.volume))) for bar in true}
    differing = [candle for candle in ours if theirs.get(candle.open_ms) != _prices(candle)]
    missing = len(theirs) - len(ours)
    return [f"{series.market}: the bar of {candle.open_time} differs" for candle in differing] + (
        [f"{series.market}: {missing} bars more or less than the market had"] if missing else []
    )


def _wrong_stream(world: World, told: list[Trade], now_ms: int) -> Iterator[str]:
    newest_first = sorted(told, key=lambda trade: trade.sequential_id, reverse=True)
    yield from wrong_trades(world, newest_first, now_ms)
    fetched = [trade.sequential_id for trade in told if trade.source is Source.REST]
    if fetched != sorted(fetched):
        yield f"{told[0].market}: the trades of the gap are not in order"


def _wrong_ticker(world: World, ticker: Ticker, asked_ms: int) -> Iterator[str]:
    # A market that has not traded today is summed up as of 00:00 UTC.
    midnight_ms = ticker.received_ms - ticker.received_ms % DAY_MS
    true = world.ticker(ticker.market, max(ticker.trade_ms, midnight_ms))
    if ticker.trade_ms < world.ticker(ticker.market, asked_ms).last.at_ms:
        yield f"{ticker.market}: older than the question"
    pairs = {
        "price": (ticker.price, true.last.price),
        "open": (ticker.open, true.opening),
        "high": (ticker.high, true.high),
        "low": (ticker.low, true.low),
        "prev_close": (ticker.prev_close, true.previous_close),
        "volume": (ticker.volume, true.volume),
        "volume_24h": (ticker.volume_24h, true.volume_24h),
    }
    for name, (ours, theirs) in pairs.items():
        if ours != _e8(theirs):
            yield f"{ticker.market}: {name} is {ours}, the market's is {_e8(theirs)}"


def _prices(candle: Candle) -> tuple[Decimal, ...]:
    return (candle.open, candle.high, candle.low, candle.close, candle.volume)


def _e8(value: int) -> Decimal:
    return Decimal(value).scaleb(-8)
