"""A simulator in this process: around a block of code, or until a signal ends it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from marketpipe.clock import SystemClock
from marketpipe.sim.config import SimConfig
from marketpipe.sim.exchange import SimExchange
from marketpipe.sim.server import serve, ws_url
from marketpipe.sim.world import World

__all__ = ["Simulator", "open_simulator", "run_simulator"]


@attrs.frozen
class Simulator:
    """A running simulator: where it listens, and the exchange behind it."""

    base_url: str
    exchange: SimExchange

    @property
    def ws_url(self) -> str:
        """Where it speaks WebSocket: the same port, at the exchange's own path."""
        return ws_url(self.base_url)

    @property
    def world(self) -> World:
        """The market it shows: the truth to compare with."""
        return self.exchange.world


@asynccontextmanager
async def open_simulator(config: SimConfig | None = None, **options: Any) -> AsyncIterator[Simulator]:
    """Serve a simulator on a free loopback port for the length of the block, on the system's clock.

    ``options`` are `SimConfig` fields; with ``config`` they replace its values.
    """
    exchange = SimExchange(attrs.evolve(config or SimConfig(), **options), SystemClock())
    await exchange.warm_up()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        base_url = await nursery.start(serve, exchange)
        try:
            yield Simulator(base_url, exchange)
        except Exception as exc:
            failure = exc
        nursery.cancel_scope.cancel(reason="the simulator's block ended")
    if failure is not None:
        raise failure  # bare: whoever wrote the block did not ask for a nursery


async def run_simulator(
    config: SimConfig | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8600,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM, then return; ``announce`` is handed one line with the base URL when it listens.

    Raises ``OSError`` if the port cannot be had. Must run in the main thread, which is where signals arrive.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        exchange = SimExchange(config or SimConfig(), SystemClock())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave_on_signal, signals, nursery.cancel_scope)
            await exchange.warm_up()
            base_url = await nursery.start(partial(serve, exchange, host=host, port=port))
            announce(f"simulator listening on {base_url}")


async def _leave_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel(reason="a signal asked the simulator to leave")
