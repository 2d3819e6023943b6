"""What goes wrong with live streams, scenario by scenario: how soon it is noticed, and that nothing is lost by it.

The same table is played in virtual time (`play_virtually`: no real time passes, and an outage may last ten minutes) and
over sockets in real time. Afterwards what the consumers were told is held against the market as it really was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import attrs
import trio
from trio.testing import MockClock

from bench.figures import Figure, Matrix, Outcome, at_most
from bench.oracle import Log, Verdict, listen, verdict_on_bars, verdict_on_trades
from bench.scale import Scale
from bench.stages import Stage, open_real_stage, open_virtual_stage
from marketpipe import Timeframe
from marketpipe.core.topics import Line

__all__ = ["SCENARIOS", "Account", "Scenario", "outages", "play_virtually"]

MARKETS = 40
LATENCY_S = 0.02
BUSIEST = ("KRW-BTC", "KRW-ETH", "KRW-XRP")
LISTENED = 8
NOTICED_S = 5.0
AWAY_S = 3.0
COMINGS = 10
LOOK_S = 0.05
ENDLESS = 10**6
NEVER_S = 10.0**6


@attrs.frozen(kw_only=True)
class Pace:
    """How long all is well before, and how long it is listened after the exchange is well again."""

    before_s: float
    after_s: float


# A bar is over for certain 15 s after its end, and what was lost just before is asked for several times.
VIRTUAL = Pace(before_s=30.0, after_s=70.0)
REAL = Pace(before_s=6.0, after_s=30.0)


@attrs.frozen(kw_only=True)
class Scenario:
    """``faults`` are posted together; ``lasts_s`` later the exchange is well again.

    ``from_the_first``: they are there before anybody listens. ``noticed_within_s``: what is promised about noticing;
    None if there is nothing to notice, or no promise: one market that is silent while others speak is not suspicious so
    soon. ``meanwhile``: what else goes on, until ``lasts_s`` at most. ``real``, ``virtual``: where it is played.
    """

    name: str
    faults: Sequence[Mapping[str, Any]] = ()
    lasts_s: float = 0.0
    from_the_first: bool = False
    noticed_within_s: float | None = NOTICED_S
    meanwhile: Callable[[Stage, Sequence[str]], Awaitable[None]] | None = None
    real: bool = False
    virtual: bool = True


async def _come_and_go(stage: Stage, names: Sequence[str]) -> None:
    # Each joining and each leaving sends the whole subscription of the connection anew.
    for turn in range(COMINGS):
        async with stage.market.stream_trade(names[turn % len(names)]):
            await trio.sleep(1.0)
        await trio.sleep(1.0)


async def _go_away(stage: Stage, names: Sequence[str]) -> None:
    await stage.restart(AWAY_S)


def _outage(for_s: float) -> list[dict[str, Any]]:
    return [{"kind": "ws-down", "for_s": for_s}, {"kind": "down", "for_s": for_s}]


def _for(for_s: float, kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "for_s": for_s, **more}


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="outage of 5 s", faults=_outage(5), lasts_s=5, real=True),
    Scenario(name="outage of 15 s", faults=_outage(15), lasts_s=15, real=True, virtual=False),
    Scenario(name="outage of 10 min", faults=_outage(600), lasts_s=600),
    Scenario(name="closed 1000", faults=[{"kind": "ws-close", "code": 1000}], real=True),
    Scenario(name="closed 1006", faults=[{"kind": "ws-drop"}], real=True),
    Scenario(name="stall from the first moment", faults=[_for(12, "ws-stall")], lasts_s=12, from_the_first=True,
             real=True),
    Scenario(name="stall later, pongs", faults=[_for(15, "ws-stall")], lasts_s=15, real=True),
    Scenario(name="stall later, no pongs", faults=[_for(15, "ws-stall", pongs=False)], lasts_s=15, real=True),
    Scenario(name="503 three times on the upgrade", lasts_s=8, real=True,
             faults=[{"kind": "ws-drop"}, {"kind": "ws-refuse", "status": 503, "count": 12}]),
    Scenario(name="half a frame", faults=[{"kind": "ws-half"}]),
    Scenario(name="garbage", faults=[{"kind": "ws-garbage", "count": 3}]),
    Scenario(name="one market mute", faults=[_for(20, "ws-mute", codes=["KRW-BTC"])], lasts_s=20,
             noticed_within_s=None),
    Scenario(name="reordered, doubled", lasts_s=30, noticed_within_s=None,
             faults=[_for(30, "ws-reorder", probability=0.2), _for(30, "ws-duplicate", probability=0.2)]),
    Scenario(name="clock off by a minute", faults=[_for(20, "clock-skew", skew_ms=60_000)], lasts_s=20,
             noticed_within_s=None),
    Scenario(name="3 kB a second", faults=[_for(20, "ws-drip", bytes_per_s=3_000, chunk=100)], lasts_s=20,
             noticed_within_s=None),
    Scenario(name="others come and go", lasts_s=2 * COMINGS, noticed_within_s=None, meanwhile=_come_and_go,
             real=True),
    Scenario(name="exchange restarts", lasts_s=AWAY_S, meanwhile=_go_away, real=True),
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Account:
    """What became of a scenario. Seconds are after it began, or after the exchange was well again.

    ``noticed_s``: until the consumers of trades were told of the first hole, or, where nothing had been shown yet,
    until the connection was given up. ``recovered_s``, ``bars_recovered_s``: until the last hole was closed, or, where
    nothing had been shown yet, until something was. None: never, or there was none.
    """

    scenario: Scenario
    noticed_s: float | None
    recovered_s: float | None
    bars_recovered_s: float | None
    trades: Verdict
    bars: Verdict
    holes: int
    over_the_limits: Sequence[str] = ()

    def broken(self) -> list[str]:
        """A line for each promise that was broken."""
        name, within_s = self.scenario.name, self.scenario.noticed_within_s
        lines = [*self.trades.words, *self.bars.words, *self.over_the_limits]
        if within_s is not None and (self.noticed_s is None or self.noticed_s > within_s):
            lines.append(f"noticed after {_seconds(self.noticed_s)}, should be {within_s:g}")
        if self.holes:
            lines.append(f"{self.holes} holes were never closed")
        return [f"{name}: {line}" for line in lines]

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        bars_wrong = self.bars.lost + self.bars.doubled + self.bars.wrong
        counts = (self.trades.lost, self.trades.doubled, self.trades.wrong, bars_wrong, self.trades.gaps,
                  self.trades.unrepairable)  # fmt: skip
        moments = (self.noticed_s, self.recovered_s, self.bars_recovered_s)
        return (self.scenario.name, *map(_seconds, moments), *map(str, counts))


COLUMNS = ("scenario", "noticed s", "trades whole s", "bars whole s", "trades lost", "doubled", "wrong", "bars wrong",
           "gaps told", "not mended")  # fmt: skip


def _seconds(moment_s: float | None) -> str:
    return "-" if moment_s is None else f"{moment_s:.2f}"


@attrs.define(kw_only=True)
class _Played:
    """What was heard, and when what happened; it is judged when no clock is running any more."""

    scenario: Scenario
    stage: Stage
    names: Sequence[str]
    listened_ms: int
    logs: dict[str, Log] = attrs.field(factory=lambda: {name: Log() for name in ("trade", "ticker", "1m", "1s")})
    began_s: float = 0.0
    ended_ms: int = 0
    given_up_s: float | None = None
    over_the_limits: Sequence[str] = ()

    def account(self) -> Account:
        scenario, logs = self.scenario, self.logs
        trades = [verdict_on_trades(logs["trade"], self.stage.world, name, self.ended_ms, since_ms=self.listened_ms)
                  for name in self.names]  # fmt: skip
        bars = [
            verdict_on_bars(logs[timeframe.value], self.stage.world, name, timeframe, self.ended_ms)
            for name in self.names
            for timeframe in (Timeframe.M1, Timeframe.S1)
        ]
        well_s = self.began_s + scenario.lasts_s
        noticed_s = self.given_up_s if scenario.from_the_first else logs["trade"].noticed_s(self.began_s)
        return Account(
            scenario=scenario,
            noticed_s=_after(noticed_s, self.began_s),
            recovered_s=_after(self._recovered_s(well_s), well_s),
            bars_recovered_s=_after(max(filter(None, (logs["1m"].recovered_s(), logs["1s"].recovered_s())),
                                        default=None), well_s),
            trades=Verdict.summed(trades),
            bars=Verdict.summed(bars),
            holes=sum(len(log.holes()) for log in logs.values()),
            over_the_limits=self.over_the_limits,
        )  # fmt: skip

    def _recovered_s(self, well_s: float) -> float | None:
        log = self.logs["trade"]
        if log.gaps or not self.scenario.from_the_first:
            return log.recovered_s()
        return next((at_s for at_s, _ in log.events if at_s >= well_s), None)


def _after(moment_s: float | None, since_s: float) -> float | None:
    return None if moment_s is None else max(0.0, moment_s - since_s)


async def _play(scenario: Scenario, stage: Stage, pace: Pace) -> _Played:
    listed = stage.world.listed(stage.now_ms())
    names = [*BUSIEST, *(name for name in listed if name not in BUSIEST)]
    played = _Played(scenario=scenario, stage=stage, names=names[:LISTENED], listened_ms=stage.now_ms())
    market, logs = stage.market, played.logs
    async with trio.open_nursery() as nursery:
        if scenario.from_the_first:
            await _begin(played)
        for start in (
            partial(listen, market, "trade", played.names, logs["trade"]),
            partial(listen, market, "ticker", played.names, logs["ticker"]),
            partial(listen, market, "candle", played.names, logs["1m"], timeframe="1m"),
            # Seconds of ten minutes come at once when they are mended.
            partial(listen, market, "candle", played.names, logs["1s"], timeframe="1s", depth=ENDLESS),
        ):
            await nursery.start(start)
        if not scenario.from_the_first:
            await trio.sleep(pace.before_s)
            await _begin(played)
        nursery.start_soon(_watch, played)
        if scenario.meanwhile is not None:
            await scenario.meanwhile(stage, names[LISTENED : 2 * LISTENED])
        await trio.sleep_until(played.began_s + scenario.lasts_s + pace.after_s)
        played.ended_ms = stage.now_ms()
        played.over_the_limits = await stage.over_the_limits()
        nursery.cancel_scope.cancel(reason="everything has been heard")
    return played


async def _begin(played: _Played) -> None:
    played.began_s = trio.current_time()
    for fault in played.scenario.faults:
        await played.stage.strike(fault)


async def _watch(played: _Played) -> None:
    """Look when the connection of trades is given up for the first time."""

    def losses() -> int:
        return played.stage.market.status().connections[Line.TRADE].losses

    before = losses()
    while losses() == before:  # noqa: ASYNC110  nobody tells of a new one
        await trio.sleep(LOOK_S)
    played.given_up_s = trio.current_time()


def play_virtually(scenario: Scenario) -> Account:
    """Play ``scenario`` in a Trio run of its own, under a mock clock; what became of it."""

    async def main() -> Account:
        async with open_virtual_stage(markets=MARKETS, latency_s=LATENCY_S) as stage:
            return (await _play(scenario, stage, VIRTUAL)).account()

    return trio.run(main, clock=MockClock(autojump_threshold=0))


async def _play_really(scenarios: Sequence[Scenario]) -> list[Account]:
    """All at once, each on a stage of its own: nearly all of the time is waiting."""
    played: dict[str, _Played] = {}

    async def play(scenario: Scenario, stage: Stage) -> None:
        played[scenario.name] = await _play(scenario, stage, REAL)

    async with AsyncExitStack() as stack:
        stages = [await stack.enter_async_context(open_real_stage(markets=MARKETS, latency_s=LATENCY_S))
                  for _ in scenarios]  # fmt: skip
        async with trio.open_nursery() as nursery:
            for scenario, stage in zip(scenarios, stages, strict=True):
                nursery.start_soon(play, scenario, stage)
    return [played[scenario.name].account() for scenario in scenarios]


async def outages(scale: Scale) -> Outcome:
    """What goes wrong with streams: how soon it is noticed and healed, and what was lost, doubled or wrong by it."""
    real, virtual = scale.streams.outages
    in_memory = [scenario for scenario in SCENARIOS if scenario.virtual][:virtual]
    over_sockets = [scenario for scenario in SCENARIOS if scenario.real][:real]
    imagined = [await trio.to_thread.run_sync(play_virtually, scenario) for scenario in in_memory]
    experienced = await _play_really(over_sockets)
    parts = (("in virtual time", imagined), ("over sockets", experienced))
    return Outcome.joined(_told(where, accounts) for where, accounts in parts if accounts)


def _told(where: str, accounts: Sequence[Account]) -> Outcome:
    promised = [account for account in accounts if account.scenario.noticed_within_s == NOTICED_S]
    noticed = [NEVER_S if account.noticed_s is None else account.noticed_s for account in promised]
    healed = [account.recovered_s for account in accounts if account.recovered_s is not None]
    figures = [
        Figure(what=f"{where}: slowest to notice", unit="s", goal=at_most(NOTICED_S),
               samples=[max(noticed, default=0)]),
        Figure(what=f"{where}: slowest until trades are whole again", unit="s", samples=[max(healed, default=0)]),
        Figure(what=f"{where}: trades lost, doubled or wrong", unit="trades", goal=at_most(0),
               samples=[sum(a.trades.lost + a.trades.doubled + a.trades.wrong for a in accounts)]),
        Figure(what=f"{where}: bars lost, doubled or wrong", unit="bars", goal=at_most(0),
               samples=[sum(a.bars.lost + a.bars.doubled + a.bars.wrong for a in accounts)]),
    ]  # fmt: skip
    broken = [f"{where}: {line}" for account in accounts for line in account.broken()]
    return Outcome(figures, broken, [Matrix(where, COLUMNS, [account.cells() for account in accounts])])
