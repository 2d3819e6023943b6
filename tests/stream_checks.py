"""Listeners to every stream of some markets of the simulator, and what is wrong with all they were told, in words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
from rig import Rig

from bench.oracle import Log, listen, verdict_on_bars, verdict_on_trades
from marketpipe import Candle, CandleState, Gap, Timeframe, Trade
from marketpipe.core import timeframes
from marketpipe.sim.limiter import CONNECT, MESSAGE

__all__ = ["BUSIEST", "Ears", "begun_at", "gap_flaws", "listening", "lively", "over_the_limits", "patiently"]

BUSIEST = ("KRW-BTC", "KRW-ETH", "KRW-XRP")
# A candle is evaluated once a second, and its frame then travels.
BEHIND_MS = 2_500
UNIT = 100_000_000


@contextmanager
def begun_at(epoch_ms: int) -> Iterator[None]:
    """Rigs that are opened in here begin at this moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rig.EPOCH_MS", epoch_ms)
        yield


def lively(rig: Rig, count: int) -> list[str]:
    """The busiest markets, and others in won until there are ``count``."""
    won = sorted(name for name in rig.sim.world.listed(rig.clock.now_ms()) if name.startswith("KRW-"))
    return [*BUSIEST, *(name for name in won if name not in BUSIEST)][:count]


async def patiently(condition: Callable[[], Any], within_s: float, every_s: float = 0.05) -> float:
    """Wait until ``condition`` holds; how many seconds that took. Fails after ``within_s``."""
    began_s = trio.current_time()
    while not condition():
        assert trio.current_time() - began_s < within_s, f"not so within {within_s:g} s"
        await trio.sleep(every_s)
    return trio.current_time() - began_s


@attrs.frozen
class Ears:
    """What was told of ``names``, by stream: ``trade``, ``ticker``, ``orderbook``, ``1s``, ``1m`` and so on."""

    rig: Rig
    names: list[str]
    logs: dict[str, Log]

    def flaws(self) -> list[str]:
        """Everything that breaks a promise, up to this moment, whatever was the matter with the exchange."""
        return [*self._flaws_of_trades(), *self._flaws_of_bars(), *self._flaws_of_gaps(), *over_the_limits(self.rig)]

    def holes(self, stream: str) -> int:
        """How many were told open."""
        return sum(gap.is_open for _, gap in self.logs[stream].gaps)

    def _flaws_of_trades(self) -> Iterator[str]:
        log, now_ms = self.logs.get("trade"), self.rig.clock.now_ms()
        for name in self.names if log else ():
            assert log is not None
            verdict = verdict_on_trades(log, self.rig.sim.world, name, now_ms)
            yield from verdict.words
            if not any(trade.market == name for _, trade in log.of(Trade)):
                yield f"{name}: no trade at all"

    def _flaws_of_bars(self) -> Iterator[str]:
        world, now_ms = self.rig.sim.world, self.rig.clock.now_ms()
        for timeframe in Timeframe:
            log = self.logs.get(timeframe.value)
            for name in self.names if log else ():
                assert log is not None
                yield from verdict_on_bars(log, world, name, timeframe, now_ms).words
                yield from self._flaws_of_the_running(log, name, timeframe)

    def _flaws_of_the_running(self, log: Log, name: str, timeframe: Timeframe) -> Iterator[str]:
        # The oracle leaves out what may still be on its way; the running bar must be as new as the stream can be.
        now_ms = self.rig.clock.now_ms()
        since_ms = timeframes.floor(timeframe, now_ms - BEHIND_MS)
        told = {bar.open_ms: bar for _, bar in log.of(Candle) if bar.market == name and bar.timeframe is timeframe}
        if not told or since_ms < min(told):
            return
        least = self.rig.sim.world.candles(name, timeframe, since_ms, now_ms, now_ms - BEHIND_MS)
        for bar in least:
            shown = told.get(bar.open_ms)
            if shown is None or shown.volume * UNIT < bar.volume:
                yield f"{name} {timeframe} {bar.open_ms}: {shown} is behind {bar}"

    def _flaws_of_gaps(self) -> Iterator[str]:
        for stream, log in self.logs.items():
            for flaw in gap_flaws((event for _, event in log.events), closed=True):
                yield f"{stream} {flaw}"


def gap_flaws(events: Iterable[Any], *, closed: bool) -> Iterator[str]:
    """Each hole is told open, then closed with the same start, before any other of its market; trades wait meanwhile.

    What was found missing and mended in one go may be told closed alone. ``closed``: none may still be open.
    """
    holes: dict[str, Gap] = {}
    for event in events:
        hole = holes.get(event.market)
        if isinstance(event, Gap) and event.is_open:
            if hole is not None:
                yield f"{event.market}: {event} opens while {hole} is open"
            holes[event.market] = event
        elif isinstance(event, Gap):
            if hole is not None and event.start_ms != hole.start_ms:
                yield f"{event.market}: {event} closes, {hole} was open"
            holes.pop(event.market, None)
        elif isinstance(event, Trade) and hole is not None:
            yield f"{event.market}: {event} within the open {hole}"
    if closed:
        yield from (f"{market}: {hole} is never closed" for market, hole in holes.items())


def over_the_limits(rig: Rig) -> Iterator[str]:
    """Where the exchange has seen more of us than it allows."""
    statistics = rig.sim.statistics()
    config = rig.sim.config
    bounds = {CONNECT: config.connect_limit, MESSAGE: config.message_limit}
    for name, group in statistics.groups.items():
        if group.refused or group.greatest_per_second > bounds.get(name, config.limit):
            yield f"{name}: {group}"
    if statistics.streams.greatest_per_minute > config.minute_limit:
        yield f"{statistics.streams.greatest_per_minute} messages in a minute"


@asynccontextmanager
async def listening(
    rig: Rig, names: list[str], streams: Iterable[str] = ("trade", "ticker", "1m", "1s"), **options: Any
) -> AsyncIterator[Ears]:
    """Listen to ``streams`` of ``names``; ``options`` are those of bars."""
    logs = {stream: Log() for stream in streams}
    async with trio.open_nursery() as nursery:
        for stream, log in logs.items():
            nursery.start_soon(_listen, rig, stream, names, log, options)
        yield Ears(rig, names, logs)
        nursery.cancel_scope.cancel(reason="enough was heard")


async def _listen(rig: Rig, stream: str, names: list[str], log: Log, options: dict[str, Any]) -> None:
    if stream[0].isdigit():
        await listen(rig.market, "candle", names, log, timeframe=stream, **options)
    else:
        await listen(rig.market, stream, names, log)


def finals(log: Log, name: str) -> list[Candle]:
    """Every FINAL bar of ``name`` in the order in which they were told, amendments left out."""
    return [
        bar for _, bar in log.of(Candle) if bar.market == name and bar.state is CandleState.FINAL and not bar.revision
    ]
