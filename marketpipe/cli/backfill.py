"""``marketpipe backfill``: years of candles into the database, as fast as the exchange allows, and never twice."""

from __future__ import annotations

import click

from marketpipe import Report
from marketpipe.cli import checks, figures
from marketpipe.cli.complaints import complain_of_each
from marketpipe.cli.following import Kept, complain_of_missing, follow, telling_what_is_kept
from marketpipe.cli.options import Target, collecting, telling
from marketpipe.cli.patience import patience
from marketpipe.cli.running import run
from marketpipe.cli.session import open_market
from marketpipe.cli.stretch import Stretch, refuse_what_is_to_come, stretching
from marketpipe.cli.waiting import waiting_for
from marketpipe.client import Client
from marketpipe.models import Batch, Market

__all__ = ["backfill"]


@click.command()
@click.argument("symbols", metavar="[SYMBOL...]", nargs=-1, callback=checks.split_or_none)
@click.option("--quote", metavar="CURRENCY", help="Every market with prices in this: KRW, BTC or USDT.")
@stretching
@click.option("--json", "as_json", is_flag=True, help="JSON lines: how far it is, and a report at the end.")
@collecting
@telling
def backfill(target: Target, symbols: tuple[str, ...], quote: str | None, stretch: Stretch, as_json: bool) -> None:
    """Collect candles into the database; what is there already is not asked for again.

    However it ends, the same command goes on where it was. It waits out whatever passes: an exchange that is down, a
    refusal, a full disk. In a pipe it tells every few seconds how far it is; with --json, in JSON lines.

    \b
    marketpipe backfill KRW-BTC KRW-ETH --timeframe 1m --timeframe 1h --start 2026-01-01
    marketpipe backfill --quote KRW --timeframe 1d --start 5y
    """
    if bool(symbols) == bool(quote):
        raise click.UsageError("give symbols, or --quote for all that are quoted in a currency")

    async def command() -> int:
        refuse_what_is_to_come(stretch)
        with telling_what_is_kept() as kept:
            return await collect(kept)

    async def collect(kept: Kept) -> int:
        async with open_market(target) as market:
            async with patience(lambda: waiting_for(market.status())):
                listed = await _listed(market, symbols, quote)
            complain_of_each(listed.failed)
            if not listed:
                return 1
            job = await market.start_backfill(listed, stretch.timeframes, start=stretch.start_ms, end=stretch.end_ms)
            kept.market = market
            report = await follow(job, target, as_json=as_json)
            if not as_json:
                click.echo(_in_words(report, market))
            complain_of_missing(report)
        return 1 if listed.failed or report.failed else 0

    run(command)


async def _listed(market: Client, symbols: tuple[str, ...], quote: str | None) -> Batch[Market]:
    return await market.get_market(quote=quote) if quote else await market.get_market(symbols)


def _in_words(report: Report, market: Client) -> str:
    store = market.status().store
    assert store is not None
    where = "in memory, and gone now" if store.path == ":memory:" else f"in {store.path}"
    if not any(part.slots for part in report.parts):
        return f"nothing was missing: all of it is {where}"
    cost = f"{figures.counted(report.pages, 'request')}, {figures.duration(report.elapsed_s)}"
    return f"{figures.counted(report.bars, 'bar')} collected ({cost}), {where}"
