"""What the exchange counts, held against what was told."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from paper_exchange import DAY_MS, NOW_MS

from marketpipe.core.counted import MISTRUST_AT_MOST, Counted, Told

MIDNIGHT_MS = NOW_MS // DAY_MS * DAY_MS


def at(seconds: float) -> int:
    return MIDNIGHT_MS + round(seconds * 1000)


def told(until: str, *ties: str) -> Told:
    sizes = [Decimal(size) for size in ties]
    return Told(Decimal(until) - sum(sizes), Decimal(until), min(sizes, default=Decimal(0)))


def begun(offset: int = 100) -> Counted:
    """All up to second 10 was told, and the exchange was ``offset`` ahead then."""
    counted = Counted()
    counted.certain_to(at(10))
    assert counted.agrees(at(10), Decimal(offset), told("0", "0"), at(12))
    return counted


def test_at_first_all_is_well_if_nothing_was_traded_since_what_is_certain():
    assert begun().agreed_ms == at(12)


def test_at_first_what_was_traded_since_is_looked_through():
    counted = Counted()
    counted.certain_to(at(10))
    assert not counted.agrees(at(11), Decimal(100), told("3", "3"), at(12))
    assert counted.agreed_ms == at(10)
    assert counted.agrees(at(20), Decimal(101), told("4", "1"), at(22))
    assert counted.agreed_ms == at(22)


def test_a_trade_that_was_not_told_is_noticed_whatever_its_size():
    counted = begun()
    assert counted.agrees(at(20), Decimal("107.5"), told("7.5", "0.5"), at(22))
    assert not counted.agrees(at(30), Decimal("109.00000001"), told("9", "1"), at(32))
    assert counted.agreed_ms == at(22)
    # It was found meanwhile.
    assert counted.agrees(at(30), Decimal("109.00000001"), told("9.00000001", "1"), at(42))
    assert counted.agreed_ms == at(42)


def test_of_one_millisecond_the_exchange_may_count_any_but_the_first():
    for count in ("102", "103", "105"):  # trades of 2, of 1 and of 2
        assert begun().agrees(at(20), Decimal(count), told("5", "2", "1", "2"), at(22)) is True
    assert not begun().agrees(at(20), Decimal(100), told("5", "2", "1", "2"), at(22))
    assert not begun().agrees(at(20), Decimal(106), told("5", "2", "1", "2"), at(22))


def test_nothing_is_learned_from_a_count_within_a_millisecond():
    counted = Counted()
    counted.certain_to(at(10))
    assert not counted.agrees(at(11), Decimal(100), told("3", "1", "2"), at(12))
    assert not counted.agrees(at(11), Decimal(100), told("3", "1", "2"), at(22)), "still nothing to hold it against"
    assert not counted.agrees(at(31), Decimal(101), told("4", "1"), at(32))
    assert counted.agrees(at(41), Decimal(102), told("5", "1"), at(42))


def test_what_a_count_was_ahead_by_for_want_of_a_trade_is_not_taken_for_its_offset():
    """Otherwise the next loss of the same size would be taken for what is usual."""
    counted = Counted()
    counted.certain_to(at(10))
    assert not counted.agrees(at(11), Decimal(102), told("0"), at(12))
    counted.explained(at(11))  # two were missing, and are told now
    assert not counted.agrees(at(21), Decimal(105), told("3", "1"), at(22)), "two are missing again, and told then"
    counted.explained(at(20))
    assert not counted.agrees(at(31), Decimal(106), told("6", "1"), at(32)), "nothing to hold it against yet"
    assert counted.agrees(at(41), Decimal(107), told("7", "1"), at(42))
    assert not counted.agrees(at(51), Decimal(110), told("8", "1"), at(52))


def test_a_new_day_counts_from_zero_and_the_end_of_the_old_is_looked_through():
    counted = begun()
    assert not counted.agrees(at(86_401), Decimal(2), told("9", "2"), at(86_402))
    assert counted.agreed_ms == at(12)
    assert counted.agrees(at(86_411), Decimal(3), told("10", "1"), at(86_412))
    assert not counted.agrees(at(86_421), Decimal(5), told("11", "1"), at(86_422))


def test_a_count_that_made_a_leap_is_believed_again():
    counted = begun()
    assert not counted.agrees(at(20), Decimal(108), told("7", "1"), at(22))
    assert counted.agrees(at(30), Decimal(109), told("8", "1"), at(32)), "as far ahead as at the alarm"
    assert counted.agreed_ms == at(32)
    assert not counted.agrees(at(40), Decimal(109), told("9", "1"), at(42)), "the new offset counts"


def test_a_count_that_never_agrees_is_looked_at_ever_more_rarely():
    counted = begun()
    alarms = [
        number
        for number in range(200)
        if not counted.agrees(at(20 + number), Decimal(1000 + 7 * number**2), told(str(number), "1"), at(22 + number))
    ]
    pauses = [later - earlier for earlier, later in pairwise(alarms)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {2**MISTRUST_AT_MOST}
    assert counted.agreed_ms == at(12)


def test_one_that_agrees_again_is_trusted_again():
    counted = begun()
    for number in range(3):
        counted.agrees(at(20 + number), Decimal(1000 + 7 * number**2), told("7", "1"), at(22 + number))
    assert counted.agrees(at(30), Decimal(108), told("8", "1"), at(32))
    assert counted.agreed_ms == at(32)
    for number in range(4):
        counted.agrees(at(40 + number), Decimal(1000 + 7 * number**2), told("9", "1"), at(42 + number))
    assert counted.agrees(at(50), Decimal(109), told("9", "1"), at(52))


def test_after_what_was_given_up_the_count_begins_anew():
    counted = begun()
    counted.certain_to(at(30))
    assert not counted.agrees(at(31), Decimal(500), told("7", "1"), at(32))
    assert counted.agrees(at(41), Decimal(501), told("8", "1"), at(42))


def test_the_same_may_be_missing_twice():
    counted = begun()
    assert not counted.agrees(at(20), Decimal(103), told("2", "1"), at(22))
    counted.explained(at(19))
    assert counted.agrees(at(20), Decimal(103), told("3", "1"), at(32))
    assert not counted.agrees(at(40), Decimal(104), told("3"), at(42))
    counted.explained(at(39))
    assert not counted.agrees(at(50), Decimal(105), told("4"), at(52))


def test_what_was_counted_before_it_was_told_is_no_part_of_the_offset_any_more():
    counted = begun()
    assert not counted.agrees(at(20), Decimal(103), told("0"), at(22))
    counted.explained(at(12))  # of the three that are told now, some may have been made before
    assert not counted.agrees(at(30), Decimal(104), told("4", "1"), at(32)), "nothing to hold it against"
    counted = begun()
    assert not counted.agrees(at(20), Decimal(103), told("0"), at(22))
    counted.explained(at(12) + 1)
    assert counted.agrees(at(30), Decimal(104), told("4", "1"), at(32))


def test_a_count_that_could_hide_a_loss_makes_nothing_certain():
    counted = begun()
    assert counted.agrees(at(20), Decimal(105), told("5", "2", "1", "2"), at(22)), "or 4, and one more is missing"
    assert counted.agreed_ms == at(12)
    assert counted.agrees(at(30), Decimal(106), told("6", "1"), at(32))
    assert counted.agreed_ms == at(32)


def test_what_a_count_was_ahead_by_when_what_was_missing_was_given_up_is_not_its_offset():
    counted = begun()
    counted.certain_to(at(20))
    assert not counted.agrees(at(30), Decimal(105), told("4", "1"), at(32))
    counted.certain_to(at(33))  # REST could not be read
    assert not counted.agrees(at(40), Decimal(106), told("5", "1"), at(42)), "nothing to hold it against"


def test_a_count_never_takes_back_what_agreed():
    counted = begun()
    assert counted.agrees(at(5), Decimal(100), told("0", "0"), at(6))
    assert counted.agreed_ms == at(12)
    assert counted.agrees(at(20), Decimal(101), told("1", "1"), at(18))
    assert counted.agreed_ms == at(20)
