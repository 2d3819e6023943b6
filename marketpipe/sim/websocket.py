"""One WebSocket connection: what comes in is understood, what is due goes out, and what must happen happens in time.

https://python-hyper.org/projects/wsproto: the protocol's state is wsproto's. Three tasks share a connection: one
listens, one speaks (nobody else sends), one minds the time and the faults, and can end the connection while the others
wait.

Rules of the exchange: docs.upbit.com/kr reference/websocket-guide (2026-08-31) and the wire (2026-09-23). All messages
are binary. Pings are answered, none are sent. An error is followed by a close (1000) 150 to 180 ms later.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import trio
from wsproto import WSConnection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from marketpipe.sim.limiter import MessageLimiter
from marketpipe.sim.streams import Wanted
from marketpipe.sim.ws_damage import Outgoing, Trouble, spoiled
from marketpipe.sim.ws_faults import WsCloseFault, WsDripFault, WsHalfFault
from marketpipe.sim.ws_flood import Poured
from marketpipe.sim.ws_frames import Template, frame
from marketpipe.sim.ws_hub import Alarm, Sockets
from marketpipe.sim.ws_program import Program
from marketpipe.sim.ws_requests import (
    PING,
    BadMessage,
    Listing,
    Subscribe,
    error_frame,
    listing_frame,
    parse_message,
)

__all__ = ["Session"]

READ_SIZE = 65_536
# The longest request anybody needs is 9.5 KB (855 codes, 2026-09-23).
MAX_MESSAGE = 1_000_000
ERROR_CLOSE_S = (0.15, 0.18)
# A frame that was held back for the next one does not wait longer than this.
HELD_S = 0.3
# A client that takes nothing for so long, or lets so many bytes pile up, is left; as is one that does not answer a
# close.
STALLED_S = 10.0
MAX_BACKLOG = 32_000_000
CLOSE_S = 5.0
OVERDUE_S = 0.1


class Session:
    """The exchange's end of one connection, from the upgrade to the end."""

    def __init__(self, sockets: Sockets, stream: trio.abc.Stream, protocol: WSConnection, *, deflated: bool) -> None:
        self.subscribes = 0
        self.messages = MessageLimiter(sockets.config)
        self._sockets = sockets
        self._stream = stream
        self._protocol = protocol
        self._deflated = deflated
        self._program = Program(sockets, framed=not deflated)
        self._scope = trio.CancelScope()
        self._speaker, self._minder = Alarm(), Alarm()
        self._opened_s = self._active_s = trio.current_time()
        self._number = sockets.enter(self)
        self._incoming = bytearray()
        self._outbox: list[bytes] = []
        self._backlog = 0
        # After a close frame nothing else is said; after half a frame nothing at all.
        self._closing = self._cut = False
        self._closes_s = self._gives_up_s = math.inf
        self._trouble = Trouble()
        self._half: WsHalfFault | None = None
        self._held: list[Outgoing] = []
        self._held_until_s = math.inf

    @property
    def wanted(self) -> Sequence[Wanted]:
        """What is listened to."""
        return self._program.wanted

    async def run(self, first: bytes) -> None:
        """Carry the connection until either side ends it; ``first`` was read from it already."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._listen, first)
                    nursery.start_soon(self._speak)
                    nursery.start_soon(self._mind)
        finally:
            self._sockets.leave(self._number)

    def ring(self) -> None:
        """Something has changed that concerns every connection."""
        self._speaker.ring()
        self._minder.ring()

    def forget(self) -> None:
        """Count from 0 again."""
        self.subscribes = 0
        self.messages = MessageLimiter(self._sockets.config)

    def _leave(self, reason: str) -> None:
        # Whoever wants a close frame sends it before.
        self._scope.cancel(reason=reason)

    # Listening

    async def _listen(self, data: bytes) -> None:
        try:
            while True:
                for event in self._events(data):
                    self._react(event)
                data = bytes(await self._stream.receive_some(READ_SIZE))
                if not data:
                    break
                self._active_s = trio.current_time()
        except trio.BrokenResourceError:
            pass  # the client is gone, and with it whoever could be told
        self._leave("the client has left")

    def _events(self, data: bytes) -> Iterator[Event]:
        if data and not self._gives_up_s <= trio.current_time():
            self._protocol.receive_data(data)
            yield from self._protocol.events()

    def _react(self, event: Event) -> None:
        if self._trouble.deaf:
            # Nothing is answered, but after a close there is nobody to talk to any more.
            self._closing = self._closing or isinstance(event, CloseConnection)
            return
        match event:
            case TextMessage() | BytesMessage():
                self._collect(event)
            case Ping() if not self._closing:
                self._put(self._protocol.send(event.response()))
            case CloseConnection():
                self._end(event)
            case _:
                pass

    def _collect(self, part: TextMessage | BytesMessage) -> None:
        self._incoming += part.data.encode() if isinstance(part.data, str) else part.data
        if len(self._incoming) > MAX_MESSAGE:
            self._close(1009, "")
        elif part.message_finished:
            message = bytes(self._incoming)
            self._incoming.clear()
            if not self._closing and self._closes_s == math.inf:
                self._answer(message)

    def _answer(self, message: bytes) -> None:
        now_s = trio.current_time()
        try:
            if not self.messages.arrive(now_s, self._sockets.clock.now_ms() / 1000):
                raise BadMessage("TOO_MANY_REQUEST")
            if message == PING:
                self._program.keep_alive(now_s)
            else:
                self._obey(parse_message(message), now_s)
        except BadMessage as error:
            self._complain(error, now_s)
        self.ring()

    def _obey(self, request: Subscribe | Listing, now_s: float) -> None:
        program = self._program
        if isinstance(request, Subscribe):
            self.subscribes += 1
            program.replace(request, now_s)
        else:
            if request.format is not None:
                program.reformat(request.format)
            self._send(Outgoing("list", "", listing_frame(request.ticket, program.wanted, program.format)))

    def _complain(self, error: BadMessage, now_s: float) -> None:
        config = self._sockets.config
        self._send(Outgoing("error", "", error_frame(error, config.region)))
        if error.name != "TOO_MANY_REQUEST" or config.excess == "close":
            self._closes_s = now_s + self._sockets.random.uniform(*ERROR_CLOSE_S)

    def _end(self, event: CloseConnection) -> None:
        # The client closes, or answers our close, or has broken the protocol.
        if not self._closing:
            self._put(self._protocol.send(event.response()))
        self._closing = True
        self._gives_up_s = trio.current_time()
        self._speaker.ring()

    # Speaking

    async def _speak(self) -> None:
        try:
            while True:
                self._speaker.hush()
                now_s = trio.current_time()
                self._suffer(now_s)
                await self._program.prepare()
                self._sockets.flood.advance(now_s)
                self._tell(now_s)
                if self._outbox:
                    await self._flush()
                elif now_s >= self._gives_up_s:
                    break
                else:
                    await self._speaker.wait(self._due_s(now_s))
        except trio.BrokenResourceError:
            pass
        self._leave("everything is said")

    def _due_s(self, now_s: float) -> float:
        program_s, flood_s = self._program.due_s(now_s), self._sockets.flood.due_s()
        return min(program_s, flood_s, self._held_until_s, self._gives_up_s)

    def _tell(self, now_s: float) -> None:
        if now_s >= self._held_until_s:
            self._release()
        messages = self._program.take(now_s, self._trouble)
        posted = self._sockets.timeline.framed(self._number, self._opened_s, now_s)
        if posted or self._held:
            messages, self._held = spoiled(messages, self._held, posted, self._sockets.timeline, now_s)
        self._held_until_s = min(self._held_until_s, now_s + HELD_S) if self._held else math.inf
        for message in messages:
            self._send(message)

    def _release(self) -> None:
        held, self._held, self._held_until_s = self._held, [], math.inf
        for message in held:
            self._send(message)

    def _send(self, message: Outgoing) -> None:
        if self._closing or self._cut or self._trouble.silences(message.type, message.code):
            return
        data = message.payload if message.raw else self._framed(message.payload)
        if self._half is not None:
            self._put(data[: len(data) // 2])
            self._cut = True
            if self._half.then == "drop":
                self._gives_up_s = trio.current_time()
            return
        self._sockets.frames[message.type] += 1
        self._put(data)

    def _framed(self, payload: bytes) -> bytes:
        return self._protocol.send(BytesMessage(payload)) if self._deflated else frame(payload)

    def _put(self, data: bytes) -> None:
        if self._cut or self._trouble.deaf:
            return
        self._outbox.append(data)
        self._backlog += len(data)
        self._speaker.ring()
        if self._backlog > MAX_BACKLOG:
            self._leave("the client does not keep up")

    async def _flush(self) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        drip = self._trouble.drip
        if drip is not None:
            data = await self._drip(data, drip)
        with trio.move_on_after(STALLED_S) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            self._leave("the client takes nothing")
        self._backlog = sum(map(len, self._outbox))
        self._active_s = trio.current_time()

    async def _drip(self, data: bytes, drip: WsDripFault) -> bytes:
        """Send ``data`` slowly for as long as it lasts; what is left then."""
        begin = 0
        while begin < len(data) and self._trouble.drip is drip:
            with trio.move_on_after(STALLED_S) as scope:
                await self._stream.send_all(data[begin : begin + drip.chunk])
            if scope.cancelled_caught:
                self._leave("the client takes nothing")
            begin += drip.chunk
            self._active_s = trio.current_time()
            await trio.sleep(drip.chunk / drip.bytes_per_s)
        return data[begin:]

    # A flood (see Flooded)

    def ready(self) -> bool:
        """Whether there are templates of everything that is subscribed."""
        return self._program.prepared or self._closing or self._cut

    def templates(self) -> Sequence[Template]:
        """What can be told on it now."""
        return () if self._closing or self._cut else self._program.templates

    def pour(self, templates: Sequence[Template], stamp: bytes, ids: Iterator[int]) -> Poured:
        """Send each of ``templates`` once; what was really sent."""
        frames = trades = trade_ids = 0
        pieces: list[bytes] = []
        for each in templates:
            if self._trouble.silences(each.type, each.code):
                continue
            trade_id = 0
            if each.has_id:
                trade_id = next(ids)
                trades += 1
                trade_ids += trade_id
            frames += 1
            self._sockets.frames[each.type] += 1
            if self._deflated:
                payload: list[bytes] = []
                each.fill(payload, stamp, b"%d" % trade_id)
                pieces.append(self._framed(b"".join(payload)))
            else:
                each.fill(pieces, stamp, b"%d" % trade_id)
        if pieces:
            self._put(b"".join(pieces))
        return Poured(frames, trades, trade_ids)

    # Minding

    async def _mind(self) -> None:
        config, timeline, flood = self._sockets.config, self._sockets.timeline, self._sockets.flood
        while True:
            now_s = trio.current_time()
            self._suffer(now_s)
            if now_s >= self._closes_s:
                self._closes_s = math.inf
                self._close(1000, "")
            idle_s = math.inf if self._trouble.deaf else self._active_s + config.idle_s
            if now_s >= idle_s:
                self._leave("nothing was said for too long")
            # Those who speak keep a flood going; if all of them wait for their clients, it must not pile up unseen.
            flood.advance(now_s)
            await self._minder.wait(min(timeline.next_edge_s(now_s), self._closes_s, idle_s, flood.due_s() + OVERDUE_S))

    def _suffer(self, now_s: float) -> None:
        """See what the faults make of this connection now."""
        timeline = self._sockets.timeline
        for fault in timeline.moments(self._number, self._opened_s, self._program.types, now_s):
            if isinstance(fault, WsHalfFault):
                self._half = fault
            elif isinstance(fault, WsCloseFault) and fault.code != 1006:
                self._close(fault.code, fault.reason)
            else:
                self._leave(f"fault {fault.kind}")
        trouble = Trouble(timeline.lasting(self._number, self._opened_s, self._program.types, now_s))
        if trouble != self._trouble:
            if self._trouble.deaf:
                self._active_s = now_s  # nobody was there to see how long nothing was said
            self._trouble = trouble
            self._speaker.ring()

    def _close(self, code: int, reason: str) -> None:
        if self._closing:
            return
        try:
            data = self._protocol.send(CloseConnection(code, reason or None))
        except LocalProtocolError:
            return  # the client has closed in the meantime
        self._put(data)
        self._closing = True
        self._gives_up_s = trio.current_time() + CLOSE_S
