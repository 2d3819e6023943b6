"""What REST does with what it is asked: a table of questions and answers, and rules that take more than one of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from conformance.desk import NOW_MS, WORLD, refusal, rows, utc_ms

from marketpipe.clock import TrioClock
from marketpipe.sim import SimConfig, SimExchange, SimTransport, World
from marketpipe.sim.quotation import answer

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MISSING = (400, "Missing request parameter error. Check the required parameters!")
MISTYPED = (400, "Type mismatch error. Check the parameters type!")
INVALID = (400, "Invalid parameter. Check the given value!")
UNKNOWN = (404, "Code not found")
NO_ROUTE = (404, "no Route matched with those values")
BAD_UNIT = (400, "specified unit is not valid.")
CANDLE_KINDS = ("seconds", "minutes/1", "days", "weeks", "months", "years")

# Row, question, and either the refusal or how many rows there are.
ANSWERS: list[tuple[str, str, tuple[int, str] | int]] = [
    ("1.0/v1", "../ticker?markets=KRW-BTC", NO_ROUTE),
    ("1.0/no-server-time", "time", NO_ROUTE),
    ("1.0/no-server-time", "server/time", NO_ROUTE),
    ("1.0/percent-encoding", "ticker?markets=KRW-BTC%2CBTC-ETH", 2),
    ("1.0/percent-encoding", "ticker?markets=KRW-BTC,BTC-ETH", 2),
    ("1.0/percent-encoding", "candles/minutes/1?market=KRW-BTC&to=2026-09-01T10%3A40%3A00Z", 1),
    ("1.0/percent-encoding", "candles/minutes/1?market=KRW-BTC&to=2026-09-01T10:40:00Z", 1),
    ("1.0/percent-encoding", "candles/minutes/1?market=KRW-BTC&to=2026-09-01T19:40:00%2B09:00", 1),
    ("1.0/percent-encoding", "candles/minutes/1?market=KRW-BTC&to=2026-09-01T19:40:00+09:00", INVALID),
    ("1.1/mistyped", "market/all?is_details=perhaps", MISTYPED),
    ("1.2/market", "candles/days", MISSING),
    ("1.2/market", "candles/days?market=KRW-BTC,BTC-ETH", UNKNOWN),
    *[("1.2/count", f"candles/{kind}?market=KRW-BTC", 1) for kind in CANDLE_KINDS],
    *[("1.2/count", f"candles/minutes/1?market=KRW-BTC&count={count}", 200) for count in (200, 201, 500, 1000)],
    *[
        ("1.2/paths", f"candles/minutes/{unit}?market=KRW-BTC&count=200", 200)
        for unit in (1, 3, 5, 10, 15, 30, 60, 240)
    ],
    *[("1.2/paths", f"candles/{kind}?market=KRW-BTC&count=3", 3) for kind in CANDLE_KINDS],
    ("1.2/paths", "candles/hours?market=KRW-BTC", NO_ROUTE),
    ("1.3/market", "trades/ticks", MISSING),
    ("1.3/market", "trades/ticks?market=KRW-NOPE", UNKNOWN),
    ("1.3/count", "trades/ticks?market=KRW-BTC", 1),
    *[("1.3/count", f"trades/ticks?market=KRW-BTC&count={count}", 500) for count in (500, 501, 100_000)],
    *[("1.3/days-ago", f"trades/ticks?market=KRW-BTC&days_ago={days}&count=9", 9) for days in range(1, 8)],
    ("1.3/days-ago", "trades/ticks?market=KRW-BTC&days_ago=&count=9", 9),
    ("1.3/days-ago", "trades/ticks?market=KRW-BTC&days_ago=8", INVALID),
    ("1.3/days-ago", "trades/ticks?market=KRW-BTC&daysAgo=8", INVALID),
    ("1.3/days-ago", "trades/ticks?market=KRW-BTC&daysAgo=7&count=9", 9),
    ("1.4/parameters", "ticker", MISSING),
    ("1.4/parameters", "ticker/all", MISSING),
    ("1.4/parameters", "ticker?markets=KRW-BTC,BTC-ETH,USDT-BTC", 3),
    ("1.4/unknown-code", "ticker?markets=KRW-BTC,KRW-NOPE", UNKNOWN),
    ("1.4/unknown-code", "ticker/all?quote_currencies=EUR", INVALID),
    ("1.5/markets", "orderbook", MISSING),
    ("1.5/markets", "orderbook?markets=krw-btc,KRW-ETH", 2),
    ("1.5/level", "orderbook?markets=KRW-BTC&level=10000", 1),
    ("1.5/level", "orderbook?markets=BTC-ETH&level=100", 0),
    ("1.5/level", "orderbook?markets=KRW-BTC&level=3", 0),
    ("1.5/count", "orderbook?markets=KRW-BTC&count=abc", MISTYPED),
    ("1.6/instruments", "orderbook/instruments", MISSING),
    ("1.6/supported-levels", "orderbook/supported_levels", MISSING),
    ("2/to-empty", "candles/minutes/1?market=KRW-BTC&to=&count=5", 5),
    ("2/before-listing", "candles/days?market=KRW-BTC&to=2010-01-01T00:00:00Z&count=5", 0),
    ("2/before-listing", "candles/minutes/1?market=KRW-BTC&to=2010-01-01T00:00:00Z&count=5", 0),
    ("2/before-listing", "candles/seconds?market=KRW-BTC&to=2026-01-01T00:00:00Z&count=5", 0),
    ("2/to-in-the-future", "candles/minutes/1?market=KRW-BTC&to=2030-01-01T00:00:00Z&count=5", 5),
    *[
        ("2/to-malformed", f"candles/minutes/1?market=KRW-BTC&to={to}", INVALID)
        for to in ("yesterday", "2026-09-01", "1790000000000", "2026-02-30T00:00:00Z", "2026-09-01T24:00:00Z")
    ],
    ("4/unknown", "candles/days?market=KRW-NOPE", UNKNOWN),
    ("4/unknown", "orderbook?markets=KRW-BTC,KRW-NOPE,BTC-ETH", UNKNOWN),
    ("4/missing", "candles/minutes/1", MISSING),
    ("4/mistyped", "candles/minutes/1?market=KRW-BTC&count=abc", MISTYPED),
    ("4/mistyped", "trades/ticks?market=KRW-BTC&count=abc", MISTYPED),
    ("4/bad-value", "trades/ticks?market=KRW-BTC&days_ago=8", INVALID),
    ("4/bad-value", "candles/minutes/1?market=KRW-BTC&to=soon", INVALID),
    ("4/bad-unit", "candles/minutes/120?market=KRW-BTC", BAD_UNIT),
    ("4/bad-unit", "candles/minutes/480?market=KRW-BTC", BAD_UNIT),
    ("4/no-route", "nothing", NO_ROUTE),
    ("4/no-data", "candles/days?market=KRW-BTC&to=2010-01-01T00:00:00Z", 0),
    ("4/unsupported-level", "orderbook?markets=KRW-BTC&level=7", 0),
    ("4/count-clamped", "candles/minutes/1?market=KRW-BTC&count=201", 200),
    ("4/count-clamped", "trades/ticks?market=KRW-BTC&count=501", 500),
    ("4/count-clamped", "orderbook?markets=KRW-BTC&count=31", 1),
    *[("4/count-not-positive", f"candles/minutes/1?market=KRW-BTC&count={count}", INVALID) for count in (0, -1)],
    *[("4/count-not-positive", f"trades/ticks?market=KRW-BTC&count={count}", INVALID) for count in (0, -1)],
]


@pytest.mark.parametrize(("row", "question", "expected"), ANSWERS, ids=[case[0] for case in ANSWERS])
def test_a_question_has_the_answer_of_the_wire(row, question, expected):
    if question.startswith("../"):
        assert answer(WORLD, question[2:].partition("?")[0], [], NOW_MS).status == 404
    elif isinstance(expected, int):
        assert len(rows(question)) == expected
    else:
        assert refusal(question) == expected


def opens(target: str) -> list[int]:
    return [utc_ms(row["candle_date_time_utc"]) for row in rows(target)]


def every_kind_comes_newest_first() -> None:
    for kind in (*CANDLE_KINDS, "minutes/240"):
        page = opens(f"candles/{kind}?market=KRW-BTC&count=200")
        assert page == sorted(set(page), reverse=True)


def bars_open_where_periods_begin() -> None:
    for unit in (1, 3, 5, 10, 15, 30, 60, 240):
        page = opens(f"candles/minutes/{unit}?market=KRW-BTC&count=200")
        assert not [at_ms for at_ms in page if at_ms % DAY_MS % (unit * 60_000)]
    days = {
        kind: [day_of(at_ms) for at_ms in opens(f"candles/{kind}?market=KRW-BTC&count=200")]
        for kind in CANDLE_KINDS[2:]
    }
    assert {day.weekday() for day in days["weeks"]} == {0}
    assert {day.day for day in days["months"]} == {1}
    assert {(day.month, day.day) for day in days["years"]} == {(1, 1)}
    assert not [at_ms for kind in days for at_ms in opens(f"candles/{kind}?market=KRW-BTC&count=200") if at_ms % DAY_MS]


def day_of(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def the_running_bar_is_the_first_row() -> None:
    for kind, size_ms in (("minutes/1", 60_000), ("minutes/60", HOUR_MS), ("days", DAY_MS)):
        assert opens(f"candles/{kind}?market=KRW-BTC")[0] == NOW_MS - NOW_MS % size_ms


def no_bar_is_without_a_trade_and_thin_markets_have_holes() -> None:
    quiet = min(WORLD.markets, key=lambda code: WORLD.ticker(code, NOW_MS).turnover_24h * (code[:3] == "BTC") or 10**60)
    page = rows(f"candles/minutes/1?market={quiet}&count=200")
    assert all(row["candle_acc_trade_volume"] > 0 for row in page)
    times = [utc_ms(row["candle_date_time_utc"]) for row in page]
    assert times[0] - times[-1] > 2 * 200 * 60_000


def closed_bars_stay_as_they_are() -> None:
    before = rows("candles/minutes/1?market=KRW-BTC&count=200")[1:]
    after = rows("candles/minutes/1?market=KRW-BTC&count=200", NOW_MS + 70_000)
    known = {row["candle_date_time_utc"]: row for row in after}
    again = [known[row["candle_date_time_utc"]] for row in before if row["candle_date_time_utc"] in known]
    assert len(again) >= 198
    assert again == [row for row in before if row["candle_date_time_utc"] in known]


def hours_add_up_to_their_day() -> None:
    for code in WORLD.markets[:6]:
        for ago in range(1, 6):
            end = datetime.fromtimestamp((NOW_MS - NOW_MS % DAY_MS - (ago - 1) * DAY_MS) / 1000, UTC)
            to = f"{end:%Y-%m-%dT%H:%M:%SZ}"
            (day,) = rows(f"candles/days?market={code}&to={to}")
            if day["candle_date_time_utc"][:10] != f"{day_of(int(end.timestamp() * 1000) - 1)}":
                continue
            hours = rows(f"candles/minutes/60?market={code}&to={to}&count=24")
            inside = [row for row in hours if row["candle_date_time_utc"][:10] == day["candle_date_time_utc"][:10]]
            assert sum(row["candle_acc_trade_volume"] for row in inside) == day["candle_acc_trade_volume"]


def a_bar_is_stamped_up_to_54_ms_after_its_end() -> None:
    late = [
        row["timestamp"] - utc_ms(row["candle_date_time_utc"]) - 60_000
        for row in rows("candles/minutes/1?market=KRW-BTC&count=200&to=2026-10-07T13:00:00Z")
    ]
    assert max(late) <= 54
    assert any(lag > 0 for lag in late)


def bars_are_not_cut() -> None:
    inside, after = (rows(f"candles/days?market=KRW-BTC&to=2026-09-01T{time}Z") for time in ("15:00:00", "23:59:59"))
    assert inside == after == rows("candles/days?market=KRW-BTC&to=2026-09-02T00:00:00Z")


def a_page_ends_where_the_next_begins() -> None:
    seen, to = [], ""
    for _ in range(5):
        page = rows(f"candles/minutes/1?market=BTC-ETH&count=40&to={to}")
        seen += page
        to = page[-1]["candle_date_time_utc"]
    assert seen == rows("candles/minutes/1?market=BTC-ETH&count=200")


def history_runs_out() -> None:
    years = rows("candles/years?market=KRW-BTC&count=200")
    assert 1 < len(years) < 20
    assert rows(f"candles/years?market=KRW-BTC&to={years[-1]['candle_date_time_utc']}") == []


def bitcoin_opened_in_2017() -> None:
    for kind, opened in (("days", "2017-09-25T00:00:00"), ("minutes/60", "2017-09-25T03:00:00")):
        first = rows(f"candles/{kind}?market=KRW-BTC&count=200&to=2017-10-01T00:00:00Z")[-1]
        assert first["candle_date_time_utc"] == opened


def a_maintenance_leaves_a_hole_in_every_market() -> None:
    start_ms, end_ms = utc_ms("2026-07-05T17:00:00"), utc_ms("2026-07-05T20:00:00")
    world = World(7, 5, [(start_ms, end_ms)])
    pairs = [("market", "KRW-BTC"), ("to", "2026-07-05T21:00:00Z"), ("count", "4")]
    told = answer(world, "/v1/candles/minutes/60", pairs, NOW_MS)
    assert [hour for hour in (20, 19, 18, 17, 16) if b"2026-07-05T%d:00:00" % hour in told.body] == [20, 16]


def a_page_of_trades_stays_in_its_day() -> None:
    assert rows("trades/ticks?market=KRW-BTC&days_ago=2&to=000000&count=5") == []
    early = rows("trades/ticks?market=KRW-BTC&days_ago=2&to=000100&count=500")
    assert {row["trade_date_utc"] for row in early} == {"2026-10-05"}


def the_cursor_goes_on_before_it_also_on_other_days() -> None:
    for day in ("", "&days_ago=3"):
        page = rows(f"trades/ticks?market=KRW-BTC&count=20{day}")
        cursor = page[9]["sequential_id"]
        assert rows(f"trades/ticks?market=KRW-BTC&count=10{day}&cursor={cursor}") == page[10:]


def the_second_of_to_is_excluded() -> None:
    for to in ("220000", "22:00:00"):
        (newest,) = rows(f"trades/ticks?market=KRW-BTC&days_ago=2&to={to}")
        assert "21:5" < newest["trade_time_utc"] < "22:00:00"


def totals_are_of_thirty_units() -> None:
    (two,) = rows("orderbook?markets=KRW-BTC&count=2")
    (whole,) = rows("orderbook?markets=KRW-BTC")
    assert two["total_ask_size"] == whole["total_ask_size"] > sum(unit["ask_size"] for unit in two["orderbook_units"])


def counts_out_of_range_are_thirty() -> None:
    for count, units in ((1, 1), (15, 15), (30, 30), (0, 30), (31, 30), (50, 30), (-1, 30)):
        (row,) = rows(f"orderbook?markets=KRW-BTC&count={count}")
        assert len(row["orderbook_units"]) == units


def a_book_is_stamped_with_its_last_change_on_a_grid_of_its_own() -> None:
    for code in ("KRW-BTC", "KRW-ETH", "KRW-XRP"):
        stamps = [rows(f"orderbook?markets={code}", NOW_MS + wait)[0]["timestamp"] for wait in range(0, 1000, 50)]
        assert len({at_ms % 100 for at_ms in stamps}) == 1
        assert all(0 <= NOW_MS + 50 * place - at_ms < 200 for place, at_ms in enumerate(stamps))


def levels_are_those_of_krw_markets() -> None:
    (bitcoin, ether) = rows("orderbook/supported_levels?markets=KRW-BTC,BTC-ETH")
    assert bitcoin["supported_levels"] == [0, 10**4, 10**5, 10**6, 10**7, 10**8]
    assert ether["supported_levels"] == [0]


def an_unknown_code_and_a_delisted_one_are_told_alike() -> None:
    for code in WORLD.delisted:
        assert refusal(f"candles/days?market={code}") == UNKNOWN == refusal("candles/days?market=KRW-NEVER")


def codes_are_quote_and_base() -> None:
    quotes = {row["market"].partition("-")[0] for row in rows("market/all")}
    assert quotes == {"KRW", "BTC", "USDT"}
    assert [row["market"] for row in rows("market/all")] != sorted(row["market"] for row in rows("market/all"))


def the_exchange_has_as_many_markets_and_warnings() -> None:
    world = World(7, 855)
    told: Any = answer(world, "/v1/market/all", [("is_details", "true")], NOW_MS)
    assert 0.2 < told.body.count(b'GLOBAL_PRICE_DIFFERENCES":true') / 855 < 0.3
    assert 10 <= told.body.count(b'"warning":true') <= 40


RULES: dict[str, Callable[[], None]] = {
    "1.1/order": codes_are_quote_and_base,
    "1.2/newest-first": every_kind_comes_newest_first,
    "1.3/to": the_second_of_to_is_excluded,
    "1.3/cursor": the_cursor_goes_on_before_it_also_on_other_days,
    "1.5/count": counts_out_of_range_are_thirty,
    "1.5/timestamp": a_book_is_stamped_with_its_last_change_on_a_grid_of_its_own,
    "1.5/totals": totals_are_of_thirty_units,
    "1.6/supported-levels": levels_are_those_of_krw_markets,
    "2/only-with-trades": no_bar_is_without_a_trade_and_thin_markets_have_holes,
    "2/maintenance": a_maintenance_leaves_a_hole_in_every_market,
    "2/boundaries": bars_open_where_periods_begin,
    "2/running-bar": the_running_bar_is_the_first_row,
    "2/closed-bars": closed_bars_stay_as_they_are,
    "2/sums": hours_add_up_to_their_day,
    "2/timestamp": a_bar_is_stamped_up_to_54_ms_after_its_end,
    "2/never-cut": bars_are_not_cut,
    "2/history-runs-out": history_runs_out,
    "2/first-day": bitcoin_opened_in_2017,
    "2/paging": a_page_ends_where_the_next_begins,
    "2/delisted": an_unknown_code_and_a_delisted_one_are_told_alike,
    "6/depth": a_page_of_trades_stays_in_its_day,
    "8.3/universe": the_exchange_has_as_many_markets_and_warnings,
}


@pytest.mark.parametrize("row", RULES)
def test_a_rule_holds(row):
    RULES[row]()


GROUPS = {
    "3/market": ("market", ["market/all"]),
    "3/candle": ("candles", [f"candles/{kind}?market=KRW-BTC" for kind in CANDLE_KINDS]),
    "3/trade": ("crix-trades", ["trades/ticks?market=KRW-BTC"]),
    "3/ticker": ("ticker", ["ticker?markets=KRW-BTC", "ticker/all?quote_currencies=KRW"]),
    "3/orderbook": (
        "orderbook",
        [f"{path}?markets=KRW-BTC" for path in ("orderbook", "orderbook/instruments", "orderbook/supported_levels")],
    ),
}


@pytest.mark.parametrize("row", GROUPS)
async def test_a_group_has_ten_a_second_for_all_its_paths_and_a_name_in_the_header(row, autojump_clock):
    name, targets = GROUPS[row]
    exchange = SimExchange(SimConfig(markets=3), TrioClock(NOW_MS - NOW_MS % 1000))
    async with httpx.AsyncClient(transport=SimTransport(exchange), base_url="http://sim/v1/") as client:
        asked = [targets[place % len(targets)] for place in range(12)]
        replies = [await client.get(target, headers={"authorization": "none"}) for target in asked]
        elsewhere = await client.get("ticker?markets=KRW-BTC" if name != "ticker" else "market/all")
    assert [reply.status_code for reply in replies] == [200] * 10 + [429] * 2
    headers = [reply.headers["remaining-req"] for reply in replies]
    assert headers == [f"group={name}; min=600; sec={max(0, 9 - place)}" for place in range(12)]
    assert (replies[-1].text, replies[0].headers["content-type"]) == (
        "Too many API requests.",
        "application/json;charset=UTF-8",
    )
    assert elsewhere.status_code == 200
