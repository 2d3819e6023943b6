"""Connections to the simulator without a network: for tests of WebSocket clients, under Trio's mock clock."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable

import attrs
import trio

from marketpipe.sim.exchange import SimExchange
from marketpipe.sim.server import serve_connection

__all__ = ["memory_dial", "pipe_pair"]

# As much as two sockets' buffers hold on loopback; then the sender waits for the receiver.
CAPACITY = 1_000_000


def memory_dial(exchange: SimExchange, nursery: trio.Nursery) -> Callable[[], Awaitable[trio.abc.Stream]]:
    """A function that connects to ``exchange`` as TCP would: the client's end of a new connection, HTTP to begin with.

    The other end is served in ``nursery``. Latency and jitter of the configuration apply in Trio's time, virtual or
    not. Dialling raises ``OSError`` (``ConnectionRefusedError``, ``socket.gaierror``) while a fault says that nobody is
    there. Sending waits while the other side does not read.
    """

    async def dial() -> trio.abc.Stream:
        await exchange.dial()
        ours, theirs = pipe_pair()
        nursery.start_soon(serve_connection, exchange, theirs)
        return ours

    return dial


def pipe_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    """Two ends of a connection in memory."""
    there, back = _Pipe(), _Pipe()
    return _PipeStream(back, there), _PipeStream(there, back)


class _Pipe:
    """Bytes in one direction, at most `CAPACITY` of them."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = trio.Event()
        # No more will be put (by the sender's wish, or since it has closed), and no more will be got.
        self.ended = self.closed = self.unread = False

    async def put(self, data: bytes) -> None:
        while True:
            self._check_open()
            room = CAPACITY - len(self._data)
            self._data += data[:room]
            data = data[room:]
            self._change()
            if not data:
                return
            await self._changed.wait()

    async def room(self) -> None:
        while not self.closed and not self.unread and len(self._data) >= CAPACITY:
            await self._changed.wait()
        if self.closed:
            raise trio.ClosedResourceError("this end is closed")

    async def get(self, max_bytes: int | None) -> bytes:
        while not self._data and not self.ended:
            if self.unread:
                raise trio.ClosedResourceError("this end is closed")
            await self._changed.wait()
        if self.unread:
            raise trio.ClosedResourceError("this end is closed")
        data = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        self._change()
        return data

    def end(self) -> None:
        """The sender says that nothing more will come."""
        self.ended = True
        self._change()

    def close(self) -> None:
        """The sender is gone."""
        self.ended = self.closed = True
        self._change()

    def leave(self) -> None:
        """The receiver is gone."""
        self.unread = True
        self._data.clear()
        self._change()

    def _check_open(self) -> None:
        if self.closed or self.ended:
            raise trio.ClosedResourceError("this end is closed")
        if self.unread:
            raise trio.BrokenResourceError("the other end is closed")

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _PipeStream(trio.abc.HalfCloseableStream):
    def __init__(self, into: _Pipe, out: _Pipe) -> None:
        self._into = into
        self._out = out
        self._sending = _Alone("another task is sending")
        self._receiving = _Alone("another task is receiving")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return when the data is in the pipe."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self._out.put(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Return when there is room in the pipe."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self._out.room()

    async def send_eof(self) -> None:
        """Nothing more will be sent."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._out.closed:
                raise trio.ClosedResourceError("this end is closed")
            self._out.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" when there will be none."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, was {max_bytes!r}")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            return await self._into.get(max_bytes)

    async def aclose(self) -> None:
        """Close both directions, as ``close()`` of a socket."""
        self._out.close()
        self._into.leave()
        await trio.lowlevel.checkpoint()


@attrs.define
class _Alone:
    """Refuses a second task where only one may be, as Trio's own streams do."""

    _complaint: str
    _taken: bool = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(self._complaint)
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False
