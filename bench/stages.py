"""Where faults are played: a pipeline and a simulator, in memory and virtual time, or over a socket and in real time.

Both can be struck by faults, and their exchange can go away and come back as another process would: it remembers
nothing, and shows the same market.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.request import ProxyHandler, Request, build_opener

import attrs
import httpx
import trio

import marketpipe
from marketpipe import Client, Config, open_pipeline, run_pipeline
from marketpipe.clock import SystemClock, TrioClock
from marketpipe.sim import SimConfig, SimExchange, SimTransport, World, memory_dial
from marketpipe.sim.faults import parse_faults
from marketpipe.sim.options import words_for
from marketpipe.upbit.rest import UpbitRest
from marketpipe.upbit.ws import UpbitWebSocket

__all__ = ["Stage", "open_real_stage", "open_virtual_stage"]

# 2026-09-23T12:34:56Z, a Wednesday, in the middle of everything.
EPOCH_MS = 1_790_166_896_000
URL = "http://sim"
START_S = 60.0
CONTROL_S = 10.0
_ANNOUNCEMENT = b"simulator listening on "


class Stage(Protocol):
    """A pipeline, its exchange, and the truth."""

    @property
    def market(self) -> Client: ...
    @property
    def world(self) -> World: ...

    def now_ms(self) -> int:
        """The exchange's time."""
        ...

    async def strike(self, fault: Mapping[str, Any]) -> None:
        """Let something go wrong from now on."""
        ...

    async def restart(self, away_s: float) -> None:
        """Let the exchange be gone for so long, and come back without a memory."""
        ...

    async def over_the_limits(self) -> list[str]:
        """A line for each limit of the exchange that was broken, since it began or came back."""
        ...


# -- in memory --------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Memory:
    """The exchange of the moment; everything that goes there asks for it anew."""

    config: SimConfig
    clock: TrioClock
    nursery: trio.Nursery
    exchange: SimExchange = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.exchange = SimExchange(self.config, self.clock)

    async def dial(self) -> trio.abc.Stream:
        return await memory_dial(self.exchange, self.nursery)()

    async def restart(self, away_s: float) -> None:
        for kind in ("ws-down", "down"):
            self.strike({"kind": kind})
        await trio.sleep(away_s)
        self.exchange = SimExchange(self.config, self.clock)

    def strike(self, fault: Mapping[str, Any]) -> None:
        for parsed in parse_faults(json.dumps(fault).encode()):
            self.exchange.add_fault(parsed)


@attrs.frozen(eq=False)
class _Road(httpx.AsyncBaseTransport):
    """REST to the exchange of the moment."""

    memory: _Memory

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await SimTransport(self.memory.exchange).handle_async_request(request)


@attrs.frozen(eq=False)
class _VirtualStage:
    market: Client
    memory: _Memory
    world: World

    def now_ms(self) -> int:
        return self.memory.clock.now_ms()

    async def strike(self, fault: Mapping[str, Any]) -> None:
        self.memory.strike(fault)

    async def restart(self, away_s: float) -> None:
        await self.memory.restart(away_s)

    async def over_the_limits(self) -> list[str]:
        return _over_the_limits(attrs.asdict(self.memory.exchange.statistics())["groups"], self.memory.config)


@asynccontextmanager
async def open_virtual_stage(config: Config | None = None, **options: Any) -> AsyncIterator[Stage]:
    """Everything in this process. Under Trio's mock clock no real time passes while nothing happens."""
    config, clock = config or Config(), TrioClock(EPOCH_MS)
    limits, subscriptions, buffers = config.limits, config.subscriptions, config.buffers
    async with trio.open_nursery() as nursery:
        memory = _Memory(SimConfig(**options), clock, nursery)
        stream = UpbitWebSocket(
            "ws://sim/websocket/v1",
            clock=clock,
            handshake_s=subscriptions.handshake_s,
            ping_s=subscriptions.ping_s,
            pong_s=subscriptions.pong_s,
            frames=buffers.frames,
            frame_bytes=buffers.frame_bytes,
            dial=memory.dial,
        )
        async with (
            UpbitRest(
                URL,
                clock=clock,
                connect_s=limits.connect_s,
                read_s=limits.read_s,
                deadline_s=limits.deadline_s,
                transport=_Road(memory),
            ) as rest,
            run_pipeline(config, rest, clock=clock, stream=stream, draw=lambda: 0.5) as market,
        ):
            yield _VirtualStage(market, memory, memory.exchange.world)
        nursery.cancel_scope.cancel(reason="the stage is taken down")


# -- over a socket ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _RealStage:
    market: Client
    world: World
    base_url: str
    config: SimConfig
    process: trio.Process

    def now_ms(self) -> int:
        return SystemClock().now_ms()

    async def strike(self, fault: Mapping[str, Any]) -> None:
        await self._tell("POST", "/sim/faults", fault)

    async def restart(self, away_s: float) -> None:
        await _end(self.process)
        await trio.sleep(away_s)
        self.process, _ = await _start(self.config, int(self.base_url.rpartition(":")[2]))

    async def over_the_limits(self) -> list[str]:
        return _over_the_limits((await self._tell("GET", "/sim/stats"))["groups"], self.config)

    async def _tell(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.base_url + path, method=method, data=data)
        return json.loads(await trio.to_thread.run_sync(_perform, request))


@asynccontextmanager
async def open_real_stage(**options: Any) -> AsyncIterator[Stage]:
    """The simulator in a process of its own, on a free port, to which it also comes back."""
    config = SimConfig(**options)
    process, base_url = await _start(config, 0)
    stage: _RealStage | None = None
    try:
        async with open_pipeline(base_url=base_url) as market:
            stage = _RealStage(
                market, World(config.seed, config.markets, lively=config.lively), base_url, config, process
            )
            yield stage
    finally:
        with trio.CancelScope(shield=True):
            await _end(process if stage is None else stage.process)


async def _start(config: SimConfig, port: int) -> tuple[trio.Process, str]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "marketpipe.sim", f"--port={port}", "--leave-with-stdin", *words_for(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(marketpipe.__file__).parents[1])},
    )
    assert process.stdout is not None
    said = b""
    with trio.move_on_after(START_S):
        async for data in process.stdout:
            said += data
            if said.endswith(b"\n"):
                break
    if not said.startswith(_ANNOUNCEMENT):
        await _end(process)
        raise RuntimeError(f"the simulator did not start within {START_S:.0f} s; it printed {said!r}")
    return process, said.removeprefix(_ANNOUNCEMENT).decode().strip()


async def _end(process: trio.Process) -> None:
    """Kill it: nobody is told goodbye."""
    process.kill()
    await process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()


def _perform(request: Request) -> bytes:
    # A proxy in the environment has no business on this machine.
    with build_opener(ProxyHandler({})).open(request, timeout=CONTROL_S) as reply:
        return bytes(reply.read())


def _over_the_limits(groups: Mapping[str, Mapping[str, int]], config: SimConfig) -> list[str]:
    lines = []
    for name, group in groups.items():
        limit = {"websocket-connect": config.connect_limit, "websocket-message": config.message_limit}.get(
            name, config.limit
        )
        if group["refused"]:
            lines.append(f"{name}: {group['refused']} refused")
        if group["greatest_per_second"] > limit:
            lines.append(f"{name}: {group['greatest_per_second']} in one second, the limit is {limit}")
    return lines
