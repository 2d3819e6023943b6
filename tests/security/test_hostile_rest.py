"""An exchange, or whoever sits between, that answers so as to fill the memory or hold everything up."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from functools import cache, partial

import pytest
import trio
from security.hostile import Harm, answering, costing, listening

from marketpipe.clock import SystemClock
from marketpipe.core.requests import MarketsRequest, TickersRequest, TradesRequest
from marketpipe.errors import BadPayload, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.upbit import wire
from marketpipe.upbit.rest import BODY_BYTES, UpbitRest
from marketpipe.upbit.wire_flaws import MOST_ROWS

pytestmark = pytest.mark.socket

MB = 2**20
DEADLINE_S = 1.0
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def body(data: bytes, *headers: bytes, status: bytes = b"200 OK") -> Harm:
    head = [b"HTTP/1.1 " + status, *headers, b"Connection: close", b"Content-Length: %d" % len(data)]
    return answering(b"\r\n".join(head) + b"\r\n\r\n", data)


@cache
def zipped(size: int, times: int = 1) -> bytes:
    return gzip.compress(b" " * size if times == 1 else zipped(size, times - 1), 9)


@pytest.fixture(scope="module", autouse=True)
def bombs() -> None:
    """They take a second and more memory than a test allows: made here, neither for other files nor within a test."""
    zipped(256 * MB, 3)


def coded(data: bytes, encoding: bytes) -> Harm:
    return body(data, b"Content-Encoding: " + encoding)


def bomb(times: int, encoding: bytes, status: bytes = b"200 OK") -> Harm:
    async def harm(stream: trio.abc.Stream) -> None:
        await body(zipped(256 * MB, times), b"Content-Encoding: " + encoding, status=status)(stream)

    return harm


async def failure(harm: Harm, request=TickersRequest(("KRW-BTC",))) -> tuple[ExchangeError, int]:  # noqa: B008
    """What the question ends in, and the most memory that it took. The same client is answered well afterwards."""
    harms = iter([harm])

    async def serve(stream: trio.abc.Stream) -> None:
        await next(harms, body(b"[]"))(stream)

    async with (
        listening(serve) as port,
        UpbitRest(f"http://127.0.0.1:{port}", clock=SystemClock(), deadline_s=DEADLINE_S, max_connections=1) as rest,
    ):
        with costing() as cost, pytest.raises(ExchangeError) as info:
            await rest.fetch(request)
        assert (await rest.fetch(MarketsRequest())).rows == ()
        assert rest.connections().busy == rest.connections().requests == 0
    return info.value, cost.bytes


ENDLESS = {
    "silence where a gigabyte was promised": answering(OK + b"Content-Length: 1000000000\r\n\r\n"),
    "a body that drips": answering(OK + b"Content-Length: 1000000000\r\n\r\n", endless=b" ", every_s=0.05),
    "a header that drips": answering(OK + b"X: ", endless=b"x", every_s=0.05),
    "chunks that drip": answering(CHUNKED, endless=b"1\r\n \r\n", every_s=0.05),
    "chunks of a byte": answering(CHUNKED, endless=b"1\r\n \r\n"),
    "Continue without end": answering(endless=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "Early Hints without end": answering(endless=b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", ENDLESS.values(), ids=ENDLESS)
async def test_what_never_ends_is_left_at_the_deadline(harm):
    error, held = await failure(harm)

    assert type(error) is ExchangeUnavailable
    assert (str(error)[:14], error.abandoned) == ("no answer from", True)
    assert held < 8 * MB


TOO_LONG = {
    "a gigabyte": answering(OK + b"Content-Length: 1000000000\r\n\r\n", endless=b" "),
    "no length at all": answering(OK + b"\r\n", endless=b" "),
    "chunks without end": answering(CHUNKED, endless=b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "a bomb": bomb(1, b"gzip"),
    "bombs in a row": answering(OK + b"Content-Encoding: gzip\r\n\r\n", endless=zipped(MB)),
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", TOO_LONG.values(), ids=TOO_LONG)
async def test_of_what_is_too_long_no_more_is_read(harm):
    error, held = await failure(harm)

    assert type(error) is BadPayload
    assert f"longer than {BODY_BYTES} bytes" in str(error)
    # As read, as decompressed, and as handed on.
    assert held < 5 * BODY_BYTES


async def test_what_is_just_not_too_long_is_read():
    async with (
        listening(body(b"[" + b" " * (BODY_BYTES - 2) + b"]")) as port,
        UpbitRest(f"http://127.0.0.1:{port}", clock=SystemClock()) as rest,
    ):
        assert (await rest.fetch(MarketsRequest())).rows == ()


HEADERS = {
    "a line without end": answering(OK + b"X: ", endless=b"x"),
    "lines without end": answering(OK, endless=b"X: y\r\n"),
    "a status without end": answering(b"HTTP/1.1 200 ", endless=b"O"),
    "a trailer without end": answering(CHUNKED + b"0\r\n", endless=b"X: y\r\n"),
    "a chunk's extension without end": answering(CHUNKED + b"1;", endless=b"x"),
    "a chunk's length without end": answering(CHUNKED, endless=b"0"),
}


@pytest.mark.parametrize("harm", HEADERS.values(), ids=HEADERS)
async def test_a_head_without_end_breaks_the_connection(harm):
    error, held = await failure(harm)

    assert type(error) is ExchangeUnavailable
    assert " broke: " in str(error)
    assert held < 4 * MB


@pytest.mark.parametrize(
    ("encoding", "harm"),
    [
        (b"gzip, gzip", partial(bomb, 2)),
        (b"gzip,gzip,gzip", partial(bomb, 3)),
        (b"deflate", partial(coded, zlib.compress(b" " * 64 * MB, 9))),
        (b"br", partial(coded, b"[]")),
        (b"\x1b]0;owned\x07", partial(coded, b"[]")),
    ],
)
async def test_an_encoding_that_nobody_asked_for_is_not_undone(encoding, harm):
    error, held = await failure(harm(encoding))

    assert type(error) in (BadPayload, ExchangeUnavailable)  # httpx itself refuses letters that no header may have
    assert str(error).isprintable()
    assert held < 4 * MB


@pytest.mark.parametrize("harm", [
    answering(b"HTTP/1.1 429 Slow\r\n\r\n", endless=b"x"),
    bomb(2, b"gzip, gzip", b"429 Slow"),
    bomb(1, b"gzip", b"429 Slow"),
    body(b"no gzip", b"Content-Encoding: gzip", status=b"429 Slow"),
])  # fmt: skip
async def test_a_refusal_is_one_whatever_its_words_are(harm):
    error, held = await failure(harm)

    assert type(error) is RateLimited
    assert held < 5 * BODY_BYTES


async def test_a_redirect_that_leads_in_a_circle_is_refused_once():
    asked = []

    async def circle(stream: trio.abc.Stream) -> None:
        asked.append(await stream.receive_some(65536))
        await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: /v1/ticker\r\nContent-Length: 0\r\n\r\n")

    error, _ = await failure(circle)

    assert error.status == 302
    assert len(asked) == 1


DIGITS = b"9" * 10**5
MANY = 100_000
BODIES = {
    "brackets": b"[" * 10**6,
    "brackets that close": b"[" * 10**6 + b"]" * 10**6,
    "braces": b'{"a":' * 10**6,
    "brackets in a row": b'[{"market":"KRW-BTC","x":' + b"[" * 10**6,
    "digits": b'[{"market":"KRW-BTC","trade_price":' + DIGITS + b"}]",
    "digits in a time": b'[{"market":"KRW-BTC","timestamp":' + DIGITS + b"}]",
    "digits in an exponent": b'[{"market":"KRW-BTC","trade_price":1e' + DIGITS + b"}]",
    "rows without a market": b"[" + b",".join([b"{}"] * 10**6) + b"]",
    "rows of one market": b"[" + b",".join([b'{"market":"KRW-BTC"}'] * MANY) + b"]",
    "rows of many markets": b"[" + b",".join(b'{"market":"%d"}' % number for number in range(MANY)) + b"]",
    "numbers": b"[" + b"0," * 10**6 + b"0]",
    "a name": b'[{"market":"' + b"K" * (7 * MB) + b'"}]',
    "an escaped name": b'[{"market":"' + b"\\u001b" * MB + b'"}]',
    "bare words": b'[{"market":"KRW-BTC","trade_price":' + b"NaN," * MANY + b"}]",
    "blanks before a bare word": b"[" + b" " * MB + b"," + b" " * MB + b"NaN]",
    "an unknown word that looks like a flaw": b'[{"market":"KRW-BTC","change":"' + b"at `$" * MANY + b'"}]',
}


@pytest.mark.slow
@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("request_", [TickersRequest(("KRW-BTC",)), TradesRequest("KRW-BTC", 1)],
                         ids=lambda request: type(request).__name__)  # fmt: skip
def test_no_body_costs_much_more_than_its_length(request_, data):
    assert len(data) <= BODY_BYTES
    with costing() as cost:
        refused = list(flaws(request_, data))

    assert all(str(flaw).isprintable() and len(str(flaw)) < 400 for flaw in refused)
    assert cost.bytes < 24 * BODY_BYTES
    began_s = time.process_time()
    list(flaws(request_, data))
    # Of CPU, so that nobody else's work counts; without limits some of these took ten times as long.
    assert time.process_time() - began_s < 2


def flaws(request, data: bytes) -> Iterator[BadPayload]:
    try:
        _, failed = wire.decode(request, data, received_ms=1_753_790_400_000, exchange_ms=None)
    except BadPayload as flaw:
        yield flaw
    else:
        yield from failed.values()


def test_more_rows_than_there_can_be_are_not_looked_at():
    row = b'{"market":"KRW-BTC"}'
    for count, words in ((MOST_ROWS, "missing required field"), (MOST_ROWS + 1, f"lists {MOST_ROWS + 1} things")):
        [flaw] = flaws(TickersRequest(("KRW-BTC",)), b"[" + b",".join([row] * count) + b"]")
        assert words in str(flaw)


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "K" * 10**6, "\n2026-11-23 ERROR all is lost"])
def test_a_name_is_told_in_a_flaw_as_what_it_is(name):
    [flaw] = flaws(MarketsRequest(), json.dumps([{"market": name}]).encode())

    assert flaw.market == name
    assert str(flaw).isprintable()
    assert len(str(flaw)) < 200
