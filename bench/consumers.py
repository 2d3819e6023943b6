"""Consumers of live streams: many who begin at once, and one who is slow beside one who is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from time import perf_counter

import attrs
import trio

from bench.delays import Delays
from bench.figures import Figure, Outcome, at_most
from bench.flooding import Sent, pour
from bench.ground import Ground, open_ground
from bench.scale import Scale
from bench.timing import quiet
from marketpipe import Client, Gap, SubscriberLagged, Trade, open_pipeline
from marketpipe.core.buffers import Policy, SubscriptionStatistics
from marketpipe.core.topics import Line

__all__ = ["slow", "subscriptions"]

STREAMS = (Line.TICKER, Line.TRADE, Line.ORDERBOOK)
# Beyond what is listened to; some markets open later.
SPARE_MARKETS = 20
# Of how many markets the quick and the slow hear trades, of how many there are.
TRADED, MARKETS = 5, 40
SLOW_POLICIES: tuple[Policy, ...] = ("cut-off", "drop-oldest")
# What a slow consumer lets wait, and how long it thinks about each value.
DEPTH = 500
THINK_S = 1.0
# Silence is suspicious after two seconds.
REST_S, LOOK_S = 1.5, 0.05
COUNTED = re.compile(r"(\d+) values? w")


async def subscriptions(scale: Scale) -> Outcome:
    """200 tasks that subscribe to a symbol each at the same moment: messages to the exchange, first values."""
    size = scale.streams
    async with open_ground(markets=size.subscribers + SPARE_MARKETS) as ground:
        names = ground.names()[: size.subscribers]
        parts = [await _everybody(ground, line, names) for _ in range(size.rounds) for line in STREAMS]
    return Outcome.merged(parts)


async def _everybody(ground: Ground, line: Line, names: Sequence[str]) -> Outcome:
    await ground.settle()
    waited_s: list[float] = []
    wrong: list[str] = []

    async def task(name: str) -> None:
        async with getattr(market, f"stream_{line}")(name) as subscription:
            first = await anext(subscription)
            waited_s.append(perf_counter() - began_s)
            if len(waited_s) == len(names):
                all_have.set()
            if first.market != name or isinstance(first, Gap):
                wrong.append(f"{line} {name}: the first value is {first}")
            await counted.wait()

    async with open_pipeline(base_url=ground.base_url) as market:
        await market.get_market()
        quiet()
        all_have, counted = trio.Event(), trio.Event()
        began_s = perf_counter()
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(task, name)
            await all_have.wait()
            told = (await ground.tell("GET", "/sim/stats"))["streams"]
            counted.set()
    what = f"{len(names)} tasks of stream_{line}"
    sent, opened = told["greatest_subscribes"], told["connections"]["total"]
    wrong += [f"{what}: {sent} subscribe messages on a connection"] if sent > 2 else []
    return Outcome(
        [
            Figure(what=f"{what}: the last first value", unit="s", samples=[max(waited_s)], goal=at_most(1)),
            Figure(what=f"{what}: subscribe messages", unit="messages", samples=[sent], goal=at_most(2)),
            Figure(what=f"{what}: connections", unit="connections", samples=[opened], goal=at_most(1)),
        ],
        wrong,
    )


async def slow(scale: Scale) -> Outcome:
    """A consumer that thinks for a second about each trade, beside one that does not: who is delayed, what is told."""
    size = scale.streams
    what = f"{size.trades:,.0f} trades/s"
    parts = []
    async with open_ground(markets=MARKETS, latency_s=0.0) as ground:
        names = ground.names()[:TRADED]
        for _ in range(size.rounds):
            for policy in SLOW_POLICIES:
                alone, beside, thinker = _Quick(), _Quick(), _Slow(policy)
                broken = await _race(ground, names, size.trades, size.slow_s, alone)
                broken += await _race(ground, names, size.trades, size.slow_s, beside, thinker)
                parts.append(Outcome(_slow_figures(what, alone, beside, thinker), broken))
    return Outcome.merged(parts)


def _slow_figures(what: str, alone: _Quick, beside: _Quick, thinker: _Slow) -> list[Figure]:
    who = f"a slow one of {thinker.policy}"
    return [
        Figure(what=f"{what}, 99 of 100 received within, beside {who}", unit="ms", samples=[beside.delays.ms(0.99)],
               baseline="without the slow one", baseline_samples=[alone.delays.ms(0.99)]),
        Figure(what=f"{what}, lost by {who} and not told", unit="trades",
               samples=[abs(thinker.counts.dropped - thinker.told)], goal=at_most(0),
               baseline="lost", baseline_samples=[thinker.counts.dropped]),
    ]  # fmt: skip


@attrs.define
class _Quick:
    """A consumer that keeps up."""

    delays: Delays = attrs.field(factory=Delays)
    trades: int = 0

    async def listen(self, market: Client, names: Sequence[str], *, task_status: trio.TaskStatus[None]) -> None:
        missing = set(names)
        async with market.stream_trade(names) as trades:
            async for trade in trades:
                if not isinstance(trade, Gap):
                    self.trades += 1
                    self.delays.note(trade.sequential_id)
                if missing:
                    missing.discard(trade.market)
                    if not missing:
                        task_status.started()

    async def begin(self) -> None:
        """Count from 0."""
        self.trades = 0
        self.delays.forget()
        quiet()

    async def wait_for(self, trades: int) -> None:
        """Let what is still on its way arrive."""
        with trio.move_on_after(REST_S):
            while self.trades < trades:  # noqa: ASYNC110  an event for each trade would be measured too
                await trio.sleep(LOOK_S)

    def broken(self, sent: Sent) -> list[str]:
        """One line if something did not come."""
        return [] if self.trades == sent.trades else [f"slow: {sent.trades} trades sent, {self.trades} received"]


@attrs.define(eq=False)
class _Slow:
    """A consumer that thinks about each trade, until it is told to hurry. ``told``: how many it was told it lost."""

    policy: Policy
    told: int = 0
    counts: SubscriptionStatistics = attrs.field(factory=SubscriptionStatistics)
    thinking: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)

    async def listen(self, market: Client, names: Sequence[str], *, task_status: trio.TaskStatus[None]) -> None:
        async with market.stream_trade(names, policy=self.policy, depth=DEPTH) as trades:
            task_status.started()
            try:
                with self.thinking:
                    async for trade in trades:
                        self._take(trade)
                        await trio.sleep(THINK_S)
                while True:
                    self._take(trades.receive_nowait())
            except trio.WouldBlock:
                pass  # nothing is left
            except SubscriberLagged as error:
                self.told += _counted(str(error))
            self.counts = trades.statistics()
        self.done.set()

    def _take(self, event: Trade | Gap) -> None:
        if isinstance(event, Gap):
            self.told += _counted(event.proof)

    async def hurry(self) -> None:
        """Read what is left without thinking."""
        self.thinking.cancel(reason="the flood is over")
        await self.done.wait()

    def broken(self) -> list[str]:
        """One line for what it lost without a word, or if it lost nothing at all."""
        if not self.counts.dropped:
            return [f"slow, {self.policy}: a consumer that cannot keep up has lost nothing: {self.counts}"]
        if self.told != self.counts.dropped:
            return [f"slow, {self.policy}: {self.counts.dropped} trades lost, {self.told} told"]
        return []


def _counted(words: str) -> int:
    found = COUNTED.search(words)
    return int(found[1]) if found else 0


async def _race(
    ground: Ground, names: Sequence[str], per_second: float, for_s: float, quick: _Quick, thinker: _Slow | None = None
) -> list[str]:
    async with open_pipeline(base_url=ground.base_url) as market, trio.open_nursery() as nursery:
        await nursery.start(quick.listen, market, names)
        if thinker is not None:
            await nursery.start(thinker.listen, market, names)
        sent = await pour(ground, per_second, for_s, quick.begin)
        await quick.wait_for(sent.trades)
        if thinker is not None:
            await thinker.hurry()
        await ground.calm()
        nursery.cancel_scope.cancel(reason="the race is over")
    return quick.broken(sent) + ([] if thinker is None else thinker.broken())
