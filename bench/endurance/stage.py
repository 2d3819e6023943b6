"""Where it is played: an exchange and a pipeline in memory, and clocks that can be set."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from trio.testing import MockClock

from bench.endurance.plan import START_MS, Plan
from marketpipe import Client, Config, run_pipeline
from marketpipe.actors.writer import in_line
from marketpipe.clock import Clock, TrioClock
from marketpipe.config import Subscriptions
from marketpipe.sim import SimConfig, SimExchange, SimTransport, World, memory_dial
from marketpipe.sim.faults import parse_faults
from marketpipe.store.sqlite import SqliteStore
from marketpipe.upbit.rest import UpbitRest
from marketpipe.upbit.ws import UpbitWebSocket

__all__ = ["SetClock", "Stage", "open_stage"]

URL = "http://sim"
LATENCY_S = 0.02
# Where hardly anybody trades a line is silent for minutes, and to ask whether it has stopped, every two seconds of it,
# is four fifths of all work. The audits go on.
SILENCE_S = 60.0
# Connections that slept are found dead, or are still there for a moment.
WAKING_S = 1.0


@attrs.define
class SetClock:
    """A clock that is off by ``off_ms``."""

    true: Clock
    off_ms: int = 0

    def now_ms(self) -> int:
        """What it shows."""
        return self.true.now_ms() + self.off_ms


@attrs.frozen(eq=False)
class Stage:
    """``theirs`` is the exchange's clock, which is right; ``ours`` that of this machine."""

    market: Client
    exchange: SimExchange
    theirs: SetClock
    ours: SetClock
    mock: MockClock

    def now_ms(self) -> int:
        """What time it is."""
        return self.theirs.now_ms()

    async def until(self, at_ms: int) -> None:
        """Sleep until it is ``at_ms`` at the exchange, or later, if the machine slept meanwhile."""
        while (left_ms := at_ms - self.now_ms()) > 0:  # noqa: ASYNC110  a clock that is set wakes nobody
            await trio.sleep(min(left_ms / 1000, 60.0))

    def strike(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Let these begin now."""
        for fault in parse_faults(json.dumps(list(faults)).encode()):
            self.exchange.add_fault(fault)

    async def nap(self, lasts_ms: int, *, counted: bool) -> None:
        """This machine sleeps: nothing runs, and the connections it had are dead when it wakes."""
        asleep_s = lasts_ms / 1000 if counted else 0.0
        self.strike([{"kind": "ws-stall", "pongs": False, "for_s": asleep_s + WAKING_S},
                     {"kind": "ws-drop", "after_s": asleep_s + WAKING_S / 2}])  # fmt: skip
        await trio.testing.wait_all_tasks_blocked()
        if counted:
            self.mock.jump(asleep_s)
        else:
            self.theirs.off_ms += lasts_ms
        self.exchange.sockets.ring()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_stage(plan: Plan, world: World, path: Path, mock: MockClock) -> AsyncIterator[Stage]:
    """The pipeline, which keeps its bars at ``path``, and all it is connected to."""
    theirs = SetClock(TrioClock(START_MS))
    ours = SetClock(theirs)
    config = Config(subscriptions=Subscriptions(silence_s=SILENCE_S))
    limits, subscriptions, buffers = config.limits, config.subscriptions, config.buffers
    sim = SimConfig(seed=plan.seed, markets=plan.markets, latency_s=LATENCY_S, jitter_s=LATENCY_S, window="rolling")
    exchange = SimExchange(sim, theirs, world)
    async with trio.open_nursery() as nursery:
        stream = UpbitWebSocket(
            "ws://sim/websocket/v1",
            clock=ours,
            handshake_s=subscriptions.handshake_s,
            ping_s=subscriptions.ping_s,
            pong_s=subscriptions.pong_s,
            frames=buffers.frames,
            frame_bytes=buffers.frame_bytes,
            dial=memory_dial(exchange, nursery),
        )
        with SqliteStore.open(path, source=URL) as store:
            async with (
                UpbitRest(
                    URL,
                    clock=ours,
                    connect_s=limits.connect_s,
                    read_s=limits.read_s,
                    deadline_s=limits.deadline_s,
                    transport=SimTransport(exchange),
                ) as rest,
                run_pipeline(
                    config, rest, clock=ours, stream=stream, draw=_halves(), store=store, runner=lambda: in_line
                ) as market,
            ):
                yield Stage(market, exchange, theirs, ours, mock)
        nursery.cancel_scope.cancel(reason="the run is over")


def _halves() -> Callable[[], float]:
    return lambda: 0.5
