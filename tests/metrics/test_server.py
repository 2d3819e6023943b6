"""The endpoint on a real socket: what it tells, whom it refuses, and that no client is anybody else's trouble."""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from statuses import quiet_status, status_of_everything

from marketpipe import Config, Status, open_pipeline
from marketpipe.core.topics import Line, Topic
from marketpipe.metrics import server
from marketpipe.metrics.server import Endpoint
from marketpipe.metrics.snapshot import decode_status, decode_tasks
from marketpipe.status import SubscriptionState, SubscriptionStatus

pytestmark = pytest.mark.socket

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60
# Nobody is there: what is asked in the background fails, and that is all that is needed here.
NOBODY = "http://127.0.0.1:9"


@asynccontextmanager
async def endpoint_for(status: Callable[[], Status] = quiet_status) -> AsyncIterator[int]:
    async with await Endpoint.listen(0) as endpoint, trio.open_nursery() as nursery:
        await nursery.start(endpoint.run, status)
        with trio.fail_after(HANG_S):
            yield endpoint.port
        nursery.cancel_scope.cancel()


@attrs.frozen
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


async def exchanged(port: int, sent: bytes) -> bytes:
    """All that comes until the endpoint closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(sent)
        return await rest_of(stream)


async def rest_of(stream: trio.SocketStream) -> bytes:
    parts = [part async for part in stream]
    return b"".join(map(bytes, parts))


async def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", more: bytes = b"") -> Reply:
    return read(await exchanged(port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() + more))


def read(text: bytes) -> Reply:
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Reply(int(first.split()[1]), headers, body)


# -- what is told --------------------------------------------------------------------------------------------------


async def test_the_pages_tell_what_they_say():
    status = status_of_everything()
    async with endpoint_for(lambda: status) as port:
        metrics, whole = await ask(port, "/metrics"), await ask(port, "/status?pretty")
        tasks, index = await ask(port, "/tasks"), await ask(port, "/")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics.body.decode())
        for sample in family.samples
    }
    assert values["marketpipe_requests_total"] == status.requests
    assert whole.headers["content-type"] == tasks.headers["content-type"] == "application/json"
    assert decode_status(whole.body).subscriptions == status.subscriptions
    assert decode_tasks(tasks.body).count > 3
    assert b"metrics client" in tasks.body
    assert all(page in index.body for page in (b"/metrics", b"/status", b"/tasks"))
    for reply in (metrics, whole, tasks, index):
        assert reply.status == 200
        assert reply.headers["server"] == "marketpipe"
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert "access-control-allow-origin" not in reply.headers


async def test_each_question_is_answered_anew():
    counted = iter(range(1, 100))
    async with endpoint_for(lambda: attrs.evolve(quiet_status(), requests=next(counted))) as port:
        told = [json.loads((await ask(port, "/status")).body)["requests"] for _ in range(3)]
    assert told == [1, 2, 3]


async def test_head_is_answered_as_get_without_the_body():
    async with endpoint_for() as port:
        head, get = await ask(port, "/metrics", "HEAD"), await ask(port, "/metrics")
    assert (head.status, head.body, head.headers) == (200, b"", get.headers)


async def test_many_ask_at_once_and_all_are_answered():
    replies = []

    async def one(port: int) -> None:
        replies.append(await ask(port, "/status"))

    async with endpoint_for() as port, trio.open_nursery() as nursery:
        for _ in range(server.CONNECTIONS):
            nursery.start_soon(one, port)
    assert [reply.status for reply in replies] == [200] * server.CONNECTIONS


# -- who is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost:8601", "127.0.0.1:1", "[::1]", "[::1]:8601"])
async def test_this_machine_is_answered_under_its_own_names(host: str):
    async with endpoint_for() as port:
        assert (await ask(port, "/status", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8601", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example#localhost",
     "127.0.0.2", "127x0x0x1", "::1", "localhost:80:80", "localhost:x", ""],
)  # fmt: skip
async def test_another_name_is_refused_whatever_is_asked(host: str):
    async with endpoint_for(lambda: pytest.fail("nobody is told")) as port:
        for path in ("/status", "/tasks", "/nothing"):
            reply = await ask(port, path, host=host)
            assert reply.status == 403
            assert b"127.0.0.1" in reply.body


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://127.0.0.1:8601/metrics", "/metrics"), ("HTTP://LocalHost/tasks", "/tasks"),
     ("http://[::1]:8601/status?pretty", "/status"), ("http://127.0.0.1", "/"), ("http://127.0.0.1/?all", "/"),
     ("http://127.0.0.1?all", "/")],
)  # fmt: skip
async def test_the_whole_address_may_be_asked_for(target: str, path: str):
    """RFC 9112, 3.2.2: such a question must be understood, and what it names beside is not looked at."""
    async with endpoint_for() as port:
        asked, plain = await ask(port, target, host="evil.example"), await ask(port, path)
    assert (asked.status, asked.headers["content-type"]) == (200, plain.headers["content-type"])
    assert asked.body.split(b"\n")[0][:20] == plain.body.split(b"\n")[0][:20]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8601", "127.0.0.1@evil.example", "", "[::1]x"])
async def test_another_name_in_the_whole_address_is_refused_whatever_is_said_beside(host: str):
    async with endpoint_for(lambda: pytest.fail("nobody is told")) as port:
        assert (await ask(port, f"http://{host}/status", host="127.0.0.1")).status == 403


async def test_a_question_without_a_name_is_refused():
    async with endpoint_for() as port:
        assert read(await exchanged(port, b"GET /status HTTP/1.0\r\n\r\n")).status == 403
        assert read(await exchanged(port, b"GET /status HTTP/1.1\r\n\r\n")).status == 400
        assert (
            read(await exchanged(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")).status
            == 400
        )


async def test_it_listens_on_the_loopback_alone():
    async with await Endpoint.listen(0) as endpoint:
        assert [each.socket.getsockname()[0] for each in endpoint._listeners] == ["127.0.0.1"]


# -- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/metrics/", "//metrics", "/status/../tasks", "http://127.0.0.1/metric", "ftp://localhost/", "*"],
)
async def test_what_is_not_there_is_not_found(path: str):
    async with endpoint_for() as port:
        reply = await ask(port, path)
    assert reply.status == 404
    assert b"/metrics" in reply.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
async def test_nothing_can_be_changed(method: str):
    async with endpoint_for() as port:
        reply = await ask(port, "/status", method)
    assert (reply.status, reply.headers["allow"]) == (405, "get, head")


@pytest.mark.parametrize(
    "text", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]
)
async def test_what_is_no_http_is_told_so(text: bytes):
    async with endpoint_for() as port:
        assert read(await exchanged(port, text)).status == 400
        assert (await ask(port, "/")).status == 200


async def test_a_head_without_an_end_is_refused():
    async with endpoint_for() as port:
        reply = read(await exchanged(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2 * server.MAX_HEAD))
    assert reply.status == 431


async def test_a_body_is_not_waited_for_and_the_answer_arrives_all_the_same():
    async with endpoint_for() as port:
        asked = f"GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**40}\r\n\r\n".encode()
        assert decode_status(read(await exchanged(port, asked + b"x" * 200_000)).body) == quiet_status()


async def test_who_says_nothing_and_leaves_is_no_trouble():
    async with endpoint_for() as port:
        for said in (b"", b"GET / HT", b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(said)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        assert (await ask(port, "/")).status == 200


async def test_a_page_that_cannot_be_made_is_told_and_written_down(caplog):
    def broken() -> Status:
        raise ZeroDivisionError("a bug")

    async with endpoint_for(broken) as port:
        reply = await ask(port, "/metrics")
        assert (await ask(port, "/tasks")).status == 200
    assert reply.status == 500
    assert b"ZeroDivisionError" not in reply.body
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert (record.name, record.getMessage()) == ("marketpipe.metrics", "cannot answer /metrics")
    assert record.exc_info[0] is ZeroDivisionError


# -- who is slow ---------------------------------------------------------------------------------------------------


async def test_who_does_not_finish_the_question_is_cut_off_and_delays_nobody(monkeypatch):
    monkeypatch.setattr(server, "PATIENCE_S", 0.3)
    async with endpoint_for() as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as slow:
            await slow.send_all(b"GET /status HTTP/1.1\r\nHost: loc")
            assert (await ask(port, "/status")).status == 200
            assert await rest_of(slow) == b""
        assert (await ask(port, "/status")).status == 200


async def test_who_does_not_read_the_answer_is_cut_off_and_delays_nobody(monkeypatch):
    monkeypatch.setattr(server, "PATIENCE_S", 0.5)
    here = SubscriptionStatus(SubscriptionState.ACTIVE, "x" * 1_000, 0, 1, False)
    long = attrs.evolve(quiet_status(), subscriptions={Topic(Line.TICKER, f"KRW-{n}"): here for n in range(20_000)})
    async with endpoint_for(lambda: long) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as slow:
            await slow.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await ask(port, "/")).status == 200
            await trio.sleep(1)  # it has been given up by then, or the answer is whole
            reply = read(await rest_of(slow))
        assert len(reply.body) < int(reply.headers["content-length"])
        assert (await ask(port, "/")).status == 200


async def test_so_many_connections_and_no_more(monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    async with endpoint_for() as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        for stream in silent:
            await stream.send_all(b"GET")
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with await trio.open_tcp_stream("127.0.0.1", port) as refused:
            assert await rest_of(refused) == b""
        await silent[0].aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await ask(port, "/")).status == 200
        for stream in silent:
            await stream.aclose()


# -- in a pipeline -------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
async def test_a_pipeline_tells_about_itself_as_long_as_it_is_open():
    port = free_port()
    async with open_pipeline(base_url=NOBODY, metrics_port=port) as market:
        told, own = decode_status((await ask(port, "/status")).body), market.status()
        tasks = (await ask(port, "/tasks")).body
    assert told.at_ms <= own.at_ms
    assert told.budgets.keys() == own.budgets.keys()
    assert b'"name":"metrics"' in tasks
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", port)
    async with open_pipeline(base_url=NOBODY, metrics_port=port):  # and again
        assert (await ask(port, "/")).status == 200


@pytest.mark.slow
async def test_a_pipeline_tells_nobody_unless_it_is_asked_to(monkeypatch):
    async def listen(port: int) -> None:
        pytest.fail("nobody has asked for it")

    monkeypatch.setattr(Endpoint, "listen", listen)
    async with open_pipeline(base_url=NOBODY):
        pass


@pytest.mark.slow
async def test_a_port_that_is_taken_is_told_before_anything_begins(tmp_path: Path):
    store = tmp_path / "history.db"
    async with await Endpoint.listen(0) as other:
        with pytest.raises(OSError, match=rf"^cannot tell .* 127\.0\.0\.1 port {other.port}: .*in use$") as refused:
            async with open_pipeline(base_url=NOBODY, metrics_port=other.port, store=store):
                pytest.fail("it began")
    assert refused.value.errno == errno.EADDRINUSE
    assert not store.exists()


@pytest.mark.slow
async def test_an_exception_of_the_block_comes_out_bare_and_frees_the_port():
    port = free_port()
    with pytest.raises(KeyError, match="mine"):
        async with open_pipeline(Config(base_url=NOBODY, metrics_port=port)):
            raise KeyError("mine")
    async with await Endpoint.listen(port) as endpoint:
        assert endpoint.port == port


@pytest.mark.slow
async def test_a_pipeline_that_does_not_begin_leaves_the_port_free(tmp_path: Path):
    port = free_port()
    (tmp_path / "no.db").write_bytes(b"this is no database at all, and longer than a header" * 50)
    with pytest.raises(Exception, match=r"no\.db"):
        async with open_pipeline(base_url=NOBODY, metrics_port=port, store=tmp_path / "no.db"):
            pytest.fail("it began")
    async with await Endpoint.listen(port) as endpoint:
        assert endpoint.port == port
