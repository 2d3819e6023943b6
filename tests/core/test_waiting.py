"""Who waits, in which order, and with how much patience."""

from __future__ import annotations

import math

import attrs
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.batching import Wanted
from marketpipe.core.requests import CandlesRequest, Group
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.waiting import Pending, WaitingRoom


@attrs.define(eq=False)
class Somebody:
    waits: bool = True

    def is_waiting(self) -> bool:
        return self.waits


def page(market="KRW-BTC", count=1):
    return CandlesRequest(market, Timeframe.M1, count)


def pending(key=None, due_s=0.0, *askers):
    made = Pending(key or page(), due_s)
    for asker in askers or (Somebody(),):
        made.join(asker, due_s)
    return made


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20, unique=True))
def test_the_earliest_deadline_goes_first(dues):
    """Whatever the order of arrival."""
    room = WaitingRoom()
    for index, due_s in enumerate(dues):
        room.enter(pending(page(count=index + 1), due_s))
    lots = room.lots(0.0, {})
    assert [dues[lot.request.count - 1] for lot in lots] == sorted(dues)


def test_the_most_urgent_caller_sets_the_pace():
    """A CRITICAL caller who joins a LOW question makes it urgent."""
    made = pending(page(), 5.0)
    made.join(Somebody(), 0.05)
    made.join(Somebody(), 3.0)
    assert made.due_s == 0.05


def test_what_backs_off_is_not_ready():
    """It waits out its delay, and says when it ends."""
    room = WaitingRoom()
    resting = pending()
    resting.ready_s = 7.0
    room.enter(resting)
    assert room.lots(6.9, {}) == []
    assert room.next_ready_s(1.0) == 7.0
    assert len(room.lots(7.0, {})) == 1
    assert room.next_ready_s(8.0) == 8.0
    assert WaitingRoom().next_ready_s(1.0) == math.inf


def test_halves_of_a_failed_batch_travel_by_themselves():
    """Keys of another lot are not mixed in, and never asked through ticker/all."""
    room = WaitingRoom()
    for index in range(6):
        key = Wanted(Group.TICKER, f"KRW-{index}")
        made = pending(key)
        made.lot = index // 3
        room.enter(made)
    lots = room.lots(0.0, {"KRW": {f"KRW-{index}" for index in range(6)}})
    assert sorted(sorted(key.market for key in lot.keys) for lot in lots) == [
        ["KRW-0", "KRW-1", "KRW-2"],
        ["KRW-3", "KRW-4", "KRW-5"],
    ]


def test_what_nobody_waits_for_is_dropped():
    """Unless the pipe itself wants it."""
    room = WaitingRoom()
    wanted, left, ours = (
        pending(page(count=1)),
        pending(page(count=2), 0.0, Somebody(waits=False)),
        Pending(page(count=3), 0.0),
    )
    ours.for_us = True
    for each in (wanted, left, ours):
        room.enter(each)
    assert room.drop_unwanted() == [left.key]
    assert len(room) == 2
    assert room.clear() == [wanted, ours]
    assert len(room) == 0


def test_whoever_joins_late_has_attempts_of_its_own():
    """The first caller's patience ends with its third failure, the late one's with its own third."""
    first, late = Somebody(), Somebody()
    made = pending(page(), 0.0, first)
    assert made.failed_again(refused=False, attempts=3, refusals=8) == []
    assert made.failed_again(refused=False, attempts=3, refusals=8) == []
    made.join(late, 0.0)
    assert made.failed_again(refused=False, attempts=3, refusals=8) == [first]
    assert made.failed_again(refused=False, attempts=3, refusals=8) == []
    assert made.failed_again(refused=False, attempts=3, refusals=8) == [late]
    assert made.askers == []


def test_refusals_are_counted_apart_from_failures():
    """Two refusals are no failures, and the pipe's own patience ends like anybody's."""
    made = pending()
    made.for_us = True
    assert made.failed_again(refused=True, attempts=1, refusals=3) == []
    assert made.failed_again(refused=True, attempts=1, refusals=3) == []
    assert made.for_us
    assert len(made.failed_again(refused=True, attempts=1, refusals=3)) == 1
    assert not made.for_us


def test_a_crowd_of_impatient_callers_does_not_grow_without_end():
    """Those who have left are forgotten as others join; those who wait are not."""
    made = pending(page(), 0.0, *(patient := [Somebody() for _ in range(5)]))
    for _ in range(10_000):
        made.join(Somebody(waits=False), 0.0)
    assert len(made.askers) <= 200
    assert made.askers[:5] == patient


def test_those_who_travel_have_left_the_room():
    room = WaitingRoom()
    stays, goes = pending(page(count=1)), pending(page(count=2))
    room.enter(stays)
    room.enter(goes)
    lot = next(lot for lot in room.lots(0.0, {}) if lot.keys == (goes.key,))
    assert room.leave(lot) == [goes]
    assert room.clear() == [stays]


def test_a_key_that_the_whole_quote_had_no_row_for_is_asked_by_itself():
    """Beside those that are, and only it."""
    listed = {"KRW": {f"KRW-{index}" for index in range(600)}}
    room = WaitingRoom()
    for name in sorted(listed["KRW"]):
        made = pending(Wanted(Group.TICKER, name))
        made.alone = name == "KRW-7"
        room.enter(made)
    by_size = sorted(room.lots(0.0, listed), key=lambda lot: len(lot.keys))
    assert [len(lot.keys) for lot in by_size] == [1, 599]
    assert by_size[0].keys[0].market == "KRW-7"


def test_who_joins_after_refusals_has_refusals_of_its_own():
    first, late = Somebody(), Somebody()
    made = pending(page(), 0.0, first)
    for _ in range(2):
        assert made.failed_again(refused=True, attempts=9, refusals=3) == []
    made.join(late, 0.0)
    assert made.failed_again(refused=True, attempts=9, refusals=3) == [first]
    assert made.failed_again(refused=True, attempts=9, refusals=3) == []
    assert made.failed_again(refused=True, attempts=9, refusals=3) == [late]


def test_what_the_pipe_wants_it_wants_for_as_many_attempts_as_anybody():
    made = pending()
    made.for_us = True
    made.failed_again(refused=False, attempts=2, refusals=9)
    assert made.for_us
    made.failed_again(refused=False, attempts=2, refusals=9)
    assert not made.for_us
