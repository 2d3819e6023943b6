"""Percentiles of what took how long, lately: exact to 1 %, of one to two minutes, in a room that does not grow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.latencies import ACCURACY, SHORTEST_S, TURN_S, Latencies

SHARES = (0.5, 0.95, 0.99, 1.0)
# A bin is as wide as the accuracy allows, and what is computed with floats may fall a hair beside it.
NEARLY = ACCURACY * 1.000_1

times = st.floats(0, 1e5) | st.floats(0, 1e-5)


def nearest_rank(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]


@given(st.lists(st.tuples(times, st.integers(1, 5)), min_size=1, max_size=80), st.floats(0, TURN_S))
def test_a_percentile_is_within_one_percent_of_the_time_that_has_its_rank(taken, first_s):
    latencies = Latencies()
    for number, (took_s, count) in enumerate(taken):
        # Half of them in the minute before: both minutes are one.
        latencies.record(took_s, first_s + TURN_S * (2 * number >= len(taken)), count)
    ordered = sorted(took_s for took_s, count in taken for _ in range(count))
    for share, found_s in zip(SHARES, latencies.percentiles(first_s + TURN_S, SHARES), strict=True):
        expected_s = nearest_rank(ordered, share)
        if expected_s < SHORTEST_S:
            assert found_s == 0.0
        else:
            assert found_s == pytest.approx(expected_s, rel=NEARLY)


def test_nothing_measured_is_nothing():
    assert Latencies().percentiles(5.0, SHARES) == (0.0,) * 4


@pytest.mark.parametrize("took_s", [0.0, 5e-324, 1e-300, SHORTEST_S / 2])
def test_what_took_no_time_that_can_be_told_counts_as_none_and_takes_no_room(took_s):
    latencies = Latencies()
    latencies.record(took_s, 0.0)
    latencies.record(1.0, 0.0)
    assert latencies.percentiles(0.0, (0.5,)) == (0.0,)
    assert latencies.percentiles(0.0, (1.0,))[0] == pytest.approx(1.0, rel=NEARLY)
    assert bins(latencies) < 300


def test_a_clock_that_steps_back_within_the_bounds_of_rounding_counts_as_no_time():
    latencies = Latencies()
    latencies.record(-1e-9, 0.0)
    assert latencies.percentiles(0.0, (1.0,)) == (0.0,)


def test_the_room_is_bounded_by_the_shortest_and_the_longest_time_there_is():
    latencies = Latencies()
    week_s = 7 * 86_400.0
    for number in range(20_000):
        latencies.record(SHORTEST_S * (week_s / SHORTEST_S) ** (number / 19_999), 0.0, 1_000)
    assert bins(latencies) <= 1_536


def bins(latencies: Latencies) -> int:
    return latencies._now.bins.length() + latencies._before.bins.length()


def test_a_time_is_remembered_for_one_minute_at_least_and_two_at_most():
    latencies = Latencies()
    latencies.record(9.0, 0.0)
    latencies.record(1.0, TURN_S - 0.001)
    assert latencies.percentiles(TURN_S - 0.001, (1.0,))[0] == pytest.approx(9.0, rel=NEARLY)
    assert latencies.percentiles(2 * TURN_S - 0.001, (1.0,))[0] == pytest.approx(9.0, rel=NEARLY)
    latencies.record(3.0, 2 * TURN_S - 0.001)
    assert latencies.percentiles(2 * TURN_S, (1.0,))[0] == pytest.approx(3.0, rel=NEARLY)
    assert latencies.percentiles(3 * TURN_S - 0.001, (1.0,))[0] == pytest.approx(3.0, rel=NEARLY)
    assert latencies.percentiles(3 * TURN_S, (1.0,)) == (0.0,)


def test_after_a_long_silence_nothing_of_before_is_left():
    latencies = Latencies()
    latencies.record(9.0, 0.0)
    assert latencies.percentiles(2 * TURN_S, (1.0,)) == (0.0,)
    latencies.record(1.0, 50 * TURN_S)
    assert latencies.percentiles(50 * TURN_S, (1.0,))[0] == pytest.approx(1.0, rel=NEARLY)


def test_a_look_sees_what_was_recorded_since_the_last_one():
    latencies = Latencies()
    latencies.record(1.0, 0.0)
    first = latencies.percentiles(0.0, SHARES)
    assert latencies.percentiles(0.0, SHARES) is first
    latencies.record(0.0, 0.0, 99)
    assert latencies.percentiles(0.0, (0.5, 1.0)) == (0.0, first[3])
    latencies.record(5.0, 0.0)
    assert latencies.percentiles(0.0, (0.5, 1.0))[1] == pytest.approx(5.0, rel=NEARLY)
