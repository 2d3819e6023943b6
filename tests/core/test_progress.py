"""Figures of a job: rates against a sum over all that was done, and what is counted as whole."""

from __future__ import annotations

import math
from itertools import accumulate

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.progress import HALF_S, JobState, Outcome, Pace, Progress, Report
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeUnavailable

PART = Outcome("KRW-BTC", Timeframe.M1, slots=100, done=60, gone=0, bars=59, pages=1)
PROGRESS = Progress(
    state=JobState.RUNNING,
    total=200,
    done=50,
    bars=49,
    pages=1,
    bars_per_s=1.0,
    requests_per_s=1.0,
    eta_s=None,
    elapsed_s=3.0,
    current="KRW-BTC",
    parts=(PART,),
)

steps = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 1_000)), min_size=1, max_size=20)


def of_late(done: list[tuple[float, float]], begun_s: float, now_s: float) -> float:
    """Each amount, and each second there was, weighs half as much for every `HALF_S` it lies back."""
    amount = sum(amount * 2 ** ((at_s - now_s) / HALF_S) for at_s, amount in done)
    seconds = (1 - 2 ** ((begun_s - now_s) / HALF_S)) * HALF_S / math.log(2)
    return amount / seconds if seconds > 0 else 0.0


@given(steps, st.floats(0, 60))
def test_a_pace_is_that_of_late(steps: list[tuple[float, float]], more_s: float):
    times = list(accumulate((wait_s for wait_s, _ in steps), initial=5.0))[1:]
    done = [(at_s, amount) for at_s, (_, amount) in zip(times, steps, strict=True)]
    pace = Pace()
    pace.begin(5.0)
    for at_s, amount in done:
        pace.add(amount, at_s)
    now_s = times[-1] + more_s
    if now_s - 5.0 > 1e-3:
        assert pace.per_s(now_s) == pytest.approx(of_late(done, 5.0, now_s), rel=1e-6, abs=1e-9)


@given(steps, st.lists(st.floats(0, 60), max_size=5))
def test_looking_changes_nothing(steps: list[tuple[float, float]], looks: list[float]):
    watched, alone, now_s = Pace(), Pace(), 0.0
    for pace in (watched, alone):
        pace.begin(now_s)
    for (wait_s, amount), part in zip(steps, [*looks, *[0.0] * len(steps)], strict=False):
        watched.per_s(now_s + min(part, wait_s))
        now_s += wait_s
        watched.add(amount, now_s)
        alone.add(amount, now_s)
    assert watched.per_s(now_s + 1) == pytest.approx(alone.per_s(now_s + 1))


@given(st.floats(0.1, 100))
def test_a_steady_pace_is_found_and_kept(per_s: float):
    pace = Pace()
    pace.begin(0.0)
    for tenth in range(1, 1_000):
        pace.add(per_s / 10, tenth / 10)
        if tenth > 100:
            assert pace.per_s(tenth / 10) == pytest.approx(per_s, rel=0.02)


@given(st.floats(1, 100), st.floats(1, 100))
def test_half_of_a_change_is_believed_after_ten_seconds(before: float, after: float):
    pace = Pace()
    pace.begin(0.0)
    for tenth in range(1, 2_101):
        pace.add((before if tenth <= 2_000 else after) / 10, tenth / 10)
    assert pace.per_s(210.0) == pytest.approx((before + after) / 2, rel=0.02)


def test_time_counts_from_the_first_amount_if_nobody_begins():
    pace = Pace()
    pace.add(10, 100.0)
    assert pace.per_s(100.0) == 0.0
    assert pace.per_s(101.0) == pytest.approx(of_late([(100.0, 10)], 100.0, 101.0))
    assert Pace().per_s(7.0) == 0.0


def test_a_pause_does_not_slow_the_pace():
    pace = Pace()
    pace.begin(0.0)
    for second in range(1, 21):
        pace.add(5, second)
    before = pace.per_s(20.0)
    pace.begin(500.0)
    assert pace.per_s(500.0) == before
    pace.add(5, 501.0)
    assert pace.per_s(501.0) == pytest.approx(before, rel=0.05)


def test_a_clock_that_stands_or_goes_back_does_no_harm():
    pace = Pace()
    pace.begin(10.0)
    pace.add(5, 11.0)
    rate = pace.per_s(11.0)
    assert pace.per_s(10.5) == rate
    pace.add(5, 9.0)
    assert pace.per_s(11.0) == pytest.approx(2 * rate)


@pytest.mark.parametrize(
    ("done", "gone", "is_whole"), [(0, 0, False), (99, 0, False), (100, 0, True), (40, 60, True), (39, 60, False)]
)
def test_a_part_is_whole_when_nothing_is_missing_that_the_exchange_has(done: int, gone: int, is_whole: bool):
    part = attrs.evolve(PART, done=done, gone=gone)
    assert part.is_whole is is_whole
    report = Report(JobState.DONE, bars=1, pages=1, elapsed_s=1.0, parts=(part, attrs.evolve(PART, slots=0, done=0)))
    assert report.failed == (() if is_whole else (part,))


def test_an_error_alone_is_no_failure():
    part = attrs.evolve(PART, done=100, error=ExchangeUnavailable("late"))
    assert part.is_whole


def test_a_share_is_of_the_slots_and_of_nothing_it_is_all():
    assert PROGRESS.share == 0.25
    assert attrs.evolve(PROGRESS, done=0).share == 0.0
    assert attrs.evolve(PROGRESS, total=0, done=0).share == 1.0


def test_a_pace_asked_for_twice_at_one_moment_is_the_same():
    pace = Pace()
    pace.add(5.0, 1.0)
    assert pace.per_s(1.0) == pace.per_s(1.0) == 0.0
    pace.begin(3.0)
    pace.add(5.0, 4.0)
    assert pace.per_s(4.0) == pace.per_s(4.0) > 0
