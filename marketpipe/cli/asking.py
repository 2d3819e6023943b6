"""The commands that ask one thing: ticker, orderbook, trades, markets."""

from __future__ import annotations

import click

from marketpipe.cli import checks
from marketpipe.cli.options import Target, asking
from marketpipe.cli.session import Answer, answer
from marketpipe.client import BOOK_DEPTH, Client

__all__ = ["markets", "orderbook", "ticker", "trades"]


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
