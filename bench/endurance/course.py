"""The run itself: who listens, who reads, what goes wrong, and what is found."""

from __future__ import annotations

import gc
import json
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio
from trio.testing import MockClock

from bench.endurance.plan import (
    DAY_MS,
    HOUR_MS,
    LOOK_HOUR,
    MINUTE_MS,
    START_MS,
    Absences,
    Plan,
    clock_steps,
    naps,
    outages,
    struck,
    worlds,
)
from bench.endurance.stage import Stage, open_stage
from bench.soak.bars import UNIT, BarBook, Shown
from bench.soak.findings import Findings
from bench.soak.probes import look
from bench.soak.rows import Held, held
from bench.soak.slopes import theil_sen
from bench.soak.trades import Told, TradeBook
from bench.soak.verdicts import beyond_limits, queue_flaws
from marketpipe import Candle, CandleState, Gap, MarketPipeError, Side, Timeframe, Trade, UnknownMarket
from marketpipe.core.timeframes import floor, next_open
from marketpipe.sim import World
from marketpipe.sim.limiter import CONNECT, MESSAGE

__all__ = ["Course", "endure"]

ENDLESS = 10**7
CHECK_S = 60.0
READ_S = 420.0
SCREEN_S = 150.0
# What was told is judged later than in a run in real time: an outage may last 25 minutes, and after a sleep of which
# its monotonic clock knows nothing the pipe believes that the exchange's clock was set only after ten minutes.
PATIENCE_MS = 35 * MINUTE_MS
CHECKED_BARS = 60
OVER_MS = 40 * MINUTE_MS
FOLLOW_S = 30.0
# How a stream ends whose market is not listed any more.
ENDED = "nothing more will come"
TRADES, MINUTES = "trades", "minutes"
PERIODS = ("1d", "1w", "1M", "1y")
# What may grow in a day, in MiB, in allocated blocks and in tasks: nothing does; there is noise.
GROWN = {"malloc": 1.0 * 2**20, "blocks": 10_000.0, "tasks": 0.3, "handles": 0.3}


@attrs.define
class Bars(BarBook):
    """As its base; what was told to be gone for good need not come. ``from_ms``: the first bar that must come."""

    given_up: int = attrs.field(default=0, init=False)
    from_ms: int | None = attrs.field(default=None, kw_only=True)
    _gone: list[tuple[int, int]] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.from_ms is not None:
            self._frontier_ms = self.from_ms

    def gap(self, gap: Gap) -> None:
        """A gap came."""
        if not gap.is_open and not gap.repaired:
            self._gone.append((gap.start_ms, gap.end_ms))

    def _broken(self, before_ms: int) -> Iterator[str]:
        for open_ms in [open_ms for open_ms in (*self._missing, *self._unproven) if self._is_gone(open_ms)]:
            if next_open(self.timeframe, open_ms) <= before_ms:
                self.given_up += 1
                self._missing.discard(open_ms)
                self._unproven.pop(open_ms, None)
        yield from super()._broken(before_ms)

    def _is_gone(self, open_ms: int) -> bool:
        close_ms = next_open(self.timeframe, open_ms)
        return any(start_ms < close_ms and open_ms <= end_ms for start_ms, end_ms in self._gone)


@attrs.define(eq=False)
class Course:
    """One run, and what is known of it."""

    plan: Plan
    say: Callable[[str], None] = print
    findings: Findings = attrs.field(factory=Findings, init=False)
    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    failures: Counter[str] = attrs.field(factory=Counter, init=False)
    looks: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    groups: dict[str, Any] = attrs.field(factory=dict, init=False)
    requests: int = attrs.field(default=0, init=False)
    struck: int = attrs.field(default=0, init=False)
    held: Held = attrs.field(factory=Held, init=False)
    real_s: float = attrs.field(default=0.0, init=False)
    reached_ms: int = attrs.field(default=START_MS, init=False)
    _began_s: float = attrs.field(factory=time.monotonic, init=False)
    _world: World = attrs.field(init=False)
    _truth: World = attrs.field(init=False)
    _absences: Absences = attrs.field(init=False)
    _stage: Stage = attrs.field(init=False)
    _trades: dict[str, TradeBook] = attrs.field(factory=dict, init=False)
    _bars: dict[tuple[str, str], Bars] = attrs.field(factory=dict, init=False)
    _done: Counter[str] = attrs.field(factory=Counter, init=False)
    _new_books: dict[str, Callable[[str], Any]] = attrs.field(factory=dict, init=False)
    _asleep_ms: int = attrs.field(default=0, init=False)
    _woken_ms: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._world, self._absences = worlds(self.plan)
        self._truth = self._world.in_hindsight()

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """From beginning to end, in a Trio run of its own."""
        mock = MockClock(autojump_threshold=0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "endurance.db"
            try:
                trio.run(self._run, path, mock, clock=mock)
            except Exception as error:
                traceback.print_exception(error)
                self._find("escaped", repr(error))
            if path.exists():
                self.held = held(self._truth, path)
        self._find_all("rows", self.held.words)
        self._judge_growth()
        for name, count in (("trades", self.trades_checked), ("bars", self.bars_checked), ("rows", self.held.rows)):
            if not count:
                self._find("idle", f"no {name} in the whole run")
        self.real_s = time.monotonic() - self._began_s

    async def _run(self, path: Path, mock: MockClock) -> None:
        async with open_stage(self.plan, self._world, path, mock) as stage:
            self._stage = stage
            async with trio.open_nursery() as nursery:
                self._listen(nursery)
                for steps in (self._check, self._screen, self._read, self._collect, self._look, self._show):
                    nursery.start_soon(self._guarded, steps)
                for steps in (self._strike, self._fail, self._nap, self._set_clock):
                    nursery.start_soon(steps)
                await stage.until(self.plan.end_ms)
                self._close()
                nursery.cancel_scope.cancel(reason="the run is over")

    async def _guarded(self, steps: Callable[[], Any]) -> None:
        while True:
            try:
                await steps()
                return
            except Exception as error:
                self._find("escaped", f"{getattr(steps, '__name__', 'a consumer')}: {error!r}")
                traceback.print_exception(error)
                await trio.sleep(60)

    def _close(self) -> None:
        stage = self._stage
        end_ms = self.reached_ms = stage.now_ms()
        for book in self._trades.values():
            self._find_all("trades", book.close(end_ms - OVER_MS))
        for bars in self._bars.values():
            self._find_all("bars", bars.close(end_ms - OVER_MS))
        statistics = attrs.asdict(stage.exchange.statistics())
        self._judge_limits(statistics)

    # -- who listens and reads --------------------------------------------------------------------------------------

    def _listen(self, nursery: trio.Nursery) -> None:
        now_ms, plan, world = self._stage.now_ms(), self.plan, self._truth

        def deals(market: str, start_ms: int, end_ms: int) -> Any:
            return world.trades(market, start_ms, end_ms, end_ms)

        def bars(market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Any:
            return world.candles(market, timeframe, start_ms, end_ms, end_ms - 1)

        names = [name for name in world.markets if self._world.is_listed(name, now_ms)]
        steady = [name for name in names if name not in self._absences]
        share = plan.minutes // 3
        minutes = steady[: plan.minutes - share]
        # What is told within the first minute may be what was last before.
        self._new_books = {
            TRADES: lambda name: TradeBook(name, deals, self._stage.now_ms() + MINUTE_MS),
            MINUTES: lambda name: Bars(name, Timeframe.M1, bars, self._stage.now_ms() + MINUTE_MS),
        }
        self._trades = {name: self._new_books[TRADES](name) for name in steady}
        self._bars = {(name, "1m"): self._new_books[MINUTES](name) for name in minutes}
        for period in PERIODS:
            timeframe = Timeframe(period)
            # Of a day and more it is also known what was before.
            first_ms = floor(timeframe, now_ms)
            self._bars |= {(name, period): Bars(name, timeframe, bars, now_ms, from_ms=first_ms) for name in steady[:3]}
        market = self._stage.market
        listened = [(None, partial(market.stream_trade, steady)), ("1m", partial(market.stream_candle, minutes, "1m"))]
        listened += [(period, partial(market.stream_candle, steady[:3], period)) for period in PERIODS]
        for timeframe_name, subscribe in listened:
            nursery.start_soon(self._guarded, partial(self._hear, subscribe, timeframe_name))
        unsteady = list(self._absences)
        for name in unsteady:
            nursery.start_soon(self._guarded, partial(self._follow, name, TRADES))
        for name in unsteady[:share]:
            nursery.start_soon(self._guarded, partial(self._follow, name, MINUTES))

    async def _follow(self, name: str, what: str) -> None:
        """Listen to a market whenever it is listed: its stream ends with it, and has to be asked for anew."""
        market = self._stage.market
        subscribe = partial(market.stream_trade, name) if what == TRADES else partial(market.stream_candle, name, "1m")
        while True:
            if self._world.is_listed(name, self._stage.now_ms()):
                book = self._new_books[what](name)
                if what == TRADES:
                    self._trades[name] = book
                else:
                    self._bars[name, "1m"] = book
                try:
                    await self._hear(subscribe, None if what == TRADES else "1m")
                    self.counts["streams that ended with their market"] += 1
                except UnknownMarket:
                    self.failures["listen: UnknownMarket"] += 1
                self._forget(name, what)
            await trio.sleep(FOLLOW_S)

    def _forget(self, name: str, what: str) -> None:
        book: TradeBook | Bars = self._trades.pop(name) if what == TRADES else self._bars.pop((name, "1m"))
        kind = "trades" if what == TRADES else "1m"
        self._done[kind] += book.checked
        self._done["gaps"] += getattr(book, "gaps", 0)
        self._done["repaired"] += getattr(book, "repaired", 0)
        self._done["unrepairable"] += getattr(book, "unrepairable", 0)

    async def _hear(self, subscribe: Callable[..., Any], timeframe: str | None) -> None:
        """Until the stream of a single market has ended."""
        async with subscribe(depth=ENDLESS) as subscription:
            async for value in subscription:
                if isinstance(value, Trade):
                    self._hear_trade(value)
                elif isinstance(value, Candle):
                    self._find_all("bars", self._bars[value.market, value.timeframe.value].bar(_shown(value)))
                elif value.proof == ENDED and value.market in self._absences:
                    return
                elif timeframe is None:
                    gap = self._trades[value.market].gap(
                        value.start_ms, value.end_ms, is_open=value.is_open, repaired=value.repaired
                    )
                    self._find_all("trades", gap)
                else:
                    self._bars[value.market, timeframe].gap(value)

    def _hear_trade(self, trade: Trade) -> None:
        self.counts["trades"] += 1
        if self.plan.lose_every is not None and self.counts["trades"] % self.plan.lose_every == 0:
            return
        told = Told(trade.sequential_id, trade.trade_ms, trade.side is Side.BUY, int(trade.price * UNIT),
                    int(trade.volume * UNIT))  # fmt: skip
        self._find_all("trades", self._trades[trade.market].trade(told))

    async def _call(self, verb: str, call: Callable[[], Any]) -> Any:
        """Its answer; None if it fails for the exchange's reasons."""
        try:
            self.counts[verb] += 1
            return await call()
        except MarketPipeError as error:
            self.failures[f"{verb}: {type(error).__name__}"] += 1
            return None

    async def _screen(self) -> None:
        while True:
            listed = self._world.listed(self._stage.now_ms())
            await self._call("screen", partial(self._stage.market.get_ticker, listed, max_age_s=1.0))
            await trio.sleep(SCREEN_S)

    async def _read(self) -> None:
        turn = 0
        while True:
            listed = sorted(self._world.listed(self._stage.now_ms()))
            name, timeframe = listed[turn % len(listed)], ("1m", "5m", "1h", "1d")[turn % 4]
            turn += 1
            bars = await self._call("chart", partial(self._stage.market.get_candle, name, timeframe, count=200))
            settled_ms = self._stage.now_ms() - OVER_MS
            for bar in (bars or ())[-CHECKED_BARS:]:
                if bar.close_ms < settled_ms:
                    self._compare(bar)
            await trio.sleep(READ_S)

    def _compare(self, bar: Candle) -> None:
        true = self._truth.candles(bar.market, bar.timeframe, bar.open_ms, bar.close_ms, bar.close_ms - 1)
        flaw = _shown(bar).flaw(true[0]) if true and true[0].open_ms == bar.open_ms else "never was"
        self.counts["bars read"] += not flaw
        is_over = bar.state is CandleState.FINAL or self._stage.now_ms() < self._woken_ms + PATIENCE_MS
        if flaw or not is_over:
            self._find("reads", f"{bar.market} {bar.timeframe} at {bar.open_ms} is {bar.state} {flaw}")

    async def _collect(self) -> None:
        """A backfill every few hours, of which the last of a day begins before midnight and ends after it."""
        turn = 0
        while True:
            await trio.sleep(4 * 3_600)
            listed = sorted(self._world.listed(self._stage.now_ms()))
            turn += 1
            for offset in (0, 7):
                name, timeframe = listed[(turn + offset) % len(listed)], ("1m", "5m", "1h", "1d")[turn % 4]
                start_ms = self._stage.now_ms() - 12 * HOUR_MS * (60 if timeframe == "1d" else 1)
                start = partial(self._stage.market.start_backfill, name, timeframe, start=start_ms)
                job = await self._call("backfill", start)
                if job is not None:
                    with trio.move_on_after(3_600):
                        await job.wait()

    # -- what goes wrong --------------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        for strike in struck(self.plan, list(self._world.markets)):
            await self._at(START_MS + round(strike.at_s * 1000))
            if self._is_due(START_MS + round(strike.at_s * 1000)):
                self._stage.strike(strike.faults)
                self.counts["faults"] += len(strike.faults)

    async def _fail(self) -> None:
        for at_ms, faults in outages(self.plan):
            await self._at(at_ms)
            if self._is_due(at_ms):
                self._stage.strike(faults)
                self.counts["faults"] += len(faults)
                self.counts["outages"] += 1

    async def _nap(self) -> None:
        for nap in naps(self.plan):
            await self._at(nap.at_ms)
            # Before: whoever is woken first, at once judges by it.
            self._asleep_ms = self._stage.now_ms()
            self._woken_ms = self._asleep_ms + nap.lasts_ms
            await self._stage.nap(nap.lasts_ms, counted=nap.counted)
            self.counts["naps, counted" if nap.counted else "naps, not counted"] += 1

    async def _set_clock(self) -> None:
        for step in clock_steps(self.plan):
            await self._at(step.at_ms)
            self._stage.ours.off_ms = step.off_ms
            self.counts["clock steps"] += 1

    async def _at(self, at_ms: int) -> None:
        await self._stage.until(at_ms)

    def _is_due(self, at_ms: int) -> bool:
        # What would have happened while the machine slept does not happen at all.
        return self._stage.now_ms() - at_ms < MINUTE_MS

    # -- what is found ----------------------------------------------------------------------------------------------

    async def _check(self) -> None:
        while True:
            await trio.sleep(CHECK_S)
            self.reached_ms = self._stage.now_ms()
            judged_ms = self._judged_ms()
            for book in self._trades.values():
                self._find_all("trades", book.check(judged_ms))
            for bars in self._bars.values():
                self._find_all("bars", bars.check(judged_ms))

    def _judged_ms(self) -> int:
        """The time that the books are told. While the machine sleeps nobody can tell it anything: that is no delay."""
        now_ms = self._stage.now_ms()
        awake_ms = now_ms - self._woken_ms
        return (now_ms if awake_ms > PATIENCE_MS else self._asleep_ms) - PATIENCE_MS

    async def _look(self) -> None:
        day_ms = START_MS
        while True:
            await self._at(day_ms + LOOK_HOUR * HOUR_MS)
            day_ms += DAY_MS
            gc.collect()
            seen = look(psutil.Process())
            self.looks.append({"day": len(self.looks) + 1, **seen})
            self._judge_pipe()
            for verb in (self._stage.market.get_market, partial(self._stage.market.get_ticker, "KRW-BTC", max_age_s=0)):
                try:
                    await verb()
                except MarketPipeError as error:
                    self._find("calm", f"a call failed while all was well: {error!r}")

    async def _show(self) -> None:
        day_ms = START_MS
        while True:
            day_ms += DAY_MS
            await self._at(day_ms)
            self.say(self.progress())

    def progress(self) -> str:
        """Where it is."""
        at = datetime.fromtimestamp(self.reached_ms / 1000, UTC)
        tasks = sum(self.looks[-1]["tasks"].values()) if self.looks else 0
        rss = self.looks[-1]["rss"] / 2**20 if self.looks else 0
        statistics = self._stage.exchange.statistics()
        requests = sum(group.requests for group in statistics.groups.values())
        return (f"{at:%Y-%m-%d %H:%M} after {time.monotonic() - self._began_s:,.0f} s: {self.trades_checked:,} trades, "
                f"{self.bars_checked:,} bars, {self.counts['faults']:,} faults, {requests:,} requests, {tasks} tasks, "
                f"{rss:.0f} MiB, {sum(self.findings.counts.values())} findings")  # fmt: skip

    def _judge_pipe(self) -> None:
        status = self._stage.market.status()
        consumers, store = status.consumers, status.store
        self._find_all("pipe", queue_flaws({
            "queues": {name: [queue.depth, queue.peak, queue.capacity] for name, queue in status.queues.items()},
            "unaccounted": consumers.received - consumers.delivered - consumers.conflated - consumers.dropped
            - consumers.queued - consumers.unread,
            "rows_let_go": 0 if store is None else store.rows_let_go,
            "store_failures": 0 if store is None else store.failures,
        }))  # fmt: skip

    def _judge_limits(self, statistics: dict[str, Any]) -> None:
        config = self._stage.exchange.config
        limits = {CONNECT: config.connect_limit, MESSAGE: config.message_limit}
        self._find_all("limits", beyond_limits(statistics, limits, config.limit, config.minute_limit))
        self.groups = statistics["groups"]
        self.requests = sum(group["requests"] for group in self.groups.values())
        self.struck = sum(statistics["faults"].values())

    def _judge_growth(self) -> None:
        for name, allowed in GROWN.items():
            points = [(float(seen["day"]), float(sum(seen[name].values()) if name == "tasks" else seen[name] or 0))
                      for seen in self.looks[1:]]  # fmt: skip
            slope = theil_sen(points)
            if slope is not None and slope.least_per_s > allowed:
                self._find("growth", f"{name} grows by {slope.per_s:,.1f} a day, for certain by "
                                     f"{slope.least_per_s:,.1f}, allowed {allowed:,.1f}")  # fmt: skip

    def _find(self, check: str, words: str) -> None:
        days = (self.reached_ms - START_MS) / DAY_MS
        self.findings.add(check, words, days * 86_400)

    def _find_all(self, check: str, flaws: Iterable[str]) -> None:
        for words in flaws:
            self._find(check, words)

    # -- figures ----------------------------------------------------------------------------------------------------

    @property
    def trades_checked(self) -> int:
        """Trades that were told once and as they were."""
        return sum(book.checked for book in self._trades.values()) + self._done["trades"]

    @property
    def bars_checked(self) -> int:
        """Bars that were told FINAL and as they were."""
        return sum(book.checked for book in self._bars.values()) + self._done["1m"]

    @property
    def listings(self) -> int:
        """How often a market was delisted or listed again so far."""
        return sum((at_ms < self.reached_ms) for spans in self._absences.values() for span in spans for at_ms in span)

    def document(self) -> dict[str, Any]:
        """Everything that is known, for JSON."""
        trades, bars = self._trades.values(), self._bars.values()
        by_period = {period: sum(book.checked for (_, each), book in self._bars.items() if each == period)
                     for period in ("1m", *PERIODS)}  # fmt: skip
        by_period["1m"] += self._done["1m"]
        return {
            "verdict": self.verdict,
            "plan": attrs.asdict(self.plan),
            "real_s": self.real_s,
            "counts": dict(self.counts),
            "failures": dict(self.failures),
            "listings": self.listings,
            "struck": self.struck,
            "requests": self.requests,
            "groups": self.groups,
            "trades": {"checked": self.trades_checked, "gaps": sum(book.gaps for book in trades) + self._done["gaps"],
                       "repaired": sum(book.repaired for book in trades) + self._done["repaired"],
                       "unrepairable": sum(book.unrepairable for book in trades) + self._done["unrepairable"]},
            "bars": {"checked": by_period, "amended": sum(book.amended for book in bars),
                     "given up": sum(book.given_up for book in bars)},
            "rows": {"compared": self.held.rows, "series": self.held.series, "spans": self.held.spans},
            "looks": self.looks,
            "findings": {"told": [attrs.asdict(each) for each in self.findings.told], "counts": self.findings.counts},
        }  # fmt: skip

    @property
    def verdict(self) -> str:
        """The run in one line."""
        days = (self.reached_ms - START_MS) / DAY_MS
        if self.findings:
            return f"RED after {days:.1f} days in {self.real_s:,.0f} s: {self.findings}"
        greatest = max((group["greatest_per_second"] for group in self.groups.values()), default=0)
        return (f"GREEN after {days:.1f} days in {self.real_s:,.0f} s: {self.trades_checked:,} trades, "
                f"{self.bars_checked:,} bars and {self.held.rows:,} rows of {self.held.series} series as they were; "
                f"{self.counts['faults']:,} faults, {self.listings:,} listings and delistings, "
                f"{self.requests:,} requests, at most {greatest} of a group in a second")  # fmt: skip


def _shown(bar: Candle) -> Shown:
    prices = (int(bar.open * UNIT), int(bar.high * UNIT), int(bar.low * UNIT), int(bar.close * UNIT))
    return Shown(bar.open_ms, prices, int(bar.volume * UNIT), bar.quote_volume * UNIT,
                 bar.state is CandleState.FINAL, bar.revision)  # fmt: skip


def endure(plan: Plan, out: Path | None = None, say: Callable[[str], None] = print) -> Course:
    """Play ``plan``; with ``out`` everything that was seen is written there as JSON."""
    course = Course(plan, say)
    course.run()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(course.document(), indent=1))
    return course
