"""``marketpipe candles``: bars as a table, as JSON lines, or as a picture with what is not known of them marked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import attrs
import click
import trio

from marketpipe.cli import checks, figures
from marketpipe.cli.chart import SUFFIXES, Colors, check_suffix, draw
from marketpipe.cli.complaints import complain, say
from marketpipe.cli.gone import FLEETING, cannot_be_known, gone
from marketpipe.cli.moments import WRITTEN
from marketpipe.cli.options import Target, asking
from marketpipe.cli.patience import patience
from marketpipe.cli.running import run
from marketpipe.cli.session import Answer, answer, open_market
from marketpipe.cli.stretch import TIMEFRAMES, Stretch
from marketpipe.cli.waiting import waiting_for
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.core import timeframes
from marketpipe.core.ranges import bar_range
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeError
from marketpipe.models import CandleSeries

__all__ = ["candles"]

Span = tuple[int, int]


@attrs.frozen(kw_only=True)
class _Asked:
    """What the words on the command line mean. ``stretch``: the time meant, if a start was given."""

    symbol: str
    timeframe: Timeframe
    count: int | None
    start: datetime | int | None
    end: datetime | int | None
    closed_only: bool
    fill: Literal["none", "forward"]
    stored_only: bool

    @property
    def stretch(self) -> Stretch | None:
        asked = bar_range(self.count, self.start, self.end)
        if asked.start_ms is None or asked.count is not None:
            return None
        return Stretch((self.timeframe,), asked.start_ms, asked.end_ms)


@attrs.frozen
class _Known:
    """``unknown``: spans of which nobody knows whether there was a bar. ``error``: why, if that was asked.

    ``gone``: those of which nobody can know.
    """

    series: CandleSeries
    unknown: Sequence[Span] = ()
    gone: SpanSet = attrs.field(factory=SpanSet)
    error: ExchangeError | None = None


@attrs.frozen(kw_only=True)
class _Picture:
    path: Path
    zone: tzinfo
    colors: Colors


def _a_chart(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        try:
            check_suffix(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None
    return value


@click.command()
@click.argument("symbol")
@click.option("--timeframe", default="1m", show_default=True, callback=checks.a_timeframe, help=TIMEFRAMES)
@click.option("--count", type=click.IntRange(1),
              help="How many bars; any number, page by page.  [default: 200, without a range]")  # fmt: skip
@click.option("--start", metavar="TIME", callback=checks.a_moment, help=f"The first bar opens here: {WRITTEN}.")
@click.option("--end", metavar="TIME", callback=checks.a_moment, help="The last bar opens before this.")
@click.option("--closed-only", is_flag=True, help="Leave out the bar that is still running.")
@click.option("--fill", type=click.Choice(["none", "forward"]), default="none", show_default=True,
              help="forward: a flat bar where nobody traded.")  # fmt: skip
@click.option("--stored-only", is_flag=True, help="Ask the exchange for nothing; needs --start.")
@click.option("--plot", "path", type=click.Path(path_type=Path), metavar="FILE", callback=_a_chart,
              help=f"Draw them: {' or '.join(f'*{suffix}' for suffix in SUFFIXES)}.")  # fmt: skip
@click.option("--zone", default="UTC", show_default=True, callback=checks.a_zone,
              help="Whose clock is on the picture, such as Asia/Seoul.")  # fmt: skip
@click.option("--colors", type=click.Choice([each.value for each in Colors]), default=Colors.KOREAN.value,
              show_default=True, help="korean: red is up; western: green is.")  # fmt: skip
@asking
def candles(target: Target, path: Path | None, zone: tzinfo, colors: str, **words: Any) -> None:
    """Candles of one market, oldest first. --start, --end and --count: at most two of them.

    With --plot as a picture, where time that nobody knows anything of is shaded: with --stored-only what was never
    asked for, otherwise what the exchange did not tell.

    \b
    marketpipe candles KRW-BTC --timeframe 1d --count 30
    marketpipe candles KRW-BTC --timeframe 5m --start 2d --plot btc.png --zone Asia/Seoul
    """

    asked = _Asked(**words)
    checks.a_range(asked.count, asked.start, asked.end)
    if asked.stored_only and (asked.stretch is None or asked.fill != "none"):
        raise click.UsageError("--stored-only needs --start, without --count or --fill")
    if path is None:
        _print(target, asked)
    _plot(target, asked, _Picture(path=path, zone=zone, colors=Colors(colors)))


def _print(target: Target, asked: _Asked) -> NoReturn:
    async def question(market: Client) -> Answer:
        from marketpipe.cli.tables import candle_table

        known = await (_stored if asked.stored_only else _asked_for)(market, asked)
        if known.unknown:
            spans = sum(timeframes.bars_between(asked.timeframe, *span) for span in known.unknown)
            say(f"{known.series.market}: {figures.counted(spans, 'slot')} of that time not stored")
        _say_what_is_gone(known)
        nothing = "no bar is known there" if known.unknown or known.gone else "no bar there"
        return Answer(known.series, lambda now_ms: candle_table(known.series, now_ms, nothing), nothing=nothing)

    answer(target, question, must_exist=asked.stored_only)


def _plot(target: Target, asked: _Asked, picture: _Picture) -> NoReturn:
    async def command() -> int:
        async with (
            open_market(target, must_exist=asked.stored_only) as market,
            patience(lambda: waiting_for(market.status())),
        ):
            known = await _known(market, asked)
        if known.error is not None:
            complain(known.error, about=asked.symbol)
            if not known.series:
                return 1
        _say_what_is_gone(known)
        async with patience(f"drawing {figures.counted(len(known.series), 'bar')}"):
            await trio.to_thread.run_sync(partial(_draw, known, asked, picture), abandon_on_cancel=True)
        click.echo(picture.path)
        return 0 if known.error is None else 1

    run(command)


def _draw(known: _Known, asked: _Asked, picture: _Picture) -> None:
    span = None
    if asked.stretch is not None:
        start_ms, end_ms = asked.stretch.settled(asked.timeframe, SystemClock().now_ms())
        # A bar that is still running reaches beyond what has settled.
        span = start_ms, max([end_ms, *(bar.close_ms for bar in known.series[-1:])])
    draw(known.series, picture.path, unknown=known.unknown, span=span, zone=picture.zone, colors=picture.colors)


async def _known(market: Client, asked: _Asked) -> _Known:
    if asked.stored_only:
        return await _stored(market, asked)
    try:
        known = await _asked_for(market, asked)
    except ExchangeError as error:
        if asked.stretch is None:
            raise
        return attrs.evolve(await _stored(market, asked), error=error)
    if asked.stretch is None:
        return known
    store = market.status().store
    if store is None or store.read_only or store.rows_let_go:
        # Nothing is kept of what was asked: all of it is known all the same.
        return attrs.evolve(known, unknown=tuple(known.gone))
    return attrs.evolve(known, unknown=await _unknown(market, asked, asked.stretch))


async def _asked_for(market: Client, asked: _Asked) -> _Known:
    words: dict[str, Any] = {"count": asked.count, "start": asked.start, "end": asked.end}
    series = await market.get_candle(
        asked.symbol, asked.timeframe, closed_only=asked.closed_only, fill=asked.fill, **words
    )
    if asked.timeframe not in FLEETING:
        return _Known(series)
    meant = await market.explain_candle(asked.symbol, asked.timeframe, **words)
    # A count may have been found further down, or further up.
    start_ms = min([meant.start_ms, *(bar.open_ms for bar in series[:1])])
    end_ms = max([meant.end_ms, *(bar.open_ms for bar in series[-1:])])
    return _Known(series, gone=await gone(market, asked.symbol, asked.timeframe, start_ms, end_ms))


def _say_what_is_gone(known: _Known) -> None:
    if known.gone:
        say(cannot_be_known(known.series.market, known.series.timeframe, known.gone))


async def _stored(market: Client, asked: _Asked) -> _Known:
    assert asked.stretch is not None
    found = [
        bar
        async for page in market.iterate_candle(
            asked.symbol, asked.timeframe, start=asked.stretch.start_ms, end=asked.stretch.end_ms, stored_only=True
        )
        for bar in page
    ]
    series = CandleSeries(asked.symbol.upper(), asked.timeframe, tuple(found))
    return _Known(series, await _unknown(market, asked, asked.stretch))


async def _unknown(market: Client, asked: _Asked, stretch: Stretch) -> Sequence[Span]:
    start_ms, end_ms = stretch.settled(asked.timeframe, SystemClock().now_ms())
    if start_ms == end_ms:
        return ()
    summary = await market.collection_summary(asked.symbol, asked.timeframe, start=start_ms, end=end_ms)
    return summary.unknown
