"""WebSocket, row by row: a client that sees every frame, and the simulator in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from conformance.desk import utc_ms
from ws_peer import Heard, Refused, connected, dialling, frames, peer_of

from marketpipe.clock import TrioClock
from marketpipe.sim import SimConfig, SimExchange

EPOCH_MS = utc_ms("2026-10-07T13:20:57")  # three seconds before a minute
BTC, ETH = "KRW-BTC", "KRW-ETH"
STREAMS = ["ticker", "trade", "orderbook", "candle.1s", *(f"candle.{unit}m" for unit in (1, 3, 5, 10, 15, 30, 60, 240))]
TICKET = {"ticket": "t"}


def make(**options: Any) -> SimExchange:
    return SimExchange(SimConfig(**{"markets": 9, **options}), TrioClock(EPOCH_MS))


async def told(*types: Any, format: str | None = None, for_s: float = 5.0, **options: Any) -> list[Heard]:
    async with peer_of(make(**options)) as peer:
        await peer.subscribe(*types, format=format)
        return await peer.hear(for_s)


async def answered(message: Any, **options: Any) -> list[Heard]:
    async with peer_of(make(**options)) as peer:
        await peer.say(message if isinstance(message, str) else json.dumps(message))
        return await peer.hear(5)


# What makes no sense: row, message, name, Korean, English

ERRORS = [
    ("5.5/WRONG_FORMAT", "hello", "WRONG_FORMAT", "Format 이 맞지 않습니다.", "Requested using wrong format."),
    ("5.5/WRONG_FORMAT", {"ticket": "t"}, "WRONG_FORMAT", "Format 이 맞지 않습니다.", "Requested using wrong format."),
    (
        "5.5/NO_TICKET",
        [{"type": "ticker", "codes": [BTC]}],
        "NO_TICKET",
        "티켓이 존재하지 않거나, 유효하지 않습니다.",
        "Ticket field must be contained.",
    ),
    ("5.5/NO_TYPE", [TICKET, {"codes": [BTC]}], "NO_TYPE", None, None),
    ("5.5/NO_CODES", [TICKET, {"type": "ticker"}], "NO_CODES", None, "codes field not exists."),
    (
        "5.5/INVALID_PARAM",
        [TICKET, {"type": "nope", "codes": [BTC]}],
        "INVALID_PARAM",
        "nope 은 지원하지 않는 타입입니다.",
        "type nope is not supported.",
    ),
    ("5.5/INVALID_AUTH", [TICKET, {"type": "myOrder"}], "INVALID_AUTH", "인증 정보가 올바르지 않습니다.", None),
    ("5.3/no-days", [TICKET, {"type": "candle.1d", "codes": [BTC]}], "INVALID_PARAM", None, None),
]


@pytest.mark.parametrize(("row", "message", "name", "korean", "english"), ERRORS, ids=[case[0] for case in ERRORS])
async def test_nonsense_is_named_and_ends_in_a_close(row, message, name, korean, english, autojump_clock):
    for region, text in (("kr", korean), ("id", english)):
        error, close, end = await answered(message, region=region)
        assert error.kind == "bytes"
        assert set(error.json) == {"error"}
        assert error.json["error"].keys() == {"name", "message"}
        assert error.json["error"]["name"] == name
        assert text is None or error.json["error"]["message"] == text
        assert (close.kind, close.data, end.kind) == ("close", 1000, "end")
        assert 0.15 <= close.at_s - error.at_s <= 0.18


# What a subscription tells

ABBREVIATIONS = {
    "5.3/ticker": (
        "ticker",
        "ty cd op hp lp tp pcp atp c cp scp cr scr ab tv atv tdt ttm ttms aav abv h52wp h52wdt l52wp l52wdt ms its "
        "dd mw tms atp24h atv24h st",
    ),
    "5.3/trade": ("trade", "ty cd tms td ttm ttms tp tv ab pcp c cp sid bap bas bbp bbs st"),
    "5.3/orderbook": ("orderbook", "ty cd tms tas tbs obu st lv"),
    "5.3/candle": ("candle.1m", "ty cd cdttmu cdttmk op hp lp tp catv catp tms st"),
}


@pytest.mark.parametrize("row", ABBREVIATIONS)
async def test_a_frame_has_exactly_the_documented_fields_in_both_formats(row, autojump_clock):
    stream, names = ABBREVIATIONS[row]
    simple = [item.json for item in await told((stream, BTC), format="SIMPLE")]
    default = [item.json for item in await told((stream, BTC))]
    assert {frozenset(frame) for frame in simple} == {frozenset(names.split())}
    assert len({tuple(frame) for frame in default}) == 1
    assert len(default[0]) == len(simple[0])
    assert simple[0]["cd"] == default[0]["code"] == BTC


async def every_type_is_told() -> None:
    for stream in STREAMS:
        assert {item.json["type"] for item in await told((stream, BTC), for_s=3)} == {stream}


async def everything_is_binary() -> None:
    async with peer_of(make()) as peer:
        await peer.subscribe(*((stream, BTC, ETH) for stream in STREAMS))
        await peer.say("PING")
        await peer.say({"ticket": "t"}, {"method": "LIST_SUBSCRIPTIONS"})
        heard = await peer.hear(12)
        await peer.say("nonsense")
        heard += await peer.hear(0.1)
    assert {item.kind for item in heard} == {"bytes"}
    assert all(isinstance(item.json, dict) for item in heard)
    assert {"status", "method", "error"} <= {next(iter(item.json)) for item in heard}


async def it_is_compressed_only_if_offered() -> None:
    async with dialling(make()) as dial:
        for deflate in (False, True):
            async with connected(dial, deflate=deflate) as peer:
                assert bool(peer.extensions) is deflate


async def there_are_no_pings_but_pongs_and_signs_of_life() -> None:
    async with peer_of(make()) as peer:
        await peer.ping(b"x")
        assert [(item.kind, item.data) for item in await peer.hear(5)] == [("pong", b"x")]
        await peer.say("PING")
        heard = await peer.hear(40)
    assert {item.kind for item in heard} == {"bytes"}
    assert [item.json for item in heard] == [{"status": "UP"}] * 4
    assert {round(later.at_s - sooner.at_s, 3) for sooner, later in pairwise(heard)} == {10.0}


async def silence_ends_a_connection_without_a_close() -> None:
    for options, idle_s in (({}, 60.0), ({"idle_s": 120.0}, 120.0)):
        async with peer_of(make(**options)) as peer:
            opened_s = trio.current_time()
            assert [(item.kind, item.at_s - opened_s) for item in await peer.hear(200)] == [("end", idle_s)]


async def a_ticket_can_be_anything_but_must_be() -> None:
    assert await answered([{"ticket": "한글-😀"}, {"type": "ticker", "codes": [BTC]}])
    assert (await answered([{"ticket": ""}, {"type": "ticker", "codes": [BTC]}]))[0].json["error"][
        "name"
    ] == "NO_TICKET"


async def a_suffix_is_the_number_of_units() -> None:
    for suffix, units in ((".1", 1), (".5", 5), (".15", 15), (".30", 30), ("", 30)):
        books = frames(await told(("orderbook", BTC + suffix), for_s=2), "orderbook")
        assert {(book["code"], len(book["orderbook_units"])) for book in books} == {(BTC, units)}


async def any_other_suffix_is_thirty_units() -> None:
    for suffix in (".2", ".3", ".20"):
        books = frames(await told(("orderbook", BTC + suffix), for_s=2), "orderbook")
        assert {len(book["orderbook_units"]) for book in books} == {30}


async def a_level_groups_krw_books_only() -> None:
    def wish(code: str) -> dict[str, Any]:
        return {"type": "orderbook", "codes": [code], "level": 10_000}

    books = frames(await told(wish(BTC), for_s=2), "orderbook")
    assert {book["level"] for book in books} == {10_000}
    assert not [unit for book in books for unit in book["orderbook_units"] if unit["ask_price"] % 10_000]
    assert await told(wish("USDT-BTC"), wish("BTC-ETH"), for_s=30) == []
    assert {book["level"] for book in frames(await told(("orderbook", BTC)), "orderbook")} == {0}


async def first_or_later_can_be_had_alone() -> None:
    for snapshot, realtime in (("is_only_snapshot", "is_only_realtime"), ("isOnlySnapshot", "isOnlyRealtime")):
        wish = {"type": "trade", "codes": [BTC, ETH]}
        once = [item.json["stream_type"] for item in await told(wish | {snapshot: True}, for_s=10)]
        later = [item.json["stream_type"] for item in await told(wish | {realtime: True}, for_s=10)]
        assert once == ["SNAPSHOT"] * 2
        assert set(later) == {"REALTIME"}


async def a_format_may_stand_anywhere_or_nowhere() -> None:
    wish = {"type": "ticker", "codes": [BTC]}
    for parts, key in (([TICKET, {"format": "SIMPLE"}, wish], "cd"), ([TICKET, wish], "code")):
        assert {item.json[key] for item in await answered(parts)} == {BTC}


async def lists_hold_one_message_each() -> None:
    for format, key in (("JSON_LIST", "code"), ("SIMPLE_LIST", "cd")):
        for item in await told(("ticker", BTC), ("orderbook", BTC), format=format):
            (message,) = item.json
            assert message[key] == BTC


async def several_objects_are_several_wishes() -> None:
    grouped = {"type": "orderbook", "codes": [f"{BTC}.5"], "level": 100_000}
    heard = await told(("orderbook", BTC), grouped, ("trade", ETH), for_s=3)
    books = frames(heard, "orderbook")
    assert {(len(book["orderbook_units"]), book["level"]) for book in books} == {(30, 0), (5, 100_000)}
    assert {frame["code"] for frame in frames(heard, "trade")} == {ETH}


async def snapshots_come_in_two_bursts_and_nothing_before() -> None:
    heard = await told(("ticker", BTC, ETH, "BTC-ETH", "USDT-BTC"), for_s=2)
    assert 0.17 <= heard[0].at_s <= 0.19
    snapshots = [item.at_s for item in heard if item.json["stream_type"] == "SNAPSHOT"]
    assert all(0.17 <= at_s <= 0.19 or 0.33 <= at_s <= 0.35 for at_s in snapshots)
    assert (
        Counter(frame["code"] for frame in frames(heard) if frame["stream_type"] == "SNAPSHOT").most_common(1)[0][1]
        == 1
    )


async def a_request_replaces_the_one_before() -> None:
    async with peer_of(make()) as peer:
        await peer.subscribe(("orderbook", BTC))
        await peer.hear(2)
        await peer.subscribe(("orderbook", ETH))
        assert {frame["code"] for frame in frames(await peer.hear(3))} == {ETH}


async def the_unknown_is_met_with_silence() -> None:
    wishes = [("ticker", "KRW-NOPE"), ("trade", "krw-btc"), {"type": "orderbook", "codes": ["BTC-ETH"], "level": 100}]
    assert await told(*wishes, for_s=30) == []
    assert {frame["code"] for frame in frames(await told(("ticker", "KRW-NOPE", BTC)))} == {BTC}


async def snapshot_then_realtime() -> None:
    heard = frames(await told(("orderbook", BTC)))
    assert [frame["stream_type"] for frame in heard] == ["SNAPSHOT"] + ["REALTIME"] * (len(heard) - 1)
    assert len(heard) > 10


async def tickers_come_on_change() -> None:
    heard = frames(await told(("ticker", BTC), for_s=35))
    assert 20 <= len(heard) <= 120
    assert all(one["trade_timestamp"] < other["trade_timestamp"] for one, other in pairwise(heard))


async def books_are_whole_and_on_a_grid() -> None:
    heard = frames(await told(("orderbook", BTC), for_s=10))[1:]
    stamps = [frame["timestamp"] for frame in heard]
    assert {later - sooner for sooner, later in pairwise(stamps)} == {100}
    assert len({at_ms % 100 for at_ms in stamps}) == 1
    assert {len(frame["orderbook_units"]) for frame in heard} == {30}
    assert {tuple(frame["orderbook_units"][0]) for frame in heard} == {
        ("ask_price", "bid_price", "ask_size", "bid_size")
    }


async def candles_are_looked_at_once_a_second_and_bars_repeat() -> None:
    heard = await told(("candle.1m", BTC), for_s=30)
    later = [item for item in heard if item.json["stream_type"] == "REALTIME"]
    bars = Counter(item.json["candle_date_time_utc"] for item in later)
    assert list(bars) == ["2026-10-07T13:20:00", "2026-10-07T13:21:00"]
    assert max(bars.values()) > 3
    moments = sorted({round(item.at_s, 3) for item in later})
    assert not [gap for gap in (b - a for a, b in pairwise(moments)) if abs(gap - round(gap)) > 0.002]


async def the_last_frame_of_a_bar_comes_up_to_a_second_after_its_end() -> None:
    # The minute ends three seconds after the connection began.
    heard = [item for item in await told(("candle.1m", BTC), for_s=10) if item.json["stream_type"] == "REALTIME"]
    last = [item for item in heard if item.json["candle_date_time_utc"] == "2026-10-07T13:20:00"][-1]
    assert last.at_s < 4.1
    assert "closed" not in last.json


async def subscriptions_can_be_listed() -> None:
    async with peer_of(make()) as peer:
        await peer.subscribe(("ticker", BTC, ETH), ("orderbook", BTC))
        await peer.hear(2)
        await peer.say({"ticket": "x"}, {"method": "LIST_SUBSCRIPTIONS"})
        heard = await peer.hear(2)
        listing = next(item.json for item in heard if "method" in item.json)
        assert listing == {
            "method": "LIST_SUBSCRIPTIONS",
            "result": [{"type": "ticker", "codes": [BTC, ETH]}, {"type": "orderbook", "codes": [BTC], "level": 0}],
            "ticket": "x",
        }
        assert frames(heard, "orderbook")
        await peer.say({"ticket": "x"}, {"method": "LIST_SUBSCRIPTIONS"}, {"format": "SIMPLE"})
        heard = await peer.hear(2)
    listing = next(item.json for item in heard if "mthd" in item.json)
    assert set(listing) == {"mthd", "rslt", "tckt"}
    assert set(listing["rslt"][1]) == {"ty", "cds", "lv"}
    assert {item.json.get("cd") for item in heard[1:]} <= {BTC, ETH, None}
    assert frames(heard[-3:], None)[-1]["ty"] in ("ticker", "orderbook")


async def the_sixth_connection_of_a_second_is_refused() -> None:
    async with dialling(make()) as dial:
        for left in range(4, -1, -1):
            async with connected(dial) as peer:
                assert peer.headers[b"remaining-req"] == b"group=websocket; min=300; sec=%d" % left
                assert peer.headers[b"limit-by-ip"] == b"Yes"
        with pytest.raises(Refused) as caught:
            async with connected(dial):
                pass
    assert caught.value.status == 429


async def too_many_messages(count: int, pause_s: float) -> list[Heard]:
    async with peer_of(make(window="rolling")) as peer:
        for _ in range(count):
            await peer.say({"ticket": "x"}, {"method": "LIST_SUBSCRIPTIONS"})
            await trio.sleep(pause_s)
        return await peer.hear(1)


def names_of_errors(heard: list[Heard]) -> set[str]:
    return {item.json["error"]["name"] for item in heard if item.kind == "bytes" and "error" in item.json}


async def messages_have_a_second_and_a_minute() -> None:
    for enough, pause_s in ((5, 0.0), (100, 0.21)):
        assert "close" not in {item.kind for item in await too_many_messages(enough, pause_s)}
        heard = await too_many_messages(enough + 1, pause_s)
        assert "TOO_MANY_REQUEST" in names_of_errors(heard)


async def an_origin_has_one_connection_in_ten_seconds() -> None:
    async def connect() -> bytes:
        async with connected(dial, headers=[("origin", "https://a.example")]) as peer:
            return peer.headers[b"remaining-req"]

    async with dialling(make(window="rolling")) as dial:
        assert await connect() == b"group=origin; min=6; sec=0"
        await trio.sleep(5)
        with pytest.raises(Refused):
            await connect()
        await trio.sleep(5.1)
        assert await connect() == b"group=origin; min=6; sec=0"


async def trades_are_told_50_to_130_ms_later() -> None:
    heard = frames(await told(("trade", BTC), for_s=60))[1:]
    assert len(heard) > 10
    assert all(50 <= frame["timestamp"] - frame["trade_timestamp"] <= 131 for frame in heard)
    assert all(frame["sequential_id"] // 10_000 == frame["trade_timestamp"] for frame in heard)


async def lost_frames_heal_with_the_next() -> None:
    heard = frames(await told(("orderbook", BTC, "BTC-ETH"), for_s=5))
    world = make().world
    for frame in heard:
        book = world.orderbook(frame["code"], frame["timestamp"])
        assert book.changed_ms == frame["timestamp"]
        asks = [(unit["ask_price"], unit["ask_size"]) for unit in frame["orderbook_units"]]
        assert asks == [(price / 1e8, size / 1e8) for price, size in book.asks]


RULES: dict[str, Callable[[], Awaitable[None]]] = {
    "3/websocket-connect": the_sixth_connection_of_a_second_is_refused,
    "3/websocket-message": messages_have_a_second_and_a_minute,
    "3/origin-websocket": an_origin_has_one_connection_in_ten_seconds,
    "5.1/binary": everything_is_binary,
    "5.1/deflate": it_is_compressed_only_if_offered,
    "5.1/keepalive": there_are_no_pings_but_pongs_and_signs_of_life,
    "5.1/idle": silence_ends_a_connection_without_a_close,
    "5.2/ticket": a_ticket_can_be_anything_but_must_be,
    "5.2/types": every_type_is_told,
    "5.2/codes": a_suffix_is_the_number_of_units,
    "5.2/level": a_level_groups_krw_books_only,
    "5.2/only": first_or_later_can_be_had_alone,
    "5.2/format": a_format_may_stand_anywhere_or_nowhere,
    "5.2/several": several_objects_are_several_wishes,
    "5.2/bursts": snapshots_come_in_two_bursts_and_nothing_before,
    "5.2/replace": a_request_replaces_the_one_before,
    "5.2/silence": the_unknown_is_met_with_silence,
    "5.2/suffix": any_other_suffix_is_thirty_units,
    "5.2/lists": lists_hold_one_message_each,
    "5.3/snapshot-then-realtime": snapshot_then_realtime,
    "5.3/ticker-on-change": tickers_come_on_change,
    "5.3/whole-books": books_are_whole_and_on_a_grid,
    "5.3/candle-each-second": candles_are_looked_at_once_a_second_and_bars_repeat,
    "5.3/candle-last-frame": the_last_frame_of_a_bar_comes_up_to_a_second_after_its_end,
    "5.4/list": subscriptions_can_be_listed,
    "6/websocket-lag": trades_are_told_50_to_130_ms_later,
    "7/same-books": lost_frames_heal_with_the_next,
}


@pytest.mark.parametrize("row", RULES)
async def test_a_rule_of_websocket_holds(row, autojump_clock):
    await RULES[row]()
