"""One connection to the exchange's WebSocket, from dialling to its end: the only importer of trio_websocket.

A session connects, subscribes, reads and keeps itself alive; when it ends, for whatever reason, it is over, and whoever
wants to go on enters `UpbitWebSocket.connect` again. Nothing is paced or tried again here, and frames are not put
together: that is the feed's.

What ends a connection is raised as an `ExchangeError` by whoever is waiting at it. trio-websocket (0.12.2) by itself
would wait for ever where the peer closes before it has answered the upgrade, where a pong does not come and where a
peer that has closed does not hang up; and its reader lets escape what h11 and wsproto think of garbage, and of a ping
that crosses our close (python-trio/trio-websocket#184). So the reader runs inside a guard, every wait ends with it,
and the stream underneath is closed here.

permessage-deflate is not offered. Over loopback a ticker of 927 bytes cost 15.5 us of CPU, and 19.6 us deflated to 120
bytes; a book of 2931 bytes 17.5 us, and 28.1 us deflated to 823. All books of the exchange together are some 2 MB a
second, which a line that follows them all has to spare.
"""

from __future__ import annotations

import itertools
import re
import ssl
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import Any, cast
from urllib.parse import urlsplit

import attrs
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.events import Event, Message, RejectData
from wsproto.utilities import RemoteProtocolError

from marketpipe.clock import Clock
from marketpipe.core.requests import MarketsRequest
from marketpipe.core.topics import Frame, Topic
from marketpipe.errors import Banned, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.upbit.inbox import Inbox
from marketpipe.upbit.wire import decode_frame, encode_subscription
from marketpipe.upbit.wire_errors import error_of, excerpt

__all__ = ["UpbitSession", "UpbitWebSocket"]

# How long saying goodbye may take.
CLOSE_S = 0.5
# How many bytes are read from the socket at once: trio-websocket's own 4096 cost a fifth of its speed.
READ_BYTES = 65_536
# A pong may stand behind a burst of messages on a slow line: each of them gives it ``pong_s`` again, but so many times
# ``pong_s`` is the most it may take.
PATIENCE = 10
# Messages that are decoded in one turn, where they wait already: half a millisecond.
AT_ONCE = 32
# As much of a refusal as is read: its words are at the beginning, and its status decides.
REFUSAL_BYTES = 64 * 1024
# A read may bring so many pieces that complete no message (pings, pongs, fragments): 65 bytes of it for each.
PIECES = 1_000
# What a piece of something unfinished takes beside its bytes.
PIECE_BYTES = 100

_VISIBLE = re.compile(r"[!-~]+")


class UpbitWebSocket:
    """The WebSocket at ``url``, such as ``wss://api.upbit.com/websocket/v1``.

    ``handshake_s`` bounds connecting altogether: finding the host, TCP, TLS and the upgrade. A ping goes out every
    ``ping_s``, and its pong may take ``pong_s``. Up to ``frames`` messages wait undecoded, none longer than
    ``frame_bytes``. ``tls`` says whom to trust. ``dial`` replaces the network: it gives the byte stream to speak over.

    No ``Origin`` header is sent; it would cost this address its connections per second (reference/rate-limits,
    2026-10-07). Proxies of the environment are not used.

    Raises ``ValueError`` if ``url`` is no ws or wss URL with a host.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        handshake_s: float,
        ping_s: float,
        pong_s: float,
        frames: int,
        frame_bytes: int,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        dial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        self._address = address = _Address.of(url)
        self._clock = clock
        self._handshake_s = handshake_s
        self._ping_s = ping_s
        self._pong_s = pong_s
        self._frames = frames
        self._frame_bytes = frame_bytes
        # Loading the certificates takes 20 ms, so it is done once, and only where TLS is spoken, and when it is.
        trusted = cache(tls)
        self._dial = dial or (lambda: _open_stream(address, trusted() if address.secure else None))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[UpbitSession]:
        """Connect, and close the connection on leaving: in `CLOSE_S` at most, at once if it is broken or cancelled.

        Raises `ExchangeUnavailable` (with ``sent=False`` if not even TLS came about, so that this attempt cannot have
        counted), `RateLimited` for 429 and `Banned` for 418 on the upgrade. What the body raises leaves it unchanged.
        """
        async with _background() as nursery:
            session = await self._opened(nursery)
            nursery.start_soon(session._keep_alive, self._ping_s, name="connection pings")
            try:
                yield session
            finally:
                await session._leave()

    async def _opened(self, nursery: trio.Nursery) -> UpbitSession:
        deadline_s = trio.current_time() + self._handshake_s
        stream = await self._dialled(deadline_s)
        address, inbox = self._address, Inbox(self._frames)
        connection = WebSocketConnection(
            _TimedStream(stream, inbox),
            _WaryProtocol(self._frame_bytes),
            host=address.name,
            path=address.path,
            max_message_size=self._frame_bytes,
            receive_buffer_size=READ_BYTES,
        )
        connection._send_channel = cast("Any", inbox)
        session = UpbitSession(connection, inbox, stream, address.name, clock=self._clock, pong_s=self._pong_s)
        nursery.start_soon(session._read, name="connection reader")
        try:
            await session._upgraded(deadline_s, self._handshake_s)
        except BaseException:
            await _hang_up(stream)
            raise
        return session

    async def _dialled(self, deadline_s: float) -> trio.abc.Stream:
        host = self._address.name
        try:
            with trio.move_on_at(deadline_s):
                return await self._dial()
        except (OSError, UnicodeError, trio.BrokenResourceError) as exc:
            raise ExchangeUnavailable(_why_not_sent(exc, host), sent=False) from exc
        raise ExchangeUnavailable(f"could not connect to {host} within {self._handshake_s:g} s", sent=False)


class UpbitSession:
    """One connection, open. Once it has ended, everything here raises the reason.

    Somebody has to receive all the time: a full queue stops the reader, and with it the pongs. `subscribe` and `ping`
    may be called by other tasks meanwhile.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        inbox: Inbox,
        stream: trio.abc.Stream,
        host: str,
        *,
        clock: Clock,
        pong_s: float,
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._stream = stream
        self._host = host
        self._clock = clock
        self._pong_s = pong_s
        self._payloads = map(b"%d".__mod__, itertools.count())
        self._read_s: float | None = None
        self._why_ended: ExchangeError | None = None
        self._reading = trio.CancelScope()
        self._reader_ended = trio.Event()
        # Who is waiting for something, and until when at the latest.
        self._waits: dict[trio.CancelScope, float] = {}

    async def subscribe(self, topics: Collection[Topic]) -> None:
        """Listen to ``topics`` and nothing else: a message replaces the whole subscription of the connection.

        The exchange acknowledges nothing, so a ping follows the message, and when its pong comes the message has been
        received. A refusal is an error frame, and raised by `receive`. Raises as `ping` does, and ``ValueError`` for
        no topics and for one that is not streamed.

        Cancelled while the message is going out, it ends the session: nothing can follow half a message.
        """
        await self._answered(encode_subscription(str(uuid.uuid4()), topics))

    async def ping(self) -> None:
        """Wait for the answer to a ping.

        Raises `ExchangeUnavailable` if the session has ended; it ends when ``pong_s`` pass without a pong and without
        a message. Behind a burst of messages, on a slow line, a pong may thus take up to `PATIENCE` times ``pong_s``.
        """
        await self._answered()

    async def receive(self) -> Sequence[Frame]:
        """The next frames that have arrived, oldest first, at least one; waits for it. A cancellation loses nothing.

        Raises `BadPayload` for a message that cannot be read, `ExchangeError` or `RateLimited` for an error frame,
        and, when everything that came before is received, the reason for which the session has ended.
        """
        while await self._inbox.arrived():
            if self._waits:
                self._give_time()
            if frames := self._decoded(self._inbox.messages):
                return frames
        if self._why_ended is None and self._connection.closed is None:
            # The reader has failed, as a stream handed in may make it, and is about to say how.
            await self._reader_ended.wait()
        raise self._end(self._closed()).copy()

    @property
    def read_s(self) -> float | None:
        """When (monotonic) the oldest of the frames that `receive` returned last was read from the socket."""
        return self._read_s

    def backlog(self) -> tuple[int, int]:
        """How many messages have been read and not been received: now, and at the most so far."""
        return len(self._inbox.messages), self._inbox.peak

    def _decoded(self, messages: deque[str | bytes]) -> list[Frame]:
        self._read_s = self._inbox.oldest_s
        frames: list[Frame] = []
        received_ms = self._clock.now_ms()
        for _ in range(min(len(messages), AT_ONCE)):
            message = messages.popleft()
            try:
                frames += decode_frame(message, received_ms=received_ms)
            except ExchangeError:
                if not frames:
                    raise
                messages.appendleft(message)  # what came before it comes first
                break
        return frames

    async def _answered(self, message: str | None = None) -> None:
        connection = self._connection
        if self._why_ended is not None:
            raise self._why_ended.copy()
        with self._waiting(self._pong_s, PATIENCE * self._pong_s) as scope:
            try:
                if message is not None:
                    await connection.send_message(message)
                    message = None
                await connection.ping(next(self._payloads))
                return
            except trio.Cancelled:
                if message is not None and not scope.cancel_called:
                    self._end(ExchangeUnavailable(f"a message to {self._host} was cut off in the middle"))
                raise
            except ConnectionClosed:
                pass
        late = ExchangeUnavailable(f"no pong from {self._host} within {self._pong_s:g} s", abandoned=True)
        raise self._end(self._closed() if connection.closed else late).copy()

    async def _keep_alive(self, every_s: float) -> None:
        # A ping that fails has ended the session, and the reason is told to everybody else.
        with suppress(ExchangeUnavailable):
            while True:
                await trio.sleep(every_s)
                await self.ping()

    async def _read(self) -> None:
        try:
            with self._reading:
                await self._connection._reader_task()
        except ConnectionRejected:
            self._end(self._closed())
        except Exception as exc:
            # None of ours runs in there: whatever it raises, the peer's bytes have brought it about.
            self._end(self._broken(exc))
        else:
            self._end(self._closed())
        finally:
            self._reader_ended.set()

    async def _upgraded(self, deadline_s: float, within_s: float) -> None:
        connection = self._connection
        with self._waiting(max(0.0, deadline_s - trio.current_time())):
            await connection._open_handshake.wait()
        if not connection._open_handshake.is_set():
            late = ExchangeUnavailable(f"{self._host} did not answer the upgrade within {within_s:g} s", abandoned=True)
            raise self._end(self._closed() if connection._reject_status else late).copy()

    async def _leave(self) -> None:
        self._inbox.abandon()
        try:
            if self._why_ended is None and self._connection.closed is None:
                with self._waiting(CLOSE_S):
                    await self._connection.aclose()
        finally:
            # trio-websocket waits for a peer that has closed to hang up.
            await _hang_up(self._stream)

    def _end(self, why: ExchangeError) -> ExchangeError:
        # The first reason is the reason; the others follow from it.
        self._why_ended = self._why_ended or why
        for scope in (self._reading, *self._waits):
            scope.cancel(reason="the session has ended")
        return self._why_ended

    def _closed(self) -> ExchangeError:
        connection, reason = self._connection, self._connection.closed
        if connection._reject_status:
            told = connection._reject_status, connection._reject_headers, connection._reject_body
            return _refusal(self._host, *told, now_ms=self._clock.now_ms())
        if not connection._open_handshake.is_set():
            return ExchangeUnavailable(f"{self._host} closed the connection without an answer to the upgrade")
        if reason is None:
            return ExchangeUnavailable(f"the connection to {self._host} broke")
        words = excerpt(reason.reason or "", 120) or reason.name.lower().replace("_", " ")
        return ExchangeUnavailable(f"the connection to {self._host} closed {reason.code} ({words})")

    def _broken(self, exc: Exception) -> ExchangeError:
        what, said = f"the connection to {self._host} broke", exc
        if not self._connection._open_handshake.is_set():
            what = f"{self._host} does not speak WebSocket"
            # The first in the row is what was found; the others come of trio-websocket's attempt to protest.
            while isinstance(said.__context__, Exception):
                said = said.__context__
        words = excerpt(str(said), 120) or type(said).__name__
        flaw = ExchangeUnavailable(f"{what}: {words}")
        flaw.__cause__ = exc
        return flaw

    @contextmanager
    def _waiting(self, limit_s: float, longest_s: float = 0.0) -> Iterator[trio.CancelScope]:
        with trio.move_on_after(limit_s) as scope:
            self._waits[scope] = trio.current_time() + longest_s
            try:
                yield scope
            finally:
                del self._waits[scope]

    def _give_time(self) -> None:
        until_s = trio.current_time() + self._pong_s
        for scope, latest_s in self._waits.items():
            scope.deadline = max(scope.deadline, min(until_s, latest_s))


class _WaryProtocol(WSConnection):
    """Refuses what trio-websocket (0.12.2) would collect without end, for it weighs the bytes of one message alone.

    The body of a refusal is cut off; and fragments without a byte in them, or floods of pings, are not taken in.
    """

    def __init__(self, message_bytes: int) -> None:
        super().__init__(ConnectionType.CLIENT)
        self._held_at_most = 2 * message_bytes
        self._held = 0  # of the message that is not finished
        self._pieces = 0  # in this read
        self._refused = 0

    def receive_data(self, data: bytes | None) -> None:
        self._pieces = 0
        super().receive_data(data)

    def events(self) -> Generator[Event, None, None]:
        for event in super().events():
            if isinstance(event, Message) and event.message_finished:
                self._held = 0
            elif isinstance(event, RejectData):
                self._refused += len(event.data) + PIECE_BYTES
                if self._refused > REFUSAL_BYTES:
                    yield RejectData(data=event.data, body_finished=True)
                    return
            else:
                self._weigh(event)
            yield event

    def _weigh(self, event: Event) -> None:
        self._pieces += 1
        if isinstance(event, Message):
            self._held += len(event.data) + PIECE_BYTES
        if self._pieces > PIECES or self._held > self._held_at_most:
            raise RemoteProtocolError("a flood of frames that say nothing")


@attrs.define(eq=False)
class _TimedStream(trio.abc.Stream):
    """A byte stream that tells an `Inbox` when it was read from."""

    _stream: trio.abc.Stream
    _inbox: Inbox

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._inbox.read_s = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@attrs.frozen
class _Address:
    """A URL taken apart; ``name`` is what the header ``Host`` says."""

    secure: bool
    host: str
    port: int
    name: str
    path: str

    @classmethod
    def of(cls, url: str) -> _Address:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ValueError(f"url must be a ws or wss URL, was {url!r}: {exc}") from exc
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if parts.scheme not in ("ws", "wss") or not host or port == 0 or not _VISIBLE.fullmatch(path):
            raise ValueError(f"url must be a ws or wss URL such as 'wss://api.upbit.com/websocket/v1', was {url!r}")
        usual = 443 if parts.scheme == "wss" else 80
        name = f"[{host}]" if ":" in host else host
        name = name if port in (None, usual) else f"{name}:{port}"
        return cls(parts.scheme == "wss", host, port or usual, name, path)


@asynccontextmanager
async def _background() -> AsyncIterator[trio.Nursery]:
    """A nursery that ends with the body, whose exception leaves bare: the tasks in it keep theirs to themselves."""
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                raised = exc
            nursery.cancel_scope.cancel(reason="the session is left")
    except BaseException:
        if raised is None or isinstance(raised, trio.Cancelled):
            raise
    try:
        if raised is not None:
            raise raised
    finally:
        del raised  # its traceback leads back here


async def _open_stream(address: _Address, context: ssl.SSLContext | None) -> trio.abc.Stream:
    tcp = await trio.open_tcp_stream(address.host, address.port)
    if context is None:
        return tcp
    tls = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
    try:
        await tls.do_handshake()
    except BaseException:
        await _hang_up(tls)
        raise
    return tls


async def _hang_up(stream: trio.abc.Stream) -> None:
    # It waits for nothing, so a cancellation need not take the place of the exception that is on its way.
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def _why_not_sent(exc: Exception, host: str) -> str:
    cause: BaseException = exc.__cause__ or exc
    while isinstance(cause, BaseExceptionGroup):  # one for each address of the host
        cause = cause.exceptions[0]
    what = "cannot find host" if isinstance(cause, trio.socket.gaierror | UnicodeError) else "could not connect to"
    return f"{what} {host}: {excerpt(str(cause), 160) or type(cause).__name__}"


def _refusal(
    host: str, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, now_ms: int
) -> ExchangeError:
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    # How long to wait is told as it is on the REST side.
    told = error_of(MarketsRequest(), status, named, body, now_ms=now_ms)
    flaw = f"HTTP {status} from {host} on the upgrade: {excerpt(body, 120) or 'no reason given'}"
    if isinstance(told, RateLimited):
        return RateLimited(flaw, retry_after_s=told.retry_after_s)
    if isinstance(told, Banned):
        return Banned(flaw, until_ms=told.until_ms)
    return ExchangeUnavailable(flaw, status=status)
