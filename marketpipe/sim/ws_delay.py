"""The time that bytes take from one end to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["delayed"]

# So many pieces can be on their way in one direction; then the sender waits.
IN_FLIGHT = 1_000
READ_SIZE = 65_536
Piece = tuple[float, bytes]


class _DelayedStream(trio.abc.Stream):
    def __init__(
        self,
        inner: trio.abc.Stream,
        out: trio.MemorySendChannel[Piece],
        into: trio.MemoryReceiveChannel[Piece],
        delay: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._out = out
        self._into = into
        self._delay = delay

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return when the data is on its way."""
        await self._out.send((trio.current_time() + self._delay(), bytes(data)))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """One piece as it was sent, whatever ``max_bytes``; b"" at the end."""
        try:
            arrives_s, data = await self._into.receive()
        except trio.EndOfChannel:
            return b""
        await trio.sleep_until(arrives_s)
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def delayed(inner: trio.abc.Stream, delay: Callable[[], float]) -> AsyncIterator[trio.abc.Stream]:
    """``inner`` with ``delay()`` seconds for whatever passes, either way; nothing overtakes anything.

    What is on its way when the block ends is lost.
    """
    send_out, out = trio.open_memory_channel[Piece](IN_FLIGHT)
    send_in, into = trio.open_memory_channel[Piece](IN_FLIGHT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_carry_out, out, inner)
        nursery.start_soon(_carry_in, inner, send_in, delay)
        yield _DelayedStream(inner, send_out, into, delay)
        nursery.cancel_scope.cancel(reason="the connection has ended")


async def _carry_out(out: trio.MemoryReceiveChannel[Piece], inner: trio.abc.Stream) -> None:
    with out:
        async for arrives_s, data in out:
            await trio.sleep_until(arrives_s)
            try:
                await inner.send_all(data)
            except trio.BrokenResourceError:
                return  # whoever sends next is told


async def _carry_in(inner: trio.abc.Stream, into: trio.MemorySendChannel[Piece], delay: Callable[[], float]) -> None:
    with into:
        while True:
            try:
                data = bytes(await inner.receive_some(READ_SIZE))
            except trio.BrokenResourceError:
                return
            if not data:
                return
            await into.send((trio.current_time() + delay(), data))
