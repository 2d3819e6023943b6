"""The simulator behind httpx without a network: for tests, under Trio's mock clock, in no real time.

Statuses, headers and bodies are those of the socket server; what a network does to a request becomes the exception
that httpx raises for it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import httpx
import trio

from marketpipe.sim.exchange import SimExchange, SimRequest
from marketpipe.sim.replies import SimReply

__all__ = ["SimTransport"]


class SimTransport(httpx.AsyncBaseTransport):
    """``httpx.AsyncClient(transport=SimTransport(exchange), base_url="http://sim")``.

    Honours the read timeout of the request: an answer that takes longer is ``httpx.ReadTimeout``, in virtual time
    too. A request that was given up, by a timeout or by cancellation, still reaches the exchange and is counted.
    """

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange of request and answer; raises what httpx would for the fault that struck it."""
        sim_request = SimRequest(
            method=request.method,
            target=request.url.raw_path.decode(),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.aread(),
        )
        read_s = request.extensions.get("timeout", {}).get("read")
        with trio.move_on_after(math.inf if read_s is None else read_s):
            return _response(await self._reply(sim_request), request)
        raise httpx.ReadTimeout("", request=request)

    async def _reply(self, request: SimRequest) -> SimReply:
        reply = await self._exchange.handle(request)
        if reply.ending == "hang":
            await trio.sleep_forever()
        return reply


def _response(reply: SimReply, request: httpx.Request) -> httpx.Response:
    # The texts are those of httpcore 1.0 on Trio.
    match reply.ending:
        case "down":
            raise httpx.ConnectError("all attempts to connect to the exchange failed", request=request)
        case "dns":
            raise httpx.ConnectError("[Errno -2] Name or service not known", request=request)
        case "drop":
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        case "reset":
            raise httpx.ReadError("", request=request)
        case "half":
            return httpx.Response(reply.status, headers=list(reply.headers), stream=_HalfBody(reply.body, request))
        case _:
            return httpx.Response(reply.status, headers=list(reply.headers), content=reply.body)


class _HalfBody(httpx.AsyncByteStream):
    def __init__(self, body: bytes, request: httpx.Request) -> None:
        self._body = body
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        half = self._body[: len(self._body) // 2]
        yield half
        raise httpx.RemoteProtocolError(
            "peer closed connection without sending complete message body "
            f"(received {len(half)} bytes, expected {len(self._body)})",
            request=self._request,
        )
