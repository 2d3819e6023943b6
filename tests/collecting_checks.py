"""What is stored held against what the simulated market was, and what was asked against what was known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from rig import Recorder

from marketpipe import Client, Config, Priority, run_pipeline
from marketpipe.actors.asker import Asker
from marketpipe.actors.messages import Answers
from marketpipe.actors.writer import in_line
from marketpipe.clock import TrioClock
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.batching import Key
from marketpipe.core.budgets import Budgets
from marketpipe.core.history import first_slot
from marketpipe.core.pacing import Slots
from marketpipe.core.requests import CandlesRequest, Group
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import SimExchange, SimTransport, World
from marketpipe.store.sqlite import SqliteStore
from marketpipe.upbit.rest import UpbitRest

__all__ = ["Pipe", "Watch", "budgets_of", "covered", "flaws", "open_pipe"]

UNIT = 100_000_000
END_OF_TIME_MS = 1 << 60
Series = tuple[str, Timeframe]


def covered(store: SqliteStore) -> dict[Series, SpanSet]:
    """What is proven, of everything there is anything of."""
    series = [(each.market, each.timeframe) for each in store.series()]
    return {one: store.coverage(*one, 0, END_OF_TIME_MS) for one in series}


def flaws(store: SqliteStore, world: World, now_ms: int) -> list[str]:
    """Every slot that is stored as proven and was otherwise, every bar out of place, and whatever else is wrong."""
    found = [str(finding) for finding in store.integrity()]
    for (market, timeframe), proven in covered(store).items():
        bars = store.bars(market, timeframe, 0, END_OF_TIME_MS)
        found += [
            f"{market} {timeframe}: a bar at {bar.open_ms}, not proven" for bar in bars if bar.open_ms not in proven
        ]
        for start_ms, end_ms in proven:
            ours = {bar.open_ms: _numbers(bar) for bar in bars if start_ms <= bar.open_ms < end_ms}
            true = {
                bar.open_ms: (bar.opening, bar.high, bar.low, bar.close, bar.volume)
                for bar in world.candles(market, timeframe, start_ms, end_ms, now_ms)
            }
            wrong = sorted(at for at in {*ours, *true} if ours.get(at) != true.get(at))
            found += [f"{market} {timeframe} {at}: {ours.get(at)} is {true.get(at)}" for at in wrong[:3]]
            if end_ms > timeframes.floor(timeframe, now_ms - GRACE_MS):
                found.append(f"{market} {timeframe}: proven up to {end_ms}, which is not over at {now_ms}")
    return found


def _numbers(bar: Any) -> tuple[int, ...]:
    numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    assert all(number * UNIT == int(number * UNIT) for number in numbers)
    return tuple(int(number * UNIT) for number in numbers)


@attrs.define(eq=False)
class Watch:
    """An asker; ``again`` are the pages it was asked for although all they could show was proven."""

    asker: Asker
    client: Client
    store: SqliteStore
    world: World
    clock: TrioClock
    again: list[str] = attrs.field(factory=list)

    async def ask(self, keys: tuple[Key, ...], priority: Priority) -> Answers:
        # When it is asked, not when it is sent: what waits for its turn may be proven meanwhile.
        requests = [key for key in keys if isinstance(key, CandlesRequest)]
        self.again += [f"{trio.current_time():.3f}: {one}" for one in requests if self._is_proven(one)]
        return await self.asker.ask(keys, priority)

    def _is_proven(self, request: CandlesRequest) -> bool:
        market, timeframe, to_ms, now_ms = request.market, request.timeframe, request.to_ms, self.clock.now_ms()
        if to_ms is None or not self.world.is_listed(market, now_ms):
            return False
        shown = self.world.newest_candles(market, timeframe, to_ms, request.count, now_ms)
        low_ms = shown[-1].open_ms if len(shown) == request.count else first_slot(timeframe)
        writer = self.client._reporter._writer
        assert writer is not None
        kept = SpanSet.of(*((piece.start_ms, piece.end_ms) for piece in writer.kept(market, timeframe)))
        top_ms = timeframes.ceil(timeframe, to_ms)
        return (self.store.coverage(market, timeframe, low_ms, max(low_ms, top_ms)) | kept).covers(
            low_ms, max(low_ms, top_ms)
        )


def budgets_of(config: Config) -> Budgets:
    """What the pipelines to one exchange share: its limits hold for all of them together."""

    def slots(per_second: int) -> Slots:
        return Slots(per_second, guard_s=config.limits.guard_s, abandoned_hold_s=config.limits.abandoned_hold_s)

    groups = {group: slots(config.limits.per_second) for group in Group}
    return Budgets(groups, slots(config.subscriptions.connects_per_second))


@attrs.frozen
class Pipe:
    """One pipeline of several to the same exchange, one after the other."""

    market: Client
    exchange: Recorder
    store: SqliteStore
    again: list[str]


@asynccontextmanager
async def open_pipe(
    sim: SimExchange, clock: TrioClock, store: SqliteStore, budgets: Budgets, config: Config | None = None
) -> AsyncIterator[Pipe]:
    """A pipeline to ``sim`` over ``store``, which is left open at the end; those of one run share ``budgets``."""
    config = config or Config()
    limits = config.limits
    async with UpbitRest(
        "http://sim",
        clock=clock,
        connect_s=limits.connect_s,
        read_s=limits.read_s,
        deadline_s=limits.deadline_s,
        transport=SimTransport(sim),
    ) as rest:
        exchange = Recorder(rest)
        async with run_pipeline(
            config, exchange, clock=clock, draw=lambda: 0.5, budgets=budgets, store=store, runner=lambda: in_line
        ) as client:
            assert client._backfill is not None
            pages = client._backfill._pages
            watch = Watch(pages._asker, client, store, sim.world, clock)
            object.__setattr__(pages, "_asker", watch)
            yield Pipe(client, exchange, store, watch.again)
