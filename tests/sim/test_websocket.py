"""WebSocket: the upgrade, what is asked and answered, when it is told, limits, ends, and who does not keep up."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from ws_peer import Peer, Refused, connected, dialling, frames, peer_of

from marketpipe.clock import TrioClock
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import SimConfig, SimExchange, World, websocket
from marketpipe.sim.exchange import SimRequest
from marketpipe.sim.lexemes import shortest
from marketpipe.sim.websocket import CLOSE_S, MAX_MESSAGE, STALLED_S
from marketpipe.sim.ws_requests import BadMessage, Listing, Subscribe, parse_message

EPOCH_MS = 1_790_000_000_000
BTC, ETH = "KRW-BTC", "KRW-ETH"
KOREAN = {
    "WRONG_FORMAT": "Format 이 맞지 않습니다.",
    "NO_TICKET": "티켓이 존재하지 않거나, 유효하지 않습니다.",
    "INVALID_PARAM": "nope 은 지원하지 않는 타입입니다.",
    "INVALID_AUTH": "인증 정보가 올바르지 않습니다.",
}


def make(**options: Any) -> SimExchange:
    return SimExchange(SimConfig(**{"markets": 3, **options}), TrioClock(EPOCH_MS))


def now_ms() -> int:
    return EPOCH_MS + int(trio.current_time() * 1000)


# The upgrade


async def test_an_upgrade_is_accepted_with_the_headers_of_the_wire(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        assert peer.headers[b"remaining-req"] == b"group=websocket; min=300; sec=4"
        assert peer.headers[b"limit-by-ip"] == b"Yes"
        assert b"content-length" not in peer.headers
        assert exchange.statistics().streams.connections == {"open": 1, "total": 1}
        await peer.close()
        assert [item.kind for item in await peer.hear(1)] == ["close", "end"]
    assert exchange.statistics().streams.connections == {"open": 0, "total": 1}
    assert exchange.statistics().groups["websocket-connect"].requests == 1


async def test_rest_and_websocket_share_a_connection_until_the_upgrade(autojump_clock):
    get = b"GET /v1/ticker?markets=KRW-BTC HTTP/1.1\r\nhost: sim\r\n\r\n"
    async with dialling(make()) as dial, await dial() as stream:
        await stream.send_all(get)
        assert b" 200 " in await stream.receive_some()
        peer = Peer(stream)
        await peer.shake_hands(path="/websocket/v1", headers=(), deflate=False)
        await peer.subscribe(("ticker", BTC))
        assert frames(await peer.hear(1), "ticker")


async def test_what_is_sent_together_with_the_upgrade_is_not_lost(autojump_clock):
    upgrade = (
        b"GET /websocket/v1 HTTP/1.1\r\nhost: sim\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
    )
    ping = b"\x89\x80\0\0\0\0"
    async with dialling(make()) as dial, await dial() as stream:
        await stream.send_all(upgrade + ping)
        answer = b""
        with trio.move_on_after(1):
            while True:
                answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert answer.endswith(b"\r\n\r\n\x8a\x00")


async def test_the_sixth_connection_of_a_second_is_refused_and_the_next_second_begins_anew(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial:
        for _ in range(5):
            async with connected(dial):
                pass
        with pytest.raises(Refused) as caught:
            async with connected(dial):
                pass
        assert caught.value.status == 429
        assert caught.value.headers[b"remaining-req"] == b"group=websocket; min=300; sec=0"
        await trio.sleep(1)
        async with connected(dial):
            pass
    seen = exchange.statistics().groups["websocket-connect"]
    assert (seen.requests, seen.refused, seen.greatest_per_second) == (7, 1, 6)


async def test_an_origin_has_one_connection_per_ten_seconds(autojump_clock):
    async with dialling(make()) as dial:
        async with connected(dial, headers=[("origin", "http://browser")]) as peer:
            assert peer.headers[b"remaining-req"] == b"group=origin; min=6; sec=0"
        with pytest.raises(Refused):
            async with connected(dial, headers=[("origin", "http://browser")]):
                pass


@pytest.mark.parametrize(
    ("header", "status"),
    [("sec-websocket-version: 12", 426), ("sec-websocket-version: 13\r\nsec-websocket-key:", 101), ("x: y", 400)],
)
async def test_a_handshake_that_is_none_is_refused_and_the_connection_still_speaks_http(header, status, autojump_clock):
    head = f"GET /websocket/v1 HTTP/1.1\r\nhost: sim\r\nupgrade: websocket\r\nconnection: Upgrade\r\n{header}\r\n\r\n"
    async with dialling(make()) as dial, await dial() as stream:
        await stream.send_all(head.encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 %d " % status)
        if status != 101:
            await stream.send_all(b"GET /sim/stats HTTP/1.1\r\nhost: sim\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_other_paths_do_not_speak_websocket(autojump_clock):
    async with dialling(make()) as dial:
        with pytest.raises(Refused) as caught:
            async with connected(dial, path="/websocket/v2"):
                pass
    assert caught.value.status == 404


async def test_messages_are_compressed_if_and_only_if_the_client_offers_it(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as plain, connected(dial, deflate=True) as packed:
        assert (len(plain.extensions), len(packed.extensions)) == (0, 1)
        for peer in (plain, packed):
            await peer.subscribe(("orderbook", BTC), ("trade", BTC))
        told = [[item.data for item in await peer.hear(5)] for peer in (plain, packed)]
    assert len(told[0]) > 10
    assert told[0] == told[1][: len(told[0])]


# What is asked


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            [{"ticket": "a"}, {"type": "ticker", "codes": [BTC]}],
            ("a", "DEFAULT", [("ticker", (BTC,), "0", False, False)]),
        ),
        (
            [{"ticket": "a"}, {"format": "SIMPLE"}, {"type": "trade", "codes": [BTC], "isOnlyRealtime": True}],
            ("a", "SIMPLE", [("trade", (BTC,), "0", False, True)]),
        ),
        (
            [
                {"type": "orderbook", "codes": ["KRW-BTC.15", ETH], "level": 10000, "is_only_snapshot": True},
                {"type": "orderbook", "codes": [BTC], "level": 0.1},
                {"ticket": "b"},
                {"format": "JSON_LIST"},
            ],
            (
                "b",
                "JSON_LIST",
                [("orderbook", ("KRW-BTC.15", ETH), "10000", True, False), ("orderbook", (BTC,), "0.1", False, False)],
            ),
        ),
        (
            [{"ticket": "a"}, {"type": "candle.240m", "codes": ["krw-btc", "KRW-NOPE"], "isOnlySnapshot": False}],
            ("a", "DEFAULT", [("candle.240m", ("krw-btc", "KRW-NOPE"), "0", False, False)]),
        ),
    ],
)
def test_a_request_is_understood_in_any_order_and_spelling(message, expected):
    request = parse_message(json.dumps(message).encode())
    assert isinstance(request, Subscribe)
    wanted = [(each.type, each.codes, each.level, each.only_snapshot, each.only_realtime) for each in request.wanted]
    assert (request.ticket, request.format, wanted) == expected


TICKET = {"ticket": "a"}
WRONG = [
    ("{", "WRONG_FORMAT"),
    ("ping", "WRONG_FORMAT"),
    ("[" * 100_000, "WRONG_FORMAT"),
    ({"ticket": "a"}, "WRONG_FORMAT"),
    ([1], "WRONG_FORMAT"),
    ([TICKET, {"type": "ticker", "codes": [1]}], "WRONG_FORMAT"),
    ([TICKET, {"type": "ticker", "codes": [BTC]}, {"format": "XML"}], "WRONG_FORMAT"),
    ([TICKET, {"type": "ticker", "codes": [BTC]}, {"format": ["SIMPLE"]}], "WRONG_FORMAT"),
    ([TICKET, {"type": "orderbook", "codes": [BTC], "level": [1]}], "WRONG_FORMAT"),
    ([TICKET, {"type": "orderbook", "codes": [BTC], "level": True}], "WRONG_FORMAT"),
    ('[{"ticket":"a"},{"type":"orderbook","codes":["KRW-BTC"],"level":1e999999999}]', "WRONG_FORMAT"),
    ([], "NO_TICKET"),
    ([{"type": "ticker", "codes": [BTC]}], "NO_TICKET"),
    ([{"ticket": ""}], "NO_TICKET"),
    ([{"ticket": 5}], "NO_TICKET"),
    ([TICKET], "NO_TYPE"),
    ([TICKET, {"codes": [BTC]}], "NO_TYPE"),
    ([TICKET, {"type": "nope", "codes": [BTC]}], "INVALID_PARAM"),
    ([TICKET, {"type": "candle.1h", "codes": [BTC]}], "INVALID_PARAM"),
    ([TICKET, {"type": "myOrder"}], "INVALID_AUTH"),
    ([TICKET, {"type": "ticker"}], "NO_CODES"),
    ([TICKET, {"type": "ticker", "codes": []}], "NO_CODES"),
    ([TICKET, {"type": "ticker", "codes": BTC}], "NO_CODES"),
]


@pytest.mark.parametrize(("message", "name"), WRONG)
def test_what_makes_no_sense_has_a_name(message, name):
    text = message if isinstance(message, str) else json.dumps(message)
    with pytest.raises(BadMessage) as caught:
        parse_message(text.encode())
    assert caught.value.name == name


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["ticker", BTC, "SIMPLE", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ticket", "type", "codes", "level", "format", "method"]), inner)
    ),
    max_leaves=12,
)


@given(st.one_of(values.map(json.dumps).map(str.encode), st.binary(max_size=30)))
def test_any_message_is_understood_or_answered_with_an_error(message):
    with contextlib.suppress(BadMessage):
        assert isinstance(parse_message(message), Subscribe | Listing)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("hello", "WRONG_FORMAT"),
        ("[]", "NO_TICKET"),
        ('[{"ticket":"a"},{"type":"nope","codes":["KRW-BTC"]}]', "INVALID_PARAM"),
        ('[{"ticket":"a"},{"type":"myAsset"}]', "INVALID_AUTH"),
    ],
)
async def test_an_error_is_told_in_korean_and_the_connection_closed_a_little_later(message, name, autojump_clock):
    async with peer_of(make()) as peer:
        await peer.say(message)
        error, close, end = await peer.hear(60)
    # The order of the keys is that of the captured errors.
    assert error.data.startswith(b'{"error":{"message"') == (name in ("WRONG_FORMAT", "INVALID_PARAM"))
    assert error.json == {"error": {"name": name, "message": KOREAN[name]}}
    assert (error.kind, error.at_s) == ("bytes", 0)
    assert (close.kind, close.data) == ("close", 1000)
    assert 0.15 <= close.at_s <= 0.18
    assert end.kind == "end"


async def test_other_regions_tell_errors_in_english(autojump_clock):
    async with peer_of(make(region="sg")) as peer:
        await peer.say('[{"ticket":"a"},{"type":"nope"}]')
        error = (await peer.hear(1))[0].json["error"]
    assert error == {"name": "INVALID_PARAM", "message": "type nope is not supported."}


async def test_a_request_in_binary_frames_or_in_parts_is_understood_too(autojump_clock):
    request = json.dumps([TICKET, {"type": "ticker", "codes": [BTC]}]).encode()
    half = len(request) // 2
    masked = [b"\x02", b"\x80"]
    async with peer_of(make()) as peer:
        for opcode, part in zip(masked, (request[:half], request[half:]), strict=True):
            await peer.stream.send_all(opcode + bytes([0x80 | len(part)]) + b"\0\0\0\0" + part)
        assert frames(await peer.hear(1), "ticker")


# What is told


async def test_snapshots_come_in_two_bursts_and_each_market_once(autojump_clock):
    async with peer_of(make(markets=9)) as peer:
        codes = make(markets=9).world.markets
        await peer.subscribe(("trade", *codes))
        heard = [item for item in await peer.hear(2) if item.json["stream_type"] == "SNAPSHOT"]
    assert sorted(item.json["code"] for item in heard) == sorted(codes)
    times = {round(item.at_s, 3) for item in heard}
    assert times == {0.18, 0.342}


async def test_snapshots_come_at_once_if_told_to(autojump_clock):
    async with peer_of(make(snapshot_s=0)) as peer:
        await peer.subscribe(("ticker", *make().world.markets))
        heard = await peer.hear(0.01)
    assert [frame["stream_type"] for frame in frames(heard)] == ["SNAPSHOT"] * 3


async def test_the_snapshot_of_a_market_comes_first_and_nothing_older_after_it_but_trades(autojump_clock):
    async with peer_of(make(markets=9)) as peer:
        codes = make(markets=9).world.markets
        for _ in range(3):  # also for those that were listened to before
            await peer.subscribe(("orderbook", *codes), ("trade", *codes), ("ticker", *codes), ("candle.1s", *codes))
            known: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for frame in frames(await peer.hear(5)):
                known.setdefault((frame["type"], frame["code"]), []).append(frame)
            assert len(known) == 4 * 9
            for (type, _), told in known.items():
                kinds = [frame["stream_type"] for frame in told]
                assert kinds.count("SNAPSHOT") == 1
                assert kinds[0] == "SNAPSHOT" or type.startswith("candle")
                stamps = [frame["timestamp"] for frame in told[1 if type == "trade" else 0 :]]
                assert stamps == sorted(stamps)


async def test_no_trade_is_lost_where_a_request_replaces_another(autojump_clock):
    world = World(markets=3)
    seen: set[int] = set()
    async with peer_of(make(minute_limit=1000)) as peer:
        for _ in range(130):
            await peer.subscribe(("trade", ETH, BTC))
            seen |= {frame["sequential_id"] for frame in frames(await peer.hear(0.3)) if frame["code"] == BTC}
        seen |= {frame["sequential_id"] for frame in frames(await peer.hear(1.0)) if frame["code"] == BTC}
    real = {deal.sequential_id for deal in world.trades(BTC, EPOCH_MS + 500, EPOCH_MS + 39_500, now_ms())}
    assert len(real) > 10
    assert real <= seen


async def test_trades_are_the_markets_own_none_missing(autojump_clock):
    world = World(markets=3)
    async with peer_of(make()) as peer:
        await peer.subscribe({"type": "trade", "codes": [BTC, ETH], "is_only_realtime": True})
        heard = frames(await peer.hear(120))
    for code in (BTC, ETH):
        told = [frame["sequential_id"] for frame in heard if frame["code"] == code]
        true = [deal.sequential_id for deal in world.trades(code, EPOCH_MS + 200, EPOCH_MS + 119_800, now_ms())]
        assert len(true) > 10
        first, last = told.index(true[0]), told.index(true[-1])
        assert told[first : last + 1] == true


async def test_tickers_books_and_candles_agree_with_the_world(autojump_clock):
    world = World(markets=3)
    async with peer_of(make()) as peer:
        await peer.subscribe(("ticker", BTC), ("orderbook", BTC), ("candle.1m", BTC))
        heard = frames(await peer.hear(110))
    ticker = [frame for frame in heard if frame["type"] == "ticker"][-1]
    assert ticker["trade_price"] * 10**8 == world.ticker(BTC, ticker["trade_timestamp"]).last.price
    book = [frame for frame in heard if frame["type"] == "orderbook"][-1]
    true = world.orderbook(BTC, book["timestamp"])
    assert [Decimal(str(unit["ask_price"])) for unit in book["orderbook_units"]] == [
        Decimal(shortest(price)) for price, _ in true.asks
    ]
    minute_ms = EPOCH_MS - EPOCH_MS % 60_000 + 60_000
    (closed,) = world.candles(BTC, Timeframe.M1, minute_ms, minute_ms + 60_000, now_ms())
    told = [frame for frame in heard if frame["type"] == "candle.1m" and frame["candle_date_time_utc"][14:16] == "14"]
    assert told[-1]["trade_price"] * 10**8 == closed.close
    assert Decimal(str(told[-1]["candle_acc_trade_volume"])) == Decimal(shortest(closed.volume))


async def test_a_request_replaces_the_one_before_entirely(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await peer.subscribe(("trade", BTC), ("ticker", BTC))
        await peer.hear(5)
        await peer.subscribe(("orderbook", ETH))
        await trio.testing.wait_all_tasks_blocked()
        assert exchange.statistics().streams.codes == {"orderbook": [ETH]}
        after = frames(await peer.hear(10))
    assert {(frame["type"], frame["code"]) for frame in after} == {("orderbook", ETH)}


async def test_what_nobody_knows_is_met_with_silence(autojump_clock):
    async with peer_of(make()) as peer:
        await peer.subscribe(("ticker", "KRW-NOPE", "krw-btc"), {"type": "orderbook", "codes": ["BTC-ETH"], "level": 5})
        assert await peer.hear(30) == []
        await peer.ping()
        assert [item.kind for item in await peer.hear(1)] == ["pong"]


@pytest.mark.parametrize(
    ("format", "key", "listed"),
    [("DEFAULT", "code", False), ("SIMPLE", "cd", False), ("JSON_LIST", "code", True), ("SIMPLE_LIST", "cd", True)],
)
async def test_formats_apply_to_every_message(format, key, listed, autojump_clock):
    async with peer_of(make()) as peer:
        await peer.subscribe(("ticker", BTC), format=format)
        told = frames_of_any_shape(await peer.hear(5))
    assert all(isinstance(frame, list) is listed for frame in told)
    assert {(frame[0] if listed else frame)[key] for frame in told} == {BTC}


def frames_of_any_shape(heard: list[Any]) -> list[Any]:
    return [item.json for item in heard]


async def test_subscriptions_are_listed_without_being_replaced(autojump_clock):
    async with peer_of(make()) as peer:
        await peer.subscribe(("ticker", BTC, ETH), {"type": "orderbook", "codes": [BTC], "level": 10000})
        await peer.say({"ticket": "mine"}, {"method": "LIST_SUBSCRIPTIONS"})
        listing = frames_of_any_shape(await peer.hear(0.01))[0]
        assert listing == {
            "method": "LIST_SUBSCRIPTIONS",
            "result": [
                {"type": "ticker", "codes": [BTC, ETH]},
                {"type": "orderbook", "codes": [BTC], "level": 10000},
            ],
            "ticket": "mine",
        }
        await peer.say({"ticket": "mine"}, {"method": "LIST_SUBSCRIPTIONS"}, {"format": "SIMPLE"})
        heard = frames_of_any_shape(await peer.hear(5))
    assert heard[0]["rslt"][1] == {"ty": "orderbook", "cds": [BTC], "lv": 10000}
    assert {frame["ty"] for frame in heard[1:]} == {"ticker", "orderbook"}


# Signs of life, and ends


async def test_a_ping_is_answered_at_once_with_what_it_carried(autojump_clock):
    async with peer_of(make()) as peer:
        await trio.sleep(3)
        await peer.ping(b"hello")
        assert await peer.hear(1) == [(3.0, "pong", b"hello")]


async def test_the_text_ping_brings_a_sign_of_life_on_the_exchanges_own_tick(autojump_clock):
    async with peer_of(make()) as peer:
        await trio.sleep(3)
        await peer.say("PING")
        await peer.say("PING")
        assert [(item.at_s, item.json) for item in await peer.hear(30)] == [
            (10.0, {"status": "UP"}),
            (20.0, {"status": "UP"}),
            (30.0, {"status": "UP"}),
        ]


async def test_a_silent_connection_is_dropped_without_a_close_frame(autojump_clock):
    async with peer_of(make()) as peer:
        assert await peer.hear(100) == [(60.0, "end", None)]


async def test_any_byte_in_or_out_keeps_a_connection(autojump_clock):
    async with peer_of(make(idle_s=5.0)) as peer:
        heard = []
        for _ in range(3):
            heard += await peer.hear(4)
            await peer.ping()
        heard += await peer.hear(100)
    assert [(item.at_s, item.kind) for item in heard] == [(4, "pong"), (8, "pong"), (12, "pong"), (17, "end")]


async def test_a_close_is_answered_with_the_same_code(autojump_clock):
    async with peer_of(make()) as peer:
        await peer.subscribe(("ticker", BTC))
        await peer.close()
        assert [(item.kind, item.data) for item in await peer.hear(5)] == [("close", 1000), ("end", None)]


async def test_a_close_that_is_not_answered_ends_the_connection_after_a_while(autojump_clock):
    async with peer_of(make(), answers_close=False) as peer:
        await peer.say("nonsense")
        heard = await peer.hear(60)
    assert [item.kind for item in heard] == ["bytes", "close", "end"]
    assert heard[2].at_s - heard[1].at_s == pytest.approx(CLOSE_S)


async def test_pings_between_an_error_and_its_close_and_after_it_do_no_harm(autojump_clock):
    async with peer_of(make(), answers_close=False) as peer:
        await peer.say("nonsense")
        await peer.ping()
        heard = await peer.hear(1)
        await peer.stream.send_all(b"\x89\x80\0\0\0\0")
        heard += await peer.hear(60)
    assert [item.kind for item in heard] == ["bytes", "pong", "close", "end"]


@pytest.mark.parametrize("sent", [b"\xf3\x80\0\0\0\0", b"\x81\x01x", b"\x88\x81\0\0\0\0x", b"\0" * 100])
async def test_bytes_that_are_no_websocket_end_the_connection_with_1002(sent, autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await peer.stream.send_all(sent)
        heard = await peer.hear(5)
        assert [(item.kind, item.data) for item in heard] == [("close", 1002), ("end", None)]
    assert exchange.connections_open == 0


async def test_a_message_that_is_too_long_is_refused_with_1009(autojump_clock):
    async with peer_of(make()) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.say, "x" * (MAX_MESSAGE + 1))
        assert [(item.kind, item.data) for item in await peer.hear(5)] == [("close", 1009), ("end", None)]


async def test_a_client_that_leaves_without_a_word_is_forgotten(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial:
        async with connected(dial) as peer:
            await peer.subscribe(("orderbook", BTC))
            await peer.hear(1)
        await trio.sleep(1)
        assert exchange.statistics().streams.connections == {"open": 0, "total": 1}
        assert exchange.connections_open == 0


# Limits


async def test_the_sixth_message_of_a_second_is_refused_and_the_connection_closed(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        for _ in range(6):
            await peer.subscribe(("ticker", BTC))
        heard = await peer.hear(5)
        errors = [item.json["error"] for item in heard if item.kind == "bytes" and "error" in item.json]
        assert [error["name"] for error in errors] == ["TOO_MANY_REQUEST"]
        assert [item.data for item in heard if item.kind == "close"] == [1000]
    seen = exchange.statistics()
    assert seen.groups["websocket-message"].requests == 6
    assert seen.groups["websocket-message"].refused == 1
    assert seen.groups["websocket-message"].greatest_per_second == 6
    assert seen.groups["websocket-message"].greatest_accepted_per_second == 5
    assert (seen.streams.subscribes, seen.streams.greatest_subscribes) == (5, 5)


async def test_a_message_too_many_can_be_refused_without_a_close(autojump_clock):
    async with peer_of(make(excess="keep")) as peer:
        for _ in range(7):
            await peer.subscribe(("ticker", BTC))
        heard = await peer.hear(5)
        names = [item.json["error"]["name"] for item in heard if "error" in item.json]
        assert names == ["TOO_MANY_REQUEST"] * 2
        assert "close" not in {item.kind for item in heard}
        assert frames(heard, "ticker")


async def test_the_hundred_and_first_message_of_a_minute_is_refused(autojump_clock):
    exchange = make(window="rolling")
    async with peer_of(exchange) as peer:
        for _ in range(100):
            await peer.say("PING")
            await trio.sleep(0.25)
        assert not [item for item in await peer.hear(0.1) if item.kind == "close"]
        await peer.say("PING")
        assert "close" in {item.kind for item in await peer.hear(1)}
    assert exchange.statistics().streams.greatest_per_minute == 101


async def test_messages_are_counted_for_each_connection_alone(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as one, connected(dial) as other:
        for _ in range(4):
            await one.say("PING")
            await other.say("PING")
        await one.hear(0.1)
        seen = exchange.statistics().groups["websocket-message"]
    assert (seen.requests, seen.refused, seen.greatest_per_second) == (8, 0, 4)


# What was seen


async def test_statistics_count_connections_frames_and_codes_and_a_reset_forgets_what_is_past(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial:
        async with connected(dial) as gone:
            await gone.subscribe(("ticker", BTC))
            await gone.hear(1)
        async with connected(dial) as peer:
            await peer.subscribe(("trade", BTC, ETH), ("candle.1m", BTC))
            heard = frames(await peer.hear(10), "trade")
            streams = exchange.statistics().streams
            assert streams.connections == {"open": 1, "total": 2}
            assert streams.codes == {"candle.1m": [BTC], "trade": [BTC, ETH]}
            assert streams.frames["trade"] == len(heard)
            assert {"ticker", "trade", "candle.1m"} == set(streams.frames)
            assert (streams.subscribes, streams.greatest_subscribes) == (2, 1)
            exchange.reset()
            streams = exchange.statistics().streams
            assert streams.connections == {"open": 1, "total": 1}
            assert (streams.frames, streams.subscribes) == ({}, 0)
            assert streams.codes == {"candle.1m": [BTC], "trade": [BTC, ETH]}


# The way


async def test_latency_delays_the_handshake_by_two_round_trips_and_frames_by_half_of_one(autojump_clock):
    async with peer_of(make(latency_s=0.4, snapshot_s=0.0)) as peer:
        assert trio.current_time() == pytest.approx(0.8)
        await peer.ping()
        await peer.subscribe({"type": "ticker", "codes": [BTC], "is_only_snapshot": True})
        heard = await peer.hear(5)
    assert [(item.kind, item.at_s) for item in heard] == [
        ("pong", pytest.approx(1.2)),
        ("bytes", pytest.approx(1.2)),
    ]


async def test_jitter_does_not_let_frames_overtake_each_other(autojump_clock):
    async with peer_of(make()) as peer:
        await peer.subscribe(("orderbook", BTC))
        calm = [frame["timestamp"] for frame in frames(await peer.hear(20))]
    async with peer_of(make(latency_s=0.05, jitter_s=0.8)) as peer:
        await peer.subscribe(("orderbook", BTC))
        shaken = [item for item in await peer.hear(20) if item.kind == "bytes"]
    stamps = [item.json["timestamp"] for item in shaken]
    assert stamps == sorted(stamps)
    assert len(set(calm)) > 100
    # The same frames, but not with the same distances.
    gaps = {round(later.at_s - sooner.at_s, 3) for sooner, later in pairwise(shaken)}
    assert len(gaps) > 10


async def test_a_client_that_does_not_read_is_left_and_disturbs_nobody(autojump_clock):
    exchange = make(markets=9)
    codes = exchange.world.markets
    async with dialling(exchange) as dial, connected(dial) as good, connected(dial) as lazy:
        await lazy.subscribe(("orderbook", *codes))
        await good.subscribe(("orderbook", BTC))
        exchange.flood(2000, 3.0)
        heard = await good.hear(STALLED_S + 5)
        assert exchange.statistics().streams.connections["open"] == 1
        assert len(heard) > 200
        assert max(later.at_s - sooner.at_s for sooner, later in pairwise(heard)) < 0.5


async def test_a_client_that_lets_too_much_pile_up_is_left_sooner(autojump_clock, monkeypatch):
    monkeypatch.setattr(websocket, "MAX_BACKLOG", 2_000_000)
    exchange = make(snapshot_s=0.0)
    async with peer_of(exchange) as peer:
        await peer.subscribe(("orderbook", BTC))
        await peer.hear(0.01)
        exchange.flood(5_000, 1.0)
        await trio.sleep(STALLED_S / 2)
        assert exchange.statistics().streams.connections["open"] == 0


# A flood


async def test_a_flood_is_exactly_as_many_frames_as_asked_spread_evenly_over_everything(autojump_clock):
    exchange = make(snapshot_s=0.0)
    async with dialling(exchange) as dial, connected(dial) as one, connected(dial) as other:
        await one.subscribe(("trade", BTC, ETH))
        await other.subscribe(("ticker", BTC), ("orderbook", BTC))
        for peer in (one, other):
            await peer.hear(0.01)
        exchange.reset()
        exchange.flood(1000, 2.0)
        heard = [frames(await peer.hear(seconds)) for peer, seconds in ((one, 1.998), (other, 0.001))]
        await trio.sleep(1)
        streams = exchange.statistics().streams
    pairs = Counter((frame["type"], frame["code"]) for told in heard for frame in told)
    assert len(pairs) == 4
    assert set(pairs.values()) <= {499, 500}
    assert (streams.flood.due, streams.flood.frames, streams.flood.trades) == (2000, 2000, 1000)
    assert not streams.flood.running


async def test_the_ids_of_a_flood_rise_and_their_sum_proves_that_none_is_lost(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await peer.subscribe({"type": "trade", "codes": [BTC, ETH], "is_only_realtime": True})
        exchange.flood(5000, 1.0)
        told = frames(await peer.hear(1.001))
        ids = [frame["sequential_id"] for frame in told]
        assert len(ids) == 5000
        assert ids == sorted(set(ids))
        assert {len(str(each)) for each in ids} == {17}
        assert sum(ids) % 2**63 == exchange.statistics().streams.flood.trade_ids
        assert {frame["stream_type"] for frame in told} == {"REALTIME"}
        for frame in told:
            assert frame["timestamp"] == frame["trade_timestamp"] == pytest.approx(frame["sequential_id"] / 10_000, 2)


@pytest.mark.parametrize("deflate", [False, True])
async def test_a_flood_speaks_every_format_compressed_or_not(deflate, autojump_clock):
    async with dialling(make()) as dial:
        for format in ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"):
            exchange = make(snapshot_s=0.0)
            async with dialling(exchange) as dial, connected(dial, deflate=deflate) as peer:
                await peer.subscribe(("trade", BTC), ("orderbook", BTC), ("candle.1m", BTC), format=format)
                exchange.flood(400, 1.0)
                told = frames_of_any_shape(await peer.hear(0.99))
            plain = [frame[0] if format.endswith("LIST") else frame for frame in told]
            key = "tms" if format.startswith("SIMPLE") else "timestamp"
            assert len({frame[key] for frame in plain}) > 100


async def test_the_market_is_silent_during_a_flood_and_does_not_make_up_for_it(autojump_clock):
    exchange = make()
    world = World(markets=3)
    async with peer_of(exchange) as peer:
        await peer.subscribe({"type": "trade", "codes": [BTC], "is_only_realtime": True})
        exchange.flood(10, 30.0)
        during = frames(await peer.hear(30.001))
        after = frames(await peer.hear(30.0))
    assert len(during) == 300
    real = {deal.sequential_id for deal in world.trades(BTC, EPOCH_MS, now_ms(), now_ms())}
    assert not real & {frame["sequential_id"] for frame in during}
    assert {frame["sequential_id"] for frame in after} <= real
    assert min(frame["timestamp"] for frame in after) > EPOCH_MS + 29_900


async def test_a_flood_can_be_asked_for_seen_and_ended_over_http(autojump_clock):
    exchange = make()

    async def control(method: str, body: bytes = b"") -> tuple[int, Any]:
        reply = await exchange.handle(SimRequest(method, "/sim/flood", {}, body))
        return reply.status, json.loads(reply.body)

    assert (await control("POST", b'{"per_second": 100, "for_s": 60}'))[1]["running"]
    assert (await control("GET"))[1] == {"running": True, "due": 0, "frames": 0, "trades": 0, "trade_ids": 0}
    assert not (await control("DELETE"))[1]["running"]
    for body in (b"", b"[]", b'{"per_second": 0}', b'{"per_second": 1, "for_s": -1}', b'{"per_second": "x"}'):
        status, answer = await control("POST", body)
        assert status == 400
        assert "per_second" in answer["error"]["message"]


async def test_streams_are_part_of_the_statistics_over_http(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await peer.subscribe(("ticker", BTC))
        await peer.hear(1)
        streams = json.loads((await exchange.handle(SimRequest("GET", "/sim/stats"))).body)["streams"]
    assert streams["connections"] == {"open": 1, "total": 1}
    assert streams["codes"] == {"ticker": [BTC]}
    assert streams["frames"]["ticker"] >= 1
