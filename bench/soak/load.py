"""What a trading desk does all day, all at once, on one pipeline."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from bench.soak.letters import BAR, ERROR, TRADE, Post, bar_letter, gap_letter, read_letter, trade_letter
from bench.soak.plan import Plan
from bench.soak.probes import percentiles
from marketpipe import (
    Candle,
    CandleState,
    Client,
    ExchangeError,
    Gap,
    JobState,
    Priority,
    StoreError,
    SubscriberLagged,
)
from marketpipe.examples.seven_rules import Engine

__all__ = ["Load"]

ENDLESS = 10**7
DAY_MS = 86_400_000
SCREEN_S = 1.0
# Readers look again after so long; 50 of them ask for about ten requests a second if nothing is in memory.
CHART_S = 4.0
ASK_S = 1.0
PATIENCE_S = 20.0
CHECKED_BARS = 20
# A bar is FINAL for a reader a while after its end.
OVER_MS = 30_000
TRADED = 7
# How many bars of a series are kept in memory.
KEPT_BARS = 50
# One job of the backfill: some markets for some days.
JOB_MARKETS, JOB_DAYS = 2, 1
AGAIN_S = 1.0
POLICIES = ("conflate", "cut-off", "drop-oldest")
KINDS = ("ticker", "trade", "orderbook", "candle")

Steps = Callable[[], Awaitable[None]]


@attrs.define(eq=False)
class Load:
    """All of it.

    ``names`` are listed, the ``lively`` ones trade all the time; of ``minutes`` and ``seconds`` the bars are watched.
    ``now_ms`` is the exchange's time.
    """

    market: Client
    plan: Plan
    names: list[str]
    lively: list[str]
    minutes: list[str]
    seconds: list[str]
    post: Post
    now_ms: Callable[[], int]
    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    failures: Counter[str] = attrs.field(factory=Counter, init=False)
    _taken_s: dict[str, list[float]] = attrs.field(factory=dict, init=False)
    _begun: dict[str, trio.Event] = attrs.field(factory=dict, init=False)
    _busy: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    # What a planted defect does to a letter before it is sent.
    spoil: Callable[[list[Any]], list[list[Any]]] = attrs.field(default=lambda letter: [letter])

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; started when the watched streams flow."""
        plan = self.plan
        watched = {
            "trades": partial(self._watch, TRADE, lambda: self.market.stream_trade(self.names, depth=ENDLESS)),
            "minutes": partial(self._watch, BAR, lambda: self.market.stream_candle(self.minutes, "1m", depth=ENDLESS)),
            "seconds": partial(self._watch, BAR, lambda: self.market.stream_candle(self.seconds, "1s", depth=ENDLESS)),
            "tickers": partial(self._watch, "ticker", lambda: self.market.stream_ticker(self.names)),
            "books": partial(self._watch, "orderbook", lambda: self.market.stream_orderbook(self.lively[: plan.books])),
        }
        if not self.seconds:
            del watched["seconds"]
        async with trio.open_nursery() as nursery:
            for name, steps in watched.items():
                self._begun[name] = trio.Event()
                nursery.start_soon(
                    partial(self._guarded, f"watching {name}", partial(steps, name)), name=f"soak {name}"
                )
            for begun in self._begun.values():
                await begun.wait()
            task_status.started()
            async with trio.open_nursery() as busy:
                self._busy = busy.cancel_scope
                await self._fill()
                self._start(busy, "screener", self._screen)
                self._start(busy, "backfill", self._collect)
                self._start(busy, "engine", self._decide)
                for number in range(plan.readers):
                    self._start(busy, f"chart {number}", partial(self._chart, number))
                for number in range(plan.visitors):
                    self._start(busy, f"visitor {number}", partial(self._visit, random.Random(plan.seed + number)))
                for number in range(plan.askers):
                    self._start(busy, f"asker {number}", partial(self._ask, random.Random(-plan.seed - number)))

    def hush(self) -> None:
        """Nothing but what is watched goes on."""
        self._busy.cancel(reason="it shall be quiet")

    def told(self) -> dict[str, Any]:
        """What was done since the start, and how long calls took since the last time this was asked."""
        taken_s, self._taken_s = self._taken_s, {}
        return {
            "counts": dict(self.counts),
            "failures": dict(self.failures),
            "verbs": {verb: percentiles(seconds) for verb, seconds in sorted(taken_s.items())},
        }

    # -- how everything is run ------------------------------------------------------------------------------------

    def _start(self, nursery: trio.Nursery, name: str, steps: Steps) -> None:
        nursery.start_soon(partial(self._guarded, name, steps), name=f"soak {name}")

    async def _guarded(self, name: str, steps: Steps) -> None:
        """What escapes is told, and the task begins anew: one defect shall not hide the others."""
        while True:
            try:
                await steps()
                self.post.put([ERROR, name, "it ended", ""])
            except Exception as error:
                self.post.put([ERROR, name, repr(error), "".join(traceback.format_exception(error))])
            await trio.sleep(AGAIN_S)

    @asynccontextmanager
    async def _call(self, verb: str) -> AsyncIterator[None]:
        """A call that may fail for the exchange's reasons, and then fails as it says."""
        began_s = trio.current_time()
        try:
            yield
        except ExchangeError as error:
            self.failures[f"{verb}: {type(error).__name__}"] += 1
        else:
            self._taken_s.setdefault(verb, []).append(trio.current_time() - began_s)

    # -- streams that are watched -----------------------------------------------------------------------------------

    async def _watch(self, kind: str, subscribe: Callable[[], Any], name: str) -> None:
        last: dict[str, int] = {}
        async with subscribe() as subscription:
            async for value in subscription:
                self.counts[name] += 1
                self._begun[name].set()
                if isinstance(value, Gap):
                    self._send(gap_letter(name, value))
                elif kind == TRADE:
                    self._send(trade_letter(value))
                elif kind == BAR and _is_news(value, last):
                    self._send(bar_letter(value))

    def _send(self, letter: list[Any]) -> None:
        for each in self.spoil(letter):
            self.post.put(each)

    # -- what reads -------------------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Look at the past of each bar that is watched, as a chart would: a series keeps `KEPT_BARS` of them.

        Otherwise those of a minute would become more for most of an hour, like a leak.
        """
        async with trio.open_nursery() as nursery:
            for timeframe, names in (("1m", self.minutes), ("1s", self.seconds)):
                for name in names:
                    nursery.start_soon(self._look_back, name, timeframe)

    async def _look_back(self, name: str, timeframe: str) -> None:
        async with self._call("past"):
            await self.market.get_candle(name, timeframe, count=KEPT_BARS)

    async def _screen(self) -> None:
        won = [name for name in self.names if name.startswith("KRW-")]
        while True:
            due_s = trio.current_time() + SCREEN_S
            async with self._call("screener"):
                batch = await self.market.get_ticker(won)
                self.counts["screened"] += len(batch)
                for error in batch.failed.values():
                    self._refused("screener", error)
            await trio.sleep_until(due_s)

    async def _chart(self, number: int) -> None:
        name, timeframe = self.lively[number % len(self.lively)], ("1m", "5m", "1h")[number % 3]
        await trio.sleep(number / self.plan.readers * CHART_S)
        while True:
            async with self._call("chart"):
                bars = await self.market.get_candle(name, timeframe, count=200)
                self.counts["charts"] += 1
                settled_ms = self.now_ms() - OVER_MS
                for bar in bars[-CHECKED_BARS:]:
                    if bar.state is CandleState.FINAL and bar.close_ms < settled_ms:
                        self._send(read_letter(bar))
            await trio.sleep(CHART_S)

    async def _ask(self, dice: random.Random) -> None:
        while True:
            name, verb = dice.choice(self.names), dice.choice(("get_ticker", "get_orderbook", "get_trade"))
            max_age_s = dice.choice((None, None, 1.0, 0))
            priority = dice.choice(tuple(Priority))
            async with self._call(verb):
                with trio.move_on_after(dice.choice((0.05, PATIENCE_S))):
                    value = await getattr(self.market, verb)(name, max_age_s=max_age_s, priority=priority)
                    first = value[0] if isinstance(value, tuple) and value else value
                    if first and first.market != name:
                        self.post.put([ERROR, verb, f"{name} was asked, {first} came", ""])
                self.counts["asked"] += 1
            await trio.sleep(dice.expovariate(1 / ASK_S))

    # -- consumers that come and go ---------------------------------------------------------------------------------

    async def _visit(self, dice: random.Random) -> None:
        while True:
            kind, policy = dice.choice(KINDS), dice.choice(POLICIES)
            names = dice.sample(self._visited(), dice.choice((1, 3, 30)))
            options = {"timeframe": dice.choice(("1m", "1s", "5m"))} if kind == "candle" else {}
            pause_s, depth = dice.choice((0.0, 0.0, 0.05, 0.5)), dice.choice((5, 100, 1000))
            try:
                async with self._call(f"stream_{kind}"):
                    with trio.move_on_after(dice.expovariate(1 / 5.0)):
                        await self._listen(kind, names, policy, depth, pause_s, options)
            except SubscriberLagged as error:
                # There are endlessly many bars: even those that are conflated have a bound.
                if policy == "drop-oldest" or (policy == "conflate" and kind != "candle"):
                    self.post.put([ERROR, "visitor", f"policy {policy}: {error!r}", ""])
                self.failures[f"stream_{kind}: SubscriberLagged"] += 1
            self.counts["visits"] += 1
            await trio.sleep(dice.expovariate(1 / 2.0))

    def _visited(self) -> list[str]:
        # Every so manieth, so that lively and still ones of each quote are among them.
        return self.names[:: max(1, len(self.names) // self.plan.visited)]

    async def _listen(
        self, kind: str, names: list[str], policy: str, depth: int, pause_s: float, options: dict[str, Any]
    ) -> None:
        stream = getattr(self.market, f"stream_{kind}")(names, policy=policy, depth=depth, **options)
        async with stream as subscription:
            try:
                async for value in subscription:
                    if value.market not in names:
                        self.post.put([ERROR, "visitor", f"listened to {names}, was told {value}", ""])
                    if pause_s:
                        await trio.sleep(pause_s)
            finally:
                counts = subscription.statistics()
                known = counts.delivered + counts.conflated + counts.dropped + counts.queued
                may_drop = policy != "conflate" or kind == "candle"
                if counts.received != known or (counts.dropped and not may_drop):
                    self.post.put([ERROR, "visitor", f"policy {policy}: its counts are {counts}", ""])

    # -- what decides, and what collects ----------------------------------------------------------------------------

    async def _decide(self) -> None:
        engine = Engine(self.market)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forget, engine)
            async with self._call("engine"):
                await engine.run(self.lively[:TRADED])
            nursery.cancel_scope.cancel(reason="the engine has ended")

    async def _forget(self, engine: Engine) -> None:
        # Its journal is for who reads it; nobody does, and it would look like a leak.
        while True:
            await trio.sleep(SCREEN_S)
            self.counts["decisions"] += len(engine.journal)
            engine.journal.clear()

    async def _collect(self) -> None:
        """Job after job into the past, through all busy markets again and again; a failed one is done again."""
        turn = 0
        while True:
            first = turn * JOB_MARKETS % len(self.lively)
            round_ = turn * JOB_MARKETS // len(self.lively)
            end_ms = self.now_ms() // DAY_MS * DAY_MS - round_ * JOB_DAYS * DAY_MS
            async with self._call("backfill"):
                job = await self.market.start_backfill(
                    self.lively[first : first + JOB_MARKETS], start=end_ms - JOB_DAYS * DAY_MS, end=end_ms
                )
                report = await job.wait()
                self.counts["backfilled bars"] += report.bars
                self.counts[f"jobs {report.state}"] += 1
                turn += report.state is JobState.DONE
                for part in report.parts:
                    if part.error is not None:
                        self._refused("backfill", part.error)
            # A job of what is stored already is over at once.
            await trio.sleep(0.1)

    def _refused(self, verb: str, error: Exception) -> None:
        if isinstance(error, ExchangeError | StoreError):
            self.failures[f"{verb}: {type(error).__name__}"] += 1
        else:
            self.post.put([ERROR, verb, repr(error), ""])


def _is_news(bar: Candle, last: dict[str, int]) -> bool:
    """Whether a bar is final, or runs although it has been; ``last`` holds the last final bar of each market."""
    newest_ms = last.get(bar.market, -1)
    if bar.state is CandleState.FINAL:
        last[bar.market] = max(newest_ms, bar.open_ms)
        return True
    return bar.open_ms <= newest_ms
