"""The judge: starts the exchange and the subject, lets things go wrong, and holds what comes against the truth."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import psutil
import trio

from bench.ground import LATENCY_S, Ground
from bench.soak import letters
from bench.soak.bars import UNIT, BarBook, Shown
from bench.soak.children import Child, open_child
from bench.soak.plan import Plan
from bench.soak.record import Record
from bench.soak.rows import Held, held
from bench.soak.strikes import strikes
from bench.soak.trades import Told, TradeBook
from bench.soak.verdicts import beyond_limits, failures_while_calm, growths, idle, queue_flaws
from marketpipe.clock import SystemClock
from marketpipe.core.timeframes import Timeframe, next_open
from marketpipe.sim import SimConfig, SpawnedSimulator, World
from marketpipe.sim.limiter import CONNECT, MESSAGE
from marketpipe.sim.options import words_for

__all__ = ["judge"]

START_S, WHOLE_S, LEAVE_S = 180.0, 150.0, 30.0
# If nothing was found again for so long, nothing will be.
STUCK_S = 25.0
CHECK_S = 4.0
TELL_AGAIN = 5
# How often the judge looks whether the machine lets it run.
TICK_S = 0.1
# Between two checks of markets, others get their turn.
AT_ONCE = 20
# Pieces of days that are compared at each sample.
PIECES = 20
# What happened so shortly before the end may not have been told yet.
OVER_MS = 20_000
ANNOUNCEMENT = b"simulator listening on "
MEGA = 2**20
HAPPENING = ("trades", "minutes", "tickers", "books", "screened", "charts", "asked", "visits")

_decode = msgspec.json.Decoder().decode


async def judge(plan: Plan, folder: Path) -> Record:
    """One run, from beginning to end; ``folder`` gets the database. Ctrl-C ends it early."""
    record = Record(plan)
    async with _open_exchange(plan) as ground:
        judging = _Judging(plan, ground, record, folder / "soak.db")
        async with open_child("bench.soak.subject") as child:
            try:
                await judging.run(child)
            except Exception as error:  # what was seen so far is worth a report all the same
                judging.fail(error)
        await judging.settle(child)
    return record


@asynccontextmanager
async def _open_exchange(plan: Plan) -> AsyncIterator[Ground]:
    config = SimConfig(seed=plan.seed, markets=plan.markets, lively=plan.lively, latency_s=LATENCY_S, window="rolling")
    async with open_child("marketpipe.sim", "--port=0", "--leave-with-stdin", *words_for(config)) as child:
        with trio.fail_after(START_S):
            said = await anext(child.lines())
        if not said.startswith(ANNOUNCEMENT):
            raise RuntimeError(f"the simulator did not start; it printed {said!r}")
        base_url = said.removeprefix(ANNOUNCEMENT).decode().strip()
        world = World(plan.seed, plan.markets, lively=plan.lively)
        await trio.to_thread.run_sync(world.warm_up)
        yield Ground(SpawnedSimulator(base_url, config, child.process.pid), world, SystemClock())


@attrs.define(eq=False)
class _Judging:
    plan: Plan
    ground: Ground
    record: Record
    path: Path
    _began_s: float = attrs.field(default=0.0, init=False)
    _began_ms: int = attrs.field(default=0, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)
    _begun: trio.Event = attrs.field(factory=trio.Event, init=False)
    _early: list[list[Any]] = attrs.field(factory=list, init=False)
    _trades: dict[str, TradeBook] = attrs.field(factory=dict, init=False)
    _bars: dict[tuple[str, str], BarBook] = attrs.field(factory=dict, init=False)
    _reads: int = attrs.field(default=0, init=False)
    _rows: int = attrs.field(default=0, init=False)
    _names: list[str] = attrs.field(factory=list, init=False)
    _lively: list[str] = attrs.field(factory=list, init=False)
    _minutes: list[str] = attrs.field(factory=list, init=False)
    _seconds: list[str] = attrs.field(factory=list, init=False)
    _archive: World = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._names = self.ground.names()
        # The busiest of each quote have the most trades of an hour; they are found by what they are like.
        world = self.ground.world
        self._lively = [name for name in self._names if world.market(name).activity.name == "deep"]
        # Some that are still are among those whose bars are watched: where nothing is traded, nothing must be told.
        still = [name for name in self._names if name not in self._lively]
        some = self.plan.minutes * 2 // 3
        self._minutes = self._lively[:some] + still[: self.plan.minutes - some]
        self._seconds = self._lively[: self.plan.seconds_of]
        # Rows are compared in a thread: what a world remembers is not for two threads.
        self._archive = World(self.plan.seed, self.plan.markets, lively=self.plan.lively)

    # -- the run ----------------------------------------------------------------------------------------------------

    async def run(self, child: Child) -> None:
        """From the subject's start until it has left."""
        task = {"base_url": self.ground.base_url, "path": str(self.path), "names": self._names,
                "lively": self._lively, "minutes": self._minutes, "seconds": self._seconds,
                "plan": attrs.asdict(self.plan)}  # fmt: skip
        await child.say(json.dumps(task).encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, child)
            nursery.start_soon(self._hear_interrupts)
            with trio.move_on_after(START_S):
                await self._begun.wait()
            if not self._begun.is_set():
                self._find("start", f"the streams did not flow within {START_S:g} s")
                self._over.set()
            nursery.start_soon(self._strike)
            nursery.start_soon(self._check)
            nursery.start_soon(self._count)
            nursery.start_soon(self._compare_rows)
            nursery.start_soon(self._show)
            nursery.start_soon(self._watch_the_machine)
            with trio.move_on_after(self.plan.seconds):
                await self._over.wait()
            await self._end(child)
            nursery.cancel_scope.cancel(reason="the run is over")

    async def _end(self, child: Child) -> None:
        """Let it become whole, and leave."""
        self.record.lasted_s = self._now_s()
        end_ms = self.ground.clock.now_ms()
        if not self._left.is_set():
            await child.say(b"hush")
            await self._become_whole()
        self.record.whole_s = self._now_s() - self.record.lasted_s
        await child.say(b"leave")
        with trio.move_on_after(LEAVE_S):
            await self._left.wait()
        if not self._left.is_set():
            self._find("leaving", f"the pipeline was not left within {LEAVE_S:g} s")
        if self._begun.is_set():
            for book in self._trades.values():
                self._find_all("trades", book.close(end_ms - OVER_MS))
            for bars in self._bars.values():
                self._find_all("bars", bars.close(end_ms - OVER_MS))
        await self._take_account()

    async def _become_whole(self) -> None:
        """Wait until nothing is missing, but not for ever; a busy machine takes longer."""
        books: list[TradeBook | BarBook] = [*self._trades.values(), *self._bars.values()]
        least, stuck_s = sum(book.behind for book in books), trio.current_time() + STUCK_S
        with trio.move_on_after(WHOLE_S):
            while least and not self._left.is_set() and trio.current_time() < stuck_s:
                await trio.sleep(CHECK_S / 4)
                behind = sum(book.behind for book in books)
                if behind < least:
                    least, stuck_s = behind, trio.current_time() + STUCK_S

    async def settle(self, child: Child) -> None:
        """What can only be judged when all is over."""
        record, plan = self.record, self.plan
        if child.process.returncode:
            self._find("leaving", f"the subject ended with {child.process.returncode}")
        record.growths = growths(record.looks, plan, record.samples)
        for growth in record.growths:
            if growth.is_leak:
                self._find("growth", str(growth))
        if self._begun.is_set():
            found = await trio.to_thread.run_sync(held, self._archive, self.path)
            self._note_rows(found)
            self._rows = found.rows
        self._summarise()
        if record.interrupted or not record.samples:
            return
        calm_from_s = max((strike.ends_s for strike in record.strikes), default=0.0)
        self._find_all("failures", failures_while_calm(record.samples, calm_from_s))
        self._find_all("idle", idle(record.samples[-1]["counts"], HAPPENING))
        self._find_all("idle", idle(record.conserved, ("trades", "rows", "reads")))

    def fail(self, error: Exception) -> None:
        """The judge itself could not go on."""
        traceback.print_exception(error)
        self.record.lasted_s = self.record.lasted_s or self._now_s()
        self._find("harness", repr(error))

    def _find(self, check: str, words: str) -> None:
        self.record.findings.add(check, words, self._now_s())

    def _find_all(self, check: str, flaws: Iterator[str]) -> None:
        for words in flaws:
            self._find(check, words)

    def _now_s(self) -> float:
        return trio.current_time() - self._began_s if self._began_s else 0.0

    # -- what the subject tells -------------------------------------------------------------------------------------

    async def _listen(self, child: Child) -> None:
        async for lines in child.lines():
            for line in lines.split(b"\n"):
                self._hear(_decode(line))
            await trio.lowlevel.checkpoint()
        if not self._left.is_set():
            self._find("process", "the subject has ended by itself")
            self._left.set()
            self._begun.set()
            self._over.set()

    def _hear(self, letter: list[Any]) -> None:
        about, *rest = letter
        if about == letters.BEGUN:
            self._begin(rest[0])
        elif about == letters.ERROR:
            where, words, trace = rest
            self._find("escaped", f"{where}: {words}{_last_place(trace)}")
        elif about == letters.LOOK:
            if not self.record.lasted_s:  # what comes later is another load
                self.record.looks.append({"at_s": self._now_s(), **rest[0]})
        elif about == letters.SAMPLE:
            self._sampled({"at_s": self._now_s(), **rest[0]})
        elif about == letters.LEFT:
            self.record.left = rest[0]
            self._left.set()
        elif self._begun.is_set():
            self._hold(about, rest)
        else:
            self._early.append(letter)

    def _begin(self, began_ms: int) -> None:
        """From here on everything counts; books begin where the subject has listened for certain."""
        self._began_s, self._began_ms = trio.current_time(), began_ms
        world = self.ground.world

        def deals(market: str, start_ms: int, end_ms: int) -> Any:
            return world.trades(market, start_ms, end_ms, end_ms)

        def bars(market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Any:
            return world.candles(market, timeframe, start_ms, end_ms, end_ms - 1)

        self._trades = {name: TradeBook(name, deals, began_ms) for name in self._names}
        self._bars = {(name, "1m"): BarBook(name, Timeframe.M1, bars, began_ms) for name in self._minutes}
        self._bars |= {(name, "1s"): BarBook(name, Timeframe.S1, bars, began_ms)
                       for name in self._seconds}  # fmt: skip
        self._begun.set()
        for about, *rest in self._early:
            self._hold(about, rest)
        self._early.clear()

    def _hold(self, about: str, rest: list[Any]) -> None:
        if about == letters.TRADE:
            market, number, at_ms, buy, price, volume = rest
            told = Told(number, at_ms, buy, _units(price), _units(volume))
            self._find_all("trades", self._trades[market].trade(told))
        elif about == letters.BAR:
            market, timeframe, *numbers, is_final, revision = rest
            shown = _shown(*numbers, is_final=is_final, revision=revision)
            self._find_all("bars", self._bars[market, timeframe].bar(shown))
        elif about == letters.READ:
            market, timeframe, *numbers = rest
            self._read(market, Timeframe(timeframe), _shown(*numbers))
        elif about == letters.GAP:
            stream, market, start_ms, end_ms, is_open, repaired, _ = rest
            if stream == "trades":
                gap = self._trades[market].gap(start_ms, end_ms, is_open=is_open, repaired=repaired)
                self._find_all("trades", gap)

    def _read(self, market: str, timeframe: Timeframe, shown: Shown) -> None:
        end_ms = next_open(timeframe, shown.open_ms)
        true = self.ground.world.candles(market, timeframe, shown.open_ms, end_ms, end_ms - 1)
        flaw = shown.flaw(true[0]) if true and true[0].open_ms == shown.open_ms else "never was"
        self._reads += not flaw
        if flaw:
            self._find("reads", f"{market} {timeframe} at {shown.open_ms} {flaw}")

    def _sampled(self, sample: dict[str, Any]) -> None:
        self.record.samples.append(sample)
        self._find_all("pipe", queue_flaws(sample["pipe"]))
        self._summarise()
        sample["conserved"] = self.record.conserved

    def _summarise(self) -> None:
        books, bars = self._trades.values(), self._bars.values()
        self.record.conserved = {
            "trades": sum(book.checked for book in books),
            "trades missing for now": sum(book.behind for book in books),
            "gaps": sum(book.gaps for book in books),
            "gaps repaired": sum(book.repaired for book in books),
            "gaps unrepairable": sum(book.unrepairable for book in books),
            "bars": sum(book.checked for book in bars),
            "bars amended": sum(book.amended for book in bars),
            "bars missing for now": sum(book.behind for book in bars),
            "reads": self._reads,
            "rows": self._rows,
        }

    # -- what goes on beside ----------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        plan = self.plan
        if not plan.faults:
            return
        dealt = strikes(plan.seed, self._lively, first_s=plan.first_fault_s, last_s=plan.seconds - plan.calm_s,
                        every_s=plan.fault_every_s)  # fmt: skip
        for strike in dealt:
            await trio.sleep_until(self._began_s + strike.at_s)
            self.record.strikes.append(attrs.evolve(strike, at_s=self._now_s()))
            await self._tell("POST", "/sim/faults", [dict(fault) for fault in strike.faults])
        await trio.sleep_until(self._began_s + plan.seconds - plan.calm_s)
        await self._tell("DELETE", "/sim/faults")

    async def _check(self) -> None:
        while True:
            await trio.sleep(CHECK_S)
            now_ms = self.ground.clock.now_ms()
            for check, books in (("trades", self._trades.values()), ("bars", self._bars.values())):
                for number, book in enumerate(list(books)):  # type: ignore[arg-type]
                    self._find_all(check, book.check(now_ms))
                    if not number % AT_ONCE:
                        await trio.lowlevel.checkpoint()
            self._summarise()

    async def _count(self) -> None:
        every_s = min(10.0, max(1.0, self.plan.seconds / 120))
        while True:
            await trio.sleep(every_s)
            await self._take_account()

    async def _tell(self, method: str, path: str, body: Any = None) -> Any:
        """One of the simulator's own paths, again if it does not answer in time: a busy machine is no verdict."""
        for _ in range(TELL_AGAIN):
            began_s = trio.current_time()
            try:
                return await self.ground.tell(method, path, body)
            except OSError:
                self.record.stood_still_s = max(self.record.stood_still_s, trio.current_time() - began_s)
        return await self.ground.tell(method, path, body)

    async def _take_account(self) -> None:
        told = await self._tell("GET", "/sim/stats")
        told["streams"].pop("codes")
        self.record.sim = told
        self.record.rates.append({
            "at_s": self._now_s(),
            "frames": sum(told["streams"]["frames"].values()),
            "requests": {name: group["requests"] for name, group in told["groups"].items()},
            "rss": psutil.Process(self.ground.simulator.pid).memory_info().rss,
        })  # fmt: skip
        config = self.ground.simulator.config
        limits = {CONNECT: config.connect_limit, MESSAGE: config.message_limit}
        if "limits" not in self.record.findings.counts:
            self._find_all("limits", beyond_limits(told, limits, config.limit, config.minute_limit))

    async def _compare_rows(self) -> None:
        number = 0
        while True:
            await trio.sleep(self.plan.sample_s)
            number += 1
            found = await trio.to_thread.run_sync(partial(held, self._archive, self.path, days=PIECES, seed=number))
            self._note_rows(found)
            self._rows += found.rows

    def _note_rows(self, found: Held) -> None:
        for words in found.words:
            self._find("rows", words)

    async def _watch_the_machine(self) -> None:
        # Nothing here works for long: a judge that is late was not let run, and then nor were the others.
        while True:
            due_s = trio.current_time() + TICK_S
            await trio.sleep_until(due_s)
            self.record.stood_still_s = max(self.record.stood_still_s, trio.current_time() - due_s)

    async def _hear_interrupts(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self.record.interrupted = True
                self._over.set()

    # -- what people see --------------------------------------------------------------------------------------------

    async def _show(self) -> None:
        is_terminal = sys.stderr.isatty()
        before, before_s = 0, self._now_s()
        while True:
            await trio.sleep(1.0 if is_terminal else self.plan.sample_s)
            frames = self.record.rates[-1]["frames"] if self.record.rates else 0
            now_s = self.record.rates[-1]["at_s"] if self.record.rates else self._now_s()
            rate = (frames - before) / (now_s - before_s) if now_s > before_s else None
            if rate is not None:
                before, before_s, self._rate = frames, now_s, rate
            print(f"{self._progress()}\x1b[K" if is_terminal else self._progress(),
                  end="\r" if is_terminal else "\n", file=sys.stderr, flush=True)  # fmt: skip

    _rate: float = attrs.field(default=0.0, init=False)

    def _progress(self) -> str:
        record = self.record
        rss = record.looks[-1]["rss"] / MEGA if record.looks else 0.0
        verdict = f"RED: {record.findings}" if record.findings else "green so far"
        return (f"{self._now_s():5.0f} s of {self.plan.seconds:.0f}  {self._rate:5,.0f} messages/s  "
                f"{record.conserved.get('trades', 0):,} trades checked  {len(record.strikes)} faults  {rss:.0f} MiB  "
                f"{verdict}")  # fmt: skip


def _units(number: str) -> int:
    return int(Decimal(number) * UNIT)


def _shown(open_ms: int, *numbers: str, is_final: bool = True, revision: int = 0) -> Shown:
    opening, high, low, close, volume = map(_units, numbers[:5])
    return Shown(open_ms, (opening, high, low, close), volume, Decimal(numbers[5]) * UNIT, is_final, revision)


def _last_place(trace: str) -> str:
    places = [line.strip() for line in trace.splitlines() if line.lstrip().startswith("File ")]
    return f" ({places[-1]})" if places else ""
