"""The simulator behind httpx in memory: real answers, and the exceptions that a real network would raise."""

from __future__ import annotations

from decimal import Decimal

import httpx
import msgspec
import pytest
import trio

from marketpipe.clock import TrioClock
from marketpipe.sim import (
    DnsFault,
    DownFault,
    DropFault,
    HalfFault,
    HangFault,
    LatencyFault,
    ResetFault,
    SimConfig,
    SimExchange,
    SimTransport,
    StatusFault,
    World,
    WrongTypeFault,
)

EPOCH_MS = 1_790_000_000_000
TICKER = "/v1/ticker?markets=KRW-BTC"


@pytest.fixture(scope="module", autouse=True)
def drawn_world() -> None:
    """The first tickers of a seed draw its past, which later worlds of that seed share."""
    world = World(markets=3)
    for code in world.markets:
        world.ticker(code, EPOCH_MS)


def make(**options) -> tuple[SimExchange, httpx.AsyncClient]:
    exchange = SimExchange(SimConfig(**{"markets": 3, **options}), TrioClock(EPOCH_MS))
    return exchange, httpx.AsyncClient(transport=SimTransport(exchange), base_url="http://sim", timeout=5)


async def test_an_answer_arrives_with_status_headers_and_exact_body(autojump_clock):
    exchange, client = make()
    response = await client.get("/v1/ticker", params={"markets": "KRW-BTC,KRW-ETH"})
    assert response.status_code == 200
    assert response.headers["Remaining-Req"] == "group=ticker; min=600; sec=9"
    assert response.headers["Content-Length"] == str(len(response.content))
    prices = {row["market"]: row["trade_price"] for row in msgspec.json.decode(response.content, type=list[dict])}
    assert list(prices) == ["KRW-BTC", "KRW-ETH"]
    truth = exchange.world.ticker("KRW-BTC", EPOCH_MS).last.price
    assert Decimal(str(prices["KRW-BTC"])) == Decimal(truth) / 10**8


async def test_headers_and_query_reach_the_exchange_as_they_were_sent(autojump_clock):
    _, client = make()
    response = await client.get("/v1/ticker", params={"markets": "KRW-BTC"}, headers={"Origin": "https://example.org"})
    assert response.headers["remaining-req"] == "group=origin; min=6; sec=0"
    page = await client.get("/v1/candles/minutes/1", params={"market": "KRW-BTC", "to": "2026-09-21T14:00:00+09:00"})
    assert page.json()[0]["candle_date_time_kst"] == "2026-09-21T13:59:00"


async def test_a_compressed_answer_is_unpacked_by_httpx(autojump_clock):
    target = "/v1/candles/minutes/1?market=KRW-BTC&count=200"
    _, plain = make()
    _, packed = make(gzip=True)
    answers = [await client.get(target) for client in (plain, packed)]
    assert answers[1].headers["content-encoding"] == "gzip"
    assert answers[0].content == answers[1].content


async def test_latency_passes_in_virtual_time(autojump_clock):
    _, client = make(latency_s=3.0)
    await client.get(TICKER)
    assert trio.current_time() == pytest.approx(3.0)


async def test_an_answer_after_the_read_timeout_is_a_read_timeout_and_was_counted(autojump_clock):
    exchange, client = make(latency_s=12.0)
    with pytest.raises(httpx.ReadTimeout):
        await client.get(TICKER)
    assert trio.current_time() == pytest.approx(5.0)
    await trio.sleep(2)
    assert exchange.statistics().groups["ticker"].requests == 1


async def test_a_hanging_request_ends_with_the_read_timeout(autojump_clock):
    exchange, client = make()
    exchange.add_fault(HangFault())
    with pytest.raises(httpx.ReadTimeout):
        await client.get(TICKER, timeout=httpx.Timeout(1.0, read=60.0))
    assert trio.current_time() == pytest.approx(60.0)


async def test_a_hanging_request_without_a_timeout_waits_for_its_caller(autojump_clock):
    exchange, client = make()
    exchange.add_fault(HangFault())
    with trio.move_on_after(10_000) as scope:
        await client.get(TICKER, timeout=None)
    assert scope.cancelled_caught
    assert exchange.statistics().groups["ticker"].requests == 1


@pytest.mark.parametrize(
    ("fault", "error", "text", "counted"),
    [
        (DownFault(), httpx.ConnectError, "attempts", 0),
        (DnsFault(), httpx.ConnectError, "Name or service not known", 0),
        (DropFault(), httpx.RemoteProtocolError, "Server disconnected without sending a response", 1),
        (ResetFault(), httpx.ReadError, "^$", 1),
        (HalfFault(), httpx.RemoteProtocolError, "without sending complete message body", 1),
    ],
)
async def test_a_fault_of_the_network_is_the_exception_httpx_raises(fault, error, text, counted, autojump_clock):
    exchange, client = make()
    exchange.add_fault(fault)
    with pytest.raises(error, match=text) as caught:
        await client.get(TICKER)
    assert type(caught.value) is error
    assert caught.value.request.url.path == "/v1/ticker"
    assert exchange.statistics().groups["ticker"].requests == counted
    exchange.clear_faults()
    assert (await client.get(TICKER)).status_code == 200


async def test_faults_of_the_answer_come_through(autojump_clock):
    exchange, client = make()
    exchange.add_fault(StatusFault(status=503, count=1))
    exchange.add_fault(WrongTypeFault(count=1))
    broken, mistyped = [await client.get(TICKER) for _ in range(2)]
    assert (broken.status_code, broken.headers["content-type"]) == (503, "text/html")
    assert (mistyped.status_code, mistyped.headers["content-type"]) == (200, "text/html; charset=UTF-8")
    assert mistyped.json()[0]["market"] == "KRW-BTC"


async def test_control_paths_work_through_httpx(autojump_clock):
    exchange, client = make()
    posted = await client.post("/sim/faults", json=[{"kind": "latency", "latency_s": 2, "for_s": 3}])
    assert posted.json()[0]["kind"] == "latency"
    await client.get(TICKER)
    assert trio.current_time() == pytest.approx(2.0)
    assert (await client.delete("/sim/faults")).json() == []
    assert (await client.get("/sim/stats")).json()["groups"]["ticker"]["requests"] == 1
    exchange.add_fault(LatencyFault(latency_s=1))
    assert (await client.get("/sim/faults")).json()[0]["struck"] == 0


async def test_many_requests_at_once_are_limited_as_on_a_socket(autojump_clock):
    exchange, client = make(latency_s=0.1)
    statuses = []

    async def one():
        statuses.append((await client.get(TICKER)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(one)
    assert (statuses.count(200), statuses.count(429)) == (10, 20)
    assert exchange.statistics().groups["ticker"].greatest_per_second == 30
