"""``marketpipe gaps``: what of a stretch of history is not known, why not, and what it would cost to know it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from marketpipe.cli import checks, figures
from marketpipe.cli.options import Target, asking
from marketpipe.cli.rows import json_line
from marketpipe.cli.running import run
from marketpipe.cli.session import open_market, show
from marketpipe.cli.stretch import Stretch, refuse_what_is_to_come, stretching
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.core import timeframes
from marketpipe.core.collection import CollectionState, CollectionSummary, FailedSpan
from marketpipe.core.spans import SpanSet

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Unknown", "cost", "gaps", "unknown_spans"]

# Longer reasons take a second line.
WHY_WIDTH = 32


@attrs.frozen
class Unknown:
    """A span of ``slots`` slots of which nothing is known; ``failure`` is what is in the way, None if nobody asked."""

    start_ms: int
    end_ms: int
    slots: int
    failure: FailedSpan | None

    @property
    def state(self) -> CollectionState:
        """Pending or failed."""
        return CollectionState.PENDING if self.failure is None else CollectionState.FAILED


@click.command()
@click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True, callback=checks.split)
@stretching
@asking
def gaps(target: Target, symbols: tuple[str, ...], stretch: Stretch) -> None:
    """What is collected of a stretch, what nobody has asked for yet, and what could not be fetched, and why.

    Nothing is asked of the exchange. `marketpipe backfill` with the same words fetches what is missing.

    \b
    marketpipe gaps KRW-BTC KRW-ETH --timeframe 1m --start 30d
    marketpipe gaps KRW-BTC --start 2026-01-01 --json | jq '.spans[] | select(.state == "failed")'
    """

    async def command() -> int:
        per_second = target.config.limits.per_second
        refuse_what_is_to_come(stretch)
        async with open_market(target, must_exist=True) as market:
            summaries = await _summaries(market, symbols, stretch)
        if target.as_json:
            for summary in summaries:
                click.echo(json_line(_fields(summary, per_second)))
        else:
            for part in _tables(summaries, per_second):
                show(part)
        return 0

    run(command)


def unknown_spans(summary: CollectionSummary) -> Iterator[Unknown]:
    """What is not known, oldest first, those apart of which it is said why."""
    left = SpanSet.of(*summary.unknown)
    found = []
    # Of failures that overlap, the last one is told.
    for failure in sorted(summary.failures, key=lambda each: each.last_ms, reverse=True):
        span = SpanSet.of((failure.start_ms, failure.end_ms))
        found += [_unknown(summary, part, failure) for part in left & span]
        left -= span
    found += [_unknown(summary, part, None) for part in left]
    yield from sorted((each for each in found if each.slots), key=lambda each: each.start_ms)


def cost(requests: int, per_second: int) -> str:
    """``12 requests, about 1 s``"""
    return f"{figures.counted(requests, 'request')}, about {figures.duration(max(1, requests / per_second))}"


def _unknown(summary: CollectionSummary, span: tuple[int, int], failure: FailedSpan | None) -> Unknown:
    return Unknown(*span, timeframes.bars_between(summary.timeframe, *span), failure)


async def _summaries(market: Client, symbols: Sequence[str], stretch: Stretch) -> list[CollectionSummary]:
    now_ms, found = SystemClock().now_ms(), []
    for symbol in dict.fromkeys(symbol.strip().upper() for symbol in symbols):
        for timeframe in stretch.timeframes:
            start_ms, end_ms = stretch.settled(timeframe, now_ms)
            if start_ms < end_ms:
                found.append(await market.collection_summary(symbol, timeframe, start=start_ms, end=end_ms))
    return found


def _fields(summary: CollectionSummary, per_second: int) -> dict[str, Any]:
    names = ("market", "timeframe", "start_ms", "end_ms", "slots", "collected", "empty", "pending", "failed")
    return {
        **{name: getattr(summary, name) for name in names},
        "requests": summary.requests,
        "seconds": summary.requests / per_second,
        "spans": [_span_fields(each) for each in unknown_spans(summary)],
    }


def _span_fields(unknown: Unknown) -> dict[str, Any]:
    fields = {"state": unknown.state, "start_ms": unknown.start_ms, "end_ms": unknown.end_ms, "slots": unknown.slots}
    failure = unknown.failure
    if failure is not None:
        fields |= {name: getattr(failure, name) for name in ("attempts", "code", "message", "last_ms")}
    return fields


def _tables(summaries: Sequence[CollectionSummary], per_second: int) -> Iterator[RenderableType]:
    yield _counts(summaries)
    spans = [(summary, unknown) for summary in summaries for unknown in unknown_spans(summary)]
    if not spans:
        yield "nothing is missing"
        return
    yield _spans(spans)
    yield f"to fetch what is missing: {cost(sum(summary.requests for summary in summaries), per_second)}"


def _counts(summaries: Sequence[CollectionSummary]) -> RenderableType:
    from marketpipe.cli.sheet import Column, Sheet

    columns = [Column("market"), Column("timeframe"), Column("from (UTC)", rank=2), Column("to", rank=2)]
    columns += [Column(state.value, "right") for state in CollectionState]
    columns.append(Column("requests", "right", rank=1))
    sheet = Sheet(columns)
    for each in summaries:
        sheet.add(
            each.market,
            each.timeframe,
            *figures.span(each.start_ms, each.end_ms).split(" to "),
            *(f"{number:,}" for number in (each.collected, each.empty, each.pending, each.failed)),
            f"{each.requests:,}",
        )
    return sheet


def _spans(spans: Sequence[tuple[CollectionSummary, Unknown]]) -> RenderableType:
    from rich.text import Text

    from marketpipe.cli.sheet import Column, Sheet

    columns = [Column("market"), Column("timeframe"), Column("missing from (UTC)"), Column("to")]
    columns += [Column("slots", "right", rank=1), Column("state", rank=2), Column("tries", "right", rank=4)]
    columns.append(Column("why", rank=3, wrap_at=WHY_WIDTH))
    sheet = Sheet(columns)
    for summary, unknown in spans:
        failure = unknown.failure
        sheet.add(
            summary.market,
            summary.timeframe,
            *figures.span(unknown.start_ms, unknown.end_ms).split(" to "),
            f"{unknown.slots:,}",
            Text(unknown.state, style="" if failure is None else "red"),
            "" if failure is None else f"{failure.attempts:,}",
            "not asked for yet" if failure is None else " ".join(failure.message.split()),
        )
    return sheet
