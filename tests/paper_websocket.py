"""The other end of a WebSocket, by hand and over memory: what the tests of the connection stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
from trio.testing import memory_stream_pair
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Request

from marketpipe.clock import TrioClock
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.upbit.ws import UpbitSession, UpbitWebSocket

EPOCH_MS = 1_785_395_043_831
URL = "ws://exchange/websocket/v1"
TOPIC = Topic(Line.TRADE, "KRW-BTC")
UP = b'{"status":"UP"}'


def trade(number: int) -> bytes:
    """A frame that carries ``number``."""
    return (
        b'{"type":"trade","code":"KRW-BTC","timestamp":1785395043831,"trade_date":"2026-07-30","trade_time":"07:04:03",'
        b'"trade_timestamp":1785395043779,"trade_price":91361000.0,"trade_volume":0.01275549,"ask_bid":"ASK",'
        b'"prev_closing_price":91424000.0,"change":"FALL","change_price":63000.0,"sequential_id":%d,'
        b'"best_ask_price":91370000,"best_ask_size":0.0070459,"best_bid_price":91361000,"best_bid_size":0.00196362,'
        b'"stream_type":"REALTIME"}' % number
    )


async def received(opened: UpbitSession, count: int) -> list[Frame]:
    """The next ``count`` frames, in whatever batches."""
    frames: list[Frame] = []
    while len(frames) < count:
        frames += await opened.receive()
    return frames


def numbers(frames) -> list[int]:
    return [frame.value.sequential_id for frame in frames]


@attrs.define(eq=False)
class Peer:
    """The exchange's end of one connection, by hand: it answers nothing by itself."""

    stream: trio.abc.Stream
    ws: WSConnection = attrs.field(factory=lambda: WSConnection(ConnectionType.SERVER))
    request: Request | None = None
    hung_up: trio.Event = attrs.field(factory=trio.Event)
    _waiting: list[Event] = attrs.field(factory=list)

    async def next(self) -> Event | None:
        """The next thing the client has sent; None when it has hung up."""
        while not self._waiting:
            data = await self.stream.receive_some(65_536)
            if not data:
                self.hung_up.set()
                return None
            self.ws.receive_data(data)
            self._waiting += self.ws.events()
        return self._waiting.pop(0)

    async def greet(self) -> None:
        asked = await self.next()
        if asked is None:
            raise trio.BrokenResourceError("the client has hung up before it asked")
        assert isinstance(asked, Request)
        self.request = asked
        await self.tell(AcceptConnection())

    async def tell(self, *events: Event) -> None:
        """Send all of them in one piece."""
        await self.stream.send_all(b"".join(map(self.ws.send, events)))

    async def say(self, *data: bytes) -> None:
        await self.tell(*map(BytesMessage, data))

    async def answer(self) -> None:
        """Do what a peer has to do, until the client hangs up."""
        while (event := await self.next()) is not None:
            if isinstance(event, CloseConnection):
                if self.ws.state is ConnectionState.REMOTE_CLOSING:
                    await self.tell(event.response())
                await self.stream.aclose()
                return
            if isinstance(event, Ping) and self.ws.state is ConnectionState.OPEN:
                await self.tell(event.response())

    async def listen(self) -> None:
        """Read, and answer nothing."""
        while await self.next() is not None:
            pass


Script = Callable[[Peer], Awaitable[None]]


@attrs.define(eq=False)
class Exchange:
    """Where the connector under test dials: each connection is a `Peer` that plays ``script`` until it is left.

    ``streams``: the client's ends.
    """

    script: Script
    nursery: trio.Nursery
    peers: list[Peer] = attrs.field(factory=list)
    streams: list[trio.abc.Stream] = attrs.field(factory=list)

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    async def dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        self.streams.append(ours)
        self.peers.append(Peer(theirs))
        self.nursery.start_soon(self._play, self.peer)
        return ours

    async def _play(self, peer: Peer) -> None:
        with suppress(trio.BrokenResourceError):  # a client may leave at any time
            await self.script(peer)


@asynccontextmanager
async def exchange(script: Script, **options: Any) -> AsyncIterator[tuple[UpbitWebSocket, Exchange]]:
    async with trio.open_nursery() as nursery:
        there = Exchange(script, nursery)
        yield connector(dial=there.dial, **options), there
        nursery.cancel_scope.cancel()


def connector(url: str = URL, **options: Any) -> UpbitWebSocket:
    usual = {"handshake_s": 5.0, "ping_s": 15.0, "pong_s": 1.5, "frames": 1000, "frame_bytes": 8 * 2**20}
    return UpbitWebSocket(url, **{**usual, "clock": TrioClock(EPOCH_MS), **options})


@asynccontextmanager
async def session(script: Script, **options: Any) -> AsyncIterator[tuple[UpbitSession, Peer]]:
    async with exchange(script, **options) as (ws, there), ws.connect() as opened:
        yield opened, there.peer


async def polite(peer: Peer) -> None:
    await peer.greet()
    await peer.answer()


async def mute(peer: Peer) -> None:
    """Half open: the connection stands, and nothing ever comes back."""
    await peer.greet()
    await peer.listen()


async def deaf(peer: Peer) -> None:
    await trio.sleep_forever()


async def hang_up(peer: Peer) -> None:
    await peer.stream.aclose()


def saying(*events: Event, then: Script = Peer.answer) -> Script:
    """After the upgrade, these in one piece; then what a peer has to do."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.tell(*events)
        await then(peer)

    return script


def sending(data: bytes, then: Script = Peer.listen) -> Script:
    """After the upgrade, these bytes."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.stream.send_all(data)
        await then(peer)

    return script
