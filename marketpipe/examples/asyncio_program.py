"""The same verbs in a program that runs on asyncio: the pipe lives in a thread of its own, its answers are futures.

::

    python -m marketpipe.examples.asyncio_program [--sim] [--values 3] [SYMBOL ...]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial

import marketpipe as mp
from marketpipe.examples.exchange import add_options, open_exchange, run_example, run_on_asyncio

__all__ = ["main"]


async def ask(market: mp.BlockingClient, symbols: list[str]) -> None:
    """Ask one by one, at once: the pipe makes one request of it."""
    questions = [asyncio.wrap_future(market.submit.get_ticker(symbol)) for symbol in symbols]
    for ticker in await asyncio.gather(*questions):
        print(f"{ticker.market} {ticker.price.normalize():,f}")


async def listen(market: mp.BlockingClient, symbols: list[str], values: int) -> None:
    """Streams are blocking iterators: one is read in a thread of asyncio's, the loop goes on meanwhile."""
    with await asyncio.to_thread(market.stream_trade, symbols) as trades:
        for _ in range(values):
            event = await asyncio.to_thread(trades.receive, 60)
            if isinstance(event, mp.Gap):
                print(f"{event.market}: a hole in the stream, {event.cause}")
            else:
                print(f"{event.market} {event.side} {event.volume.normalize():f} at {event.price.normalize():,f}")


async def give_up(market: mp.BlockingClient, symbol: str) -> None:
    """A deadline is asyncio's; cancelling the future gives the question up, and disturbs nobody else."""
    try:
        async with asyncio.timeout(0.5):
            book = await asyncio.wrap_future(market.submit.get_orderbook(symbol))
            print(f"{symbol} spread {book.spread}")
    except TimeoutError:
        print(f"{symbol}: no order book in time")


async def _run(words: argparse.Namespace) -> None:
    # Opening and closing wait for the thread: not in the loop. To Upbit alone, it would be `mp.connect()`.
    market = await asyncio.to_thread(mp.BlockingClient, partial(open_exchange, words))
    try:
        await ask(market, words.symbols)
        await asyncio.gather(listen(market, words.symbols, words.values), give_up(market, words.symbols[0]))
    finally:
        await asyncio.to_thread(market.close)


def main(args: Sequence[str] | None = None) -> None:
    """The command line; see above."""
    parser = add_options(argparse.ArgumentParser(prog="python -m marketpipe.examples.asyncio_program"))
    parser.add_argument("symbols", nargs="*", default=["KRW-BTC", "KRW-ETH", "KRW-XRP"])
    parser.add_argument("--values", type=int, default=3, help="how many trades to listen to")
    run_example(_run, parser.parse_args(args), run=run_on_asyncio)


if __name__ == "__main__":
    main()
