"""A simulator in a process of its own, so that its work is not done on the time of whoever measures against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import marketpipe
from marketpipe.sim.config import SimConfig
from marketpipe.sim.options import words_for
from marketpipe.sim.server import ws_url
from marketpipe.sim.world import World

__all__ = ["SpawnedSimulator", "spawn_simulator"]

START_S = 30.0
LEAVE_S = 2.0
_ANNOUNCEMENT = b"simulator listening on "


@attrs.frozen
class SpawnedSimulator:
    """A simulator running in the process ``pid``: where it listens, and how it was configured."""

    base_url: str
    config: SimConfig
    pid: int

    @property
    def ws_url(self) -> str:
        """Where it speaks WebSocket: the same port, at the exchange's own path."""
        return ws_url(self.base_url)

    @property
    def world(self) -> World:
        """A market equal to the one it shows, worked out here: the truth to compare with."""
        return World(self.config.seed, self.config.markets, lively=self.config.lively)


@asynccontextmanager
async def spawn_simulator(config: SimConfig | None = None, **options: Any) -> AsyncIterator[SpawnedSimulator]:
    """Run a simulator in its own process, on a free loopback port, for the length of the block.

    ``options`` are `SimConfig` fields; with ``config`` they replace its values. The process ends with the block and
    never outlives this one, however that ends. Raises ``RuntimeError`` if it does not start.
    """
    config = attrs.evolve(config or SimConfig(), **options)
    process = await _start(config)
    try:
        yield SpawnedSimulator(await _base_url(process), config, process.pid)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _start(config: SimConfig) -> trio.Process:
    command = [sys.executable, "-m", "marketpipe.sim", "--port=0", "--leave-with-stdin", *words_for(config)]
    # Ctrl-C in a terminal is for us; the child then leaves because we close its standard input.
    return await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=_environment()
    )


def _environment() -> dict[str, str]:
    # The child imports what we have imported, also from a checkout that is not installed.
    ours = str(Path(marketpipe.__file__).parents[1])
    theirs = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([ours, theirs] if theirs else [ours])}


async def _base_url(process: trio.Process) -> str:
    line = b""
    with trio.move_on_after(START_S):
        line = await _first_line(process)
    if not line.startswith(_ANNOUNCEMENT):
        raise RuntimeError(f"the simulator's process did not start within {START_S:.0f} s; it printed {line!r}")
    return line.removeprefix(_ANNOUNCEMENT).decode().strip()


async def _first_line(process: trio.Process) -> bytes:
    line = b""
    while process.stdout is not None and not line.endswith(b"\n"):
        data = await process.stdout.receive_some()
        if not data:
            break
        line += data
    return line


async def _stop(process: trio.Process) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()
    with trio.move_on_after(LEAVE_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
