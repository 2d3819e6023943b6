"""A WebSocket client that sees everything: every frame with its time, closes, ends, and bytes that are no WebSocket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from marketpipe.sim import SimExchange, memory_dial

Dial = Callable[[], Awaitable[trio.abc.Stream]]


class Heard(NamedTuple):
    """``kind``: bytes, text, pong, close (data is the code), or end (no more bytes will come)."""

    at_s: float
    kind: str
    data: Any

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Refused(Exception):
    """The upgrade was answered with another status."""

    def __init__(self, status: int, headers: dict[bytes, bytes]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class Peer:
    """The client's end of one connection."""

    def __init__(self, stream: trio.abc.Stream, *, answers_close: bool = True) -> None:
        self.stream = stream
        self.headers: dict[bytes, bytes] = {}
        self.extensions: list[Any] = []
        self._answers_close = answers_close
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._message = b""
        self._ended = False

    async def shake_hands(self, *, path: str, headers: Iterable[tuple[str, str]], deflate: bool) -> None:
        request = Request(
            host="sim",
            target=path,
            extensions=[PerMessageDeflate()] if deflate else [],
            extra_headers=[(name.encode(), value.encode()) for name, value in headers],
        )
        await self.stream.send_all(self._protocol.send(request))
        while True:
            data = await self.stream.receive_some()
            if not data:
                raise ConnectionResetError("closed during the handshake")
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                match event:
                    case AcceptConnection():
                        self.headers = dict(event.extra_headers)
                        self.extensions = list(event.extensions)
                        return
                    case RejectConnection():
                        raise Refused(event.status_code, dict(event.headers))
                    case _:
                        pass

    async def say(self, *parts: Any) -> None:
        """Send ``parts`` as one JSON array, or a text as it is."""
        text = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else json.dumps(parts)
        await self.stream.send_all(self._protocol.send(TextMessage(text)))

    async def subscribe(self, *types: Any, format: str | None = None) -> None:
        """``types``: type objects, or (type, codes...)."""
        objects = [item if isinstance(item, dict) else {"type": item[0], "codes": list(item[1:])} for item in types]
        await self.say({"ticket": "t"}, *objects, *([{"format": format}] if format else []))

    async def ping(self, payload: bytes = b"") -> None:
        await self.stream.send_all(self._protocol.send(Ping(payload)))

    async def close(self) -> None:
        await self.stream.send_all(self._protocol.send(CloseConnection(1000)))

    async def hear(self, for_s: float) -> list[Heard]:
        """Everything that comes in the next ``for_s`` seconds, or until the end."""
        heard: list[Heard] = []
        with trio.move_on_after(for_s):
            while not self._ended:
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    data = b""
                heard += [item async for item in self._understand(bytes(data))]
        return heard

    async def _understand(self, data: bytes) -> AsyncIterator[Heard]:
        now_s = trio.current_time()
        if not data:
            self._ended = True
            yield Heard(now_s, "end", None)
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case BytesMessage() | TextMessage():
                    part = event.data
                    self._message += part.encode() if isinstance(part, str) else bytes(part)
                    if event.message_finished:
                        message, self._message = self._message, b""
                        yield Heard(now_s, "bytes" if isinstance(event, BytesMessage) else "text", message)
                case Pong():
                    yield Heard(now_s, "pong", bytes(event.payload))
                case CloseConnection():
                    if self._answers_close and self._protocol.state is ConnectionState.REMOTE_CLOSING:
                        with contextlib.suppress(trio.BrokenResourceError):
                            await self.stream.send_all(self._protocol.send(event.response()))
                    yield Heard(now_s, "close", int(event.code))
                case _:
                    yield Heard(now_s, type(event).__name__, None)


@asynccontextmanager
async def connected(
    dial: Dial,
    *,
    path: str = "/websocket/v1",
    headers: Iterable[tuple[str, str]] = (),
    deflate: bool = False,
    answers_close: bool = True,
) -> AsyncIterator[Peer]:
    """A new connection, upgraded. Raises `Refused`."""
    async with await dial() as stream:
        peer = Peer(stream, answers_close=answers_close)
        await peer.shake_hands(path=path, headers=headers, deflate=deflate)
        yield peer


@asynccontextmanager
async def dialling(exchange: SimExchange) -> AsyncIterator[Dial]:
    """Dial ``exchange`` in memory; what is still connected at the end is cut off."""
    async with trio.open_nursery() as nursery:
        yield memory_dial(exchange, nursery)
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def peer_of(exchange: SimExchange, **options: Any) -> AsyncIterator[Peer]:
    """One connection to ``exchange`` in memory."""
    async with dialling(exchange) as dial, connected(dial, **options) as peer:
        yield peer


def frames(heard: Iterable[Heard], type: str | None = None) -> list[Any]:
    """The decoded messages, of stream ``type`` or of all."""
    told = [item.json for item in heard if item.kind == "bytes"]
    return [message for message in told if type is None or message.get("type") == type]
