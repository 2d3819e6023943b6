"""Servers that mean harm: raw bytes over real sockets, as long as anybody listens; and what that costs the victim."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio
from paper_websocket import Peer

Harm = Callable[[trio.abc.Stream], Awaitable[None]]

# The same bytes again and again: whatever memory is used is the victim's.
PIECE = 64 * 1024


@asynccontextmanager
async def listening(harm: Harm, *, tls=None) -> AsyncGenerator[int]:
    """A server on this machine that does ``harm`` to each who connects; gives its port."""

    async def serve(stream: trio.abc.Stream) -> None:
        try:
            async with stream:
                await harm(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the victim has had enough

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [trio.SSLListener(listener, tls) if tls else listener])
        yield port
        nursery.cancel_scope.cancel(reason="the test is over")


def answering(*head: bytes, endless: bytes = b"", every_s: float | None = None, stays: bool = True) -> Harm:
    """To any request: ``head``, and then ``endless`` again and again, a piece ``every_s`` or as fast as it goes."""

    async def harm(stream: trio.abc.Stream) -> None:
        await stream.receive_some(PIECE)
        await stream.send_all(b"".join(head))
        await repeating(stream, endless, every_s)
        if stays:
            await trio.sleep_forever()

    return harm


def upgraded(*head: bytes, endless: bytes = b"", every_s: float | None = None) -> Harm:
    """The same, after a good answer to the upgrade of a WebSocket."""

    async def harm(stream: trio.abc.Stream) -> None:
        await Peer(stream).greet()
        await stream.send_all(b"".join(head))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_swallow, stream)  # else our answers would stop the victim, and it could do no harm
            await repeating(stream, endless, every_s)
            await trio.sleep_forever()

    return harm


async def repeating(stream: trio.abc.Stream, piece: bytes, every_s: float | None = None) -> None:
    """Send ``piece`` for ever."""
    if piece and every_s is None:
        piece *= -(-PIECE // len(piece))
    while piece:
        await stream.send_all(piece)
        if every_s is not None:
            await trio.sleep(every_s)


async def _swallow(stream: trio.abc.Stream) -> None:
    while await stream.receive_some(PIECE):
        pass


@attrs.define
class Cost:
    """``bytes``: the most memory that was held at once within the block, beyond what was held before it."""

    bytes: int = 0


@contextmanager
def costing() -> Iterator[Cost]:
    """What the block costs; told when it is left."""
    cost = Cost()
    tracemalloc.start()
    try:
        yield cost
    finally:
        cost.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
