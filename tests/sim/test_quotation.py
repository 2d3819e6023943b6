"""The quotation endpoints answer as the exchange does: rules, silences and refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketpipe.core.timeframes import Timeframe, floor, next_open
from marketpipe.sim import quotation
from marketpipe.sim.quotation import Answer, Options
from marketpipe.sim.tape import DUST
from marketpipe.sim.world import World

DAY_MS = 86_400_000
NOW_MS = int(datetime(2026, 10, 7, 13, 21, 34, 567_000, tzinfo=UTC).timestamp() * 1000)
WORLD = World(7, 150)
ERRORS = Path(__file__).parents[3] / "shared" / "payloads" / "rest_errors.jsonl"

NOT_FOUND = (404, "Code not found")
MISSING = (400, "Missing request parameter error. Check the required parameters!")
MISTYPED = (400, "Type mismatch error. Check the parameters type!")
INVALID = (400, "Invalid parameter. Check the given value!")
BAD_UNIT = (400, "specified unit is not valid.")
PATHS = {
    Timeframe.S1: "seconds",
    Timeframe.M1: "minutes/1",
    Timeframe.M15: "minutes/15",
    Timeframe.H1: "minutes/60",
    Timeframe.H4: "minutes/240",
    Timeframe.D1: "days",
    Timeframe.W1: "weeks",
    Timeframe.MONTH: "months",
    Timeframe.Y1: "years",
}


def reply(path: str, now_ms: int = NOW_MS, options: Options | None = None, **query: object) -> Answer:
    pairs = [(name, str(value)) for name, value in query.items()]
    return quotation.answer(WORLD, f"/v1/{path}", pairs, now_ms, options)


def rows(path: str, now_ms: int = NOW_MS, options: Options | None = None, **query: object) -> list[dict[str, Any]]:
    answer = reply(path, now_ms, options, **query)
    assert answer.status == 200, answer
    return json.loads(answer.body, parse_float=Decimal)


def refusal(path: str, options: Options | None = None, **query: object) -> tuple[int, str]:
    answer = reply(path, NOW_MS, options, **query)
    error = json.loads(answer.body)["error"]
    assert error["name"] == answer.status
    return answer.status, error["message"]


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def opens(page: list[dict[str, Any]]) -> list[int]:
    when = (datetime.fromisoformat(row["candle_date_time_utc"]).replace(tzinfo=UTC) for row in page)
    return [int(at.timestamp()) * 1000 for at in when]


# --- errors and routes ---------------------------------------------------------------------------------------------


def test_recorded_errors_come_out_to_the_byte():
    if not ERRORS.exists():
        pytest.skip("no recordings here")
    for line in ERRORS.read_text().splitlines():
        case = json.loads(line)
        url = urlsplit(case["url"])
        answer = quotation.answer(WORLD, url.path, parse_qsl(url.query, keep_blank_values=True), NOW_MS)
        assert answer.status == case["status"], case["case"]
        assert answer.body == json.dumps(case["body"], separators=(",", ":")).encode(), case["case"]


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("market/all", "market"),
        ("ticker", "ticker"),
        ("ticker/all", "ticker"),
        ("orderbook", "orderbook"),
        ("orderbook/instruments", "orderbook"),
        ("orderbook/supported_levels", "orderbook"),
        ("trades/ticks", "crix-trades"),
        ("candles/seconds", "candles"),
        ("candles/minutes/1", "candles"),
        ("candles/minutes/120", "candles"),
        ("candles/minutes/abc", "candles"),
        ("candles/days", "candles"),
        ("candles/weeks", "candles"),
        ("candles/months", "candles"),
        ("candles/years", "candles"),
    ],
)
def test_every_endpoint_belongs_to_its_group_even_when_it_refuses(path, group):
    assert quotation.group_of(f"/v1/{path}") == group
    assert reply(path, surprise="x").group == group


@pytest.mark.parametrize(
    "path", ["", "candles", "candles/minutes", "candles/minutes/", "candles/days/1", "nope", "ticker/"]
)
def test_other_paths_have_no_route_and_no_group(path):
    answer = reply(path)
    assert (answer.status, answer.group) == (404, None)
    assert json.loads(answer.body) == {"error": {"name": "not_found", "message": "no Route matched with those values"}}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("ticker", "markets"),
        ("ticker/all", "quote_currencies"),
        ("orderbook", "markets"),
        ("orderbook/instruments", "markets"),
        ("orderbook/supported_levels", "markets"),
        ("trades/ticks", "market"),
        ("candles/minutes/1", "market"),
        ("candles/days", "market"),
    ],
)
def test_a_required_parameter_must_be_there(path, name):
    assert refusal(path) == MISSING
    assert refusal(path, **{name: "KRW-NOPE"}) == (INVALID if path == "ticker/all" else NOT_FOUND)


@pytest.mark.parametrize("path", ["ticker", "orderbook", "orderbook/instruments", "orderbook/supported_levels"])
@pytest.mark.parametrize("bad", ["KRW-NOPE", "", *WORLD.delisted])
def test_one_unknown_code_refuses_the_whole_batch(path, bad):
    assert refusal(path, markets=f"KRW-BTC,{bad},BTC-ETH") == NOT_FOUND


@pytest.mark.parametrize("path", ["trades/ticks", "candles/minutes/1", "candles/days", "candles/years"])
def test_a_delisted_code_is_as_unknown_as_one_that_never_was(path):
    for code in (*WORLD.delisted, "KRW-NOPE", "krw-btc", ""):
        assert refusal(path, market=code) == NOT_FOUND


@pytest.mark.slow
def test_lower_case_is_accepted_for_order_books_only():
    assert [row["market"] for row in rows("orderbook", markets="krw-btc,Btc-Eth")] == ["KRW-BTC", "BTC-ETH"]
    assert refusal("ticker", markets="krw-btc") == NOT_FOUND


# --- market/all ------------------------------------------------------------------------------------------------------


def test_market_all_lists_every_market_in_an_order_of_its_own():
    listed = [row["market"] for row in rows("market/all")]
    assert sorted(listed) == sorted(code for code in WORLD.markets if WORLD.opening_ms(code) <= NOW_MS)
    assert listed != sorted(listed)
    assert listed == [row["market"] for row in rows("market/all", NOW_MS + 5_000)]
    assert set(rows("market/all")[0]) == {"market", "korean_name", "english_name"}


def test_a_market_appears_when_it_is_listed():
    code = max((code for code in WORLD.markets), key=WORLD.opening_ms)
    opening_ms = WORLD.opening_ms(code)
    assert code not in [row["market"] for row in rows("market/all", opening_ms - 1)]
    assert code in [row["market"] for row in rows("market/all", opening_ms)]
    assert reply("ticker", opening_ms - 1, markets=code).status == 404
    assert rows("ticker", opening_ms, markets=code)[0]["trade_timestamp"] == opening_ms


@pytest.mark.parametrize("name", ["is_details", "isDetails"])
def test_details_add_the_market_event(name):
    details = rows("market/all", **{name: "true"})
    assert all(isinstance(row["market_event"]["warning"], bool) for row in details)
    assert all(len(row["market_event"]["caution"]) == 5 for row in details)
    assert any(any(row["market_event"]["caution"].values()) for row in details)
    assert rows("market/all", **{name: "false"}) == rows("market/all", **{name: ""}) == rows("market/all")
    assert refusal("market/all", **{name: "maybe"}) == MISTYPED


# --- ticker --------------------------------------------------------------------------------------------------------


def test_tickers_come_in_the_order_asked_and_each_market_once():
    asked = ["USDT-BTC", "KRW-BTC", "BTC-ETH", "KRW-BTC"]
    assert [row["market"] for row in rows("ticker", markets=",".join(asked))] == asked[:3]
    each = Options(duplicates="each")
    assert [row["market"] for row in rows("ticker", NOW_MS, each, markets=",".join(asked))] == asked


def test_a_repeated_parameter_is_a_list():
    pairs = [("markets", "KRW-BTC"), ("markets", "BTC-ETH,USDT-BTC")]
    answer = quotation.answer(WORLD, "/v1/ticker", pairs, NOW_MS)
    assert [row["market"] for row in json.loads(answer.body)] == ["KRW-BTC", "BTC-ETH", "USDT-BTC"]


@pytest.mark.slow
def test_row_order_is_an_option():
    asked = "USDT-BTC,KRW-BTC,BTC-ETH,KRW-ETH,KRW-XRP"

    def order(name: str, now_ms: int = NOW_MS) -> list[str]:
        options = Options(row_order=name)  # type: ignore[arg-type]
        return [row["market"] for row in rows("ticker", now_ms, options, markets=asked)]

    assert order("reversed") == order("request")[::-1]
    assert order("sorted") == sorted(order("request"))
    shuffles = [order("shuffled", NOW_MS + wait) for wait in range(20)]
    assert all(sorted(shuffle) == order("sorted") for shuffle in shuffles)
    assert len({tuple(shuffle) for shuffle in shuffles}) > 5


def test_ticker_all_has_the_same_rows_as_ticker():
    everything = rows("ticker/all", quote_currencies="USDT,KRW")
    codes = [row["market"] for row in everything]
    assert {code.partition("-")[0] for code in codes} == {"USDT", "KRW"}
    assert everything == rows("ticker", markets=",".join(codes))
    assert len(codes) == len([row for row in rows("market/all") if row["market"][:3] != "BTC"])


def test_an_unknown_quote_currency_is_refused_or_skipped():
    assert refusal("ticker/all", quote_currencies="KRW,EUR") == INVALID
    skip = Options(unknown_quote="skip")
    assert rows("ticker/all", NOW_MS, skip, quote_currencies="EUR") == []
    assert rows("ticker/all", NOW_MS, skip, quote_currencies="EUR,BTC") == rows("ticker/all", quote_currencies="BTC")


def test_a_ticker_row_says_what_the_world_says():
    for row in rows("ticker/all", quote_currencies="KRW,BTC,USDT"):
        truth = WORLD.ticker(row["market"], NOW_MS)
        change = row["trade_price"] - row["prev_closing_price"]
        assert row["trade_price"] == Decimal(truth.last.price).scaleb(-8)
        assert row["acc_trade_price"] == Decimal(truth.turnover).scaleb(-16)
        assert row["signed_change_price"] == change
        assert row["change_price"] == abs(change)
        assert row["change"] == ("RISE" if change > 0 else "FALL" if change < 0 else "EVEN")
        assert row["change_rate"] == abs(row["signed_change_rate"])
        assert abs(row["signed_change_rate"] - change / row["prev_closing_price"]) <= Decimal("5.1E-11")
        seoul = datetime.strptime(row["trade_date_kst"] + row["trade_time_kst"], "%Y%m%d%H%M%S")  # noqa: DTZ007
        utc = datetime.strptime(row["trade_date"] + row["trade_time"], "%Y%m%d%H%M%S")  # noqa: DTZ007
        assert seoul - utc == timedelta(hours=9)
        assert int(utc.replace(tzinfo=UTC).timestamp()) == row["trade_timestamp"] // 1000
        assert row["timestamp"] - row["trade_timestamp"] >= 30 or row["acc_trade_volume"] == 0


# --- order books ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "units"), [(1, 1), (30, 30), (0, 30), (-3, 30), (31, 30), (50, 30), ("", 30)])
def test_a_count_out_of_range_is_thirty_units(count, units):
    (row,) = rows("orderbook", markets="KRW-BTC", count=count)
    (whole,) = rows("orderbook", markets="KRW-BTC")
    assert row["orderbook_units"] == whole["orderbook_units"][:units]
    assert row["total_ask_size"] == whole["total_ask_size"] == sum(u["ask_size"] for u in whole["orderbook_units"])
    assert row["total_bid_size"] == sum(unit["bid_size"] for unit in whole["orderbook_units"])
    assert refusal("orderbook", markets="KRW-BTC", count="abc") == MISTYPED


def test_books_can_be_grouped_by_a_supported_level_and_by_no_other():
    (row,) = rows("orderbook", markets="KRW-BTC", level="10000")
    assert row["level"] == 10_000
    assert all(unit["ask_price"] % 10_000 == unit["bid_price"] % 10_000 == 0 for unit in row["orderbook_units"])
    assert len(row["orderbook_units"]) == 30
    assert rows("orderbook", markets="KRW-BTC", level="10000.0") == [row]
    for code, level in (("BTC-ETH", "100"), ("USDT-BTC", "10"), ("KRW-BTC", "7"), ("KRW-BTC", "-1")):
        assert rows("orderbook", markets=code, level=level) == []
    assert [row["market"] for row in rows("orderbook", markets="BTC-ETH,KRW-BTC", level="10000")] == ["KRW-BTC"]
    assert [row["level"] for row in rows("orderbook", markets="BTC-ETH", level="0")] == [0]
    assert refusal("orderbook", markets="KRW-BTC", level="1e4") == MISTYPED


def test_a_padded_side_has_price_and_size_zero():
    dust = [code for code in WORLD.markets if WORLD.market(code).activity is DUST and WORLD.is_listed(code, NOW_MS)]
    books = rows("orderbook", markets=",".join(dust))
    padding = [unit for book in books for unit in book["orderbook_units"] if unit["bid_price"] == 0]
    assert padding
    assert all(unit["bid_size"] == 0 for unit in padding)
    assert all(len(book["orderbook_units"]) == 30 for book in books)


def test_instruments_and_levels():
    instruments = rows("orderbook/instruments", markets="KRW-BTC,BTC-ETH,USDT-BTC")
    assert instruments == [
        {
            "market": "KRW-BTC",
            "quote_currency": "KRW",
            "tick_size": "1000",
            "supported_levels": ["0", "10000", "100000", "1000000", "10000000", "100000000"],
        },
        {"market": "BTC-ETH", "quote_currency": "BTC", "tick_size": "0.00000001", "supported_levels": ["0"]},
        {"market": "USDT-BTC", "quote_currency": "USDT", "tick_size": "0.01", "supported_levels": ["0"]},
    ]
    (levels,) = rows("orderbook/supported_levels", markets="KRW-BTC")
    assert levels["supported_levels"] == [0, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]


# --- trades --------------------------------------------------------------------------------------------------------


def test_trades_are_the_newest_of_the_day_newest_first_and_one_by_default():
    (newest,) = rows("trades/ticks", market="KRW-BTC")
    page = rows("trades/ticks", market="KRW-BTC", count=500)
    assert page[0] == newest
    assert len(page) == 500
    ids = [row["sequential_id"] for row in page]
    assert ids == sorted(set(ids), reverse=True)
    assert rows("trades/ticks", market="KRW-BTC", count=501) == page


def test_a_cursor_pages_through_a_day_and_ends_with_nothing():
    for days_ago in ("", 1, 7):
        seen: list[dict[str, Any]] = []
        cursor = ""
        while page := rows("trades/ticks", market="BTC-ETH", count=300, days_ago=days_ago, cursor=cursor):
            seen += page
            cursor = page[-1]["sequential_id"]
        day_ms = NOW_MS - NOW_MS % DAY_MS - (days_ago or 0) * DAY_MS
        truth = WORLD.trades("BTC-ETH", day_ms, day_ms + DAY_MS, NOW_MS)[::-1]
        assert [row["sequential_id"] for row in seen] == [deal.sequential_id for deal in truth]
        assert {row["prev_closing_price"] for row in seen} == {
            Decimal(WORLD.previous_close("BTC-ETH", day_ms, NOW_MS)).scaleb(-8)
        }
        assert all(row["change_price"] == row["trade_price"] - row["prev_closing_price"] for row in seen)


@pytest.mark.parametrize("to", ["220000", "22:00:00"])
def test_to_is_an_exclusive_second_inside_the_day(to):
    (newest,) = rows("trades/ticks", market="KRW-BTC", days_ago=2, to=to)
    assert newest["trade_time_utc"] < "22:00:00"
    assert newest["trade_time_utc"] > "21:58:00"
    assert newest["trade_date_utc"] == "2026-10-05"
    assert newest == rows("trades/ticks", market="KRW-BTC", daysAgo=2, to=to)[0]


def test_trades_refuse_what_is_no_day_time_or_count():
    for days_ago in (0, 8, -1):
        assert refusal("trades/ticks", market="KRW-BTC", days_ago=days_ago) == INVALID
    for to in ("250000", "2200", "22:60:00", "2026-10-05T22:00:00Z"):
        assert refusal("trades/ticks", market="KRW-BTC", to=to) == INVALID
    for count in (0, -1):
        assert refusal("trades/ticks", market="KRW-BTC", count=count) == INVALID
    assert refusal("trades/ticks", market="KRW-BTC", count="many") == MISTYPED
    assert refusal("trades/ticks", market="KRW-BTC", count=2**31) == MISTYPED
    assert refusal("trades/ticks", market="KRW-BTC", cursor="x") == MISTYPED
    assert len(rows("trades/ticks", NOW_MS, Options(nonpositive_count="one"), market="KRW-BTC", count=0)) == 1


def test_a_day_without_trades_is_an_empty_list():
    dust = [code for code in WORLD.markets if WORLD.market(code).activity is DUST and WORLD.is_listed(code, NOW_MS)]
    pages = {(code, ago): rows("trades/ticks", market=code, days_ago=ago) for code in dust for ago in range(1, 8)}
    empty = [key for key, page in pages.items() if not page]
    assert empty
    for code, ago in empty:
        day_ms = NOW_MS - NOW_MS % DAY_MS - ago * DAY_MS
        assert WORLD.trades(code, day_ms, day_ms + DAY_MS, NOW_MS) == []


# --- candles -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("timeframe", PATHS)
def test_candles_are_the_worlds_bars_newest_first_with_the_running_one(timeframe):
    page = rows(f"candles/{PATHS[timeframe]}", market="KRW-BTC", count=30)
    truth = WORLD.newest_candles("KRW-BTC", timeframe, NOW_MS + 1, 30, NOW_MS)
    assert opens(page) == [bar.open_ms for bar in truth]
    assert [row["candle_acc_trade_volume"] for row in page] == [Decimal(bar.volume).scaleb(-8) for bar in truth]
    assert [row["timestamp"] for row in page] == [bar.stored_ms for bar in truth]
    if timeframe is not Timeframe.S1:
        assert opens(page)[0] == floor(timeframe, NOW_MS)
    seoul = [datetime.fromisoformat(row["candle_date_time_kst"]).replace(tzinfo=UTC) for row in page]
    assert [int(at.timestamp()) * 1000 - 9 * 3_600_000 for at in seoul] == opens(page)
    assert len(rows(f"candles/{PATHS[timeframe]}", market="KRW-BTC")) == 1


def test_each_kind_of_candle_has_the_fields_of_its_kind():
    common = {"market", "candle_date_time_utc", "candle_date_time_kst", "opening_price", "high_price", "low_price"}
    common |= {"trade_price", "timestamp", "candle_acc_trade_price", "candle_acc_trade_volume"}
    extra = {
        "seconds": set(),
        "minutes/240": {"unit"},
        "days": {"prev_closing_price", "change_price", "change_rate"},
        "weeks": {"first_day_of_period"},
        "months": {"first_day_of_period"},
        "years": {"first_day_of_period"},
    }
    for path, fields in extra.items():
        assert set(rows(f"candles/{path}", market="KRW-BTC")[0]) == common | fields
    assert rows("candles/minutes/240", market="KRW-BTC")[0]["unit"] == 240
    assert rows("candles/years", market="KRW-BTC")[0]["first_day_of_period"] == "2026-01-01"


@pytest.mark.parametrize("count", [200, 201, 500, 1000])
def test_a_count_above_two_hundred_is_clamped_silently(count):
    assert len(rows("candles/minutes/1", market="KRW-BTC", count=count)) == 200


@pytest.mark.slow
@given(
    code=st.sampled_from(["KRW-BTC", "KRW-GRT", "BTC-ENS"]),
    timeframe=st.sampled_from(list(PATHS)),
    seconds=st.integers(0, 80 * 86_400),
    count=st.integers(1, 200),
)
@settings(deadline=None, max_examples=40)
def test_pages_tile_the_history(code, timeframe, seconds, count):
    path, to_ms = f"candles/{PATHS[timeframe]}", NOW_MS - NOW_MS % 1000 - seconds * 1000
    first = rows(path, market=code, to=iso(to_ms), count=count)
    second = rows(path, market=code, to=first[-1]["candle_date_time_utc"], count=count)
    times = opens(first) + opens(second)
    assert all(later > earlier for later, earlier in pairwise(times))
    truth = WORLD.newest_candles(code, timeframe, to_ms, 2 * count, NOW_MS)
    kept_ms = NOW_MS - quotation.SECONDS_KEPT_MS if timeframe is Timeframe.S1 else 0
    assert times == [bar.open_ms for bar in truth if bar.open_ms >= kept_ms]


def test_history_ends_with_a_short_page_and_then_nothing():
    to, sizes = "", []
    while page := rows("candles/days", market="KRW-GRT", count=200, to=to):
        sizes.append(len(page))
        to = page[-1]["candle_date_time_utc"]
    assert sizes[-1] < 200
    assert set(sizes[:-1]) == {200}
    assert to == iso(floor(Timeframe.D1, WORLD.opening_ms("KRW-GRT")))[:-1]
    for far in ("2010-01-01T00:00:00Z", "0001-01-01T00:00:00+09:00", "0001-01-01T00:00:00Z"):
        if far.endswith("Z"):
            for path in PATHS.values():
                assert rows(f"candles/{path}", market="KRW-GRT", to=far) == []


def test_to_excludes_the_bar_that_opens_at_it_and_never_cuts_a_bar():
    (at_it,) = rows("candles/minutes/60", market="KRW-BTC", to="2026-09-01T00:00:00Z")
    (just_after,) = rows("candles/minutes/60", market="KRW-BTC", to="2026-09-01T00:00:01Z")
    assert at_it["candle_date_time_utc"] == "2026-08-31T23:00:00"
    assert just_after["candle_date_time_utc"] == "2026-09-01T00:00:00"
    (later,) = rows("candles/minutes/60", market="KRW-BTC", to="2026-09-01T01:00:00Z")
    assert just_after == later


@pytest.mark.parametrize(
    "to",
    [
        "2026-09-01T10:40:00Z",
        "2026-09-01T10:40:00",
        "2026-09-01 10:40:00",
        "2026-09-01T19:40:00+09:00",
        "2026-09-01T10:40:00.000Z",
        "2026-09-01T05:40:00-05:00",
    ],
)
def test_every_accepted_spelling_of_to_means_the_same_moment(to):
    (row,) = rows("candles/minutes/1", market="KRW-BTC", to=to)
    assert row["candle_date_time_utc"] == "2026-09-01T10:39:00"


@pytest.mark.parametrize("fraction", ["5", "001", "0001", "000001"])
def test_a_fraction_of_a_second_is_not_lost(fraction):
    (row,) = rows("candles/minutes/1", market="KRW-BTC", to=f"2026-09-01T10:40:00.{fraction}Z")
    assert row["candle_date_time_utc"] == "2026-09-01T10:40:00"


@pytest.mark.parametrize(
    "to",
    [
        "not-a-date",
        "2026-09-01T19:40:00 09:00",
        "2026-09-01",
        "2026-13-01T00:00:00Z",
        "1790000000000",
        "2026-09-01T1:00:00Z",
    ],
)
def test_any_other_to_is_an_invalid_parameter(to):
    assert refusal("candles/minutes/1", market="KRW-BTC", to=to) == INVALID


def test_an_empty_to_and_a_future_one_are_as_good_as_none():
    newest = rows("candles/minutes/1", market="KRW-BTC", count=3)
    assert rows("candles/minutes/1", market="KRW-BTC", count=3, to="") == newest
    assert rows("candles/minutes/1", market="KRW-BTC", count=3, to="2027-01-01T00:00:00Z") == newest
    assert rows("candles/minutes/1", market="KRW-BTC", count=3, to="9999-12-31T23:59:59Z") == newest
    strict = Options(future_to="error")
    assert refusal("candles/minutes/1", strict, market="KRW-BTC", to="2027-01-01T00:00:00Z") == INVALID


def test_candles_refuse_what_is_no_unit_or_count():
    for unit in ("2", "120", "480", "0", "9" * 9):
        assert refusal(f"candles/minutes/{unit}", market="KRW-BTC") == BAD_UNIT
    for unit in ("abc", "1.0", "-1", "9" * 5_000):
        assert refusal(f"candles/minutes/{unit}", market="KRW-BTC") == MISTYPED
    for count in (0, -1):
        assert refusal("candles/days", market="KRW-BTC", count=count) == INVALID
    for count in ("abc", "1.5", 2**31, "9" * 5_000):
        assert refusal("candles/days", market="KRW-BTC", count=count) == MISTYPED


def test_seconds_go_back_three_months():
    old = iso(NOW_MS - 93 * DAY_MS)
    assert rows("candles/seconds", market="KRW-BTC", to=old) == []
    assert rows("candles/minutes/1", market="KRW-BTC", to=old) != []
    edge_ms = NOW_MS - quotation.SECONDS_KEPT_MS
    page = rows("candles/seconds", market="KRW-BTC", count=200, to=iso(edge_ms + 60_000))
    assert 0 < len(page) < 200
    assert opens(page)[-1] >= edge_ms


def test_a_day_names_the_close_before_it_and_its_signed_change():
    page = rows("candles/days", market="BTC-ENS", count=200)
    for newer, older in pairwise(page):
        assert newer["prev_closing_price"] == older["trade_price"]
    assert any(newer - older > DAY_MS for newer, older in pairwise(opens(page)))
    assert all(row["change_price"] == row["trade_price"] - row["prev_closing_price"] for row in page)
    assert {row["change_price"] < 0 for row in page} == {True, False}
    (oldest,) = rows("candles/days", market="BTC-ENS", to=iso(WORLD.opening_ms("BTC-ENS") + 1_000))
    assert oldest["prev_closing_price"] == oldest["opening_price"]


def test_days_can_be_converted_to_krw_where_the_quote_is_a_coin():
    (converted,) = rows("candles/days", market="BTC-ETH", to="2026-09-01T00:00:00Z", converting_price_unit="KRW")
    (bitcoin,) = rows("candles/days", market="KRW-BTC", to="2026-09-01T00:00:00Z")
    exact = converted["trade_price"] * bitcoin["trade_price"]
    assert abs(converted["converted_trade_price"] - exact) < Decimal("1E-8")
    (krw,) = rows("candles/days", market="KRW-BTC", converting_price_unit="KRW")
    assert krw["converted_trade_price"] is None
    assert "converted_trade_price" not in bitcoin
    assert refusal("candles/days", market="BTC-ETH", converting_price_unit="USD") == INVALID
    assert "converted_trade_price" not in rows("candles/weeks", market="BTC-ETH", converting_price_unit="KRW")[0]


# --- regions, truth, robustness ------------------------------------------------------------------------------------


def test_global_regions_have_fewer_fields_and_no_levels():
    abroad = Options(region="sg")
    details = rows("market/all", NOW_MS, abroad, is_details="true")
    assert all(set(row) == {"market", "english_name", "market_warning"} for row in details)
    assert {row["market_warning"] for row in details} <= {"NONE", "CAUTION"}
    for path in ("candles/minutes/1", "candles/days", "candles/weeks"):
        assert "candle_date_time_kst" not in rows(path, NOW_MS, abroad, market="KRW-BTC")[0]
    assert "trade_date_kst" not in rows("ticker", NOW_MS, abroad, markets="KRW-BTC")[0]
    assert "level" not in rows("orderbook", NOW_MS, abroad, markets="KRW-BTC")[0]
    assert refusal("orderbook", abroad, markets="KRW-BTC", level="0") == INVALID


@pytest.mark.parametrize("timeframe", PATHS)
def test_the_truth_about_candles_is_what_pages_show_oldest_first(timeframe):
    path, end_ms = f"candles/{PATHS[timeframe]}", NOW_MS + 1
    page = rows(path, market="BTC-ETH", count=40)
    truth = quotation.truth_candles(WORLD, "BTC-ETH", timeframe, opens(page)[-1], end_ms, NOW_MS)
    assert json.loads(truth, parse_float=Decimal) == page[::-1]
    empty = quotation.truth_candles(WORLD, "BTC-ETH", timeframe, end_ms, end_ms, NOW_MS)
    assert empty == b"[]"


def test_the_truth_about_trades_is_what_pages_show_oldest_first():
    day_ms = NOW_MS - NOW_MS % DAY_MS
    truth = quotation.truth_trades(WORLD, "USDT-BTC", day_ms - DAY_MS, NOW_MS + 1, NOW_MS)
    shown: list[dict[str, Any]] = []
    for days_ago in ("", 1):
        cursor = ""
        while page := rows("trades/ticks", market="USDT-BTC", days_ago=days_ago, count=500, cursor=cursor):
            shown += page
            cursor = page[-1]["sequential_id"]
    assert json.loads(truth, parse_float=Decimal) == shown[::-1]
    with pytest.raises(KeyError):
        quotation.truth_trades(WORLD, "KRW-NOPE", 0, NOW_MS, NOW_MS)


paths = st.sampled_from(
    [
        *(f"/v1/candles/{path}" for path in (*PATHS.values(), "minutes/7", "minutes/x")),
        "/v1/market/all",
        "/v1/ticker",
        "/v1/ticker/all",
        "/v1/orderbook",
        "/v1/orderbook/instruments",
        "/v1/trades/ticks",
    ]
)
common = ("market", "markets", "count", "to", "level")
names = st.sampled_from((*common, "cursor", "days_ago", "is_details", "quote_currencies", "converting_price_unit"))
values = (
    st.sampled_from(["KRW-BTC", "BTC-ENS", "KRW", "", "0", "1", "-1", "9" * 25, "1e400", "NaN", "true"]) | st.text()
)


@pytest.mark.slow
@given(path=paths, query=st.lists(st.tuples(names, values | st.datetimes().map(str)), max_size=5))
@example(path="/v1/candles/years", query=[("market", "KRW-BTC"), ("to", "0001-01-01 00:00:00")])
@settings(deadline=None, max_examples=300)
def test_any_query_is_answered_with_rows_or_one_of_the_exchanges_refusals(path, query):
    answer = quotation.answer(WORLD, path, query, NOW_MS)
    body = json.loads(answer.body)
    if answer.status == 200:
        assert isinstance(body, list)
    else:
        assert (answer.status, body["error"]["message"]) in (NOT_FOUND, MISSING, MISTYPED, INVALID, BAD_UNIT)


def test_bars_of_a_page_end_before_the_next_begins():
    for timeframe, path in PATHS.items():
        times = opens(rows(f"candles/{path}", market="KRW-SOL", count=20))
        assert all(next_open(timeframe, older) <= newer for newer, older in pairwise(times))
