"""The estimate never runs ahead of the exchange's clock, whatever way its stamps take."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.exchange_time import CLAIMS, AnsweredTime, ExchangeTime, SureTime

START_MS = 1_700_000_000_000  # the exchange's clock when ours reads 0; times here are whole milliseconds


def true_ms(now_s: float) -> int:
    return START_MS + round(now_s * 1000)


def synchronised(until_s: float = 0.2) -> ExchangeTime:
    """An estimate that is exact, from two stamps that took no time at all."""
    time = ExchangeTime()
    for now_s in (until_s - 0.2, until_s):
        time.observe(true_ms(now_s), now_s)
    return time


def fed(time: ExchangeTime, offset_ms: int, start_s: float, end_s: float, every_s: float = 0.5) -> None:
    """Stamps of a clock that is ``offset_ms`` from the true one."""
    for number in range(round((end_s - start_s) / every_s)):
        now_s = start_s + number * every_s
        time.observe(true_ms(now_s) + offset_ms, now_s)


@attrs.define
class Arrival:
    """A stamp that took ``way_ms`` and came ``after_ms`` after the one before."""

    after_ms: int
    way_ms: int
    round_trip: bool


arrivals = st.lists(
    st.builds(
        Arrival,
        st.integers(0, 200) | st.integers(0, 100_000),
        st.integers(0, 300) | st.integers(0, 200_000),
        st.booleans(),
    ),
    max_size=60,
)


def played(times: list[Arrival]):
    """Let them come, one after the other; with each, the time that it is and the estimate before it came."""
    time, now_ms = ExchangeTime(), 0
    for arrival in times:
        asked_ms, now_ms = now_ms, now_ms + arrival.after_ms
        before_ms = time.now_ms(now_ms / 1000)
        stamp_ms = START_MS + now_ms - arrival.way_ms
        if arrival.round_trip and stamp_ms >= START_MS + asked_ms:
            time.observe_answer(stamp_ms // 1000 * 1000, asked_ms / 1000, now_ms / 1000)
        else:
            time.observe(stamp_ms, now_ms / 1000)
        yield time, now_ms / 1000, before_ms


looks_ms = st.lists(st.integers(0, 130_000), max_size=4).map(sorted)


@given(arrivals, looks_ms)
def test_the_estimate_is_never_later_than_the_exchange(times, looks):
    for time, now_s, _ in played(times):
        for later_s in (now_s, *(now_s + look_ms / 1000 for look_ms in looks)):
            estimate_ms = time.now_ms(later_s)
            assert estimate_ms is None or estimate_ms <= true_ms(later_s)


@given(arrivals, looks_ms)
def test_the_error_is_never_understated(times, looks):
    for time, now_s, _ in played(times):
        for later_s in (now_s, *(now_s + look_ms / 1000 for look_ms in looks)):
            estimate_ms, error_ms = time.now_ms(later_s), time.error_ms(later_s)
            if error_ms is not None:
                assert estimate_ms is not None
                assert estimate_ms <= true_ms(later_s) <= estimate_ms + error_ms


@given(arrivals)
def test_the_estimate_never_goes_backwards(times):
    """If no stamp shows that the clock was set back: here the ways differ by less than what would look so."""
    last_ms = 0
    for time, now_s, before_ms in played([attrs.evolve(arrival, way_ms=arrival.way_ms % 5000) for arrival in times]):
        for estimate_ms in (before_ms, time.now_ms(now_s)):
            if estimate_ms is not None:
                assert estimate_ms >= last_ms
                last_ms = estimate_ms


@given(arrivals, looks_ms)
def test_the_estimate_goes_forward_by_itself(times, looks):
    for time, now_s, _ in played(times):
        told = [estimate_ms for look_ms in looks if (estimate_ms := time.now_ms(now_s + look_ms / 1000)) is not None]
        assert told == sorted(told)


@given(st.lists(st.integers(0, 4000), min_size=2, max_size=40), st.integers(1, 1000))
def test_the_estimate_is_as_good_as_the_best_of_the_last_minute(ways_ms, every_ms):
    """And remembers no stamp for much longer than that."""
    time = ExchangeTime()
    for number, way_ms in enumerate(ways_ms):
        now_s = number * every_ms / 1000
        time.observe(true_ms(now_s) - way_ms, now_s)
    assert time.now_ms(now_s) == true_ms(now_s) - min(ways_ms)


def test_a_stamp_counts_for_a_minute_and_little_longer():
    time = synchronised(0.2)
    fed(time, -300, 0.5, 60.0)
    assert time.now_ms(60.0) == true_ms(60.0)
    fed(time, -300, 60.0, 67.0)
    assert time.now_ms(67.0) == true_ms(67.0) - 300


def test_nothing_is_known_before_two_stamps_agree():
    time = ExchangeTime()
    assert time.now_ms(0.0) is None
    time.observe(true_ms(0.0), 0.0)
    assert time.now_ms(0.0) is None
    time.observe(true_ms(0.1) - 50, 0.1)
    assert time.now_ms(0.1) == true_ms(0.1)


@pytest.mark.parametrize("apart_ms", [5000, -5000])
def test_two_stamps_agree_up_to_five_seconds_apart(apart_ms):
    time = ExchangeTime()
    time.observe(true_ms(0.0), 0.0)
    time.observe(true_ms(0.1) + apart_ms, 0.1)
    assert time.now_ms(0.1) == true_ms(0.1) + max(apart_ms, 0)


def test_two_stamps_further_apart_do_not_agree_and_a_third_decides():
    """The first one from the future, as well as those of markets that have not changed for minutes."""
    for strange_ms in (3_600_000, -143_000, 5001, -5001):
        time = ExchangeTime()
        time.observe(true_ms(0.0) + strange_ms, 0.0)
        time.observe(true_ms(0.1), 0.1)
        assert time.now_ms(0.1) is None
        time.observe(true_ms(0.2), 0.2)
        assert time.now_ms(0.2) == true_ms(0.2)


def test_a_stamp_of_long_ago_confirms_nothing():
    time = ExchangeTime()
    time.observe(true_ms(0.0), 0.0)
    time.observe(true_ms(60.1), 60.1)
    assert time.now_ms(60.1) is None
    time.observe(true_ms(120.0), 120.0)
    assert time.now_ms(120.0) == true_ms(120.0)


def test_a_minute_without_stamps_ends_what_is_known():
    time = synchronised(0.2)
    assert time.now_ms(60.2) == true_ms(60.2)
    assert time.now_ms(60.3) is None
    time.observe(true_ms(61.0), 61.0)
    assert time.now_ms(61.0) is None
    time.observe(true_ms(61.5), 61.5)
    assert time.now_ms(61.5) == true_ms(61.5)


def test_a_worse_stamp_changes_nothing_and_a_better_one_does():
    time = ExchangeTime()
    for way_ms, best_ms in [(300, None), (200, 200), (900, 200), (50, 50), (143_000, 50)]:
        time.observe(true_ms(1.0) - way_ms, 1.0)
        assert time.now_ms(1.0) == (None if best_ms is None else true_ms(1.0) - best_ms)


@pytest.mark.parametrize("ahead_ms", [5001, 60_000, 10**9])
def test_one_stamp_from_the_future_is_not_believed(ahead_ms):
    time = synchronised()
    time.observe(true_ms(0.3) + ahead_ms, 0.3)
    assert time.now_ms(0.3) == true_ms(0.3)


def test_a_market_whose_stamps_are_wrong_is_not_believed_however_long_it_insists():
    """As long as the others go on."""
    time = synchronised()
    for number in range(600):
        now_s = 1.0 + number / 2
        time.observe(true_ms(now_s) + 60_000, now_s)
        time.observe(true_ms(now_s) + 61_000, now_s)
        if number % 5 == 0:
            time.observe(true_ms(now_s) - 100, now_s)
        assert time.now_ms(now_s) <= true_ms(now_s)


def test_a_clock_that_was_set_forward_is_believed_after_three_seconds():
    time = synchronised()
    fed(time, 60_000, 1.0, 4.0)
    assert time.now_ms(3.9) == true_ms(3.9)
    fed(time, 60_000, 4.0, 4.5)
    assert time.now_ms(4.0) == true_ms(4.0) + 60_000


def test_three_seconds_are_not_enough_for_two_stamps():
    time = synchronised()
    time.observe(true_ms(1.0) + 60_000, 1.0)
    time.observe(true_ms(9.0) + 60_000, 9.0)
    assert time.now_ms(9.0) == true_ms(9.0)
    time.observe(true_ms(9.1) + 60_000, 9.1)
    assert time.now_ms(9.1) == true_ms(9.1) + 60_000


def test_old_stamps_speak_neither_for_nor_against_a_claim():
    """Of markets that have not changed for minutes."""
    time = synchronised()
    for now_s in (1.0, 2.0, 3.0, 4.0):
        time.observe(true_ms(now_s) + 60_000, now_s)
        time.observe(true_ms(now_s) - 5001, now_s)
    assert time.now_ms(4.0) == true_ms(4.0) + 60_000


def test_a_claim_that_was_believed_vouches_for_no_other():
    time = synchronised()
    fed(time, 60_000, 1.0, 4.5)
    time.observe(true_ms(4.1) + 3_600_000, 4.1)
    assert time.now_ms(4.1) == true_ms(4.1) + 60_000


def test_claims_against_a_forgotten_estimate_do_not_count_against_the_next():
    time = synchronised()
    for now_s in (50.0, 51.0):
        time.observe(true_ms(now_s) + 60_000, now_s)
    fed(time, 0, 61.0, 62.0)
    time.observe(true_ms(62.0) + 3_600_000, 62.0)
    assert time.now_ms(62.0) == true_ms(62.0)


def test_of_several_claims_the_least_is_believed():
    time = synchronised()
    for now_s, ahead_ms in [(1.0, 3_600_000), (2.0, 60_000), (3.0, 90_000), (4.0, 70_000)]:
        time.observe(true_ms(now_s) + ahead_ms, now_s)
    assert time.now_ms(4.0) == true_ms(4.0) + 60_000


def test_what_was_estimated_from_an_old_stamp_is_soon_put_right():
    """Two markets that have not changed for the same two minutes agree with each other."""
    time = ExchangeTime()
    time.observe(true_ms(0.0) - 120_000, 0.0)
    time.observe(true_ms(0.1) - 121_000, 0.1)
    fed(time, -100, 0.5, 4.5)
    assert time.now_ms(4.5) == true_ms(4.5) - 100


@pytest.mark.parametrize("ahead_ms", [1, 4000, 5000])
def test_a_small_step_forward_is_believed_at_once(ahead_ms):
    time = synchronised()
    time.observe(true_ms(0.3) + ahead_ms, 0.3)
    assert time.now_ms(0.3) == true_ms(0.3) + ahead_ms


@pytest.mark.parametrize("behind_ms", [5001, 600_000])
def test_a_clock_that_was_set_back_is_followed_within_about_a_minute(behind_ms):
    time = synchronised(10.0)
    fed(time, -behind_ms, 10.5, 80.5)
    assert time.now_ms(70.0) is not None
    assert time.now_ms(80.0) == true_ms(80.0) - behind_ms


def test_after_a_small_step_back_the_estimate_stands_still():
    time, told = synchronised(10.0), []
    for number in range(160):
        now_s = 10.5 + number / 2
        time.observe(true_ms(now_s) - 4000, now_s)
        told.append(time.now_ms(now_s))
    assert told == sorted(told)
    assert len(set(told)) < len(told)
    assert told[-1] == true_ms(now_s) - 4000


def test_an_estimate_that_stands_still_is_not_lowered_a_second_time():
    """The best stamp of all is forgotten at 69.9 s, and the second best so soon after that the first still holds."""
    time = synchronised(0.2)
    time.observe(true_ms(7.0) - 3000, 7.0)
    for now_s in range(15, 66, 10):
        time.observe(true_ms(now_s - 0.1) - 4900, now_s - 0.1)
    for now_s, told_s in [(69.9, 69.9), (70.1, 69.9), (73.9, 69.9), (74.0, 70.0)]:
        time.observe(true_ms(now_s) - 4000, now_s)
        assert time.now_ms(now_s) == true_ms(told_s)


def test_an_estimate_that_was_forgotten_is_not_followed_by_an_earlier_one():
    time = synchronised(0.2)
    assert time.now_ms(60.2) == true_ms(60.2)
    fed(time, -3000, 61.0, 62.0)
    assert time.now_ms(61.5) == true_ms(61.5)


def test_a_step_back_while_nothing_came_does_not_hold_the_estimate_up():
    time = synchronised()
    fed(time, -3_600_000, 100.0, 101.0)
    assert time.now_ms(101.0) == true_ms(101.0) - 3_600_000


def test_a_step_back_after_a_small_one_is_followed_too():
    """The estimate that stands still is given up as well."""
    time = synchronised(10.0)
    fed(time, -4000, 10.5, 75.0)
    fed(time, -600_000, 75.0, 150.0)
    assert time.now_ms(149.5) == true_ms(149.5) - 600_000


def test_the_error_is_what_a_round_trip_and_the_cut_off_seconds_allow():
    time = synchronised(10.0)
    assert time.error_ms(10.0) is None
    time.observe_answer(true_ms(10.0) // 1000 * 1000, 9.9, 10.3)
    assert time.now_ms(10.3) == true_ms(10.3)
    assert time.error_ms(10.3) == 1100
    time.observe_answer(true_ms(10.9) // 1000 * 1000, 10.85, 11.0)
    assert time.error_ms(11.0) == 150


def test_the_error_covers_what_was_rounded_away():
    """Less than a millisecond, of the estimate as well as of the bound."""
    time = ExchangeTime()
    for number in range(2):
        time.observe_answer(START_MS, 0.0, 0.0004 + number / 10_000)
    assert time.now_ms(0.0014) == START_MS + 1
    assert time.error_ms(0.0014) == 1001


def test_the_error_is_unknown_a_minute_after_the_last_answer():
    time = ExchangeTime()
    time.observe_answer(true_ms(0.0), 0.0, 0.1)
    time.observe_answer(true_ms(1.0), 1.0, 1.1)
    assert time.error_ms(1.1) is not None
    fed(time, 0, 1.5, 61.5)
    assert time.now_ms(61.2) is not None
    assert time.error_ms(61.2) is None


def test_bounds_that_contradict_each_other_are_no_error():
    """The clock was set forward after the answer."""
    time = ExchangeTime()
    time.observe_answer(true_ms(0.0), 0.0, 0.1)
    time.observe_answer(true_ms(1.0), 1.0, 1.1)
    time.observe(true_ms(2.0) + 4000, 2.0)
    assert time.now_ms(2.0) == true_ms(2.0) + 4000
    assert time.error_ms(2.0) is None


def test_many_stamps_take_no_more_room_than_few():
    time = ExchangeTime()
    for number in range(50_000):
        now_s = number / 100
        time.observe(true_ms(now_s) - number % 3000, now_s)
    assert len(time._earliest._buckets) <= 13
    stranger = ExchangeTime()
    for number in range(1000):
        stranger.observe(true_ms(0.0) + number * 10_000, number / 100)
    assert stranger.now_ms(10.0) is None
    assert len(stranger._candidates) <= 16


def test_the_sure_time_is_the_least_that_was_believed_within_ten_minutes():
    sure = SureTime()
    sure.observe(1_000_000, 100.0)
    assert sure.now_ms(100.0) == 1_000_000
    sure.observe(1_061_000, 101.0)  # a minute ahead
    assert sure.now_ms(101.0) == 1_001_000
    sure.observe(1_000_900, 101.0)  # a little behind
    sure.observe(1_000_950, 101.0)
    assert sure.now_ms(101.0) == 1_000_900
    assert sure.now_ms(99.5) == 999_400
    for minute in range(2, 12):
        sure.observe(1_060_000 + (minute * 60 - 100) * 1000, minute * 60.0)
    assert sure.now_ms(660.0) == 1_620_000  # what all have said for ten minutes


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(-1_000, 100_000)), min_size=1, max_size=40))
def test_the_sure_time_is_never_ahead_of_anything_of_the_last_nine_minutes(told: list[tuple[float, int]]):
    sure, now_s, offsets = SureTime(), 0.0, []
    for pause_s, ahead_ms in told:
        now_s += pause_s
        believed_ms = 10**12 + int(now_s * 1000) + ahead_ms
        sure.observe(believed_ms, now_s)
        offsets.append((now_s, believed_ms - now_s * 1000))
        assert all(sure.now_ms(now_s) <= offset + now_s * 1000 + 1 for at_s, offset in offsets if at_s > now_s - 540)


def test_silence_makes_the_sure_time_forget_nothing_but_three_minutes_of_talk_do():
    sure, hour_s = SureTime(), 3600.0
    sure.observe(true_ms(0.0), 0.0)
    for number, now_s in enumerate((hour_s, hour_s + 60.0, hour_s + 120.0)):
        sure.observe(true_ms(now_s) + 60_000, now_s)
        assert sure.now_ms(now_s) == true_ms(now_s) + (60_000 if number == 2 else 0)


# -- of REST alone ------------------------------------------------------------------------------------------------


def date_of(now_s: float, offset_ms: int = 0) -> int:
    """The `Date` of an answer that was given at that time."""
    return (true_ms(now_s) + offset_ms) // 1000 * 1000


def answered(time: AnsweredTime, *offsets_ms: int, start_s: float, every_s: float = 1.0) -> list[int]:
    """Answers whose dates are so far off, each 0.1 s after it was asked for; by how much each was believed to be."""
    told = []
    for number, offset_ms in enumerate(offsets_ms):
        now_s = start_s + number * every_s
        at_ms = time.answered(date_of(now_s, offset_ms), now_s - 0.1, now_s)
        assert at_ms is not None
        assert at_ms <= date_of(now_s, offset_ms)
        told.append(at_ms - true_ms(now_s))
    return told


def test_nothing_is_known_before_the_first_answer_and_its_date_is_all_there_is_after_it():
    time = AnsweredTime()
    assert time.now_ms(5.0) is None
    assert time.answered(None, 4.0, 5.0) is None
    assert time.answered(date_of(5.9), 5.8, 5.9) == date_of(5.9)
    assert time.now_ms(65.9) == date_of(5.9) + 60_000


def test_an_answer_without_a_date_was_given_after_it_was_asked_for():
    time = AnsweredTime()
    answered(time, 0, 0, start_s=1.0)
    assert time.answered(None, 2.5, 3.5) == true_ms(2.5)


@pytest.mark.parametrize("ahead_ms", [6_000, 60_000, 600_000, 86_400_000])
@pytest.mark.parametrize("right", [0, 1, 5])
def test_one_wrong_date_among_right_ones_moves_nothing(ahead_ms: int, right: int):
    """Not even if it is the first, once another one has come; and it is believed itself no more than the others."""
    time = AnsweredTime()
    before = answered(time, *[0] * right, start_s=1.0)
    (wrong,) = answered(time, ahead_ms, start_s=1.0 + right)
    assert wrong <= (0 if right else ahead_ms)
    after = answered(time, 0, 0, 0, start_s=2.0 + right)
    assert {*before, *after} <= {0}
    assert time.now_ms(100.0) is not None
    assert -1_000 <= time.now_ms(4.0 + right) - true_ms(4.0 + right) <= 0


def test_half_a_minute_of_wrong_dates_moves_nothing_even_after_an_hour_of_silence():
    time = AnsweredTime()
    answered(time, 0, 0, 0, start_s=1.0)
    assert max(answered(time, *[600_000] * 30, start_s=3600.0)) <= 0
    assert max(answered(time, *[0] * 30, start_s=3630.0)) <= 0


def test_a_clock_that_stays_ahead_is_followed_after_ten_minutes():
    time = AnsweredTime()
    answered(time, 0, 0, start_s=1.0)
    told = answered(time, *[600_000] * 700, start_s=10.0)
    assert max(told[:540]) <= 0
    assert set(told[660:]) == {600_000}


def test_a_clock_that_stays_ahead_is_followed_though_it_is_seldom_asked():
    time = AnsweredTime()
    answered(time, 0, 0, start_s=1.0)
    assert answered(time, *[600_000] * 4, start_s=3600.0, every_s=3600.0)[-1] == 600_000


def test_an_answer_from_the_past_speaks_for_itself_alone():
    time = AnsweredTime()
    answered(time, 0, 0, start_s=1.0)
    assert answered(time, -600_000, 0, start_s=3.0) == [-600_000, 0]


dates = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 9), st.integers(0, 5)), min_size=1, max_size=60)


@given(dates)
def test_true_dates_are_never_ahead_and_hardly_behind(answers: list[tuple[float, float, int]]):
    """``answers``: what has passed, how long each took, and how long before it came it was dated."""
    time, now_s, ways_s = AnsweredTime(), 0.0, []
    for passed_s, took_s, way in answers:
        now_s = round(now_s + passed_s + took_s, 3)
        dated_s = now_s - took_s * way / 5
        ways_s.append(took_s * way / 5)
        at_ms = time.answered(date_of(dated_s), now_s - took_s, now_s)
        assert at_ms is not None
        assert at_ms <= date_of(dated_s)
        now_ms = time.now_ms(now_s)
        assert now_ms is not None
        assert 0 <= true_ms(now_s) - now_ms <= 1_002 + max(ways_s) * 1000


def test_an_answer_given_at_the_beginning_of_a_second_brings_the_estimate_nearer():
    time = AnsweredTime()
    late_s = (1_999 - START_MS % 1_000) / 1_000
    for now_s in (late_s, late_s + 1.0, late_s + 1.001):
        time.answered(true_ms(now_s) // 1_000 * 1_000, now_s, now_s)
    assert time.now_ms(late_s + 1.001) == true_ms(late_s + 1.001)


def test_claims_of_a_leap_count_only_in_a_row():
    time = synchronised(0.2)
    for now_s in range(1, 50):
        ahead_ms = 0 if now_s % CLAIMS == 0 else 100_000
        time.observe(true_ms(now_s) + ahead_ms, float(now_s))
        assert time.now_ms(float(now_s)) == true_ms(now_s)
