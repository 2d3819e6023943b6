"""Floods of frames from a simulator, and readers of them in processes of their own.

What the simulator counts is what it has sent, so both can be compared to the last frame: before and after a flood all
connections are silenced (`ws-stall`), not so long that the pipeline becomes suspicious, and only the flood is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio

import marketpipe
from bench.ground import Ground
from bench.listener import Wanted
from bench.timing import MICRO
from marketpipe.sim.ws_flood import MODULUS

__all__ = ["Listener", "Sent", "Slice", "open_listener", "pour"]

# In which what was said before has arrived.
SETTLE_S = 0.3
# A reader that is behind reads on; what has not come when nothing came for so long is lost. Silence is suspicious after
# 2 s.
REST_S = 1.0
LOOK_S = 0.1
BEGIN_S = 1.5
# A flood lasts longer than it is listened to, so that it is cut off by the silence.
SPARE_S = 30.0
# The tickers of a flood say that nothing was traded, while REST knows what was. Who asked it would find them stalled.
UNTOLD = {"kind": "down", "groups": ["ticker"]}
START_S = 30.0
ANSWER_S = 20.0


@attrs.frozen
class Sent:
    """What the simulator has sent, and for how long: frames by line, trades and the sum of their ids."""

    frames: Mapping[str, int]
    trades: int
    trade_ids: int
    lasted_s: float

    @property
    def rate(self) -> float:
        """Frames per second."""
        return sum(self.frames.values()) / self.lasted_s


@attrs.frozen(kw_only=True)
class Slice:
    """A flood for some time: what was sent, and what a reader says it has received."""

    sent: Sent
    frames: Mapping[str, int]
    trades: int
    trade_ids: int
    gaps: int
    cpu_s: float
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    faults: tuple[str, ...]
    rss: tuple[int, ...] = ()

    @property
    def messages(self) -> int:
        """Frames that arrived."""
        return sum(self.frames.values())

    @property
    def lost(self) -> int:
        """Frames that were sent and did not arrive."""
        return sum(self.sent.frames.values()) - self.messages

    @property
    def cpu_us(self) -> float:
        """Microseconds of the reader's CPU time for each frame."""
        return self.cpu_s * MICRO / max(1, self.messages)

    def broken(self, what: str) -> list[str]:
        """One line for each promise about what is delivered that was broken."""
        lines = [f"{what}: {line}: {count} frames sent, {self.frames.get(line, 0)} received"
                 for line, count in self.sent.frames.items() if count != self.frames.get(line, 0)]  # fmt: skip
        if self.trades != self.sent.trades:
            lines.append(f"{what}: {self.sent.trades} trades sent, {self.trades} delivered")
        elif self.trade_ids % MODULUS != self.sent.trade_ids:
            lines.append(f"{what}: other trades were delivered than were sent")
        return [*lines, *(f"{what}: {fault}" for fault in self.faults)]


async def pour(ground: Ground, per_second: float, for_s: float, begin: Callable[[], Awaitable[object]]) -> Sent:
    """Flood everything that is subscribed; ``begin`` is awaited in the silence before. What was sent.

    Afterwards it is silent: whoever has counted what arrived calls `Ground.calm`.
    """
    await _hush(ground)
    await trio.sleep(SETTLE_S)
    await ground.tell("POST", "/sim/reset")
    await begin()
    await ground.tell("POST", "/sim/flood", {"per_second": per_second, "for_s": for_s + SPARE_S})
    await _flowing(ground)
    await ground.calm()
    await ground.strike(UNTOLD)
    began_s = trio.current_time()
    await trio.sleep(for_s)
    await _hush(ground)
    lasted_s = trio.current_time() - began_s
    await trio.sleep(SETTLE_S)
    await ground.tell("DELETE", "/sim/flood")
    told = (await ground.tell("GET", "/sim/stats"))["streams"]
    return Sent(told["frames"], told["flood"]["trades"], told["flood"]["trade_ids"], lasted_s)


async def _flowing(ground: Ground) -> None:
    # Before the first flood, templates of everything are made; what is due meanwhile is silenced, and not counted.
    with trio.move_on_after(BEGIN_S):
        while not (await ground.tell("GET", "/sim/flood"))["due"]:  # noqa: ASYNC110  it is in another process
            await trio.sleep(LOOK_S)


async def _hush(ground: Ground) -> None:
    await ground.strike({"kind": "ws-stall"})


@attrs.define
class Listener:
    """A process of `bench.listener` that listens."""

    ground: Ground
    _process: trio.Process
    _unread: bytes = b""

    async def flood(self, per_second: float, for_s: float, *, rss_at_s: tuple[float, ...] = ()) -> Slice:
        """Flood it; its memory is looked at so many seconds after the beginning, and at the end."""
        rss: list[int] = []

        async def look() -> None:
            for at_s, before_s in zip(rss_at_s, (0.0, *rss_at_s), strict=False):
                await trio.sleep(at_s - before_s)
                rss.append(self._rss())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            sent = await pour(self.ground, per_second, for_s, lambda: self.ask("begin"))
            rss.append(self._rss())
            nursery.cancel_scope.cancel(reason="the flood is over")
        told = await self._everything(sum(sent.frames.values()))
        await self.ground.calm()
        faults = tuple(told.pop("broken"))
        return Slice(sent=sent, rss=tuple(rss), faults=faults, **told)

    async def _everything(self, frames: int) -> Any:
        told, before, until_s = await self.ask("report"), -1, 0.0
        while (arrived := sum(told["frames"].values())) < frames:
            if arrived > before:
                before, until_s = arrived, trio.current_time() + REST_S
            elif trio.current_time() >= until_s:
                break
            await trio.sleep(LOOK_S)
            told = await self.ask("report")
        return told

    async def ask(self, line: str) -> Any:
        """One line to the process, and its answer. Raises as `answer` does."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(line.encode() + b"\n")
        except trio.BrokenResourceError as exc:
            raise RuntimeError("a reader's process has ended") from exc
        return await self.answer(ANSWER_S)

    async def answer(self, within_s: float) -> Any:
        """The next line it prints. Raises ``RuntimeError`` if it does not, or has ended."""
        with trio.move_on_after(within_s):
            line = await self._line()
            return json.loads(line) if line else None
        raise RuntimeError(f"a reader's process said nothing for {within_s:.0f} s")

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            data = await self._process.stdout.receive_some()
            if not data:
                raise RuntimeError("a reader's process has ended")
            self._unread += bytes(data)
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _rss(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)


@asynccontextmanager
async def open_listener(ground: Ground, side: str, wanted: Wanted) -> AsyncIterator[Listener]:
    """A reader for the length of the block, to which every market of every line has shown itself."""
    root = str(Path(marketpipe.__file__).parents[1])
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.listener", side, ground.base_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        listener = Listener(ground, process)
        assert process.stdin is not None
        await process.stdin.send_all(json.dumps(wanted).encode() + b"\n")
        await listener.answer(START_S)
        yield listener
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _end(process: trio.Process) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()
    with trio.move_on_after(2.0):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
