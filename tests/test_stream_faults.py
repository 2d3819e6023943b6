"""Whatever goes wrong with the exchange: it is noticed, told, mended, and nothing is lost or told twice.

One row for each fault, each against the simulator's truth, in virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from rig import Rig, open_rig
from stream_checks import Ears, lively, listening, over_the_limits, patiently

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
from marketpipe.status import SubscriptionState

BEFORE_S = 20.0
NOTICED_S = 5.0  # the promise
CARRIED = ("trade", "ticker", "1m", "1s")


async def _nothing_else(rig: Rig) -> None:
    await trio.lowlevel.checkpoint()


@attrs.frozen(kw_only=True)
class Row:
    """One line of the matrix. ``faults`` begin together and are over ``over_s`` later; ``run_s`` is all that is seen.

    ``told``: the streams that are told of a hole, all of them within 5 seconds. ``beside``: what others do meanwhile.
    """

    name: str
    faults: tuple[Fault, ...] = ()
    over_s: float = 0.0
    run_s: float = 45.0
    told: tuple[str, ...] = CARRIED
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
    Row(name="streams come and go", told=(), beside=_come_and_go, over_s=20),
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
    Row(name="clock a minute behind", faults=(ClockSkewFault(skew_ms=-60_000, for_s=20),), over_s=20, told=()),
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
    for stream, noticed_s in outcome.noticed_s.items():
        if stream in row.told:
            assert noticed_s is not None, f"{stream} was told of nothing"
            assert noticed_s <= NOTICED_S
        else:
            assert noticed_s is None, f"{stream} was told of {outcome.ears.logs[stream].gaps[0]}"
