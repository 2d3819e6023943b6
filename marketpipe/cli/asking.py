"""The commands that ask one thing: ticker, orderbook, trades, candles, markets."""

from __future__ import annotations

from typing import Any

import click

from marketpipe.cli.moments import moment
from marketpipe.cli.options import Target, asking
from marketpipe.cli.session import Answer, answer
from marketpipe.client import Client

__all__ = ["candles", "markets", "orderbook", "ticker", "trades"]


@click.command()
@click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True)
@asking
def ticker(target: Target, symbols: tuple[str, ...]) -> None:
    """The current price of one market or many, with what happened since 00:00 UTC.

    \b
    marketpipe ticker KRW-BTC KRW-ETH BTC-ETH
    marketpipe ticker --sim KRW-BTC --json | jq .price
    """

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import ticker_table

        batch = await market.get_ticker(symbols)
        return Answer(tuple(batch.values()), lambda now_ms: ticker_table(batch.values(), now_ms), batch.failed)

    answer(target, question)


@click.command()
@click.argument("symbol")
@click.option("--depth", type=int, default=10, show_default=True, help="Levels on each side, 1 to 30.")
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
@click.option("--count", type=int, default=20, show_default=True, help="How many; any number, page by page.")
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
        return Answer(newest, lambda now_ms: trade_table(newest, now_ms))

    answer(target, question)


@click.command()
@click.argument("symbol")
@click.option("--timeframe", default="1m", show_default=True, help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y")
@click.option("--count", type=int, help="How many bars; any number, page by page.  [default: 200, without a range]")
@click.option("--start", metavar="TIME", help="The first bar opens here: 2026-11-01T09:00+09:00, or epoch ms.")
@click.option("--end", metavar="TIME", help="The last bar opens before this.")
@click.option("--closed-only", is_flag=True, help="Leave out the bar that is still running.")
@click.option("--fill", type=click.Choice(["none", "forward"]), default="none", show_default=True,
              help="forward: a flat bar where nobody traded.")  # fmt: skip
@asking
def candles(target: Target, symbol: str, timeframe: str, start: str | None, end: str | None, **options: Any) -> None:
    """Candles of one market, oldest first. --start, --end and --count: at most two of them.

    \b
    marketpipe candles KRW-BTC --timeframe 1d --count 30
    marketpipe candles --sim KRW-BTC --timeframe 1m --start 2026-09-01T00:00Z --count 1000 --json > bars.jsonl
    """

    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import candle_table

        first, last = moment("--start", start), moment("--end", end)
        series = await market.get_candle(symbol, timeframe, start=first, end=last, **options)
        return Answer(series, lambda now_ms: candle_table(series, now_ms))

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
