"""Which slots of a stretch have settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.cli.stretch import GRACE_MS, Stretch, refuse_what_is_to_come
from marketpipe.clock import SystemClock
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS as THEIRS
from marketpipe.core.timeframes import Timeframe

NOW_MS = 1_790_166_896_789  # 12:34:56
FUTURE_MS = 3_786_912_000_000  # 2090
M1 = Timeframe.M1


@pytest.mark.parametrize(
    ("start", "end", "settled"),
    [("12:00", None, (0, 34)), ("12:00", "12:30", (0, 30)), ("12:00", "13:00", (0, 34)), ("12:00", "12:10:30", (0, 11)),
     ("11:59:30", "12:01", (0, 1)), ("12:34", None, (34, 34)), ("15:00", None, (180, 180))],
)  # fmt: skip
def test_a_stretch_ends_where_it_is_said_or_with_the_last_slot_that_has_ended(start, end, settled):
    first, last = (noon + minute * 60_000 for minute in settled)
    assert Stretch((M1,), at(start), None if end is None else at(end)).settled(M1, NOW_MS) == (first, last)


noon = NOW_MS // 3_600_000 * 3_600_000


def at(text: str) -> int:
    hours, minutes, seconds = (*map(int, text.split(":")), 0)[:3]
    return noon + ((hours - 12) * 3_600 + minutes * 60 + seconds) * 1000


def test_a_slot_that_has_just_ended_has_not_settled():
    minute_ms = noon + 35 * 60_000
    stretch = Stretch((M1,), noon, None)
    assert stretch.settled(M1, minute_ms + GRACE_MS - 1)[1] == minute_ms - 60_000
    assert stretch.settled(M1, minute_ms + GRACE_MS)[1] == minute_ms
    assert GRACE_MS == THEIRS


def test_of_which_timeframes_no_bar_has_settled():
    stretch = Stretch((M1, Timeframe.H1, Timeframe.D1), at("12:10"), None)
    assert stretch.unsettled(NOW_MS) == (Timeframe.H1, Timeframe.D1)
    assert stretch.unsettled(at("12:10")) == stretch.timeframes
    assert stretch.unsettled(NOW_MS + 2 * 86_400_000) == ()


def test_a_stretch_without_a_settled_bar_is_refused(capsys):
    with pytest.raises(ValueError, match=r"^no 1m or 1h bar has opened and ended in that time yet$"):
        refuse_what_is_to_come(Stretch((M1, Timeframe.H1), FUTURE_MS, None))
    refuse_what_is_to_come(Stretch((M1, Timeframe.H1), NOW_MS - 86_400_000, NOW_MS))
    assert capsys.readouterr() == ("", "")


def test_where_only_some_timeframes_have_no_settled_bar_a_line_says_which(capsys):
    now_ms = SystemClock().now_ms()
    refuse_what_is_to_come(Stretch((M1, Timeframe.Y1), now_ms - 3_600_000, None))
    assert capsys.readouterr() == ("", "marketpipe: no 1y bar has opened and ended in that time yet\n")


@given(st.sampled_from(list(Timeframe)), st.integers(0, 2 * NOW_MS), st.none() | st.integers(0, 2 * NOW_MS))
def test_the_edges_are_always_those_of_slots_and_in_order(timeframe, start_ms, end_ms):
    first, last = Stretch((timeframe,), start_ms, end_ms).settled(timeframe, NOW_MS)
    assert start_ms <= first <= last
    assert first == last or last <= NOW_MS
    assert timeframes.ceil(timeframe, first) == first
    assert timeframes.ceil(timeframe, last) == last
