"""A rule over the past: collect bars into the database once, then read them as often as you like.

Buys ``--fall`` percent below the highest close of the last ``--look`` bars, and sells when half of that has come back.

::

    python -m marketpipe.examples.backtest [--sim] [SYMBOL] [--timeframe 1h] [--days 30] [--look 24] [--fall 3]
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import attrs

import marketpipe as mp
from marketpipe.examples.exchange import add_options, open_exchange, run_example

__all__ = ["Backtest", "main"]


@attrs.define
class Backtest:
    """Follows closed bars, oldest first. ``gain``: what one unit of money has become, fees left out."""

    fall: Decimal
    look: int
    gain: Decimal = Decimal(1)
    trades: int = 0
    _entry: Decimal | None = None
    _target: Decimal = Decimal(0)
    _closes: deque[Decimal] = attrs.field(factory=deque, init=False)

    def follow(self, bar: mp.Candle) -> None:
        """Decide at the close of ``bar``."""
        self._closes.append(bar.close)
        if len(self._closes) > self.look:
            self._closes.popleft()
        high = max(self._closes)
        if self._entry is None and bar.close <= high * (1 - self.fall):
            self._entry, self._target = bar.close, (bar.close + high) / 2
        elif self._entry is not None and bar.close >= self._target:
            self.gain *= bar.close / self._entry
            self.trades += 1
            self._entry = None


async def _run(words: argparse.Namespace) -> None:
    async with open_exchange(words) as market:
        newest = (await market.get_candle(words.symbol, words.timeframe, count=1, closed_only=True))[-1]
        start = newest.open_time - timedelta(days=words.days)
        report = await (await market.start_backfill(words.symbol, words.timeframe, start=start)).wait()
        print(f"{report.bars:,} bars were new, in {report.pages} requests")
        test, bars = Backtest(Decimal(words.fall) / 100, words.look), 0
        pages = market.iterate_candle(words.symbol, words.timeframe, start=start, stored_only=True)
        async for page in pages:
            for bar in page:
                test.follow(bar)
            bars += len(page)
        print(f"{bars:,} bars, {test.trades} trades, {test.gain - 1:+.2%}")


def main(args: Sequence[str] | None = None) -> None:
    """The command line; see above."""
    parser = add_options(argparse.ArgumentParser(prog="python -m marketpipe.examples.backtest"))
    parser.add_argument("symbol", nargs="?", default="KRW-BTC")
    parser.add_argument("--timeframe", default="1h")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--look", type=int, default=24)
    parser.add_argument("--fall", default="3", metavar="PERCENT")
    run_example(_run, parser.parse_args(args))


if __name__ == "__main__":
    main()
