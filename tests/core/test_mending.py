"""Reading back over a hole: everything since its start, in few pages, whatever the days do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from paper_exchange import DAY_MS, NOW_MS, PAGE, Deal, Drive, TradeExchange, trade

from marketpipe.core import mending
from marketpipe.core.mending import SLACK_MS, Reading, read_back
from marketpipe.core.requests import TradesRequest
from marketpipe.errors import BadPayload
from marketpipe.models import Trade

MARKET = "KRW-BTC"
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
HOUR_MS = 3_600_000


def at(ms: int, number: int = 0) -> Trade:
    """A trade so many ms after today's midnight."""
    return trade(TODAY_MS + ms, (TODAY_MS + ms) * 10_000 + number)


def exchange(rows: Sequence[Trade], **options: object) -> TradeExchange:
    return TradeExchange([Deal(row) for row in rows], TODAY_MS, limit=PAGE, **options)


def read(paper: TradeExchange, left_ms: int, edge: Trade | None = None) -> tuple[Reading, list[TradesRequest]]:
    """What is read back to ``left_ms`` after midnight, and what was asked for it."""
    asked: list[TradesRequest] = []

    def page(request: TradesRequest) -> tuple[Trade, ...]:
        asked.append(request)
        return paper.page(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mending, "TRADES_LIMIT", PAGE)
        newest = page(TradesRequest(MARKET, PAGE))
        reading = Drive(page).run(read_back(MARKET, newest, left_ms=TODAY_MS + left_ms, edge=edge))
    assert reading.pages == len(asked)
    return reading, asked


@st.composite
def histories(draw: st.DrawFn) -> list[Trade]:
    """Trades of some days, newest last; ties, crowds around midnights, empty days."""
    rows: dict[int, Trade] = {}
    day = st.integers(0, 9)
    moment = st.sampled_from([0, 1, 500, HOUR_MS, DAY_MS // 2, DAY_MS - 900, DAY_MS - 1]) | st.integers(0, DAY_MS - 1)
    for days_ago, ms, ties, jumble_ms in draw(
        st.lists(st.tuples(day, moment, st.integers(1, 2 * PAGE), st.integers(-300, 300)), max_size=12)
    ):
        for number in range(ties):
            at_ms = TODAY_MS - days_ago * DAY_MS + ms
            row = trade(at_ms, (at_ms + jumble_ms) * 10_000 + number)
            rows[row.sequential_id] = row
    return sorted(rows.values(), key=lambda row: (row.trade_ms, row.sequential_id))


def pages_of_days(rows: list[Trade], left_ms: int) -> int:
    """Pages that whoever knew all days beforehand would read, and one a day to see its end."""
    first_day = (TODAY_MS + left_ms) // DAY_MS
    # An empty page does not say which day it is of.
    first_day = min(first_day, rows[-1].trade_ms // DAY_MS) if rows else 0
    today = TODAY_MS // DAY_MS
    counts = [
        sum(row.trade_ms // DAY_MS == day and row.trade_ms >= TODAY_MS + left_ms for row in rows)
        for day in range(max(first_day - 1, today - 7), today + 1)
    ]
    return sum(max(1, math.ceil(count / PAGE)) for count in counts) + sum(count > 0 for count in counts)


lefts = st.builds(
    lambda days, ms: ms - days * DAY_MS, st.integers(0, 9), st.sampled_from([0, 1, 500, HOUR_MS, DAY_MS - 900])
)


@given(histories(), lefts, st.booleans(), st.none() | st.integers(1, 12))
def test_every_trade_since_the_left_edge_is_read_or_the_reading_says_where_it_ends(
    rows: list[Trade], left_ms: int, by_id: bool, midnight_at: int | None
):
    reading, _ = read(exchange(rows, by_id=by_id, midnight_at=midnight_at), left_ms - SLACK_MS)
    assume(reading.trades or left_ms > -6 * DAY_MS)  # of empty pages alone nobody knows which days they were
    since_ms = TODAY_MS + left_ms if not reading.shortfall else reading.whole_from_ms + 300
    assert {row.sequential_id for row in rows if row.trade_ms >= since_ms} <= reading.trades.keys()
    assert bool(reading.shortfall) == (reading.whole_from_ms > TODAY_MS + left_ms - SLACK_MS)
    assert not reading.shortfall or left_ms - SLACK_MS < (-6 if midnight_at is None else -5) * DAY_MS
    assert reading.reaches_stream


@given(histories(), lefts)
def test_reading_back_costs_one_page_a_day_more_than_the_trades_fill(rows: list[Trade], left_ms: int):
    reading, _ = read(exchange(rows), left_ms)
    assert reading.pages <= pages_of_days(rows, left_ms)


@given(histories(), lefts, st.integers(1, 12))
def test_a_midnight_on_the_way_costs_two_pages_more(rows: list[Trade], left_ms: int, midnight_at: int):
    reading, _ = read(exchange(rows, midnight_at=midnight_at), left_ms)
    assert reading.pages <= pages_of_days(rows, left_ms) + 2


def test_a_short_hole_of_today_is_one_page():
    rows = [at(HOUR_MS + 1_000 * number) for number in range(10)]
    reading, asked = read(exchange(rows), HOUR_MS + 6_000, edge=rows[-1])
    assert asked == [TradesRequest(MARKET, PAGE)]
    assert list(reading.trades.values()) == rows[:4:-1]
    assert reading.reaches_stream
    assert (reading.whole_from_ms, reading.shortfall) == (TODAY_MS + HOUR_MS + 6_000, "")


def test_a_long_hole_is_read_page_after_page_from_the_last_id_on():
    rows = [at(HOUR_MS + 1_000 * number) for number in range(23)]
    reading, asked = read(exchange(rows), HOUR_MS + 6_000, edge=rows[-1])
    assert [request.cursor for request in asked] == [None, *(rows[i].sequential_id for i in (18, 13, 8))]
    assert len(reading.trades) == 20


def test_trades_of_one_millisecond_on_two_pages_are_all_read():
    rows = [at(HOUR_MS, number) for number in range(8)]
    reading, _ = read(exchange(rows), HOUR_MS)
    assert len(reading.trades) == 8


def test_a_day_shown_to_its_beginning_is_enough_if_the_hole_began_later():
    _, asked = read(exchange([at(-HOUR_MS), at(HOUR_MS)]), 0)
    assert len(asked) == 1


def test_a_hole_over_midnight_is_read_in_both_days():
    rows = [at(-500), at(500)]
    reading, asked = read(exchange(rows), -100)
    assert [request.days_ago for request in asked] == [0, 1]
    assert len(reading.trades) == 2


def test_an_empty_page_does_not_say_that_the_day_before_was_empty():
    # At midnight the numbers of the days change: what the second page shows may be the day after the one meant.
    rows = [at(DAY_MS // 2), at(-DAY_MS - 5)]
    reading, asked = read(exchange(rows), -HOUR_MS)
    assert [request.days_ago for request in asked] == [0, 1, 2]
    assert len(reading.trades) == 2


def test_a_midnight_during_the_walk_leaves_nothing_out():
    rows = [at(1_000 * number) for number in range(12)]
    reading, asked = read(exchange(rows, midnight_at=1), 0)
    assert len(reading.trades) == 12
    assert [(request.days_ago, request.cursor is None) for request in asked] == [
        (0, True),
        (0, False),  # of the new day by now: empty
        (1, True),  # the same day again
        (1, False),
        (1, False),
    ]


def test_a_day_that_was_read_out_before_midnight_is_not_read_again():
    rows = [at(-2_000), at(1_000), at(2_000)]
    reading, asked = read(exchange(rows, midnight_at=1), -1_500)
    assert [(request.days_ago, request.cursor) for request in asked] == [(0, None), (1, None), (2, None)]
    assert len(reading.trades) == 3


def test_trades_of_a_new_day_stay_out_if_an_exchange_that_counts_by_id_shows_them_behind_the_cursor():
    rows = [at(DAY_MS - 6_000 + 1_000 * number) for number in range(6)]
    strange = trade(TODAY_MS + DAY_MS + 5, 7)  # made after midnight, its id far below
    reading, _ = read(exchange([*rows, strange], by_id=True, midnight_at=1), DAY_MS - 6_000)
    assert reading.trades.keys() == {row.sequential_id for row in rows}


def test_the_edge_is_looked_for_and_the_walk_ends_where_it_should_have_been():
    rows = [at(HOUR_MS + 1_000 * number) for number in range(20)]
    reading, asked = read(exchange(rows), HOUR_MS, edge=at(HOUR_MS + 60_000))
    assert not reading.reaches_stream
    assert len(asked) == 1


def test_an_edge_that_may_be_on_the_next_page_is_looked_for_there():
    rows = [at(HOUR_MS + 100 * number) for number in range(20)]
    reading, _ = read(exchange(rows), HOUR_MS, edge=rows[12])
    assert reading.reaches_stream
    reading, asked = read(exchange(rows), HOUR_MS + 1_000, edge=at(HOUR_MS + 1_950))
    assert not reading.reaches_stream
    assert len(asked) == 3


def test_an_edge_from_before_the_hole_need_not_be_shown():
    reading, asked = read(exchange([at(HOUR_MS), at(2 * HOUR_MS)]), HOUR_MS + 1, edge=at(5))
    assert reading.reaches_stream
    assert len(asked) == 1


def test_an_exchange_without_any_trade_is_asked_for_all_its_days():
    reading, asked = read(exchange([]), 0)
    assert [request.days_ago for request in asked] == list(range(8))
    assert reading.reaches_stream
    assert not reading.shortfall
    assert not read(exchange([]), 0, edge=at(5))[0].reaches_stream


def test_what_is_older_than_eight_days_is_gone():
    rows = [at(-10 * DAY_MS), at(-7 * DAY_MS + 5), at(5)]
    reading, asked = read(exchange(rows), -11 * DAY_MS, edge=rows[-1])
    assert [request.days_ago for request in asked] == list(range(8))
    assert reading.trades.keys() == {row.sequential_id for row in rows[1:]}
    assert reading.whole_from_ms == TODAY_MS - 7 * DAY_MS
    assert reading.shortfall == "the exchange keeps trades of 8 days only"
    assert reading.reaches_stream


def test_an_edge_that_is_gone_is_not_waited_for():
    reading, _ = read(exchange([at(-10 * DAY_MS), at(-7 * DAY_MS + 5)]), -11 * DAY_MS, edge=at(-10 * DAY_MS))
    assert reading.reaches_stream
    assert reading.shortfall


def test_more_trades_than_memory_is_meant_for_are_not_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mending, "READ_AT_MOST", 10)
    rows = [at(HOUR_MS + 1_000 * number) for number in range(30)]
    reading, asked = read(exchange(rows), HOUR_MS, edge=rows[-1])
    assert len(asked) == 2
    assert reading.whole_from_ms == rows[20].trade_ms + 1
    assert reading.shortfall == "no more than the newest 10 trades were read"


def test_a_page_that_shows_nothing_new_ends_the_walk_with_an_error():
    rows = [at(HOUR_MS + number) for number in range(PAGE)]

    class Stuck(TradeExchange):
        def page(self, request: TradesRequest) -> tuple[Trade, ...]:
            return tuple(rows[::-1])

    with pytest.raises(BadPayload, match=r"KRW-BTC: the page after cursor \d+ shows nothing new"):
        read(Stuck([], TODAY_MS, limit=PAGE), 0)
