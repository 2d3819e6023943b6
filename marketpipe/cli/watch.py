"""``marketpipe watch``: live streams, for people as a table that moves, for programs as JSON lines.

What is shown comes over the library's own streams and survives what they survive: a connection that is lost is seen,
and what was missed is told.
"""

from __future__ import annotations

import math

import click

from marketpipe.cli import checks
from marketpipe.cli.complaints import complain_of_each
from marketpipe.cli.options import Target, asking, telling
from marketpipe.cli.patience import patience
from marketpipe.cli.running import run
from marketpipe.cli.session import open_market
from marketpipe.cli.views import Watched, as_board, as_json, as_lines
from marketpipe.cli.waiting import waiting_for
from marketpipe.core.timeframes import Timeframe

__all__ = ["watch"]


def _a_timeframe(ctx: click.Context, param: click.Parameter, value: str | None) -> Timeframe | None:
    return None if value is None else checks.a_timeframe(ctx, param, value)


def _seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float:
    if value is not None and not value > 0:
        raise click.UsageError(f"{param.opts[0]} must be more than 0 s, was {value:g}", ctx)
    return math.inf if value is None else value


@click.command()
@click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True, callback=checks.split)
@click.option("--trades", is_flag=True, help="Every trade, instead of the table.")
@click.option("--candles", "timeframe", metavar="TIMEFRAME", callback=_a_timeframe,
              help="Bars, instead of the table: 1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y")  # fmt: skip
@click.option("--for", "for_s", metavar="SECONDS", type=float, callback=_seconds,
              help="Leave after so many seconds.  [default: at Ctrl-C]")  # fmt: skip
@click.option("--count", type=click.IntRange(1), help="Leave after so many events.")
@asking
@telling
def watch(
    target: Target,
    symbols: tuple[str, ...],
    trades: bool,
    timeframe: Timeframe | None,
    for_s: float,
    count: int | None,
) -> None:
    """Markets live, until Ctrl-C: the price, the spread and the last bar of each; or every trade; or bars.

    A connection that is lost is shown, and what was missed is told. In JSON, each line is an event: "ticker", "trade"
    or "candle"; or "gap", when something may be missing, and again when that has been mended, or cannot be.

    \b
    marketpipe watch KRW-BTC KRW-ETH BTC-ETH
    marketpipe watch --sim KRW-BTC --trades --count 20 --json | jq -c '[.event, .price, .volume]'
    """
    if trades and timeframe is not None:
        raise click.UsageError("give one of --trades, --candles, not 2")

    async def command() -> int:
        async with open_market(target) as market:
            async with patience(lambda: waiting_for(market.status())):
                listed = await market.get_market(symbols)
            complain_of_each(listed.failed)
            if listed:
                watched = Watched(
                    names=tuple(listed), trades=trades, timeframe=timeframe, for_s=for_s, count=count or math.inf
                )
                is_board = not trades and timeframe is None
                await (as_json if target.as_json else as_board if is_board else as_lines)(market, watched)
        return 1 if listed.failed else 0

    run(command)
