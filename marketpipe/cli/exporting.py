"""``marketpipe export``: bars as CSV, JSON lines or Parquet, page by page, whatever there is of them."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import click
import trio

from marketpipe.cli import checks, figures
from marketpipe.cli.complaints import say
from marketpipe.cli.export import STDOUT, Format, Sink, opened
from marketpipe.cli.gaps import cost
from marketpipe.cli.gone import cannot_be_known, gone
from marketpipe.cli.options import Target, collecting
from marketpipe.cli.patience import patience
from marketpipe.cli.running import run
from marketpipe.cli.session import open_market
from marketpipe.cli.stretch import Stretch, refuse_what_is_to_come, stretching
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.core import timeframes
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Priority

__all__ = ["export"]


@attrs.define
class _Progress:
    """Which series is being written, and how far it is in time."""

    series: str = ""
    share: float = 0.0
    sink: Sink | None = None

    def told(self) -> str:
        bars = 0 if self.sink is None else self.sink.bars
        return f"{figures.counted(bars, 'bar')} written; {self.series}, {self.share:.0%} of its time"


@click.command()
@click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True, callback=checks.split)
@stretching
@click.option("--format", "form", type=click.Choice([each.value for each in Format]),
              help="What to write.  [default: as the file is called, or csv]")  # fmt: skip
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, allow_dash=True),
    default=STDOUT,
    metavar="FILE",
    help="Where to; - is stdout.  [default: -]",
)
@click.option("--stored-only", is_flag=True, help="Ask the exchange for nothing; say what is missing.")
@collecting
def export(
    target: Target, symbols: tuple[str, ...], stretch: Stretch, form: str | None, path: Path, stored_only: bool
) -> None:
    """Closed candles as a file, oldest first, one market after the other; any number of them takes no more memory.

    What is missing in the database is fetched first, and kept there. The file takes its place when it is whole; what
    was there before stays until then. Every decimal has all its digits.

    \b
    marketpipe export KRW-BTC --timeframe 1m --start 2026-01-01 --end 2026-02-01 -o january.parquet
    marketpipe export KRW-BTC,KRW-ETH --timeframe 1h --start 30d --format jsonl | jq .close
    """
    chosen = _format(form, path)

    async def command() -> int:
        refuse_what_is_to_come(stretch)
        progress = _Progress()
        try:
            async with open_market(target, must_exist=stored_only) as market:
                bars = await _write(market, symbols, stretch, path, chosen, progress, stored_only=stored_only)
                if stored_only:
                    lines = await _missing(market, symbols, stretch, target.config.limits.per_second)
                else:
                    lines = await _gone(market, symbols, stretch)
        finally:
            if trio.current_effective_deadline() == -math.inf and path != STDOUT:
                say(f"stopped; {path} was not written, and what was fetched is kept for the next time")
        if path != STDOUT:
            click.echo(f"{figures.counted(bars, 'bar')} in {path}")
        for line in lines:
            say(line)
        return 0

    run(command)


def _format(form: str | None, path: Path) -> Format:
    if form is None:
        suffix = path.suffix.lower().removeprefix(".")
        form = suffix if suffix in [*Format] else Format.CSV
    if form == Format.PARQUET and path == STDOUT:
        raise click.UsageError("parquet cannot be written to stdout: name a file with --output")
    return Format(form)


async def _write(
    market: Client,
    symbols: tuple[str, ...],
    stretch: Stretch,
    path: Path,
    form: Format,
    progress: _Progress,
    *,
    stored_only: bool,
) -> int:
    with opened(path, form) as sink:
        progress.sink = sink
        async with _patience(progress, path):
            for name, timeframe in _series(symbols, stretch):
                start_ms, end_ms = stretch.settled(timeframe, SystemClock().now_ms())
                progress.series, progress.share = f"{name} {timeframe}", 0.0
                async for bars in market.iterate_candle(
                    name,
                    timeframe,
                    start=stretch.start_ms,
                    end=stretch.end_ms,
                    stored_only=stored_only,
                    priority=Priority.LOW,
                ):
                    # Nobody may read stdout for hours; a file is written at once.
                    await trio.to_thread.run_sync(sink.write, bars, abandon_on_cancel=path == STDOUT)
                    progress.share = (bars[-1].close_ms - start_ms) / max(1, end_ms - start_ms)
        return sink.bars


def _series(symbols: tuple[str, ...], stretch: Stretch) -> list[tuple[str, Timeframe]]:
    names = dict.fromkeys(symbol.strip().upper() for symbol in symbols)
    return [(name, timeframe) for name in names for timeframe in stretch.timeframes]


@asynccontextmanager
async def _patience(progress: _Progress, path: Path) -> AsyncGenerator[None]:
    if path == STDOUT and sys.stdout.isatty():  # the rows themselves show how far it is
        yield
        return
    async with patience(progress.told):
        yield


async def _gone(market: Client, symbols: tuple[str, ...], stretch: Stretch) -> list[str]:
    """What of each series cannot be known, in a line each."""
    lines, now_ms = [], SystemClock().now_ms()
    for name, timeframe in _series(symbols, stretch):
        spans = await gone(market, name, timeframe, *stretch.settled(timeframe, now_ms))
        if spans:
            lines.append(cannot_be_known(name, timeframe, spans))
    return lines


async def _missing(market: Client, symbols: tuple[str, ...], stretch: Stretch, per_second: int) -> list[str]:
    """What is not known of each series, in a line each."""
    lines, now_ms = [], SystemClock().now_ms()
    for name, timeframe in _series(symbols, stretch):
        start_ms, end_ms = stretch.settled(timeframe, now_ms)
        if start_ms == end_ms:
            continue
        summary = await market.collection_summary(name, timeframe, start=start_ms, end=end_ms)
        if not summary.is_whole:
            spans = SpanSet.of(*summary.unknown)
            (first_ms, _), (_, last_ms) = next(iter(spans)), next(reversed(spans))
            slots = figures.counted(sum(timeframes.bars_between(timeframe, *span) for span in spans), "slot")
            between = f"between {figures.utc(first_ms)} and {figures.utc(last_ms)} UTC"
            lines.append(
                f"{name} {timeframe}: {slots} {between} not stored; {cost(summary.requests, per_second)} to fetch"
            )
    return lines
