"""One request, one answer: what goes over the network, and what every way of failing is called."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import EAI_NONAME, gaierror

import httpx
import pytest
import trio

from marketpipe.clock import TrioClock
from marketpipe.core.requests import CandlesRequest, MarketsRequest, RemainingReq, TickersRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    RateLimited,
    UnknownMarket,
)
from marketpipe.models import CandleState
from marketpipe.upbit.rest import Connections, UpbitRest

EPOCH_MS = 1_753_790_400_000  # 2025-07-29T12:00:00Z
CLOCK = TrioClock(EPOCH_MS)
HOST = "https://api.upbit.com"
MARKETS = b'[{"market":"KRW-BTC","english_name":"Bitcoin"}]'
CANDLE = (
    b'[{"market":"KRW-BTC","candle_date_time_utc":"2025-07-29T11:59:00","opening_price":1,"high_price":1,'
    b'"low_price":1,"trade_price":1,"timestamp":1753790399000,"candle_acc_trade_price":1,"candle_acc_trade_volume":1}]'
)


def rest_over(handler, **options) -> UpbitRest:
    return UpbitRest(HOST, clock=CLOCK, transport=httpx.MockTransport(handler), **options)


async def fetch(handler, request=MarketsRequest(), **options):  # noqa: B008 - requests are frozen
    async with rest_over(handler, **options) as rest:
        return await rest.fetch(request)


async def failure(handler, request=MarketsRequest(), **options) -> ExchangeError:  # noqa: B008
    with pytest.raises(ExchangeError) as info:
        await fetch(handler, request, **options)
    return info.value


def always(status=200, **response):
    return lambda request: httpx.Response(status, **response)


def raising(exc: Exception, cause: Exception | None = None):
    def handler(request):
        raise exc from cause

    return handler


class TestAnswer:
    async def test_a_reply_holds_the_rows_and_what_the_headers_say(self, autojump_clock):
        async def handler(request):
            await trio.sleep(1.5)
            headers = {"date": "Tue, 29 Jul 2025 12:00:01 GMT", "remaining-req": "group=market; min=600; sec=8"}
            return httpx.Response(200, content=MARKETS, headers=headers)

        reply = await fetch(handler)

        assert [row.market for row in reply.rows] == ["KRW-BTC"]
        assert reply.failed == {}
        assert reply.received_ms == EPOCH_MS + 1_500
        assert reply.exchange_ms == EPOCH_MS + 1_000
        assert reply.remaining == RemainingReq("market", 8)

    async def test_headers_may_be_missing(self):
        reply = await fetch(always(content=MARKETS))

        assert (reply.exchange_ms, reply.remaining) == (None, None)

    @pytest.mark.parametrize(("second", "state"), [("01", CandleState.RUNNING), ("02", CandleState.FINAL)])
    async def test_the_date_of_the_answer_decides_whether_a_bar_is_final(self, autojump_clock, second, state):
        await trio.sleep(3600)
        headers = {"date": f"Tue, 29 Jul 2025 12:00:{second} GMT"}

        reply = await fetch(always(content=CANDLE, headers=headers), CandlesRequest("KRW-BTC", Timeframe.M1, 1))

        assert [row.state for row in reply.rows] == [state]

    async def test_a_row_that_cannot_be_read_is_a_failure_of_its_market(self):
        reply = await fetch(always(content=b'[{"market":"KRW-BTC"}]'))

        assert reply.rows == ()
        assert list(reply.failed) == ["KRW-BTC"]

    async def test_the_request_is_plain(self):
        seen = []

        def handler(request):
            seen.append(request)
            return httpx.Response(200, content=b"[]")

        await fetch(handler, TickersRequest(("KRW-BTC", "KRW-ETH")))

        [request] = seen
        assert request.method == "GET"
        assert str(request.url) == "https://api.upbit.com/v1/ticker?markets=KRW-BTC%2CKRW-ETH"
        assert request.headers["user-agent"].startswith("marketpipe")
        assert request.headers["accept-encoding"] == "gzip"
        assert "origin" not in request.headers
        assert len(request.headers.keys()) == len(request.headers.multi_items())

    async def test_cookies_are_not_kept(self):
        seen = []

        def handler(request):
            seen.append(request.headers.get("cookie"))
            return httpx.Response(200, content=b"[]", headers={"set-cookie": "id=7; Path=/"})

        async with rest_over(handler) as rest:
            await rest.fetch(MarketsRequest())
            await rest.fetch(MarketsRequest())

        assert seen == [None, None]

    async def test_a_path_in_the_base_url_is_kept(self):
        seen = []

        def handler(request):
            seen.append(request.url.path)
            return httpx.Response(200, content=b"[]")

        async with UpbitRest(
            "http://localhost:8600/upbit/", clock=CLOCK, transport=httpx.MockTransport(handler)
        ) as rest:
            await rest.fetch(MarketsRequest())

        assert seen == ["/upbit/v1/market/all"]

    @pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream", "nonsense; charset=none"])
    async def test_a_wrong_content_type_does_not_matter(self, content_type):
        reply = await fetch(always(content=MARKETS, headers={"content-type": content_type}))

        assert len(reply.rows) == 1

    async def test_a_compressed_answer_is_read(self):
        reply = await fetch(always(content=gzip.compress(MARKETS), headers={"content-encoding": "gzip"}))

        assert len(reply.rows) == 1

    async def test_no_more_requests_are_under_way_than_there_are_connections(self, autojump_clock):
        under_way, most = 0, 0

        async def handler(request):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await trio.sleep(1)
            under_way -= 1
            return httpx.Response(200, content=b"[]")

        async with rest_over(handler, max_connections=3) as rest, trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(rest.fetch, MarketsRequest())

        assert most == 3
        assert trio.current_time() == 3


class TestRefusal:
    @pytest.mark.parametrize(
        ("status", "content", "kind"),
        [
            (404, b'{"error":{"name":404,"message":"Code not found"}}', UnknownMarket),
            (404, b'{"error":{"name":"not_found","message":"no Route matched with those values"}}', ExchangeError),
            (400, b'{"error":{"name":400,"message":"Type mismatch error."}}', ExchangeError),
            (503, b"<html><h1>503 Service Temporarily Unavailable</h1></html>", ExchangeUnavailable),
            (500, b"", ExchangeUnavailable),
            (204, b"", ExchangeError),
        ],
    )
    async def test_a_status_other_than_200_is_its_error(self, status, content, kind):
        error = await failure(always(status, content=content), TickersRequest(("KRW-NOPE",)))

        assert type(error) is kind
        assert error.status == status
        assert f"HTTP {status} from /v1/ticker for KRW-NOPE" in str(error)

    @pytest.mark.parametrize(
        ("content", "headers", "retry_after_s"),
        [
            (b"Too many API requests.", {}, 1.0),
            (b'{"error":{"name":"too_many_requests","message":"Too many API requests."}}', {}, 1.0),
            (b"", {}, 1.0),
            (b"", {"Retry-After": "7"}, 7.0),
        ],
    )
    async def test_429(self, content, headers, retry_after_s):
        error = await failure(always(429, content=content, headers=headers))

        assert type(error) is RateLimited
        assert error.retry_after_s == retry_after_s

    @pytest.mark.parametrize(
        ("content", "headers", "until_ms"),
        [
            (b'{"error":{"name":418,"message":"Try again in 30 seconds"}}', {}, EPOCH_MS + 30_000),
            (b"", {"Retry-After": "60"}, EPOCH_MS + 60_000),
            (b"I'm a teapot", {}, 0),
        ],
    )
    async def test_418(self, autojump_clock, content, headers, until_ms):
        error = await failure(always(418, content=content, headers=headers))

        assert type(error) is Banned
        assert error.until_ms == until_ms

    async def test_a_redirect_is_not_followed(self):
        seen = []

        def handler(request):
            seen.append(request)
            return httpx.Response(302, headers={"location": "https://example.com/"})

        error = await failure(handler)

        assert (type(error), error.status, len(seen)) == (ExchangeError, 302, 1)


class TestFailure:
    @pytest.mark.parametrize(
        ("handler", "sent", "abandoned", "words"),
        [
            (raising(httpx.ConnectError("x"), gaierror(EAI_NONAME, "unknown name")), False, False, "cannot find host"),
            (raising(httpx.ConnectError("x"), ConnectionRefusedError(111, "refused")), False, False, "refused"),
            (raising(httpx.ConnectError("went wrong")), False, False, "went wrong"),
            (raising(httpx.ConnectError("")), False, False, "ConnectError"),
            (raising(httpx.ConnectTimeout("")), False, False, "could not connect to api.upbit.com within 3 s"),
            (raising(httpx.PoolTimeout("")), False, False, "no connection to api.upbit.com became free within 3 s"),
            (raising(httpx.ProxyError("403 Forbidden")), False, False, "403 Forbidden"),
            (raising(httpx.UnsupportedProtocol("gopher")), False, False, "gopher"),
            (raising(httpx.ReadTimeout("")), True, True, "api.upbit.com stayed silent for 5 s"),
            (raising(httpx.WriteTimeout("")), True, True, "api.upbit.com stayed silent for 5 s"),
            (raising(httpx.ReadError("")), True, False, "the connection to api.upbit.com broke: ReadError"),
            (raising(httpx.WriteError("pipe")), True, False, "broke: pipe"),
            (raising(httpx.RemoteProtocolError("half an answer")), True, False, "half an answer"),
            (raising(httpx.TooManyRedirects("loop")), True, False, "loop"),
            (raising(ssl.SSLError(1, "bad record")), True, False, "bad record"),
            (raising(OSError(104, "reset by peer")), True, False, "reset by peer"),
        ],
    )
    async def test_trouble_with_the_network_says_whether_the_request_left(self, handler, sent, abandoned, words):
        error = await failure(handler)

        assert type(error) is ExchangeUnavailable
        assert (error.sent, error.abandoned, error.status) == (sent, abandoned, None)
        assert words in str(error)
        assert "api.upbit.com" in str(error)

    async def test_silence_ends_at_the_deadline(self, autojump_clock):
        async def handler(request):
            await trio.sleep_forever()

        error = await failure(handler, deadline_s=8.0)

        assert trio.current_time() == 8.0
        assert type(error) is ExchangeUnavailable
        assert (error.sent, error.abandoned) == (True, True)
        assert str(error) == "no answer from api.upbit.com within 8 s"

    async def test_an_answer_that_drips_ends_at_the_deadline(self, autojump_clock):
        async def drip() -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(1)
                yield b" "

        error = await failure(always(content=drip()), deadline_s=8.0)

        assert (trio.current_time(), type(error), error.abandoned) == (8.0, ExchangeUnavailable, True)

    async def test_after_a_deadline_the_next_request_is_served(self, autojump_clock):
        calls = 0

        async def handler(request):
            nonlocal calls
            calls += 1
            if calls == 1:
                await trio.sleep_forever()
            return httpx.Response(200, content=MARKETS)

        async with rest_over(handler) as rest:
            with pytest.raises(ExchangeUnavailable):
                await rest.fetch(MarketsRequest())
            assert len((await rest.fetch(MarketsRequest())).rows) == 1

    async def test_a_cancellation_from_outside_comes_out_as_such(self, autojump_clock):
        async def handler(request):
            await trio.sleep_forever()

        with trio.move_on_after(1) as scope:
            await fetch(handler)

        assert scope.cancelled_caught

    @pytest.mark.parametrize("content", [MARKETS[:-9], b"", b"<html>", b'{"error":{"name":404}}'])
    async def test_a_body_that_is_no_list_is_bad_payload(self, content):
        assert type(await failure(always(content=content))) is BadPayload

    async def test_a_body_that_cannot_be_decompressed_is_bad_payload(self):
        error = await failure(always(content=b"not gzip at all", headers={"content-encoding": "gzip"}))

        assert type(error) is BadPayload
        assert "api.upbit.com cannot be decompressed" in str(error)

    async def test_the_reason_given_is_not_that_of_an_earlier_failure(self):
        handlers = iter([raising(httpx.ConnectError("x"), OSError("earlier")), raising(httpx.ReadError("later"))])

        async with rest_over(lambda request: next(handlers)(request)) as rest:
            try:
                await rest.fetch(MarketsRequest())
            except ExchangeUnavailable:
                with pytest.raises(ExchangeUnavailable, match="broke: later"):
                    await rest.fetch(MarketsRequest())

    async def test_it_has_to_be_open(self):
        rest = rest_over(always(content=b"[]"))
        with pytest.raises(RuntimeError, match="not open"):
            await rest.fetch(MarketsRequest())
        async with rest:
            await rest.fetch(MarketsRequest())
        with pytest.raises(RuntimeError, match="not open"):
            await rest.fetch(MarketsRequest())

    @pytest.mark.parametrize(
        "base_url",
        ["", "api.upbit.com", "ftp://api.upbit.com", "https://", "http://a/?b=c", "http://a:b", "http://a#b"],
    )
    def test_a_base_url_that_is_none_is_refused(self, base_url):
        with pytest.raises(ValueError, match="base_url must be an http or https URL") as info:
            UpbitRest(base_url, clock=CLOCK)

        assert repr(base_url) in str(info.value)


class TestManners:
    @pytest.mark.parametrize(("before", "after"), [(logging.NOTSET, logging.WARNING), (logging.DEBUG, logging.DEBUG)])
    def test_httpx_is_quiet_unless_somebody_wants_to_hear_it(self, before, after):
        logger = logging.getLogger("httpx")
        kept = logger.level
        try:
            logger.setLevel(before)
            rest_over(always())
            assert logger.level == after
        finally:
            logger.setLevel(kept)

    async def test_a_transport_without_a_pool_has_no_connections(self):
        async with rest_over(always(content=b"[]")) as rest:
            assert rest.connections() == Connections(open=0, busy=0, requests=0)
        assert rest.connections() == Connections(open=0, busy=0, requests=0)


@asynccontextmanager
async def serving(answer: bytes, seen: list[bytes] | None = None) -> AsyncIterator[int]:
    """A server that reads once, sends ``answer`` and closes; yields its port."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            head = await stream.receive_some()
            if seen is not None:
                seen.append(head)
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        [listener] = await nursery.start(trio.serve_listeners, serve, listeners)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def http(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) if length is None else length, body)


class Nowhere(trio.abc.HostnameResolver):
    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        raise gaierror(EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr, flags):
        raise gaierror(EAI_NONAME, "Name or service not known")


class TestNetwork:
    async def test_a_host_without_an_address_is_named(self, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "*")
        trio.socket.set_custom_hostname_resolver(Nowhere())
        async with UpbitRest("http://api.upbit.example:81", clock=CLOCK) as rest:
            with pytest.raises(
                ExchangeUnavailable, match=r"cannot find host api\.upbit\.example:81: .*Name or"
            ) as info:
                await rest.fetch(MarketsRequest())

        assert (info.value.sent, info.value.abandoned) == (False, False)

    @pytest.mark.socket
    async def test_a_port_nobody_listens_on(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            async with UpbitRest(f"http://127.0.0.1:{port}", clock=CLOCK) as rest:
                with pytest.raises(ExchangeUnavailable, match=f"could not connect to 127.0.0.1:{port}") as info:
                    await rest.fetch(MarketsRequest())

        assert info.value.sent is False

    @pytest.mark.socket
    @pytest.mark.parametrize(
        "answer", [http(MARKETS, length=500), b"HTTP/1.1 200 OK\r\nConte", b"", b"SSH-2.0\r\n\r\n"]
    )
    async def test_a_connection_that_closes_half_way_or_speaks_nonsense(self, answer):
        async with serving(answer) as port, UpbitRest(f"http://127.0.0.1:{port}", clock=CLOCK) as rest:
            with pytest.raises(ExchangeUnavailable, match=r"the connection to 127\.0\.0\.1:\d+ broke: ") as info:
                await rest.fetch(MarketsRequest())

        assert (info.value.sent, info.value.abandoned) == (True, False)

    @pytest.mark.socket
    async def test_a_server_that_does_not_speak_tls(self):
        async with serving(http(MARKETS)) as port, UpbitRest(f"https://localhost:{port}", clock=CLOCK) as rest:
            with pytest.raises(ExchangeUnavailable, match=f"could not connect to localhost:{port}: .*SSL") as info:
                await rest.fetch(MarketsRequest())

        assert info.value.sent is False

    @pytest.mark.socket
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_this_machine_is_never_asked_through_a_proxy(self, monkeypatch, host):
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with serving(http(MARKETS)) as port, UpbitRest(f"http://{host}:{port}", clock=CLOCK) as rest:
            assert len((await rest.fetch(MarketsRequest())).rows) == 1

    @pytest.mark.socket
    async def test_another_host_is_asked_through_the_proxy_of_the_environment(self, monkeypatch):
        seen: list[bytes] = []
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with serving(http(MARKETS), seen) as port:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            async with UpbitRest("http://api.upbit.example", clock=CLOCK) as rest:
                assert len((await rest.fetch(MarketsRequest())).rows) == 1

        assert seen[0].startswith(b"GET http://api.upbit.example/v1/market/all?is_details=true HTTP/1.1\r\n")
