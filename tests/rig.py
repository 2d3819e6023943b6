"""The whole pipe over the simulator in memory, under Trio's mock clock: what the actors' tests stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import trio

from marketpipe import Client, Config, run_pipeline
from marketpipe.actors.writer import in_line
from marketpipe.clock import TrioClock
from marketpipe.core.requests import Reply, Request
from marketpipe.sim import SimConfig, SimExchange, SimTransport, memory_dial
from marketpipe.store.sqlite import SqliteStore
from marketpipe.upbit.rest import UpbitRest
from marketpipe.upbit.ws import UpbitWebSocket

# 2026-09-23T12:34:56Z, a Wednesday, in the middle of everything.
EPOCH_MS = 1_790_166_896_000


@attrs.define(eq=False)
class Recorder:
    """The exchange, with a note of every request made."""

    rest: UpbitRest
    requests: list[Request] = attrs.field(factory=list)
    times_s: list[float] = attrs.field(factory=list)

    async def fetch(self, request: Request) -> Reply:
        self.requests.append(request)
        self.times_s.append(trio.current_time())
        return await self.rest.fetch(request)

    def of(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]


@attrs.frozen
class Rig:
    market: Client
    sim: SimExchange
    exchange: Recorder
    clock: TrioClock
    store: SqliteStore | None = None

    def greatest(self) -> int:
        """The greatest count of any group in any rolling second, as the exchange saw it."""
        groups = self.sim.statistics().groups.values()
        return max((group.greatest_per_second for group in groups), default=0)

    def refused(self) -> int:
        return sum(group.refused for group in self.sim.statistics().groups.values())


@asynccontextmanager
async def open_rig(
    config: Config | None = None,
    *,
    behind_s: int = 0,
    streams: bool = False,
    store: SqliteStore | str | None = None,
    **options: Any,
) -> AsyncIterator[Rig]:
    """Open a pipeline to a simulator of its own; ``options`` are `SimConfig` fields (40 markets by default).

    ``behind_s``: how far this machine's clock is behind the exchange's. ``streams``: with the WebSocket side.
    ``store``: the database of candles, open or at this path (``":memory:"``).
    """
    clock = TrioClock(EPOCH_MS)
    our_clock = TrioClock(EPOCH_MS - behind_s * 1000)
    config = config or Config()
    sim = SimExchange(SimConfig(**{"markets": 40, "latency_s": 0.02, **options}), clock)
    opened = SqliteStore.open(store, source="http://sim") if isinstance(store, str) else store
    async with AsyncExitStack() as stack:
        if isinstance(store, str):
            stack.callback(opened.close)
        rest = await stack.enter_async_context(_rest(sim, config, our_clock))
        exchange = Recorder(rest)
        stream = await stack.enter_async_context(stream_of(sim, config, our_clock)) if streams else None
        market = await stack.enter_async_context(
            run_pipeline(
                config,
                exchange,
                clock=our_clock,
                stream=stream,
                draw=lambda: 0.5,
                store=opened,
                runner=lambda: in_line,
            )
        )
        yield Rig(market, sim, exchange, clock, opened)


def _rest(sim: SimExchange, config: Config, clock: TrioClock) -> UpbitRest:
    limits = config.limits
    return UpbitRest(
        "http://sim",
        clock=clock,
        connect_s=limits.connect_s,
        read_s=limits.read_s,
        deadline_s=limits.deadline_s,
        transport=SimTransport(sim),
    )


@asynccontextmanager
async def stream_of(sim: SimExchange, config: Config, clock: TrioClock) -> AsyncIterator[UpbitWebSocket]:
    """The WebSocket side of ``sim`` in memory: real frames over memory streams."""
    subscriptions, buffers = config.subscriptions, config.buffers
    async with trio.open_nursery() as nursery:
        yield UpbitWebSocket(
            "ws://sim/websocket/v1",
            clock=clock,
            handshake_s=subscriptions.handshake_s,
            ping_s=subscriptions.ping_s,
            pong_s=subscriptions.pong_s,
            frames=buffers.frames,
            frame_bytes=buffers.frame_bytes,
            dial=memory_dial(sim, nursery),
        )
        nursery.cancel_scope.cancel(reason="the rig is taken down")
