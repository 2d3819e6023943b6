"""Where scenarios take place: a simulator in its own process, its limiter on, and its market worked out here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import attrs
import trio

from bench.timing import quiet
from marketpipe.clock import Clock, SystemClock
from marketpipe.sim import SimConfig, SpawnedSimulator, World, spawn_simulator

__all__ = ["LATENCY_S", "Account", "Ground", "open_ground"]

LATENCY_S = 0.02
# Longer than the second in which the simulator still remembers a request.
FORGOTTEN_S = 1.1
CONTROL_S = 10.0


@attrs.frozen
class Account:
    """What the simulator has counted since the last look."""

    groups: Mapping[str, Mapping[str, int]]
    faults: Mapping[str, int]
    limit: int

    def requests(self, group: str) -> int:
        """Requests of one group, by its name on the wire."""
        return self.groups[group]["requests"]

    @property
    def greatest(self) -> int:
        """The most requests of one group in any rolling second."""
        return max(group["greatest_per_second"] for group in self.groups.values())

    @property
    def refused(self) -> int:
        """Requests that were one too many. Those refused by a posted fault are not among them."""
        return sum(group["refused"] for group in self.groups.values())

    def broken(self, during: str) -> list[str]:
        """One line for each promise about the limit that was broken."""
        lines = []
        if self.refused:
            lines.append(f"{during}: {self.refused} requests were refused")
        if self.greatest > self.limit:
            lines.append(f"{during}: {self.greatest} requests of a group in one second, the limit is {self.limit}")
        return lines


@attrs.frozen
class Ground:
    """A simulator, and the truth about it."""

    simulator: SpawnedSimulator
    world: World
    clock: Clock

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return self.simulator.base_url

    def names(self) -> list[str]:
        """The listed markets, in the exchange's order."""
        return self.world.listed(self.clock.now_ms())

    async def settle(self) -> Account:
        """Let a second pass, so that nothing so far counts against what follows; take the account and begin anew."""
        await trio.sleep(FORGOTTEN_S)
        told = await self.tell("GET", "/sim/stats")
        await self.tell("POST", "/sim/reset")
        return Account(told["groups"], told["faults"], self.simulator.config.limit)

    async def strike(self, fault: Mapping[str, Any]) -> None:
        """Let something go wrong from now on."""
        await self.tell("POST", "/sim/faults", fault)

    async def calm(self) -> None:
        """Let nothing go wrong any more."""
        await self.tell("DELETE", "/sim/faults")

    async def tell(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One of the simulator's own paths (`marketpipe.sim.control`), and what it answers."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.base_url + path, method=method, data=data)
        return json.loads(await trio.to_thread.run_sync(_perform, request))


@asynccontextmanager
async def open_ground(config: SimConfig | None = None, **options: Any) -> AsyncIterator[Ground]:
    """A simulator for the length of the block; `SimConfig` fields, with 20 ms latency and rolling seconds."""
    chosen = attrs.evolve(config or SimConfig(latency_s=LATENCY_S, window="rolling"), **options)
    world, clock = World(seed=chosen.seed, markets=chosen.markets, lively=chosen.lively), SystemClock()
    async with spawn_simulator(chosen) as simulator:
        # Knowing the truth takes seconds at first and nothing afterwards: not to be paid between two figures.
        await trio.to_thread.run_sync(_learn, world, clock.now_ms())
        yield Ground(simulator, world, clock)


def _learn(world: World, now_ms: int) -> None:
    for name in world.listed(now_ms):
        world.ticker(name, now_ms)
    quiet()


def _perform(request: Request) -> bytes:
    # A proxy in the environment has no business on this machine.
    with build_opener(ProxyHandler({})).open(request, timeout=CONTROL_S) as reply:
        return bytes(reply.read())
