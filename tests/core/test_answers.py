"""What an answer can prove: no more than had settled when it was given."""

from __future__ import annotations

import pytest
from paper_exchange import NOW_MS, bar, final

from marketpipe.core import timeframes
from marketpipe.core.answers import Page, page_of, settled_before, settled_ms
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import CandleState

M1 = Timeframe.M1
MINUTE_MS = 60_000
OPEN_MS = timeframes.floor(M1, NOW_MS)
BARS = tuple(final(bar(M1, OPEN_MS - ago * MINUTE_MS)) for ago in range(3))


@pytest.mark.parametrize(
    ("after_ms", "state"),
    [
        (-MINUTE_MS, CandleState.RUNNING),
        (0, CandleState.RUNNING),
        (GRACE_MS - 1, CandleState.RUNNING),
        (GRACE_MS, CandleState.FINAL),
    ],
)
def test_the_newest_bar_is_running_until_it_and_its_grace_are_over(after_ms: int, state: CandleState):
    page = page_of(BARS, BARS[0].close_ms + after_ms)
    assert [each.state for each in page] == [state, CandleState.FINAL, CandleState.FINAL]
    assert page.at_ms == BARS[0].close_ms + after_ms
    assert [each.open_ms for each in page] == [each.open_ms for each in BARS]


def test_a_bar_that_the_answer_calls_running_stays_so_whatever_time_it_is():
    running = bar(M1, OPEN_MS)
    assert page_of((running,), running.close_ms + 10 * GRACE_MS) == (running,)
    assert page_of((), NOW_MS) == ()


def test_all_has_settled_that_ended_a_grace_ago():
    assert settled_before(M1, OPEN_MS + GRACE_MS) == OPEN_MS
    assert settled_before(M1, OPEN_MS + GRACE_MS - 1) == OPEN_MS - MINUTE_MS
    assert settled_before(M1, 1) == 0


@pytest.mark.parametrize(
    ("to_ms", "at_ms", "proves_before_ms"),
    [
        (None, OPEN_MS + GRACE_MS, OPEN_MS),
        (None, OPEN_MS + GRACE_MS - 1, OPEN_MS - MINUTE_MS),
        (OPEN_MS, OPEN_MS - 5 * MINUTE_MS, OPEN_MS - 6 * MINUTE_MS),
        # It was asked for less than had settled by then: what was planned holds.
        (OPEN_MS - 6 * MINUTE_MS, OPEN_MS - 5 * MINUTE_MS, OPEN_MS),
        (OPEN_MS - 6 * MINUTE_MS - 1, OPEN_MS - 5 * MINUTE_MS, OPEN_MS),
        (OPEN_MS - 6 * MINUTE_MS + 1, OPEN_MS - 5 * MINUTE_MS, OPEN_MS - 6 * MINUTE_MS),
        # It came later than was planned, and was asked for by then.
        (None, OPEN_MS + 9 * MINUTE_MS, OPEN_MS),
    ],
)
def test_an_answer_proves_no_more_than_had_settled_when_it_was_given(
    to_ms: int | None, at_ms: int, proves_before_ms: int
):
    request = CandlesRequest("KRW-BTC", M1, 3, to_ms)
    assert settled_ms(request, Page(BARS, at_ms), OPEN_MS) == proves_before_ms


def test_an_answer_that_does_not_say_when_it_was_given_proves_what_was_planned():
    assert settled_ms(CandlesRequest("KRW-BTC", M1, 3, None), BARS, OPEN_MS) == OPEN_MS
