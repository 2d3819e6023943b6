"""The exchange as a whole: latency around the count, refusals, headers, faults, and its own control paths."""

from __future__ import annotations

import gzip
import json
import zlib
from decimal import Decimal
from urllib.parse import urlencode

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.clock import TrioClock
from marketpipe.sim.config import SimConfig
from marketpipe.sim.exchange import MAX_TARGET, SimExchange, SimRequest
from marketpipe.sim.faults import (
    DropFault,
    EditFault,
    HalfFault,
    LatencyFault,
    StatusFault,
)
from marketpipe.sim.quotation import Options
from marketpipe.sim.world import World

EPOCH_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z
TICKER = "/v1/ticker?markets=KRW-BTC"


@pytest.fixture(scope="module", autouse=True)
def drawn_world() -> None:
    """The first tickers of a seed draw its past, which later worlds of that seed share."""
    world = World(markets=3)
    for code in world.markets:
        world.ticker(code, EPOCH_MS)


def make(**options) -> SimExchange:
    return SimExchange(SimConfig(**{"markets": 3, **options}), TrioClock(EPOCH_MS))


async def ask(exchange: SimExchange, target: str = TICKER, method: str = "GET", body: bytes = b"", **headers):
    return await exchange.handle(SimRequest(method, target, headers, body))


async def control(exchange: SimExchange, target: str, method: str = "GET", body: bytes = b""):
    reply = await ask(exchange, target, method, body)
    return reply.status, json.loads(reply.body, parse_float=Decimal)


def header(reply, name: bytes) -> bytes | None:
    return dict(reply.headers).get(name)


async def ask_many(exchange: SimExchange, count: int, target: str = TICKER) -> list:
    replies = []

    async def one():
        replies.append(await ask(exchange, target))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return replies


async def test_an_answer_carries_the_headers_of_the_wire(autojump_clock):
    reply = await ask(make())
    assert reply.status == 200
    assert dict(reply.headers) == {
        b"date": b"Mon, 21 Sep 2026 14:13:20 GMT",
        b"content-type": b"application/json;charset=UTF-8",
        b"content-length": b"%d" % len(reply.body),
        b"remaining-req": b"group=ticker; min=600; sec=9",
        b"limit-by-ip": b"Yes",
        b"vary": b"origin,access-control-request-method,access-control-request-headers,accept-encoding",
        b"etag": b'W/"0%08x"' % zlib.crc32(reply.body),
        b"cache-control": b"no-cache, no-store, max-age=0, must-revalidate",
        b"pragma": b"no-cache",
        b"expires": b"0",
    }


async def test_only_an_answer_has_an_etag_and_it_is_that_of_the_uncompressed_body(autojump_clock):
    exchange = make(gzip=True)
    target = "/v1/candles/minutes/1?market=KRW-BTC&count=50&to=2026-09-20T00:00:00Z"
    plain, packed = (
        await ask(exchange, target),
        await exchange.handle(SimRequest("GET", target, {"accept-encoding": "gzip"})),
    )
    assert header(plain, b"etag") == header(packed, b"etag") is not None
    assert packed.body != plain.body
    assert header(await ask(exchange, "/v1/ticker?markets=KRW-NOPE"), b"etag") is None


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/v1/market/all", "market"),
        ("/v1/ticker?markets=KRW-BTC", "ticker"),
        ("/v1/ticker/all?quote_currencies=KRW", "ticker"),
        ("/v1/orderbook?markets=KRW-BTC", "orderbook"),
        ("/v1/orderbook/instruments?markets=KRW-BTC", "orderbook"),
        ("/v1/trades/ticks?market=KRW-BTC", "crix-trades"),
        ("/v1/candles/seconds?market=KRW-BTC", "candles"),
        ("/v1/candles/minutes/240?market=KRW-BTC", "candles"),
        ("/v1/candles/years?market=KRW-BTC", "candles"),
        ("/v1/ticker?markets=KRW-NOPE", "ticker"),
        ("/v1/ticker", "ticker"),
    ],
)
async def test_every_path_counts_in_its_group_also_when_the_answer_is_an_error(path, group, autojump_clock):
    exchange = make()
    reply = await ask(exchange, path)
    assert header(reply, b"remaining-req") == f"group={group}; min=600; sec=9".encode()
    counted = {name: seen.requests for name, seen in exchange.statistics().groups.items() if seen.requests}
    assert counted == {group: 1}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("GET", "/"), ("POST", TICKER), ("GET", "//v1")])
async def test_a_path_without_a_route_is_a_404_of_the_gateway_that_counts_nowhere(method, path, autojump_clock):
    exchange = make()
    reply = await ask(exchange, path, method)
    assert (reply.status, header(reply, b"remaining-req")) == (404, None)
    assert json.loads(reply.body)["error"]["message"] == "no Route matched with those values"
    assert exchange.statistics().unrouted == 1
    assert not any(seen.requests for seen in exchange.statistics().groups.values())


async def test_a_target_longer_than_the_gateway_takes_is_a_414(autojump_clock):
    assert (await ask(make(), TICKER + "," * MAX_TARGET)).status == 414


@pytest.mark.parametrize(
    ("refusal", "body", "content_type"),
    [
        ("text", b"Too many API requests.", b"text/plain;charset=UTF-8"),
        (
            "json",
            b'{"error":{"name":429,"message":"Too many API requests."}}',
            b"application/json;charset=UTF-8",
        ),
        ("empty", b"", b"text/plain;charset=UTF-8"),
    ],
)
async def test_one_request_too_many_is_a_429(refusal, body, content_type, autojump_clock):
    exchange = make(refusal=refusal)
    replies = await ask_many(exchange, 11)
    refused = [reply for reply in replies if reply.status == 429]
    assert [reply.status for reply in replies].count(200) == 10
    assert [(reply.body, header(reply, b"content-type")) for reply in refused] == [(body, content_type)]
    assert header(refused[0], b"remaining-req") == b"group=ticker; min=600; sec=0"


async def test_the_next_second_of_the_wall_clock_lets_in_again(autojump_clock):
    exchange = make()
    await trio.sleep(0.75)
    assert {reply.status for reply in await ask_many(exchange, 11)} == {200, 429}
    await trio.sleep(0.25)
    assert {reply.status for reply in await ask_many(exchange, 10)} == {200}
    assert exchange.statistics().groups["ticker"].greatest_per_second == 21


async def test_a_block_says_how_long_it_lasts_and_ends(autojump_clock):
    exchange = make(limit=1, ban_after=2, ban_s=5)
    assert sorted(reply.status for reply in await ask_many(exchange, 3)) == [200, 429, 429]
    await trio.sleep(1.5)
    blocked = await ask(exchange, "/v1/market/all")
    assert (blocked.status, json.loads(blocked.body)["error"]["message"]) == (
        418,
        "Too many requests were refused. Try again in 4 seconds",
    )
    await trio.sleep(3.5)
    assert (await ask(exchange)).status == 200


async def test_a_bare_block_names_no_time(autojump_clock):
    exchange = make(limit=1, ban_after=1, ban_body="bare")
    await ask_many(exchange, 2)
    blocked = await ask(exchange)
    assert (blocked.status, b"seconds" in blocked.body) == (418, False)


async def test_an_origin_header_moves_a_request_into_the_origin_group(autojump_clock):
    exchange = make()
    first, second = [await ask(exchange, origin="https://example.org") for _ in range(2)]
    assert (first.status, header(first, b"remaining-req")) == (200, b"group=origin; min=6; sec=0")
    assert second.status == 429
    assert exchange.statistics().groups["ticker"].requests == 0


async def test_the_origin_rule_can_be_off(autojump_clock):
    exchange = make(origin_rule=False)
    replies = [await ask(exchange, origin="https://example.org") for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]


async def test_half_of_the_latency_passes_before_the_request_is_counted(autojump_clock):
    exchange = make(latency_s=0.5)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, exchange)
        await trio.sleep(0.2)
        assert exchange.statistics().groups["ticker"].requests == 0
        await trio.sleep(0.1)
        assert exchange.statistics().groups["ticker"].requests == 1
    assert trio.current_time() - began == pytest.approx(0.5)


async def test_jitter_is_added_from_the_seed_and_never_more_than_configured(autojump_clock):
    async def delays(seed: int) -> list[float]:
        exchange = make(seed=seed, latency_s=0.1, jitter_s=0.3)
        seen = []
        for _ in range(40):
            began = trio.current_time()
            await ask(exchange, "/v1/market/all")
            seen.append(round(trio.current_time() - began, 6))
        return seen

    first = await delays(7)
    assert await delays(7) == first != await delays(8)
    assert min(first) >= 0.1
    assert max(first) <= 0.4
    assert max(first) - min(first) > 0.2


async def test_a_request_that_was_given_up_on_its_way_still_arrives_and_is_counted(autojump_clock):
    exchange = make(latency_s=1.0)
    with trio.move_on_after(0.1):
        await ask(exchange)
    assert exchange.statistics().groups["ticker"].requests == 0
    await trio.sleep(0.4)
    assert exchange.statistics().groups["ticker"].requests == 1


async def test_requests_given_up_are_counted_when_they_arrive_not_when_someone_looks(autojump_clock):
    exchange = make(latency_s=1.0)
    for _ in range(5):
        with trio.move_on_after(0.4):
            await ask(exchange)
    await trio.sleep(60)
    seen = exchange.statistics().groups["ticker"]
    # 0.4 s apart: three fit into one second.
    assert (seen.requests, seen.greatest_per_second) == (5, 3)


async def test_the_market_moves_with_the_clock(autojump_clock):
    exchange = make()

    async def stamp() -> int:
        return json.loads((await ask(exchange)).body)[0]["timestamp"]

    before = await stamp()
    await trio.sleep(86_400)
    assert before <= EPOCH_MS < before + 86_400_000
    assert await stamp() > EPOCH_MS


async def test_two_exchanges_of_one_seed_and_clock_answer_alike(autojump_clock):
    one, other = make(), make()
    for target in (TICKER, "/v1/orderbook?markets=KRW-BTC", "/v1/candles/minutes/1?market=KRW-BTC&count=200"):
        assert await ask(one, target) == await ask(other, target)


async def test_a_long_answer_is_compressed_if_both_sides_want_it(autojump_clock):
    target = "/v1/candles/minutes/1?market=KRW-BTC&count=200"
    plain = await ask(make(), target)
    packed = await ask(make(gzip=True), target, **{"accept-encoding": "gzip, deflate"})
    unasked = await ask(make(gzip=True), target)
    assert header(packed, b"content-encoding") == b"gzip"
    assert gzip.decompress(packed.body) == plain.body == unasked.body
    assert int(header(packed, b"content-length") or 0) == len(packed.body) < len(plain.body)


async def test_an_injected_refusal_shows_no_requests_left(autojump_clock):
    exchange = make()
    exchange.add_fault(StatusFault(status=429, count=1))
    reply = await ask(exchange)
    assert (reply.status, header(reply, b"remaining-req")) == (429, b"group=ticker; min=600; sec=0")
    assert exchange.statistics().groups["ticker"].refused == 0
    assert exchange.statistics().faults == {"status": 1}


async def test_a_latency_fault_adds_to_both_ways(autojump_clock):
    exchange = make(latency_s=0.2)
    exchange.add_fault(LatencyFault(latency_s=2.0))
    began = trio.current_time()
    await ask(exchange)
    assert trio.current_time() - began == pytest.approx(2.2)


async def test_an_edit_changes_the_rows_and_the_length(autojump_clock):
    exchange = make()
    exchange.add_fault(EditFault(change="extra", market="KRW-NOBODY"))
    reply = await ask(exchange)
    assert [row["market"] for row in json.loads(reply.body)] == ["KRW-BTC", "KRW-NOBODY"]
    assert header(reply, b"content-length") == b"%d" % len(reply.body)


@pytest.mark.parametrize(
    ("kind", "counted"), [("drop", 1), ("reset", 1), ("hang", 1), ("half", 1), ("down", 0), ("dns", 0)]
)
async def test_a_fault_of_the_connection_is_handed_to_the_transport(kind, counted, autojump_clock):
    exchange = make()
    status, _ = await control(exchange, "/sim/faults", "POST", json.dumps({"kind": kind}).encode())
    assert status == 200
    assert (await ask(exchange)).ending == kind
    assert exchange.statistics().groups["ticker"].requests == counted


async def test_a_request_given_up_that_never_got_there_is_not_counted(autojump_clock):
    exchange = make(latency_s=1.0)
    for fault in ("down", "drop"):
        await control(exchange, "/sim/faults", "POST", b'{"kind":"%s","count":1}' % fault.encode())
        with trio.move_on_after(0.1):
            await ask(exchange)
    await trio.sleep(1)
    assert exchange.statistics().groups["ticker"].requests == 1


async def test_a_refusal_stands_whatever_fault_would_change_the_answer(autojump_clock):
    exchange = make(limit=1)
    await ask(exchange)
    exchange.add_fault(StatusFault(status=500))
    assert (await ask(exchange)).status == 429


# Control


async def test_control_paths_are_never_limited_delayed_or_struck(autojump_clock):
    exchange = make(limit=1, latency_s=5)
    exchange.add_fault(DropFault())
    exchange.add_fault(LatencyFault(latency_s=5))
    began = trio.current_time()
    replies = [await ask(exchange, "/sim/stats") for _ in range(50)]
    assert {(reply.status, reply.ending) for reply in replies} == {(200, "whole")}
    assert trio.current_time() == began
    assert header(replies[0], b"remaining-req") is None


async def test_stats_are_those_of_the_exchange(autojump_clock):
    exchange = make()
    await ask_many(exchange, 12)
    await ask(exchange, "/v1/nothing")
    status, stats = await control(exchange, "/sim/stats")
    assert status == 200
    assert stats["groups"]["ticker"] == {
        "requests": 12,
        "accepted": 10,
        "refused": 2,
        "banned": 0,
        "greatest_per_second": 12,
        "greatest_accepted_per_second": 10,
    }
    assert stats["unrouted"] == 1
    assert stats["connections"] == {"open": 0, "total": 0}


async def test_reset_forgets_counts_windows_and_blocks_but_not_faults(autojump_clock):
    exchange = make(limit=1, ban_after=1)
    await ask_many(exchange, 3)
    exchange.add_fault(HalfFault())
    status, stats = await control(exchange, "/sim/reset", "POST")
    assert (status, stats["groups"]["ticker"]["requests"]) == (200, 0)
    reply = await ask(exchange)
    assert (reply.status, reply.ending) == (200, "half")


async def test_a_request_given_up_on_its_way_is_counted_after_a_reset(autojump_clock):
    exchange = make(latency_s=1.0)
    with trio.move_on_after(0.1):
        await ask(exchange)
    exchange.reset()
    await trio.sleep(1)
    assert exchange.statistics().groups["ticker"].requests == 1


async def test_faults_are_posted_listed_and_cleared(autojump_clock):
    exchange = make()
    posted = b'[{"kind":"drop","count":2},{"kind":"status","status":503,"groups":["candles"]}]'
    _, listed = await control(exchange, "/sim/faults", "POST", posted)
    await ask(exchange)
    _, later = await control(exchange, "/sim/faults")
    assert [(fault["kind"], fault["struck"]) for fault in listed] == [("drop", 0), ("status", 0)]
    assert [fault["struck"] for fault in later] == [1, 0]
    assert await control(exchange, "/sim/faults", "DELETE") == (200, [])
    assert (await ask(exchange)).ending == "whole"


async def test_a_bad_fault_is_a_400_that_names_the_field_and_posts_nothing(autojump_clock):
    exchange = make()
    body = b'[{"kind":"drop"},{"kind":"status","status":7}]'
    status, error = await control(exchange, "/sim/faults", "POST", body)
    assert (status, error["error"]["message"]) == (400, "status must be from 200 to 599, was 7")
    assert exchange.faults() == []


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/sim/nothing", 404), ("GET", "/sim", 404), ("POST", "/sim/stats", 405), ("GET", "/sim/reset", 405)],
)
async def test_a_wrong_control_request_is_told_what_there_is(method, target, status, autojump_clock):
    got, error = await control(make(), target, method)
    assert got == status
    assert target in error["error"]["message"]


async def truth(exchange: SimExchange, kind: str, **query: object):
    return await control(exchange, f"/sim/truth/{kind}?" + urlencode(query))


async def test_the_truth_of_candles_is_that_of_the_exchange_oldest_first(autojump_clock):
    exchange = make()
    page = json.loads((await ask(exchange, "/v1/candles/minutes/5?market=KRW-ETH&count=200")).body, parse_float=Decimal)
    start_ms = EPOCH_MS - 5 * 86_400_000
    status, rows = await truth(
        exchange, "candles", market="KRW-ETH", timeframe="5m", start_ms=start_ms, end_ms=EPOCH_MS
    )
    assert status == 200
    assert len(rows) > len(page)
    assert rows[-200:] == page[::-1]


async def test_the_truth_of_trades_is_that_of_the_exchange_oldest_first(autojump_clock):
    exchange = make()
    page = json.loads((await ask(exchange, "/v1/trades/ticks?market=KRW-BTC&count=50")).body, parse_float=Decimal)
    status, rows = await truth(exchange, "trades", market="KRW-BTC", start_ms=EPOCH_MS - 600_000, end_ms=EPOCH_MS + 1)
    assert status == 200
    assert rows[-50:] == page[::-1]


@pytest.mark.parametrize(("kind", "path"), [("ticker", "/v1/ticker"), ("orderbook", "/v1/orderbook")])
async def test_the_truth_of_a_moment_can_be_asked_for_later(kind, path, autojump_clock):
    exchange = make(row_order="reversed")
    then = json.loads((await ask(exchange, f"{path}?markets=KRW-BTC,KRW-ETH")).body, parse_float=Decimal)
    await trio.sleep(3600)
    assert await truth(exchange, kind, markets="KRW-BTC,KRW-ETH", at_ms=EPOCH_MS) == (200, then[::-1])
    status, now = await truth(exchange, kind, markets="KRW-ETH,KRW-BTC")
    assert (status, [row["market"] for row in now]) == (200, ["KRW-ETH", "KRW-BTC"])
    assert now != then


async def test_the_truth_of_markets_lists_them_with_their_warnings(autojump_clock):
    status, rows = await truth(make(), "markets")
    assert status == 200
    assert {row["market"] for row in rows} == set(World(markets=3).markets)
    assert all("warning" in row["market_event"] for row in rows)


@pytest.mark.parametrize(
    ("kind", "query", "status", "complaint"),
    [
        ("candles", {}, 400, "market is required"),
        ("candles", {"market": "KRW-NOPE"}, 400, "market 'KRW-NOPE' is not listed"),
        ("candles", {"market": "KRW-BTC"}, 400, "start_ms is required"),
        ("candles", {"market": "KRW-BTC", "start_ms": "-1"}, 400, "start_ms must be epoch milliseconds, was '-1'"),
        (
            "trades",
            {"market": "KRW-BTC", "start_ms": 0, "end_ms": "9" * 5000},
            400,
            "end_ms must be epoch milliseconds",
        ),
        ("candles", {"market": "KRW-BTC", "start_ms": 0, "end_ms": 1}, 400, "timeframe is required"),
        (
            "candles",
            {"market": "KRW-BTC", "start_ms": 0, "end_ms": 1, "timeframe": "7m"},
            400,
            "unknown timeframe '7m'",
        ),
        ("ticker", {}, 400, "markets is required"),
        ("ticker", {"markets": "KRW-NOPE"}, 404, "Code not found"),
        ("ticker", {"markets": "KRW-BTC", "at_ms": EPOCH_MS + 1}, 400, "at_ms must not lie in the future"),
    ],
)
async def test_a_wrong_question_for_the_truth_is_told_what_is_wrong(kind, query, status, complaint, autojump_clock):
    got, error = await truth(make(), kind, **query)
    assert got == status
    assert complaint in error["error"]["message"]


async def test_every_habit_of_the_answers_is_an_option_with_the_same_default(autojump_clock):
    habits = {field.name: field.default for field in attrs.fields(Options)}
    options = {field.name: field.default for field in attrs.fields(SimConfig)}
    assert habits.items() <= options.items()
    unknown = "/v1/ticker/all?quote_currencies=EUR"
    assert (await ask(make(), unknown)).status == 400
    assert (await ask(make(unknown_quote="skip"), unknown)).body == b"[]"


PATHS = (
    "/v1/market/all",
    "/v1/ticker",
    "/v1/ticker/all",
    "/v1/orderbook",
    "/v1/orderbook/instruments",
    "/v1/trades/ticks",
    "/v1/candles/seconds",
    "/v1/candles/minutes/1",
    "/v1/candles/days",
    "/v1/candles/years",
    "/v1/candles/minutes/٣",
)
NAMES = ("market", "markets", "count", "to", "cursor", "days_ago", "level", "quote_currencies", "is_details", "x")
values = st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)
values |= st.sampled_from(["KRW-BTC", "KRW-BTC,KRW-ETH", "KRW", "1", "2026-09-21T14:00:00Z", "14:00:00", "1e400", "-0"])


@pytest.mark.slow
@given(path=st.sampled_from(PATHS), query=st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=4))
def test_any_question_gets_an_answer_or_a_documented_error(path, query):
    async def main() -> None:
        reply = await ask(make(ban_after=None), f"{path}?{urlencode(query)}")
        assert reply.status in (200, 400, 404)
        json.loads(reply.body)

    trio.run(main)
