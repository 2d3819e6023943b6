"""HTTP/1.1 on one stream: requests out of bytes, replies into bytes, damaged as their ending says.

https://h11.readthedocs.io: the connection's state machine is h11's; here is what it leaves to us, the waiting.
"""

from __future__ import annotations

import socket
import struct
from typing import cast

import h11
import trio

from marketpipe.sim.exchange import SimRequest
from marketpipe.sim.replies import SimReply

__all__ = ["BadHttp", "HttpConnection"]

READ_SIZE = 65_536
# A list of 855 markets fits several times over, and no request needs more.
MAX_HEAD = 65_536
MAX_BODY = 1_000_000
# RFC 9110, 15.3.5 and 15.4.5: these never carry a body.
_BODILESS = (204, 304)
# SO_LINGER on, zero seconds: close() sends RST instead of FIN.
_ABORT = struct.pack("ii", 1, 0)


class BadHttp(Exception):
    """What came is not HTTP, or too much of it; ``status`` is the reply it deserves."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class HttpConnection:
    """The server's end of one connection, one request at a time.

    Everything here may raise ``trio.BrokenResourceError`` if the client is gone.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_only = False

    async def receive(self) -> SimRequest | None:
        """The next request, or None if the client closed the connection. Raises `BadHttp`."""
        try:
            return await self._receive()
        except h11.RemoteProtocolError as exc:
            raise BadHttp(str(exc), exc.error_status_hint) from exc

    async def send(self, reply: SimReply) -> bool:
        """Send ``reply`` as its ending says; whether the connection can carry another request."""
        match reply.ending:
            case "whole":
                return await self._send_whole(reply)
            case "half":
                await self._send_half(reply)
            case "reset" | "down" | "dns":
                self._abort()
            case "drop" | "hang":
                pass
        return False

    async def wait_for_close(self) -> None:
        """Return when the client closes its end; whatever else it says is ignored."""
        while await self._stream.receive_some(READ_SIZE):
            pass

    def hand_over(self) -> tuple[trio.abc.Stream, bytes]:
        """The stream for another protocol, and what was read from it after the last request."""
        return self._stream, self._h11.trailing_data[0]

    async def refuse(self, error: BadHttp) -> None:
        """Tell a client that does not speak HTTP what is wrong, if it can still be told, and wait until it closes."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = str(error).encode()
        headers = [("content-type", "text/plain"), ("content-length", str(len(body))), ("connection", "close")]
        head = self._encode(h11.Response(status_code=error.status, headers=headers))
        await self._stream.send_all(head + self._encode(h11.Data(data=body)) + self._encode(h11.EndOfMessage()))
        # Closing with unread bytes would reset the connection, and the client might never see the answer.
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        await self.wait_for_close()

    async def _receive(self) -> SimRequest | None:
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        self._head_only = head.method == b"HEAD"
        return SimRequest(
            method=head.method.decode(),
            target=head.target.decode(),
            headers={name.decode(): value.decode("latin-1") for name, value in head.headers},
            body=await self._receive_body(),
        )

    async def _receive_body(self) -> bytes:
        if self._h11.they_are_waiting_for_100_continue:
            await self._stream.send_all(self._encode(h11.InformationalResponse(status_code=100, headers=[])))
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise BadHttp(f"the body is longer than {MAX_BODY} bytes", 413)
        return bytes(body)

    async def _next_event(self) -> h11.Event:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))
        return cast(h11.Event, event)

    async def _send_whole(self, reply: SimReply) -> bool:
        data = self._encode(h11.Response(status_code=reply.status, headers=list(reply.headers)))
        if reply.body and reply.status not in _BODILESS and not self._head_only:
            data += self._encode(h11.Data(data=reply.body))
        await self._stream.send_all(data + self._encode(h11.EndOfMessage()))
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def _send_half(self, reply: SimReply) -> None:
        head = self._encode(h11.Response(status_code=reply.status, headers=list(reply.headers)))
        await self._stream.send_all(head + reply.body[: len(reply.body) // 2])

    def _abort(self) -> None:
        if isinstance(self._stream, trio.SocketStream):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)

    def _encode(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""
