"""httpx loses pool slots when requests are cancelled; `UpbitRest` must not.

The first tests hold the reason for what `marketpipe.upbit.rest` does about it. When one of them fails, httpcore has
been mended (encode/httpcore#1093) and the replacing of clients can go.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import httpx
import pytest
import trio
import trio.testing

from marketpipe.clock import SystemClock
from marketpipe.core.requests import MarketsRequest
from marketpipe.errors import ExchangeUnavailable
from marketpipe.upbit.rest import Connections, UpbitRest

pytestmark = pytest.mark.socket

MENDED = "httpx no longer loses pool slots on cancellation: the workaround in marketpipe/upbit/rest.py can go"
IDLE = Connections(open=1, busy=0, requests=0)


@attrs.define
class Server:
    """An HTTP server on the loopback that counts connections and answers every request as ``behave`` does."""

    behave: Callable[[], Awaitable[None]]
    header: bytes = b""
    port: int = 0
    open: int = 0
    requests: int = 0
    changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        self.count(connections=1)
        try:
            while await stream.receive_some():
                self.count(requests=1)
                await self.behave_unless_left(stream)
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\n[]" % self.header)
        except trio.BrokenResourceError:  # the client has gone
            pass
        finally:
            await stream.aclose()
            self.count(connections=-1)

    async def behave_unless_left(self, stream: trio.SocketStream) -> None:
        async def watch() -> None:
            await stream.receive_some()  # a client that waits for its answer sends nothing but its end
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self.behave()
            nursery.cancel_scope.cancel()

    def count(self, connections: int = 0, requests: int = 0) -> None:
        self.open += connections
        self.requests += requests
        self.changed.set()
        self.changed = trio.Event()

    async def wait_for(self, **counts: int) -> None:
        with trio.fail_after(5):
            while any(getattr(self, name) != count for name, count in counts.items()):
                await self.changed.wait()


@asynccontextmanager
async def serving(behave: Callable[[], Awaitable[None]], header: bytes = b"") -> AsyncIterator[Server]:
    server = Server(behave, header)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        [listener] = await nursery.start(trio.serve_listeners, server.serve, listeners)
        server.port = listener.socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


async def at_once() -> None:
    pass


class Switch:
    """Answers at once while it is on, and not at all while it is off."""

    def __init__(self, *, on: bool) -> None:
        self.on = trio.Event()
        if on:
            self.on.set()

    async def __call__(self) -> None:
        await self.on.wait()


def cancelling(scope: trio.CancelScope, at: str):
    """Cancel ``scope`` when httpcore reaches the step ``at``, so that the worst moment is hit every time."""

    async def trace(step: str, info: object) -> None:
        if step == at:
            scope.cancel()

    return {"trace": trace}


def bare_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        trust_env=False,
        limits=httpx.Limits(max_connections=1),
        timeout=httpx.Timeout(5, pool=0.1),
    )


async def lose_a_slot(client: httpx.AsyncClient, url: str) -> None:
    with trio.CancelScope() as scope:
        await client.get(url, extensions=cancelling(scope, "connection.connect_tcp.complete"))
    assert scope.cancelled_caught


async def test_a_bare_client_loses_the_slot_of_a_request_that_is_cancelled_before_its_first_byte():
    async with serving(at_once) as server, bare_client() as client:
        await lose_a_slot(client, server.url)

        with pytest.raises(httpx.PoolTimeout):
            await client.get(server.url)
            pytest.fail(MENDED)


async def test_a_bare_client_loses_the_slot_of_a_request_that_is_cancelled_while_it_queues():
    switch = Switch(on=False)
    async with serving(switch, b"Connection: close\r\n") as server, bare_client() as client:
        queued = trio.CancelScope()

        async def queue() -> None:
            with queued:
                await client.get(server.url)

        async with trio.open_nursery() as nursery:
            # The first one gives its slot to the second in the very step in which that is cancelled.
            first = cancelling(queued, "http11.response_closed.complete")
            nursery.start_soon(partial(client.get, server.url, extensions=first))
            await server.wait_for(requests=1)
            nursery.start_soon(queue)
            await trio.testing.wait_all_tasks_blocked()
            switch.on.set()
        assert queued.cancelled_caught

        with pytest.raises(httpx.PoolTimeout):
            await client.get(server.url)
            pytest.fail(MENDED)


@pytest.mark.slow
async def test_deadlines_that_fire_again_and_again_leak_no_connection():
    switch = Switch(on=False)
    async with serving(switch) as server:
        async with UpbitRest(server.url, clock=SystemClock(), deadline_s=0.05, max_connections=2) as rest:
            for _ in range(4):
                await fetch_in_vain(rest, times=3)
                await server.wait_for(open=0)
            switch.on.set()
            await fetch_at_leisure(rest)
            assert rest.connections() == IDLE
            await server.wait_for(open=1)
        await server.wait_for(open=0)


async def fetch_in_vain(rest: UpbitRest, times: int) -> None:
    async def fail() -> None:
        with pytest.raises(ExchangeUnavailable) as info:
            await rest.fetch(MarketsRequest())
        assert info.value.abandoned

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(fail)


async def fetch_at_leisure(rest: UpbitRest) -> None:
    rest._deadline_s = 5
    assert (await rest.fetch(MarketsRequest())).rows == ()


async def test_a_cancellation_at_the_worst_moment_costs_no_slot(monkeypatch):
    stream = httpx.AsyncClient.stream
    scope = trio.CancelScope()

    def ask_and_cancel(
        client: httpx.AsyncClient, method: str, url: str, extensions: object
    ) -> AbstractAsyncContextManager[httpx.Response]:
        return stream(client, method, url, extensions=cancelling(scope, "connection.connect_tcp.complete"))

    async with (
        serving(at_once, b"Connection: close\r\n") as server,
        UpbitRest(server.url, clock=SystemClock(), max_connections=1) as rest,
    ):
        for _ in range(3):
            with monkeypatch.context() as patch, trio.CancelScope() as scope:
                patch.setattr(httpx.AsyncClient, "stream", ask_and_cancel)
                await rest.fetch(MarketsRequest())
            assert scope.cancelled_caught
            assert (await rest.fetch(MarketsRequest())).rows == ()
        assert rest.connections() == Connections(open=0, busy=0, requests=0)
        await server.wait_for(open=0)


async def test_a_cancellation_in_the_handshake_leaves_no_socket_open():
    gc.disable()  # which would close it, some time
    try:
        # This server never shakes hands: it takes the hello for a request, and keeps its answer to itself.
        async with serving(Switch(on=False)) as server:
            url = f"https://localhost:{server.port}"
            async with UpbitRest(url, clock=SystemClock()) as rest, trio.open_nursery() as nursery:
                nursery.start_soon(rest.fetch, MarketsRequest())
                await server.wait_for(requests=1)
                nursery.cancel_scope.cancel()
            await server.wait_for(open=0)
    finally:
        gc.enable()


async def test_a_request_under_way_ends_well_when_another_one_costs_the_client():
    switch = Switch(on=False)
    async with serving(switch) as server, UpbitRest(server.url, clock=SystemClock()) as rest:
        async with trio.open_nursery() as nursery:
            doomed = trio.CancelScope()
            replies = []

            async def fetch(scope: trio.CancelScope) -> None:
                with scope:
                    replies.append(await rest.fetch(MarketsRequest()))

            nursery.start_soon(fetch, doomed)
            nursery.start_soon(fetch, trio.CancelScope())
            await server.wait_for(requests=2)
            doomed.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert rest.connections() == Connections(open=0, busy=0, requests=0)
            switch.on.set()

        assert len(replies) == 1
        # Its client was closed with it; nothing is left of either.
        await server.wait_for(open=0)
        await rest.fetch(MarketsRequest())
        await server.wait_for(open=1)


async def test_a_pool_that_has_lost_its_slots_is_noticed_and_replaced():
    async with (
        serving(at_once) as server,
        UpbitRest(server.url, clock=SystemClock(), connect_s=0.1, max_connections=1) as rest,
    ):
        await lose_a_slot(rest._pool.client, server.url)
        assert rest.connections() == Connections(open=1, busy=1, requests=0)

        with pytest.raises(ExchangeUnavailable, match=r"no connection to .* became free") as info:
            await rest.fetch(MarketsRequest())

        assert info.value.sent is False
        assert (await rest.fetch(MarketsRequest())).rows == ()
        assert rest.connections() == IDLE


async def test_connections_are_kept_open_and_counted():
    switch = Switch(on=True)
    async with serving(switch) as server:
        async with UpbitRest(server.url, clock=SystemClock()) as rest:
            await rest.fetch(MarketsRequest())
            await rest.fetch(MarketsRequest())
            assert (server.requests, server.open) == (2, 1)
            assert rest.connections() == IDLE

            switch.on = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rest.fetch, MarketsRequest())
                await server.wait_for(requests=3)
                assert rest.connections() == Connections(open=1, busy=1, requests=1)
                switch.on.set()
        await server.wait_for(open=0)
