"""The simulator on a socket: well-behaved clients are served, all others harm only themselves."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
import trio.testing

from marketpipe.clock import TrioClock
from marketpipe.sim import (
    DownFault,
    DropFault,
    HalfFault,
    HangFault,
    ResetFault,
    SimConfig,
    SimExchange,
    World,
    open_simulator,
    spawn_simulator,
)
from marketpipe.sim.options import add_options, config_from, words_for
from marketpipe.sim.server import IDLE_S, LINGER_S, STALLED_S, serve_connection

EPOCH_MS = 1_790_000_000_000
GET = b"GET /v1/ticker?markets=KRW-BTC HTTP/1.1\r\nhost: sim\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def drawn_world() -> None:
    """The first tickers of a seed draw its past, which later worlds of that seed share."""
    world = World(markets=3)
    for code in world.markets:
        world.ticker(code, EPOCH_MS)


def make(**options) -> SimExchange:
    return SimExchange(SimConfig(**{"markets": 3, "limit": 1000, **options}), TrioClock(EPOCH_MS))


@contextlib.asynccontextmanager
async def connection(exchange: SimExchange) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """A client's end of a connection in memory; leaving it waits until the server's end is done."""
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, exchange, server)
        async with client:
            yield client


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while more := await stream.receive_some():
        data += more
    return data


async def converse(exchange: SimExchange, sent: bytes) -> bytes:
    """Everything the server says to a client that sends ``sent`` and then nothing more."""
    async with connection(exchange) as stream:
        await stream.send_all(sent)
        await stream.send_eof()
        return await receive_all(stream)


async def test_a_connection_carries_several_requests(autojump_clock):
    exchange = make()
    answer = await converse(exchange, GET * 3)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert exchange.statistics().groups["ticker"].requests == 3
    assert exchange.statistics().connections == {"open": 0, "total": 1}


async def test_a_client_that_asks_for_it_gets_its_connection_closed(autojump_clock):
    async with connection(make()) as stream:
        await stream.send_all(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert b"HTTP/1.1 200 " in await receive_all(stream)


async def test_head_has_no_body_and_the_connection_stays_in_step(autojump_clock):
    answer = await converse(make(), GET.replace(b"GET", b"HEAD") + GET)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"404" in head
    assert rest.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_that_has_no_body_keeps_the_connection_in_step(status, autojump_clock):
    exchange = make()
    body = b'{"kind":"status","status":%d,"body":"x","count":1}' % status
    post = b"POST /sim/faults HTTP/1.1\r\nhost: sim\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    answer = await converse(exchange, post + GET + GET)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"%d" % status, b"200"]


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(autojump_clock):
    async with connection(make()) as stream:
        await stream.send_all(
            b"POST /sim/faults HTTP/1.1\r\nhost: sim\r\nexpect: 100-continue\r\ncontent-length: 15\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b'{"kind":"drop"}')
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: sim\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: sim\r\ncontent-length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: sim\r\nx: " + b"y" * 100_000, 431),
        (b"POST /sim/faults HTTP/1.1\r\nhost: sim\r\ncontent-length: 2000000\r\n\r\n" + b" " * 1_100_000, 413),
    ],
)
async def test_what_is_not_http_is_refused_and_the_connection_closed(sent, status, autojump_clock):
    async with connection(make()) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, sent)
        assert (await receive_all(stream)).startswith(b"HTTP/1.1 %d " % status)
    assert trio.current_time() < LINGER_S


@pytest.mark.parametrize(
    "sent", [b"", b"G", GET[:20], GET[:-2], b"POST /sim/faults HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx"]
)
async def test_half_a_request_before_a_close_is_no_request(sent, autojump_clock):
    exchange = make()
    answer = await converse(exchange, sent)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert exchange.statistics().groups["ticker"].requests == 0


async def test_a_silent_client_is_left_after_the_idle_time(autojump_clock):
    async with connection(make()) as stream:
        await stream.send_all(GET + GET[:10])
        answer = await receive_all(stream)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert trio.current_time() == pytest.approx(IDLE_S)


async def test_a_client_that_does_not_take_its_answer_is_left(autojump_clock):
    client, server = trio.testing.lockstep_stream_pair()
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, GET)
        await serve_connection(make(), server)
    assert trio.current_time() == pytest.approx(STALLED_S)


async def test_a_client_that_leaves_during_the_latency_is_counted_and_forgotten(autojump_clock):
    exchange = make(latency_s=1.0)
    async with connection(exchange) as stream:
        await stream.send_all(GET)
    assert exchange.statistics().groups["ticker"].requests == 1
    assert exchange.connections_open == 0


@pytest.mark.parametrize("fault", [DropFault(), ResetFault(), DownFault()])
async def test_a_dropped_request_closes_the_connection_without_a_word(fault, autojump_clock):
    exchange = make()
    exchange.add_fault(fault)
    assert await converse(exchange, GET) == b""


async def test_half_an_answer_announces_the_whole(autojump_clock):
    exchange = make()
    _, _, body = (await converse(exchange, GET)).partition(b"\r\n\r\n")
    exchange.add_fault(HalfFault())
    head, _, half = (await converse(exchange, GET)).partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head.lower()
    assert half == body[: len(body) // 2]


async def test_a_hanging_request_is_held_until_the_client_leaves(autojump_clock):
    exchange = make()
    exchange.add_fault(HangFault())
    async with connection(exchange) as stream:
        await stream.send_all(GET)
        with trio.move_on_after(1000) as scope:
            await receive_all(stream)
        assert scope.cancelled_caught
        assert exchange.connections_open == 1
    assert exchange.connections_open == 0


# On real sockets


@pytest.mark.socket
@pytest.mark.slow
async def test_httpx_gets_what_the_exchange_says():
    async with open_simulator(markets=5) as sim, httpx.AsyncClient(base_url=sim.base_url, trust_env=False) as client:
        response = await client.get("/v1/market/all")
        assert {row["market"] for row in response.json()} == set(sim.world.markets)
        assert response.http_version == "HTTP/1.1"
        statuses = [(await client.get("/v1/nothing")).status_code for _ in range(3)]
        assert statuses == [404] * 3
        stats = (await client.get("/sim/stats")).json()
        assert stats["connections"] == {"open": 1, "total": 1}
        assert stats["groups"]["market"]["requests"] == 1


@pytest.mark.socket
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("drop", httpx.RemoteProtocolError),
        ("half", httpx.RemoteProtocolError),
        ("reset", httpx.ReadError),
        ("down", httpx.ReadError),
        ("hang", httpx.ReadTimeout),
    ],
)
async def test_a_fault_on_a_socket_is_the_same_exception_as_in_memory(kind, error):
    async with open_simulator(markets=2) as sim, httpx.AsyncClient(base_url=sim.base_url, trust_env=False) as client:
        await client.post("/sim/faults", json={"kind": kind})
        with pytest.raises(error) as caught:
            await client.get("/v1/ticker?markets=KRW-BTC", timeout=0.3)
        assert type(caught.value) is error
        await client.delete("/sim/faults")
        assert (await client.get("/v1/ticker?markets=KRW-BTC")).status_code == 200


@pytest.mark.socket
@pytest.mark.slow
async def test_three_hundred_connections_at_once_are_all_served():
    async with open_simulator(markets=2, limit=1000) as sim:
        host, port = sim.base_url.removeprefix("http://").split(":")
        answers = []

        async def one():
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(GET)
                answers.append(await stream.receive_some())

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    nursery.start_soon(one)
        assert len(answers) == 300
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


@pytest.mark.socket
@pytest.mark.slow
async def test_hostile_clients_do_not_disturb_the_others():
    async with (
        open_simulator(markets=2, limit=1000) as sim,
        httpx.AsyncClient(base_url=sim.base_url, trust_env=False) as good,
    ):
        host, port = sim.base_url.removeprefix("http://").split(":")
        for sent in (b"\0" * 1000, b"GET " + b"/" * 200_000, GET[:-1], GET * 50, b""):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(sent)
            assert (await good.get("/v1/ticker?markets=KRW-BTC")).status_code == 200


@pytest.mark.socket
@pytest.mark.slow
async def test_an_error_in_the_block_comes_out_bare():
    with pytest.raises(ZeroDivisionError):
        async with open_simulator(markets=1):
            raise ZeroDivisionError


@pytest.mark.socket
@pytest.mark.slow
async def test_a_simulator_of_its_own_process_shows_the_same_market_and_leaves_with_the_block():
    config = SimConfig(seed=3, markets=4, latency_s=0.001)
    async with spawn_simulator(config, limit=20) as sim:
        async with httpx.AsyncClient(base_url=sim.base_url, trust_env=False) as client:
            response = await client.get("/v1/market/all")
        assert response.headers["remaining-req"] == "group=market; min=1200; sec=19"
        assert {row["market"] for row in response.json()} == set(sim.world.markets)
        assert sim.config == SimConfig(seed=3, markets=4, latency_s=0.001, limit=20)
        os.kill(sim.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(sim.pid, 0)


def start_program(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "marketpipe.sim", "--port=0", "--markets=2", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.socket
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_says_where_it_listens_and_leaves_on_a_signal_without_a_traceback(number):
    with start_program() as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        program.send_signal(number)
        rest, errors = program.communicate(timeout=10)
    assert line.startswith("simulator listening on http://127.0.0.1:")
    assert (program.returncode, rest, errors) == (0, "", "")


@pytest.mark.socket
@pytest.mark.slow
def test_the_program_leaves_when_its_standard_input_ends_if_told_to():
    with start_program("--leave-with-stdin") as program:
        assert program.stdout is not None
        assert program.stdout.readline()
        _, errors = program.communicate(timeout=10)
    assert (program.returncode, errors) == (0, "")


@pytest.mark.socket
@pytest.mark.slow
def test_a_spawned_simulator_does_not_outlive_a_parent_that_is_killed():
    parent = (
        "import trio; from marketpipe.sim import spawn_simulator\n"
        "async def main():\n"
        "    async with spawn_simulator(markets=1) as sim:\n"
        "        print(sim.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
    wait_until_gone(child)


def wait_until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([descriptor], [], [], 10.0)
        assert readable
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--markets=0"], "markets must be 1 to 10000, was 0"),
        (["--limit=ten"], "--limit must be a number, was 'ten'"),
        (["--window=sliding"], "window must be one of fixed, rolling, first, was 'sliding'"),
        (["--gzip=maybe"], "gzip"),
    ],
)
@pytest.mark.slow
def test_a_wrong_option_is_one_line_that_names_it(words, complaint):
    with start_program(*words) as program:
        _, errors = program.communicate(timeout=10)
    assert program.returncode == 2
    assert complaint in errors.splitlines()[-1]


@pytest.mark.socket
@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line():
    with start_program() as first:
        assert first.stdout is not None
        port = first.stdout.readline().strip().rpartition(":")[2]
        with start_program(f"--port={port}") as second:
            _, errors = second.communicate(timeout=10)
        first.terminate()
    assert second.returncode == 1
    assert errors.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert len(errors.splitlines()) == 1


def test_every_option_survives_the_way_through_the_command_line():
    parser = ArgumentParser()
    add_options(parser)
    strange = SimConfig(ban_after=None, latency_s=0.25, jitter_s=1, gzip=True, window="rolling")
    for config in (SimConfig(), strange):
        assert config_from(parser.parse_args(words_for(config))) == config
