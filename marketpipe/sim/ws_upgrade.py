"""From HTTP to WebSocket: which requests ask for it, and how a connection goes over (RFC 6455, 4.2)."""

from __future__ import annotations

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

from marketpipe.sim.exchange import SimExchange, SimRequest
from marketpipe.sim.replies import TEXT, Content, SimReply, compose
from marketpipe.sim.websocket import Session
from marketpipe.sim.ws_delay import delayed

__all__ = ["PATH", "Upgrade", "wants_upgrade"]

PATH = "/websocket/v1"
_UNUPGRADED = (b"content-length", b"content-type", b"etag")


def wants_upgrade(request: SimRequest) -> bool:
    """Whether a client asks to speak WebSocket where the exchange does."""
    return request.path == PATH and request.headers.get("upgrade", "").lower() == "websocket"


class Upgrade:
    """One connection going over. permessage-deflate is used if the client offers it."""

    def __init__(self, exchange: SimExchange, request: SimRequest) -> None:
        self._exchange = exchange
        self._request = request
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._deflate = PerMessageDeflate()

    async def ask(self) -> SimReply:
        """What the exchange says to it: 101, or a refusal, also of a request that is not as it should be."""
        reply = await self._exchange.upgrade(self._request)
        if reply.status != 101 or reply.ending != "whole":
            return reply
        try:
            headers = [(name.encode(), value.encode("latin-1")) for name, value in self._request.headers.items()]
            self._protocol.initiate_upgrade_connection(headers, self._request.target)
            next(self._protocol.events())
        except RemoteProtocolError as exc:
            status = exc.event_hint.status_code if isinstance(exc.event_hint, RejectConnection) else 400
            return compose(Content(status, str(exc).encode(), TEXT), now_ms=self._exchange.clock.now_ms())
        return reply

    async def carry(self, stream: trio.abc.Stream, trailing: bytes, reply: SimReply) -> None:
        """Accept it, and carry the connection until it ends; ``trailing`` was read after the request.

        Raises ``trio.BrokenResourceError`` if the client is gone before it is told.
        """
        headers = [header for header in reply.headers if header[0] not in _UNUPGRADED]
        accept = AcceptConnection(extensions=[self._deflate], extra_headers=headers)
        await stream.send_all(self._protocol.send(accept))
        sockets, config = self._exchange.sockets, self._exchange.config
        deflated = self._deflate.enabled()
        if config.latency_s or config.jitter_s:
            async with delayed(stream, self._exchange.one_way) as far:
                await Session(sockets, far, self._protocol, deflated=deflated).run(trailing)
        else:
            await Session(sockets, stream, self._protocol, deflated=deflated).run(trailing)
