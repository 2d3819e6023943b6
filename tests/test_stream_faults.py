"""Whatever goes wrong with the exchange: it is noticed, told, mended, and nothing is lost or told twice.

One row for each fault, each against the simulator's truth, in virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
import pytest
import trio
from rig import EPOCH_MS, Rig, open_rig
from stream_checks import BUSIEST, Ears, listening, lively, over_the_limits, patiently
from trio.testing import MockClock

from marketpipe.core.topics import Line, Topic
from marketpipe.sim import (
    ClockSkewFault,
    DownFault,
    Fault,
    WsCloseFault,
    WsDownFault,
    WsDripFault,
    WsDropFault,
    WsDuplicateFault,
    WsGarbageFault,
    WsHalfFault,
    WsMuteFault,
    WsRefuseFault,
    WsReorderFault,
    WsStallFault,
)
from marketpipe.status import ConnectionStatus, SubscriptionState

BEFORE_S = 20.0
NOTICED_S = 5.0  # the promise
CARRIED = ("trade", "ticker", "1m", "1s")


async def _nothing_else(rig: Rig) -> None:
    await trio.lowlevel.checkpoint()


@attrs.frozen(kw_only=True)
class Row:
    """One line of the matrix. ``faults`` begin together and are over ``over_s`` later; ``run_s`` is all that is seen.

    ``told``: the streams that are told of a hole, all of them within 5 seconds (None: whichever, and whenever).
    ``beside``: what others do meanwhile.
    """

    name: str
    faults: tuple[Fault, ...] = ()
    over_s: float = 0.0
    run_s: float = 45.0
    told: tuple[str, ...] | None = CARRIED
    beside: Callable[[Rig], Awaitable[None]] = _nothing_else
    options: dict[str, Any] = attrs.field(factory=dict)


def _down(for_s: float) -> tuple[Fault, ...]:
    return (WsDownFault(for_s=for_s), DownFault(for_s=for_s))


async def _come_and_go(rig: Rig) -> None:
    """Open and close streams of other markets, one a second for 20 seconds."""
    others = [name for name in lively(rig, 40) if name not in lively(rig, 8)]

    async def stay(stream: str, name: str, **options: Any) -> None:
        async with getattr(rig.market, f"stream_{stream}")(name, **options) as subscription:
            with trio.move_on_after(1.5):
                async for _ in subscription:
                    pass

    async with trio.open_nursery() as nursery:
        for second in range(20):
            name = others[second % len(others)]
            nursery.start_soon(stay, "trade", name)
            nursery.start_soon(stay, "ticker", name)
            nursery.start_soon(lambda name=name: stay("candle", name, timeframe="1s"))
            await trio.sleep(1)


async def _restart(rig: Rig) -> None:
    """What the exchange knew of us before is forgotten when it comes back."""
    await trio.sleep(7.9)
    assert not list(over_the_limits(rig))
    rig.sim.reset()


ROWS = (
    Row(name="nothing", told=()),
    Row(name="outage of 5 s", faults=_down(5), over_s=5),
    Row(name="outage of 10 min", faults=_down(600), over_s=600, run_s=660),
    Row(name="close 1000", faults=(WsCloseFault(code=1000),)),
    Row(name="close 1006", faults=(WsDropFault(),)),
    Row(name="stall, pings answered", faults=(WsStallFault(for_s=20),), over_s=20, run_s=60),
    Row(name="stall, pings unanswered", faults=(WsStallFault(for_s=20, pongs=False),), over_s=20, run_s=60),
    Row(name="503 three times on the upgrade", faults=(WsDropFault(), WsRefuseFault(status=503, count=12)), run_s=60),
    # The slower the snapshots, the more is left out between two subscriptions.
    Row(name="streams come and go", told=(), beside=_come_and_go, over_s=20, options={"snapshot_s": 0.24}),
    Row(name="restart of the exchange", faults=_down(8), over_s=8, beside=_restart),
    Row(name="half a frame", faults=(WsHalfFault(),)),
    Row(name="half a frame, then silence", faults=(WsHalfFault(then="silence"),)),
    Row(name="garbage", faults=tuple(WsGarbageFault(types=(kind,), count=1) for kind in ("trade", "ticker", "candle"))),
    Row(name="no frames at all", faults=(WsGarbageFault(what="framing", count=4),)),
    Row(
        name="reordered and doubled",
        faults=(WsReorderFault(probability=0.3, for_s=30), WsDuplicateFault(probability=0.3, for_s=30)),
        over_s=30,
        told=(),
        options={"reordered": 0.2, "duplicated": 0.2},
    ),
    Row(name="clock a minute ahead", faults=(ClockSkewFault(skew_ms=60_000, for_s=20),), over_s=20, run_s=110, told=()),
    # What the exchange then stamps lies before what it has shown: that bars are taken for stalled is no loss.
    Row(name="clock a minute behind", faults=(ClockSkewFault(skew_ms=-60_000, for_s=20),), over_s=20, told=None),
    # Over before its silence is suspicious, on a connection that goes on: nothing but the counting tells of it.
    *(
        Row(name=f"stall of {for_s:g} s", faults=(WsStallFault(for_s=for_s),), over_s=for_s, told=None)
        for for_s in (0.3, 1.0, 1.5, 2.0, 2.5, 3.0)
    ),
    Row(name="one market mute for 4 s", faults=(WsMuteFault(codes=BUSIEST[:1], for_s=4),), over_s=4, told=None),
    Row(name="slow drip", faults=(WsDripFault(bytes_per_s=3_000, chunk=100, for_s=20),), over_s=20, told=()),
)


@attrs.frozen
class Outcome:
    """What became of a row: the flaws, and per stream when a hole was noticed and closed, in seconds."""

    ears: Ears
    flaws: list[str]
    noticed_s: dict[str, float | None]
    recovered_s: dict[str, float | None]


async def suffer(row: Row) -> Outcome:
    async with open_rig(streams=True, markets=40, **row.options) as rig, listening(rig, lively(rig, 8)) as ears:
        await trio.sleep(BEFORE_S)
        began_s = trio.current_time()
        for fault in row.faults:
            rig.sim.add_fault(fault)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(row.beside, rig)
            await trio.sleep(row.run_s)
        noticed_s = {stream: log.noticed_s(began_s) for stream, log in ears.logs.items()}
        recovered_s = {stream: log.recovered_s() for stream, log in ears.logs.items()}
        return Outcome(
            ears,
            ears.flaws(),
            {stream: None if at_s is None else at_s - began_s for stream, at_s in noticed_s.items()},
            {stream: None if at_s is None else at_s - began_s - row.over_s for stream, at_s in recovered_s.items()},
        )


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_what_goes_wrong_is_noticed_told_and_mended(row, autojump_clock):
    """Within five seconds; nothing lost, nothing twice, no bar wrong, no hole left open, no limit broken."""
    outcome = await suffer(row)
    assert outcome.flaws == []
    for stream, noticed_s in outcome.noticed_s.items() if row.told is not None else ():
        if stream in row.told:
            assert noticed_s is not None, f"{stream} was told of nothing"
            assert noticed_s <= NOTICED_S
        else:
            assert noticed_s is None, f"{stream} was told of {outcome.ears.logs[stream].gaps[0]}"


@pytest.mark.slow
@pytest.mark.parametrize("pongs", [True, False], ids=["pings answered", "pings unanswered"])
@pytest.mark.parametrize("stream", ["trade", "ticker", "orderbook", "1s", "1m"])
@pytest.mark.parametrize("names", [("KRW-BTC",), (*BUSIEST, "KRW-ADA")], ids=["one market", "four markets"])
def test_a_stall_is_noticed_within_five_seconds_whenever_it_begins(names, stream, pongs):
    """Five seconds from the first thing that was not told, however much or little is going on."""

    async def stall(before_s):
        async with open_rig(streams=True) as rig, listening(rig, list(names), (stream,)) as ears:
            await trio.sleep(before_s)
            began_s, began_ms = trio.current_time(), rig.clock.now_ms()
            rig.sim.add_fault(WsStallFault(pongs=pongs))
            await trio.sleep(15)
            silent_s = (first_news_ms(rig, names, stream, began_ms) - began_ms) / 1000 + began_s
            noticed_s = ears.logs[stream].noticed_s(began_s)
            assert noticed_s is not None, f"never noticed, begun after {before_s:g} s"
            assert noticed_s - silent_s <= NOTICED_S, f"begun after {before_s:g} s"

    for before_s in (10.0, 13.7, 17.5, 24.1):
        trio.run(stall, before_s, clock=MockClock(autojump_threshold=0))


def first_news_ms(rig: Rig, names: Iterable[str], stream: str, since_ms: int) -> int:
    """When first something happened that the stream should have told."""
    world = rig.sim.world
    next_ms = world.next_orderbook_ms if stream == "orderbook" else world.next_trade_ms
    return min(next_ms(name, since_ms) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("pongs", [True, False], ids=["pings answered", "pings unanswered"])
async def test_a_stall_from_the_first_moment_is_noticed(pongs, autojump_clock):
    """The connection is given up, consumers are told that their stream has not begun, and then nothing is lost."""
    async with open_rig(streams=True) as rig:
        rig.sim.add_fault(WsStallFault(pongs=pongs, for_s=20))
        async with listening(rig, lively(rig, 8)) as ears:
            lines = {line: status.losses for line, status in rig.market.status().connections.items()}
            await patiently(lambda: all(connection(rig, line).connects for line in SPOKEN), 2)
            await patiently(lambda: all(connection(rig, line).losses > lines[line] for line in SPOKEN), NOTICED_S)
            assert {state.state for state in rig.market.status().subscriptions.values()} == {
                SubscriptionState.RECONNECTING
            }
            assert not any(log.events for log in ears.logs.values())
            await trio.sleep(50)
            assert ears.flaws() == []
            causes = {gap.cause for log in ears.logs.values() for _, gap in log.gaps}
            assert causes == {f"the {line} stream has not begun" for line in SPOKEN}


@pytest.mark.slow
async def test_a_stall_from_the_first_moment_of_the_next_connection_is_noticed(autojump_clock):
    """The hole stays open over it, and is closed once."""
    row = Row(name="", faults=(WsDropFault(), WsStallFault(for_s=20)), over_s=20, run_s=60)
    outcome = await suffer(row)
    assert outcome.flaws == []
    assert outcome.ears.holes("trade") == outcome.ears.holes("ticker") == 8
    # 20 s of stalls, each noticed within 5 s and followed by a back-off of some seconds.
    assert connection(outcome.ears.rig, Line.TRADE).connects >= 3


@pytest.mark.slow
async def test_a_busy_market_that_alone_falls_silent_is_noticed_and_does_not_hold_up_the_others(autojump_clock):
    """A new connection does not help, so it is set aside; when it speaks again, all is as before."""
    names = [*BUSIEST]
    async with open_rig(streams=True) as rig, listening(rig, names, ("orderbook",)) as ears:
        await trio.sleep(20)
        began_s = trio.current_time()
        rig.sim.add_fault(WsMuteFault(codes=("KRW-BTC",), for_s=60))
        topic = Topic(Line.ORDERBOOK, "KRW-BTC")
        await patiently(lambda: rig.market.status().subscriptions[topic].state is SubscriptionState.STALE, NOTICED_S)
        await patiently(lambda: ears.logs["orderbook"].noticed_s(began_s), NOTICED_S)
        assert trio.current_time() - began_s <= NOTICED_S + 0.1
        await patiently(lambda: rig.market.status().subscriptions[topic].state is SubscriptionState.ERROR, 20)
        connects = connection(rig, Line.ORDERBOOK).connects
        heard = len(ears.logs["orderbook"].events)
        await trio.sleep(20)
        assert connection(rig, Line.ORDERBOOK).connects == connects
        later = [event.market for _, event in ears.logs["orderbook"].events[heard:]]
        assert set(later) == {"KRW-ETH", "KRW-XRP"}
        assert len(later) > 200
        await trio.sleep_until(began_s + 65)
        assert rig.market.status().subscriptions[topic].state is SubscriptionState.ACTIVE
        assert ears.flaws() == []


@pytest.mark.slow
async def test_a_quiet_market_that_alone_falls_silent_is_found_by_the_audit(autojump_clock):
    """Its silence is no suspicion by itself; REST is asked every ten seconds. Nothing of it is lost in the end."""
    async with open_rig(streams=True) as rig, listening(rig, lively(rig, 8)) as ears:
        await trio.sleep(20)
        began_s = trio.current_time()
        rig.sim.add_fault(WsMuteFault(codes=("KRW-ADA",), for_s=60))
        await trio.sleep(120)
        for stream in CARRIED:
            noticed_s = ears.logs[stream].noticed_s(began_s)
            assert noticed_s is not None
            traded_s = began_s + (rig.sim.world.next_trade_ms("KRW-ADA", EPOCH_MS + 20_000) - EPOCH_MS) / 1000 - 20
            assert noticed_s - traded_s <= 10 + NOTICED_S
        assert ears.flaws() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stream", "kind", "body"),
    [
        ("trade", "trade", '{"type":"trade","code":"KRW-BTC","trade_price":1e400,"stream_type":"REALTIME"}'),
        ("ticker", "ticker", '{"type":"ticker","code":"KRW-BTC","trade_price":null,"stream_type":"REALTIME"}'),
        ("1m", "candle", '{"type":"candle.1m","code":"KRW-BTC","trade_price":[],"stream_type":"REALTIME"}'),
    ],
)
async def test_a_frame_that_cannot_be_read_is_a_hole_of_its_market_alone(stream, kind, body, autojump_clock):
    """The connection goes on; the hole is told at once and mended."""
    async with open_rig(streams=True) as rig, listening(rig, ["KRW-BTC"], (stream,)) as ears:
        await trio.sleep(20)
        rig.sim.add_fault(WsGarbageFault(body=body, types=(kind,), count=1))
        await trio.sleep(40)
        assert ears.flaws() == []
        assert ears.holes(stream) == 1
        assert connection(rig, Line(kind)).connects == 1
        assert connection(rig, Line(kind)).unreadable == 1


A_TRADE = (
    '{"ty":"trade","cd":"KRW-BTC","tp":1.0,"tv":1.0,"ab":"BID","pcp":1.0,"c":"RISE","cp":0,"td":"2026-09-23",'
    '"ttm":"12:34:56","ttms":1790166896000,"tms":1790166896000,"sid":17901668960000000,"st":"REALTIME"}'
)
A_LIST = '{"method":"LIST_SUBSCRIPTIONS","result":[],"ticket":"x"}'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stream", "kind", "body"),
    [
        ("ticker", "ticker", A_TRADE),
        ("1m", "candle", A_TRADE),
        ("ticker", "ticker", A_LIST),
        ("trade", "trade", A_LIST),
    ],
)
async def test_a_frame_of_another_kind_concerns_nobody(stream, kind, body, autojump_clock):
    """It is counted and told to nobody; the connection goes on."""
    async with open_rig(streams=True) as rig, listening(rig, ["KRW-BTC"], (stream,)) as ears:
        await trio.sleep(20)
        rig.sim.add_fault(WsGarbageFault(body=body, types=(kind,), count=1))
        await trio.sleep(40)
        assert ears.flaws() == []
        assert ears.holes(stream) == 0
        assert connection(rig, Line(kind)).connects == 1
        assert connection(rig, Line(kind)).unreadable == 1


SPOKEN = (Line.TRADE, Line.TICKER, Line.CANDLE)


def connection(rig: Rig, line: Line) -> ConnectionStatus:
    """What it says of itself."""
    return rig.market.status().connections[line]
