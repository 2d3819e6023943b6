"""The laws of the simulated streams: they tell what REST shows, all of it, in time, and to everybody the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketpipe.core.timeframes import Timeframe, floor, next_open, parse
from marketpipe.sim.cadence import candle_grid, ticker_grid
from marketpipe.sim.day import seen_ms, stored_ms
from marketpipe.sim.frames import candle_frame
from marketpipe.sim.rows import orderbook_row, ticker_row, trade_row
from marketpipe.sim.streams import TYPES, Message, Streams, Wanted
from marketpipe.sim.tape import DAY_MS, DUST, HOUR_MS
from marketpipe.sim.ticks import group_levels
from marketpipe.sim.world import World

NOW_MS = int(datetime(2026, 10, 7, 13, 21, 34, 567_000, tzinfo=UTC).timestamp() * 1000)
# Of every activity: deep, busy, mid, thin, dust; of each quote currency.
SAMPLE = ("KRW-BTC", "KRW-ETH", "BTC-ETH", "USDT-BTC", "KRW-SOL", "KRW-GRT", "BTC-USDT", "BTC-ENS", "USDT-FLOW")
WORLD = World(7, 150)
HOLED = World(7, 150, holes=((NOW_MS + 60_000, NOW_MS + 20 * 60_000),))
CANDLES = sorted(name for name in TYPES if name.startswith("candle."))

recent = st.integers(NOW_MS - 3 * DAY_MS, NOW_MS)
markets = st.sampled_from(SAMPLE)


def listen(wanted: Iterable[Wanted], start_ms: int, end_ms: int, world: World = WORLD, **options: Any) -> list[Message]:
    """All REALTIME messages after ``start_ms`` up to ``end_ms``, taken exactly when they are due."""
    subscription = Streams(world, **options).open(list(wanted), start_ms)
    heard: list[Message] = []
    while (due_ms := subscription.due_ms()) is not None and due_ms <= end_ms:
        heard += subscription.take(due_ms)
    return heard


def show(wanted: Wanted, now_ms: int, world: World = WORLD, **options: Any) -> list[dict[str, Any]]:
    return [read(message) for message in Streams(world, **options).open([wanted], now_ms).snapshots(now_ms)]


def read(message: Message, format: str = "DEFAULT") -> dict[str, Any]:
    return json.loads(message.encode(format), parse_float=Decimal)


def row(text: str) -> dict[str, Any]:
    return json.loads(text, parse_float=Decimal)


def same(frame: dict[str, Any], rest: dict[str, Any], **renamed: str) -> bool:
    """Whether every field of a REST row that the frame has too has the same value, and how few are missing."""
    shared = {name: renamed.get(name, name) for name in rest if renamed.get(name, name) in frame}
    return len(shared) > 4 and all(frame[ours] == rest[theirs] for theirs, ours in shared.items())


def bytes_of(messages: Iterable[Message]) -> list[tuple[int, bytes]]:
    return [(message.at_ms, message.encode("DEFAULT")) for message in messages]


@pytest.mark.slow
@pytest.mark.parametrize("code", SAMPLE)
@pytest.mark.parametrize("world", [WORLD, HOLED])
def test_every_trade_is_told_once_in_order_50_to_130_ms_later(world, code):
    end_ms = NOW_MS + HOUR_MS // 2
    heard = listen([Wanted("trade", (code,))], NOW_MS, end_ms, world)
    deals = world.trades(code, NOW_MS - 130, end_ms, end_ms)
    by_id = {deal.sequential_id: deal for deal in deals}
    frames = [read(message) for message in heard]
    ids = [frame["sequential_id"] for frame in frames]
    assert ids == sorted(ids)
    # Those within a lag of either end may fall in or out.
    assert set(ids) >= {deal.sequential_id for deal in deals if NOW_MS <= deal.at_ms <= end_ms - 130}
    for message, frame in zip(heard, frames, strict=True):
        deal = by_id[frame["sequential_id"]]
        assert frame["timestamp"] == message.at_ms
        assert 50 <= message.at_ms - deal.at_ms <= 130
        previous = world.previous_close(code, deal.at_ms - deal.at_ms % DAY_MS, end_ms)
        rest = row(trade_row(code, deal, previous))
        rest["change_price"] = abs(rest["change_price"])
        rest["trade_timestamp"] = rest.pop("timestamp")
        assert same(frame, rest, market="code", trade_date_utc="trade_date", trade_time_utc="trade_time")


def test_a_trade_is_compared_with_the_close_of_the_day_before_its_own():
    midnight_ms = NOW_MS - NOW_MS % DAY_MS
    closes: dict[str, set[Decimal]] = {}
    for message in listen([Wanted("trade", ("KRW-BTC",))], midnight_ms - 60_000, midnight_ms + 60_000):
        frame = read(message)
        closes.setdefault(frame["trade_date"], set()).add(frame["prev_closing_price"] * 10**8)
    yesterday, today = (WORLD.previous_close("KRW-BTC", at_ms, NOW_MS) for at_ms in (midnight_ms - DAY_MS, midnight_ms))
    assert yesterday != today
    assert closes == {"2026-10-06": {yesterday}, "2026-10-07": {today}}


@pytest.mark.slow
@pytest.mark.parametrize("code", ["KRW-BTC", "KRW-SOL", "USDT-BTC"])
def test_a_trade_comes_with_the_touch_of_the_book_of_its_moment(code):
    heard = listen([Wanted("trade", (code,))], NOW_MS, NOW_MS + HOUR_MS // 4)
    assert heard
    for message in heard:
        frame, book = read(message), row(orderbook_row(WORLD.orderbook(code, message.at_ms), 1, with_level=True))
        best = book["orderbook_units"][0]
        assert {name: frame[f"best_{name}"] for name in best} == best


@pytest.mark.slow
def test_the_share_of_reordered_trades_is_late_and_none_is_lost_or_repeated():
    span = NOW_MS, NOW_MS + 2 * HOUR_MS
    wanted = [Wanted("trade", ("KRW-BTC", "KRW-ETH"))]
    usual = {(m.code, read(m)["sequential_id"]): m.at_ms for m in listen(wanted, *span)}
    heard = listen(wanted, *span, reordered=0.3)
    late = {(m.code, read(m)["sequential_id"]): m.at_ms for m in heard}
    assert len(late) == len(heard)
    assert {key for key, at_ms in usual.items() if span[0] + 300 < at_ms < span[1] - 300} <= late.keys()
    delays = [late[key] - usual[key] for key in usual.keys() & late.keys()]
    assert {delay == 0 or 150 <= delay <= 300 for delay in delays} == {True}
    assert 0.27 < sum(delay > 0 for delay in delays) / len(delays) < 0.33
    ids = [read(m)["sequential_id"] for m in heard if m.code == "KRW-BTC"]
    assert sum(later < earlier for earlier, later in pairwise(ids)) > len(ids) // 30
    assert all(read(m)["timestamp"] == m.at_ms for m in heard)
    assert [m.at_ms for m in heard] == sorted(m.at_ms for m in heard)


@pytest.mark.slow
def test_the_share_of_duplicated_trades_comes_twice_and_is_the_same():
    span = NOW_MS, NOW_MS + 2 * HOUR_MS
    wanted = [Wanted("trade", ("KRW-BTC",))]
    usual = {m.encode("SIMPLE"): m.at_ms for m in listen(wanted, *span)}
    heard: dict[bytes, list[int]] = {}
    for message in listen(wanted, *span, duplicated=0.25):
        heard.setdefault(message.encode("SIMPLE"), []).append(message.at_ms)
    assert heard.keys() >= usual.keys()
    twice = [times for times in heard.values() if len(times) == 2]
    assert all(len(times) in (1, 2) for times in heard.values())
    assert all(1 <= later - first <= 200 for first, later in twice)
    assert 0.22 < len(twice) / len(heard) < 0.28


@pytest.mark.slow
@pytest.mark.parametrize("code", SAMPLE)
@pytest.mark.parametrize("world", [WORLD, HOLED])
def test_a_ticker_is_what_rest_shows_once_everything_is_stored(world, code):
    end_ms = NOW_MS + HOUR_MS // 2
    heard = listen([Wanted("ticker", (code,))], NOW_MS, end_ms, world)
    phase_ms = world.market(code).phase_ms
    for message in heard:
        frame, seen = read(message), seen_ms(message.at_ms, phase_ms)
        ticker = world.ticker(code, seen)
        assert same(frame, row(ticker_row(ticker, True)), market="code")
        assert frame["ask_bid"] == ("BID" if ticker.last.buy else "ASK")
        assert frame["acc_ask_volume"] + frame["acc_bid_volume"] == frame["acc_trade_volume"]
        assert frame["timestamp"] <= message.at_ms < frame["timestamp"] + 100
    assert len({message.at_ms % 100 for message in heard}) <= 1
    assert all(later.at_ms - earlier.at_ms >= 100 for earlier, later in pairwise(heard))
    # Every trade is in some frame, and no frame is without news.
    last_ms = [read(message)["trade_timestamp"] for message in heard]
    assert last_ms == sorted(set(last_ms))
    told = [deal.at_ms for deal in world.trades(code, seen_ms(NOW_MS, phase_ms) + 1, end_ms - 200, end_ms)]
    assert bool(told) <= bool(last_ms)
    assert not told or last_ms[-1] >= told[-1]


def test_a_ticker_tells_apart_what_takers_sold_and_bought():
    now_ms = NOW_MS - NOW_MS % DAY_MS + 2 * HOUR_MS
    for code in ("KRW-BTC", "KRW-SOL", "USDT-BTC"):
        [frame] = show(Wanted("ticker", (code,)), now_ms)
        deals = WORLD.trades(code, now_ms - now_ms % DAY_MS, frame["trade_timestamp"] + 1, now_ms)
        assert frame["acc_bid_volume"] * 10**8 == sum(deal.volume for deal in deals if deal.buy) > 0
        assert frame["acc_ask_volume"] * 10**8 == sum(deal.volume for deal in deals if not deal.buy) > 0


def test_a_new_day_is_told_without_a_trade():
    midnight_ms = NOW_MS - NOW_MS % DAY_MS
    code = "BTC-ENS"
    heard = listen([Wanted("ticker", (code,))], midnight_ms - 1_000, midnight_ms + 1_000)
    assert not WORLD.trades(code, midnight_ms - 1_000, midnight_ms + 1_000, NOW_MS)
    assert [read(message)["acc_trade_volume"] for message in heard] == [0]
    assert read(heard[0])["timestamp"] == stored_ms(midnight_ms, WORLD.market(code).phase_ms)
    assert b'"change_price":0E-8' in heard[0].encode("DEFAULT")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "span_ms"), [("KRW-BTC", 3_000), ("KRW-SOL", 3_000), ("USDT-BTC", 60_000)])
def test_every_change_of_a_book_is_told_at_once_as_rest_shows_it(code, span_ms):
    heard = listen([Wanted("orderbook", (code,))], NOW_MS, NOW_MS + span_ms)
    changes = {WORLD.orderbook(code, at_ms).changed_ms for at_ms in range(NOW_MS, NOW_MS + span_ms + 1)}
    assert [message.at_ms for message in heard] == sorted(changes - {WORLD.orderbook(code, NOW_MS).changed_ms})
    for message in heard:
        frame = read(message)
        rest = row(orderbook_row(WORLD.orderbook(code, message.at_ms), 30, with_level=True))
        assert same(frame, rest, market="code")
        assert len(frame["orderbook_units"]) == 30


def test_a_busy_book_waits_for_its_grid_even_if_a_trade_happened_since():
    fresh = World(7, 1)
    waited = 0
    for deal in WORLD.trades("KRW-BTC", NOW_MS - 60_000, NOW_MS, NOW_MS):
        book = fresh.orderbook("KRW-BTC", deal.at_ms)
        waited += book.changed_ms < deal.at_ms
        assert book == WORLD.orderbook("KRW-BTC", book.changed_ms)
    assert waited


@pytest.mark.slow
@given(code=st.sampled_from(SAMPLE[3:4] + SAMPLE[5:]), start_ms=recent)
@example(code="BTC-ENS", start_ms=NOW_MS - NOW_MS % DAY_MS - 5 * 60_000)
@settings(deadline=None, max_examples=40)
def test_a_quiet_book_tells_its_grid_and_its_trades(code, start_ms):
    end_ms = start_ms + 20 * 60_000
    times = [message.at_ms for message in listen([Wanted("orderbook", (code,))], start_ms, end_ms)]
    assert times == sorted(set(times))
    assert {deal.at_ms for deal in WORLD.trades(code, start_ms + 1, end_ms + 1, end_ms)} <= set(times)
    for earlier, later in pairwise(times):
        assert WORLD.orderbook(code, later - 1).changed_ms == earlier
        assert WORLD.orderbook(code, later).changed_ms == later


@pytest.mark.slow
@pytest.mark.parametrize("code", SAMPLE)
@pytest.mark.parametrize("stream", CANDLES)
@pytest.mark.parametrize("world", [WORLD, HOLED])
def test_the_last_frame_of_every_bar_is_the_bar_of_rest(world, code, stream):
    timeframe = parse(stream.removeprefix("candle."))
    end_ms = floor(timeframe, NOW_MS + HOUR_MS)
    if timeframe is Timeframe.S1:
        end_ms = NOW_MS - NOW_MS % 1_000 + 10 * 60_000
    elif timeframe is Timeframe.H4:
        end_ms = next_open(timeframe, floor(timeframe, NOW_MS))
    heard = listen([Wanted(stream, (code,))], NOW_MS, end_ms + 999, world)
    last: dict[str, dict[str, Any]] = {}
    for message in heard:
        frame = read(message)
        last[frame["candle_date_time_utc"]] = frame
        assert frame["timestamp"] <= message.at_ms
        assert message.at_ms - 1_000 < frame["timestamp"]
    bars = world.candles(code, timeframe, next_open(timeframe, NOW_MS), end_ms, end_ms)
    spelt = [row(candle_frame(stream, code, bar, "REALTIME", simple=False, kr=True)) for bar in bars]
    begun = [frame for frame in spelt if frame["candle_date_time_utc"] in last]
    assert begun == spelt
    assert [last[frame["candle_date_time_utc"]] for frame in spelt] == spelt
    assert list(last) == sorted(last)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["KRW-BTC", "KRW-ETH", "KRW-SOL"])
@pytest.mark.parametrize("timeframe", [Timeframe.S1, Timeframe.M1])
def test_candles_are_looked_at_once_a_second_and_sent_if_a_trade_changed_them(code, timeframe):
    end_ms = NOW_MS + 20 * 60_000
    told: dict[int, list[float]] = {}
    for message in listen([Wanted(f"candle.{timeframe}", (code,))], NOW_MS, end_ms):
        opening = datetime.fromisoformat(read(message)["candle_date_time_utc"] + "Z")
        told.setdefault(message.at_ms, []).append(opening.timestamp() * 1000)
    [place_ms] = {at_ms % 1_000 for at_ms in told}
    changed: dict[int, set[int]] = {}
    phase_ms = WORLD.market(code).phase_ms
    for deal in WORLD.trades(code, NOW_MS - 1_100, end_ms, end_ms):
        stored = stored_ms(deal.at_ms, phase_ms)
        changed.setdefault(stored + (place_ms - stored) % 1_000, set()).add(floor(timeframe, deal.at_ms))
    # Where one bar ends and the next begins from one look to the next, both are told, the old one first.
    assert told == {at_ms: sorted(bars) for at_ms, bars in changed.items() if NOW_MS < at_ms <= end_ms}
    assert (timeframe, code) != (Timeframe.S1, "KRW-BTC") or any(len(bars) == 2 for bars in told.values())
    assert all(at_ms - next_open(timeframe, int(bars[0])) < 1_000 for at_ms, bars in told.items())


@given(code=markets, now_ms=recent, stream=st.sampled_from(CANDLES))
@settings(deadline=None)
def test_the_first_candle_is_the_latest_there_is(code, now_ms, stream):
    timeframe = parse(stream.removeprefix("candle."))
    [frame] = show(Wanted(stream, (code,)), now_ms)
    phase_ms = WORLD.market(code).phase_ms
    seen = seen_ms(candle_grid(phase_ms).before(now_ms), phase_ms)
    [bar] = WORLD.newest_candles(code, timeframe, now_ms + 1, 1, seen)
    assert frame == row(candle_frame(stream, code, bar, "SNAPSHOT", simple=False, kr=True))
    assert frame["timestamp"] <= now_ms


@given(code=markets, now_ms=recent)
@settings(deadline=None)
def test_the_first_book_is_that_of_rest_and_the_first_ticker_was_a_moment_ago(code, now_ms):
    [book] = show(Wanted("orderbook", (code,)), now_ms)
    assert same(book, row(orderbook_row(WORLD.orderbook(code, now_ms), 30, with_level=True)), market="code")
    [ticker] = show(Wanted("ticker", (code,)), now_ms)
    phase_ms = WORLD.market(code).phase_ms
    seen = seen_ms(ticker_grid(phase_ms).before(now_ms), phase_ms)
    assert same(ticker, row(ticker_row(WORLD.ticker(code, seen), True)), market="code")
    assert ticker["timestamp"] <= now_ms
    assert ticker["stream_type"] == book["stream_type"] == "SNAPSHOT"


@pytest.mark.slow
@given(code=st.sampled_from(SAMPLE[:5]), now_ms=recent, reordered=st.sampled_from([0.0, 0.5]))
@settings(deadline=None, max_examples=60)
def test_trades_go_on_after_the_first_one_without_a_hole_or_a_repetition(code, now_ms, reordered):
    wanted = Wanted("trade", (code,))
    [first] = show(wanted, now_ms, reordered=reordered)
    assert first["timestamp"] <= now_ms
    end_ms = now_ms + 3 * 60_000
    later = [read(m)["sequential_id"] for m in listen([wanted], now_ms, end_ms + 430, reordered=reordered)]
    deals = WORLD.trades(code, first["trade_timestamp"], end_ms, end_ms)
    assert first["sequential_id"] not in later
    assert reordered or [sid for sid in later if sid < end_ms * 10_000] == [
        deal.sequential_id for deal in deals if deal.sequential_id > first["sequential_id"]
    ]


@pytest.mark.slow
@given(code=st.sampled_from(SAMPLE[:5]), now_ms=recent, type=st.sampled_from(["ticker", "candle.1s", "candle.1m"]))
@example(code="KRW-ETH", now_ms=1_791_195_988_358, type="candle.1s")
@settings(deadline=None, max_examples=60)
def test_what_follows_is_never_older_than_what_was_shown_first(code, now_ms, type):
    def age(frame: dict[str, Any]) -> tuple[object, int]:
        return frame.get("candle_date_time_utc"), frame["timestamp"]

    first = show(Wanted(type, (code,)), now_ms)
    later = [read(message) for message in listen([Wanted(type, (code,))], now_ms, now_ms + 30_000)]
    ages = [age(frame) for frame in first + later]
    assert ages == sorted(ages)
    assert len(set(ages)) == len(ages)


@pytest.mark.slow
@given(
    starts=st.lists(st.integers(0, 3_000), min_size=2, max_size=3),
    steps=st.lists(st.integers(1, 900), min_size=3, max_size=12),
    now_ms=recent,
)
@settings(deadline=None, max_examples=25)
def test_everybody_hears_the_same_at_the_same_time(starts, steps, now_ms):
    wanted = [Wanted(type, SAMPLE) for type in ("ticker", "trade", "orderbook", "candle.1s")]
    end_ms = now_ms + 5_000
    alone = bytes_of(listen(wanted, now_ms, end_ms, World(7, 150), reordered=0.3, duplicated=0.3))
    streams = Streams(WORLD, reordered=0.3, duplicated=0.3)
    for place, start in enumerate(starts):
        subscription = streams.open(wanted, now_ms + start)
        heard: list[Message] = []
        at_ms, turn = now_ms + start, 0
        while at_ms < end_ms:
            at_ms = min(end_ms, at_ms + steps[(turn + place) % len(steps)])
            turn += 1
            due_ms = subscription.due_ms()
            news = subscription.take(at_ms)
            assert due_ms is not None
            assert not news or due_ms <= news[0].at_ms
            heard += news
        assert sorted(bytes_of(heard)) == sorted(told for told in alone if told[0] > now_ms + start)
        assert [message.at_ms for message in heard] == sorted(message.at_ms for message in heard)


def test_connections_share_the_frame_and_its_bytes():
    streams = Streams(WORLD)
    wanted = [Wanted("orderbook", ("KRW-BTC",)), Wanted("ticker", ("KRW-BTC",))]
    one, other = streams.open(wanted, NOW_MS), streams.open(wanted, NOW_MS)
    for at_ms in range(NOW_MS, NOW_MS + 2_000, 40):
        for ours, theirs in zip(one.take(at_ms), other.take(at_ms), strict=True):
            assert ours is theirs
            assert ours.encode("SIMPLE") is theirs.encode("SIMPLE")


def test_formats():
    [message] = Streams(WORLD).open([Wanted("trade", ("KRW-BTC",))], NOW_MS).snapshots(NOW_MS)
    assert message.encode("JSON_LIST") == b"[" + message.encode("DEFAULT") + b"]"
    assert message.encode("SIMPLE_LIST") == b"[" + message.encode("SIMPLE") + b"]"
    assert read(message, "SIMPLE")["cd"] == read(message)["code"] == "KRW-BTC"
    with pytest.raises(KeyError):
        message.encode("XML")


def test_only_what_comes_first_or_only_what_follows():
    end_ms = NOW_MS + 1_000
    cases = {(False, False): (1, True), (True, False): (1, False), (False, True): (0, True), (True, True): (0, False)}
    for (only_snapshot, only_realtime), (shown, followed) in cases.items():
        wanted = Wanted("orderbook", ("KRW-BTC",), only_snapshot=only_snapshot, only_realtime=only_realtime)
        subscription = Streams(WORLD).open([wanted], NOW_MS)
        assert len(subscription.snapshots(NOW_MS)) == shown
        assert (subscription.due_ms() is not None) == followed
        assert bool(subscription.take(end_ms)) == followed


def test_what_is_wanted_twice_is_heard_once():
    twice = [Wanted("orderbook", ("KRW-BTC", "KRW-BTC")), Wanted("orderbook", ("KRW-BTC.30",), level="0")]
    once = [Wanted("orderbook", ("KRW-BTC",))]
    assert bytes_of(listen(twice, NOW_MS, NOW_MS + 1_000)) == bytes_of(listen(once, NOW_MS, NOW_MS + 1_000))
    both = [Wanted("ticker", ("KRW-BTC",), only_snapshot=True), Wanted("ticker", ("KRW-BTC",), only_realtime=True)]
    subscription = Streams(WORLD).open(both, NOW_MS)
    assert len(subscription.snapshots(NOW_MS)) == 1
    assert subscription.due_ms() is not None


@pytest.mark.parametrize("type", sorted(TYPES))
@pytest.mark.parametrize("code", ["KRW-NOPE", "krw-btc", "KRW-MATIC", "KRW-BTC-X", "", "KRW-NOPE.15"])
def test_unknown_codes_say_nothing(type, code):
    subscription = Streams(WORLD).open([Wanted(type, (code,))], NOW_MS)
    assert subscription.snapshots(NOW_MS) == []
    assert subscription.due_ms() is None
    assert subscription.take(NOW_MS + HOUR_MS) == []


@pytest.mark.parametrize("type", sorted(TYPES))
def test_a_market_is_heard_from_its_opening_on(type):
    code = max(WORLD.markets, key=WORLD.opening_ms)
    opening_ms = WORLD.opening_ms(code)
    now_ms = opening_ms - 3 * DAY_MS
    wanted = Wanted(type, (code,))
    assert show(wanted, now_ms) == show(wanted, opening_ms - 1) == []
    assert bool(show(wanted, opening_ms + 10)) == (type == "orderbook")
    heard = listen([wanted], now_ms, opening_ms + 1_100)
    assert opening_ms <= heard[0].at_ms <= opening_ms + 1_054
    frame = read(heard[0])
    assert frame.get("trade_timestamp", opening_ms) == opening_ms
    if type.startswith("candle"):
        timeframe = parse(type.removeprefix("candle."))
        assert datetime.fromisoformat(frame["candle_date_time_utc"] + "Z").timestamp() * 1000 == floor(
            timeframe, opening_ms
        )
    [first] = show(wanted, opening_ms + 1_100)
    assert first["code"] == code


@pytest.mark.parametrize(
    ("suffix", "units"), [("", 30), (".1", 1), (".5", 5), (".15", 15), (".30", 30), (".2", 30), (".", 30), (".x", 30)]
)
def test_a_suffix_says_how_many_units_of_the_same_book(suffix, units):
    [frame] = show(Wanted("orderbook", (f"KRW-BTC{suffix}",)), NOW_MS)
    [whole] = show(Wanted("orderbook", ("KRW-BTC",)), NOW_MS)
    assert frame == whole | {"orderbook_units": whole["orderbook_units"][:units]}


@pytest.mark.parametrize("type", ["ticker", "trade", "candle.1m"])
def test_only_order_books_know_suffixes(type):
    assert show(Wanted(type, ("KRW-BTC.15",)), NOW_MS) == []


def test_a_level_groups_the_book_as_rest_does():
    market = WORLD.market("KRW-BTC")
    for level in group_levels(market.quote, market.step, market.base * market.step):
        [frame] = show(Wanted("orderbook", ("KRW-BTC.15",), level=str(level // 10**8)), NOW_MS)
        rest = row(orderbook_row(WORLD.orderbook("KRW-BTC", NOW_MS, level), 15, with_level=True))
        assert same(frame, rest, market="code")
        assert frame["level"] * 10**8 == level
    heard = listen([Wanted("orderbook", ("KRW-BTC",), level="10000")], NOW_MS, NOW_MS + 500)
    assert [read(message)["level"] for message in heard] == [10_000] * 5


@pytest.mark.parametrize(
    ("code", "level"),
    [("KRW-BTC", "7"), ("KRW-BTC", "-10000"), ("BTC-ETH", "100"), ("KRW-BTC", "x"), ("KRW-BTC", "NaN")],
)
def test_a_level_the_market_has_not_says_nothing(code, level):
    assert show(Wanted("orderbook", (code,), level=level), NOW_MS) == []
    assert listen([Wanted("orderbook", (code,), level=level)], NOW_MS, NOW_MS + 10_000) == []


def test_level_nought_is_every_markets():
    for level in ("0", "0.0", "-0"):
        [frame] = show(Wanted("orderbook", ("BTC-ETH",), level=level), NOW_MS)
        assert frame["level"] == 0


def test_global_regions_have_no_level_and_no_seoul_time():
    [book] = show(Wanted("orderbook", ("KRW-BTC",)), NOW_MS, region="id")
    assert "level" not in book
    assert show(Wanted("orderbook", ("KRW-BTC",), level="10000"), NOW_MS, region="id") == []
    [candle] = show(Wanted("candle.1m", ("KRW-BTC",)), NOW_MS, region="id")
    assert "candle_date_time_kst" not in candle


def test_a_padded_book_is_told_padded():
    code = next(code for code in WORLD.markets if (0, 0) in WORLD.orderbook(code, NOW_MS).asks)
    assert WORLD.market(code).activity is DUST
    [frame] = show(Wanted("orderbook", (code,)), NOW_MS)
    assert len(frame["orderbook_units"]) == 30
    assert frame["orderbook_units"][-1]["ask_price"] == frame["orderbook_units"][-1]["ask_size"] == 0


@pytest.mark.slow
def test_the_whole_exchange_can_be_heard_at_once():
    world = World(7)
    listed = world.listed(NOW_MS)
    wanted = [Wanted(type, tuple(listed)) for type in ("ticker", "trade", "orderbook")]
    subscription = Streams(world).open(wanted, NOW_MS)
    first = subscription.snapshots(NOW_MS)
    assert {(message.type, message.code) for message in first} == {
        (item.type, code) for item in wanted for code in listed
    }
    times = [message.at_ms for message in subscription.take(NOW_MS + 3_000)]
    assert 600 < len(times) < 6_000
    assert times == sorted(times)


@given(now_ms=st.integers(0, NOW_MS), phase_ms=st.integers(0, 1 << 32))
def test_what_is_seen_is_what_was_stored(now_ms, phase_ms):
    seen = seen_ms(now_ms, phase_ms)
    assert stored_ms(seen, phase_ms) <= now_ms < stored_ms(seen + 1, phase_ms)


def test_wrong_wishes_are_refused():
    with pytest.raises(ValueError, match=r"candle\.2m"):
        Wanted("candle.2m", ("KRW-BTC",))
    for name in ("reordered", "duplicated"):
        for share in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match=name):
                Streams(WORLD, **{name: share})
