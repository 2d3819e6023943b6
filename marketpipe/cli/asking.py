"""The commands that ask one thing: ticker, orderbook, trades, candles, markets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from marketpipe.cli import checks
from marketpipe.cli.options import Target, asking
from marketpipe.cli.session import Answer, answer
from marketpipe.client import BOOK_DEPTH, Client
from marketpipe.core.timeframes import Timeframe

__all__ = ["candles", "markets", "orderbook", "ticker", "trades"]


@click.command()
@click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True, callback=checks.split)
@asking
def ticker(target: Target, symbols: tuple[str, ...]) -> None:
    """The current price of one market or many, with what happened since 00:00 UTC.

    \b
    marketpipe ticker KRW-BTC KRW-ETH BTC-ETH
    marketpipe ticker --sim KRW-BTC,KRW-ETH --json | jq .price
    """

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import ticker_table

        batch = await market.get_ticker(symbols)
        return Answer(tuple(batch.values()), lambda now_ms: ticker_table(batch.values(), now_ms), batch.failed)

    answer(target, question)


@click.command()
@click.argument("symbol")
@click.option("--depth", type=click.IntRange(1, BOOK_DEPTH), default=10, show_default=True, help="Levels on each side.")
@asking
def orderbook(target: Target, symbol: str, depth: int) -> None:
    """The order book of one market, best levels in the middle.

    \b
    marketpipe orderbook KRW-BTC --depth 5
    marketpipe orderbook --sim KRW-BTC --json | jq '.bids[0]'
    """

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import orderbook_table

        book = await market.get_orderbook(symbol, depth=depth)
        return Answer((book,), lambda now_ms: orderbook_table(book, now_ms))

    answer(target, question)


@click.command()
@click.argument("symbol")
@click.option("--count", type=click.IntRange(1), default=20, show_default=True,
              help="How many; any number, page by page.")  # fmt: skip
@asking
def trades(target: Target, symbol: str, count: int) -> None:
    """The newest trades of one market, newest first.

    \b
    marketpipe trades KRW-BTC --count 50
    marketpipe trades --sim KRW-BTC --count 2000 --json | jq -s 'map(.volume) | add'
    """

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import trade_table

        newest = await market.get_trade(symbol, count=count)
        return Answer(newest, lambda now_ms: trade_table(newest, now_ms), nothing="no trade is kept")

    answer(target, question)


@click.command()
@click.argument("symbol")
@click.option("--timeframe", default="1m", show_default=True, callback=checks.a_timeframe,
              help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y")  # fmt: skip
@click.option("--count", type=click.IntRange(1),
              help="How many bars; any number, page by page.  [default: 200, without a range]")  # fmt: skip
@click.option("--start", metavar="TIME", callback=checks.a_moment,
              help="The first bar opens here: 2026-11-01T09:00+09:00, or epoch ms.")  # fmt: skip
@click.option("--end", metavar="TIME", callback=checks.a_moment, help="The last bar opens before this.")
@click.option("--closed-only", is_flag=True, help="Leave out the bar that is still running.")
@click.option("--fill", type=click.Choice(["none", "forward"]), default="none", show_default=True,
              help="forward: a flat bar where nobody traded.")  # fmt: skip
@asking
def candles(
    target: Target,
    symbol: str,
    timeframe: Timeframe,
    count: int | None,
    start: datetime | int | None,
    end: datetime | int | None,
    **options: Any,
) -> None:
    """Candles of one market, oldest first. --start, --end and --count: at most two of them.

    \b
    marketpipe candles KRW-BTC --timeframe 1d --count 30
    marketpipe candles --sim KRW-BTC --timeframe 1m --start 2026-09-01T00:00Z --count 1000 --json > bars.jsonl
    """

    checks.a_range(count, start, end)

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import candle_table

        series = await market.get_candle(symbol, timeframe, count=count, start=start, end=end, **options)
        return Answer(series, lambda now_ms: candle_table(series, now_ms), nothing="no bar there")

    answer(target, question)


@click.command()
@click.option("--quote", metavar="CURRENCY", help="Only markets with prices in this: KRW, BTC or USDT.")
@asking
def markets(target: Target, quote: str | None) -> None:
    """What is listed.

    \b
    marketpipe markets --quote KRW
    marketpipe markets --sim --json | jq -r 'select(.warning) | .market'
    """

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import market_table

        listed = await market.get_market(quote=quote)
        return Answer(tuple(listed.values()), lambda now_ms: market_table(listed.values(), now_ms))

    answer(target, question)
