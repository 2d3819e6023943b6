"""One address, one budget, however many pipelines use it one after another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.budgets import Budgets
from marketpipe.core.pacing import Slots
from marketpipe.core.requests import Group


def budgets():
    return Budgets({group: Slots(10, guard_s=0.0) for group in Group}, Slots(5, guard_s=0.0))


@given(
    ends_s=st.lists(st.floats(0, 0.99), max_size=10),
    gap_s=st.floats(0, 2),
    offset_s=st.floats(-1000, 1000),
)
def test_a_successor_never_sends_too_early(ends_s, gap_s, offset_s):
    """What it may send at once, and the requests of its predecessor's last second, are never more than the limit."""
    first, left_s = budgets(), 100.0
    slots = first.slots[Group.CANDLE]
    tickets = [slots.acquire(99.0) for _ in ends_s]
    for ticket, end_s in zip(tickets, sorted(ends_s), strict=True):
        slots.answered(ticket, 99.0 + end_s)
    second, opened_s = budgets(), left_s + gap_s + offset_s  # its clock has another origin
    second.take_over(first.remains(left_s), gap_s, opened_s)
    recent = sum(99.0 + end_s > left_s + gap_s - 1.0 + 1e-6 for end_s in ends_s)
    assert second.slots[Group.CANDLE].available(opened_s) <= 10 - recent
    assert second.slots[Group.CANDLE].available(opened_s + 1.01) == 10
    assert second.slots[Group.TICKER].available(opened_s) == 10


def test_a_ban_outlasts_its_pipeline():
    """The next one does not ask before it ends."""
    first, second = budgets(), budgets()
    first.ban.ban(100.0, 60.0)
    second.take_over(first.remains(110.0), 20.0, 5.0)
    assert second.ban.until_s(5.0) == 35.0
    third = budgets()
    third.take_over(first.remains(110.0), 50.0, 5.0)
    assert third.ban.until_s(5.0) is None


def test_taken_over_slots_do_not_look_like_requests_of_others():
    """After they rested, a reply that counts only our own request tightens nothing."""
    first, second = budgets(), budgets()
    for _ in range(10):
        first.slots[Group.TICKER].answered(first.slots[Group.TICKER].acquire(0.0), 0.0)
    second.take_over(first.remains(0.5), 0.0, 0.0)
    slots = second.slots[Group.TICKER]
    assert slots.available(0.4) == 0
    ticket = slots.acquire(0.6)
    slots.answered(ticket, 0.61, remaining=9)
    assert slots.statistics(0.61).ceiling == 10


def test_no_more_slots_are_taken_than_there_are():
    """A predecessor with a higher limit leaves more than the successor has."""
    second = budgets()
    for _ in range(30):
        second.slots[Group.TICKER].rest(5.0)
    assert second.slots[Group.TICKER].available(4.9) == 0
    assert second.slots[Group.TICKER].available(5.0) == 10


def test_everybody_who_shares_a_budget_hears_of_changes():
    """One pipeline's answer may be another's slot."""
    heard = []
    shared = budgets()
    shared.listeners += [lambda: heard.append(1), lambda: heard.append(2)]
    shared.changed()
    assert heard == [1, 2]


def test_connections_of_the_one_before_count_too():
    """The exchange counts them by address, like requests."""
    first, second = budgets(), budgets()
    for _ in range(5):
        first.connects.answered(first.connects.acquire(0.0), 0.2)
    second.take_over(first.remains(0.5), 0.1, 0.0)
    assert second.connects.available(0.5) == 0
    assert second.connects.available(0.61) == 5
