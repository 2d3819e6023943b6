"""What a page proves, and what no page can be."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paper_exchange import DAY_MS, GRACE_MS, NOW_MS, PAGE, CandleExchange, Story, bar, final, history, moments, stories

from marketpipe.core import timeframes
from marketpipe.core.history import Piece, first_slot, is_possible, proven, refuse_contradiction
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle, CandleState

M1, S1 = Timeframe.M1, Timeframe.S1
MARKET = "KRW-BTC"
MINUTE_MS = 60_000
# The minute of NOW_MS is running; the one before it is over, and its grace too.
SETTLED_MS = timeframes.floor(M1, NOW_MS)


def settled_ms(timeframe: Timeframe, now_ms: int = NOW_MS) -> int:
    return timeframes.floor(timeframe, now_ms - GRACE_MS)


def minutes(*slots_ago: int) -> tuple[Candle, ...]:
    """Newest first, as a page has them. The running minute is 0 slots ago."""
    return tuple(bar(M1, SETTLED_MS - ago * MINUTE_MS) for ago in slots_ago)


def opens(piece: Piece | None) -> list[int]:
    assert piece is not None
    return [(SETTLED_MS - candle.open_ms) // MINUTE_MS for candle in piece.bars]


@given(stories(now_ms=None), st.integers(1, PAGE), st.data())
@example(Story(M1, history(M1, [0, 1, 2])), 3, None)
def test_a_piece_is_the_whole_truth_about_its_slots(story: Story, count: int, data: st.DataObject | None):
    to_ms = None if data is None else data.draw(st.none() | moments(story.timeframe))
    request = CandlesRequest(MARKET, story.timeframe, count, to_ms)
    settled = settled_ms(story.timeframe, story.now_ms)
    piece = proven(request, CandleExchange(story.bars, PAGE).page(request), settled)
    if piece is None:
        # Then the newest bars are all newer than what is settled, or none was asked for.
        before = [candle for candle in story.bars if to_ms is None or candle.open_ms < to_ms]
        newer = [candle for candle in before if candle.open_ms >= settled]
        assert len(newer) >= count or (to_ms is not None and to_ms <= settled)
        return
    assert (piece.market, piece.timeframe) == (MARKET, story.timeframe)
    assert piece.start_ms < piece.end_ms <= settled
    assert all(timeframes.floor(piece.timeframe, edge) == edge for edge in (piece.start_ms, piece.end_ms))
    truth = [final(candle) for candle in story.bars if piece.start_ms <= candle.open_ms < piece.end_ms]
    assert list(piece.bars) == truth


@given(stories(), st.integers(1, PAGE), st.data())
def test_a_page_proves_as_many_slots_as_it_was_to_have_rows_at_least(story: Story, count: int, data: st.DataObject):
    to_ms = timeframes.ceil(story.timeframe, data.draw(moments(story.timeframe)))
    settled = settled_ms(story.timeframe)
    request = CandlesRequest(MARKET, story.timeframe, count, to_ms)
    piece = proven(request, CandleExchange(story.bars, PAGE).page(request), settled)
    first_ms = timeframes.shift(story.timeframe, to_ms, -count)
    if first_ms >= settled:
        return
    assert piece is not None
    assert piece.start_ms <= max(first_ms, first_slot(story.timeframe))
    assert piece.end_ms == min(to_ms, settled)


def test_a_full_page_proves_from_its_oldest_bar_on():
    piece = proven(CandlesRequest(MARKET, M1, 3, SETTLED_MS - 4 * MINUTE_MS), minutes(6, 8, 20), SETTLED_MS)
    assert piece == Piece(MARKET, M1, SETTLED_MS - 20 * MINUTE_MS, SETTLED_MS - 4 * MINUTE_MS, minutes(6, 8, 20)[::-1])
    assert not piece.is_concluded


def test_a_page_shorter_than_asked_proves_that_the_history_begins_there():
    piece = proven(CandlesRequest(MARKET, M1, 4, SETTLED_MS), minutes(6, 8, 20), SETTLED_MS)
    shown_ms = SETTLED_MS - 20 * MINUTE_MS
    assert piece == Piece(MARKET, M1, 0, SETTLED_MS, minutes(6, 8, 20)[::-1], shown_ms=shown_ms)
    assert piece.is_concluded


def test_an_empty_page_proves_that_nothing_was_ever_traded_before():
    piece = proven(CandlesRequest(MARKET, M1, 1, SETTLED_MS), (), SETTLED_MS)
    assert piece == Piece(MARKET, M1, 0, SETTLED_MS, (), shown_ms=SETTLED_MS)


def test_a_page_of_bars_that_have_not_settled_has_shown_nothing_of_what_has():
    piece = proven(CandlesRequest(MARKET, M1, 2), minutes(0), SETTLED_MS)
    assert piece == Piece(MARKET, M1, 0, SETTLED_MS, (), shown_ms=SETTLED_MS)


@given(stories(now_ms=None), st.integers(1, PAGE), st.data())
def test_what_is_not_shown_is_concluded_from_a_short_page_alone(story: Story, count: int, data: st.DataObject):
    to_ms = data.draw(st.none() | moments(story.timeframe))
    request = CandlesRequest(MARKET, story.timeframe, count, to_ms)
    page = CandleExchange(story.bars, PAGE).page(request)
    piece = proven(request, page, settled_ms(story.timeframe, story.now_ms))
    if piece is not None:
        assert piece.start_ms <= piece.shown_ms <= piece.end_ms
        assert all(each.open_ms >= piece.shown_ms for each in piece.bars)
        assert not (piece.is_concluded and len(page) == count)


@pytest.mark.parametrize("known", [0, SETTLED_MS - 21 * MINUTE_MS])
def test_a_beginning_of_history_before_which_a_bar_is_known_is_refused(known: int):
    piece = proven(CandlesRequest(MARKET, M1, 4, SETTLED_MS), minutes(6, 8, 20), SETTLED_MS)
    assert piece is not None
    with pytest.raises(BadPayload, match=rf"^KRW-BTC: .* one opens at {known}, before {piece.shown_ms}$"):
        refuse_contradiction(piece, known)


def test_a_beginning_of_history_before_which_none_is_known_is_taken():
    request = CandlesRequest(MARKET, M1, 4, SETTLED_MS)
    for page in (minutes(6, 8, 20), minutes(6, 8, 20, 21)):  # the second one is full
        piece = proven(request, page, SETTLED_MS)
        assert piece is not None
        refuse_contradiction(piece, None)
        refuse_contradiction(piece, piece.shown_ms)
        refuse_contradiction(piece, piece.start_ms - 1)


@pytest.mark.parametrize("timeframe", Timeframe)
def test_history_begins_with_the_first_slot_of_1970(timeframe: Timeframe):
    """On 1 January, but for weeks, the first of which opens on Monday the 5th."""
    if timeframe is S1:
        return  # the exchange does not keep them as long
    piece = proven(CandlesRequest(MARKET, timeframe, 1, NOW_MS), (), settled_ms(timeframe))
    assert piece is not None
    assert piece.start_ms == first_slot(timeframe) == (4 * DAY_MS if timeframe is Timeframe.W1 else 0)


def test_the_running_bar_is_left_out():
    piece = proven(CandlesRequest(MARKET, M1, 3), minutes(0, 1, 2), SETTLED_MS)
    assert opens(piece) == [2, 1]
    assert piece is not None
    assert piece.end_ms == SETTLED_MS


def test_a_bar_that_is_over_but_not_settled_is_left_out():
    """It may still change: its last ticks are stored after its end."""
    piece = proven(CandlesRequest(MARKET, M1, 3, SETTLED_MS), minutes(1, 2, 3), SETTLED_MS - MINUTE_MS)
    assert opens(piece) == [3, 2]


def test_a_page_of_the_running_bar_alone_proves_nothing():
    assert proven(CandlesRequest(MARKET, M1, 1), minutes(0), SETTLED_MS) is None


def test_a_bar_that_was_read_as_running_is_final_once_it_is_settled():
    (late,) = minutes(1)
    running = attrs.evolve(late, state=CandleState.RUNNING)
    piece = proven(CandlesRequest(MARKET, M1, 1), (running,), SETTLED_MS)
    assert piece is not None
    assert piece.bars == (late,)


def test_the_order_of_the_rows_does_not_matter():
    piece = proven(CandlesRequest(MARKET, M1, 3), minutes(8, 20, 6), SETTLED_MS)
    assert opens(piece) == [20, 8, 6]


def test_an_end_between_two_boundaries_proves_the_slot_that_holds_it():
    """Bars are asked for by their open times, and that one opens before the end."""
    piece = proven(CandlesRequest(MARKET, M1, 1, SETTLED_MS - MINUTE_MS + 1), minutes(1), SETTLED_MS)
    assert opens(piece) == [1]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (minutes(1, 2, 3, 4), "4 bars came, asked were 3"),
        (minutes(0, 1, 2), f"a bar opens at {SETTLED_MS}, asked were those before {SETTLED_MS}"),
        (minutes(1, 2, 2), f"two bars open at {SETTLED_MS - 2 * MINUTE_MS}"),
        ((bar(M1, SETTLED_MS - 59_999),), f"a bar opens at {SETTLED_MS - 59_999}, where no 1m bar can"),
        ((bar(M1, -MINUTE_MS),), "a bar opens at -60000, where no 1m bar can"),
        (
            (bar(M1, SETTLED_MS - MINUTE_MS, market="KRW-ETH"),),
            "a 1m bar of KRW-ETH came, asked were 1m bars",
        ),
        ((bar(Timeframe.M3, 0),), "a 3m bar of KRW-BTC came, asked were 1m bars"),
    ],
)
def test_a_page_that_cannot_be_the_answer_is_refused(page: tuple[Candle, ...], words: str):
    with pytest.raises(BadPayload) as caught:
        proven(CandlesRequest(MARKET, M1, 3, SETTLED_MS), page, SETTLED_MS)
    assert str(caught.value) == f"KRW-BTC: {words}"
    assert caught.value.market == MARKET


@pytest.mark.parametrize(
    "changes",
    [
        {"low": 101},
        {"low": 99, "open": 98},
        {"low": 99, "close": 98},
        {"high": 99},
        {"high": 101, "open": 102},
        {"high": 101, "close": 102},
        {"open": -1, "high": -1, "low": -1, "close": -1},
        {"volume": -1},
        {"quote_volume": -1},
    ],
)
def test_a_page_with_a_bar_that_cannot_be_true_is_refused(changes: dict[str, int]):
    whole = attrs.evolve(minutes(2)[0], **dict.fromkeys(("open", "high", "low", "close"), Decimal(100)))
    assert is_possible(whole)
    wrong = attrs.evolve(whole, **{name: Decimal(number) for name, number in changes.items()})
    assert not is_possible(wrong)
    with pytest.raises(BadPayload, match=rf"^KRW-BTC: the bar that opens at {wrong.open_ms} has prices or volumes"):
        proven(CandlesRequest(MARKET, M1, 3, SETTLED_MS), (*minutes(1), wrong), SETTLED_MS)


# -- bars of a second, which the exchange keeps for three months ----------------------------------------------------

SECOND_MS = timeframes.floor(S1, NOW_MS - GRACE_MS)


def seconds_page(count: int, *days_ago: float, to_days_ago: float = 0.0) -> Piece | None:
    page = tuple(bar(S1, SECOND_MS - round(days * DAY_MS)) for days in days_ago)
    return proven(CandlesRequest(MARKET, S1, count, SECOND_MS - round(to_days_ago * DAY_MS)), page, SECOND_MS)


def test_seconds_that_the_exchange_no_longer_keeps_are_not_called_empty():
    piece = seconds_page(2, 1.0)
    assert piece is not None
    assert piece.start_ms == SECOND_MS - 88 * DAY_MS


def test_seconds_are_proven_as_far_back_as_they_are_shown():
    """The three months may be longer than the shortest ones."""
    piece = seconds_page(3, 1.0, 91.5)
    assert piece is not None
    assert piece.start_ms == SECOND_MS - round(91.5 * DAY_MS)


def test_a_full_page_of_seconds_proves_from_its_oldest_bar_on():
    piece = seconds_page(2, 1.0, 2.0)
    assert piece is not None
    assert piece.start_ms == SECOND_MS - 2 * DAY_MS


def test_an_empty_page_of_seconds_before_those_that_are_kept_proves_nothing():
    assert seconds_page(2, to_days_ago=88.0) is None
    piece = seconds_page(2, to_days_ago=87.0)
    assert piece is not None
    assert piece.end_ms - piece.start_ms == DAY_MS
