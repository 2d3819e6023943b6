"""Every market of a currency, sorted by what was traded in 24 hours: one question, one or two requests.

::

    python -m marketpipe.examples.screener [--sim] [--quote KRW] [--top 10]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import attrs

import marketpipe as mp
from marketpipe.examples.exchange import add_options, open_exchange, run_example

__all__ = ["Row", "main", "ranked"]


@attrs.frozen
class Row:
    """A line of the table: what is listed, and how it stands."""

    market: mp.Market
    ticker: mp.Ticker

    def __str__(self) -> str:
        mark = "!" if self.market.warning or self.market.cautions else " "
        ticker = self.ticker
        return (
            f"{ticker.market:<12}{mark}{ticker.price.normalize():>20,f}{ticker.signed_change_rate:>+10.2%}"
            f"{ticker.quote_volume_24h:>24,.0f}  {self.market.english_name}"
        )


def ranked(listed: Mapping[str, mp.Market], tickers: Mapping[str, mp.Ticker], top: int) -> list[Row]:
    """The ``top`` markets by turnover, the greatest first; a market without a ticker is left out."""
    rows = [Row(listed[name], ticker) for name, ticker in tickers.items()]
    return sorted(rows, key=lambda row: row.ticker.quote_volume_24h, reverse=True)[:top]


async def _run(words: argparse.Namespace) -> None:
    async with open_exchange(words) as market:
        listed = await market.get_market(quote=words.quote)
        tickers = await market.get_ticker(listed)
        for row in ranked(listed, tickers, words.top):
            print(row)
        for name, error in tickers.failed.items():
            print(f"{name:<12} no price: {error}")
        rising = sum(ticker.change is mp.Change.RISE for ticker in tickers.values())
        print(f"{rising} of {len(tickers)} rise; {tickers.symbols_per_second:,.0f} symbols/s")


def main(args: Sequence[str] | None = None) -> None:
    """The command line; see above."""
    parser = add_options(argparse.ArgumentParser(prog="python -m marketpipe.examples.screener"))
    parser.add_argument("--quote", default="KRW")
    parser.add_argument("--top", type=int, default=10)
    run_example(_run, parser.parse_args(args))


if __name__ == "__main__":
    main()
