"""The simulator on a socket: accepts connections and carries requests to the exchange, until it is cancelled.

A client can be slow, silent, gone or hostile; it loses its own connection and harms nobody else's.
"""

from __future__ import annotations

from functools import partial

import trio

from marketpipe.sim.exchange import SimExchange, SimRequest
from marketpipe.sim.http1 import BadHttp, HttpConnection
from marketpipe.sim.replies import SimReply
from marketpipe.sim.ws_upgrade import PATH, Upgrade, wants_upgrade

__all__ = ["serve", "serve_connection", "ws_url"]

# A kept-alive connection without a complete request for this long is closed, as is one that does not take its answer.
IDLE_S = 75.0
STALLED_S = 30.0
# How long a client that did not speak HTTP has to read why it is refused.
LINGER_S = 1.0


def ws_url(base_url: str) -> str:
    """Where WebSocket is spoken by the simulator at ``base_url``."""
    return f"ws{base_url.removeprefix('http')}{PATH}"


async def serve(
    exchange: SimExchange,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``exchange`` on ``port`` (0: any free one) until cancelled; started with the base URL.

    Raises ``OSError`` if the port cannot be had.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    name = f"[{host}]" if ":" in host else host
    task_status.started(f"http://{name}:{listeners[0].socket.getsockname()[1]}")
    await trio.serve_listeners(partial(serve_connection, exchange), listeners)


async def serve_connection(exchange: SimExchange, stream: trio.abc.Stream) -> None:
    """Answer every request that comes on ``stream``, one after the other, and close it.

    A request for WebSocket is the last; the connection is carried on as one until it ends.
    """
    exchange.connections_open += 1
    exchange.connections_total += 1
    try:
        async with stream:
            await _converse(exchange, HttpConnection(stream))
    except trio.BrokenResourceError:
        pass  # the client is gone, and with it whoever could be told
    finally:
        exchange.connections_open -= 1


async def _converse(exchange: SimExchange, connection: HttpConnection) -> None:
    try:
        while (request := await _next_request(connection)) is not None:
            upgrade = Upgrade(exchange, request) if wants_upgrade(request) else None
            reply = await (upgrade.ask() if upgrade is not None else exchange.handle(request))
            if upgrade is not None and reply.status == 101 and reply.ending == "whole":
                return await upgrade.carry(*connection.hand_over(), reply)
            if reply.ending == "hang":
                await connection.wait_for_close()
            if not await _deliver(connection, reply):
                return
    except BadHttp as error:
        with trio.move_on_after(LINGER_S):
            await connection.refuse(error)


async def _next_request(connection: HttpConnection) -> SimRequest | None:
    with trio.move_on_after(IDLE_S):
        return await connection.receive()
    return None


async def _deliver(connection: HttpConnection, reply: SimReply) -> bool:
    with trio.move_on_after(STALLED_S):
        return await connection.send(reply)
    return False
