"""The exchange's limiter: what each counting mode lets in, what is written down, and how blocks grow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.sim.config import SimConfig
from marketpipe.sim.limiter import CONNECT, GROUPS, ORIGIN, Limiter, MessageLimiter

WINDOWS = ("fixed", "first", "rolling")
EPOCH_S = 1_790_000_000.0

# Steps of 1/64 s are exact in binary, so that brute force and limiter cannot differ by rounding.
gaps = st.lists(st.integers(0, 40).map(lambda n: n / 64), min_size=1, max_size=120)
limits = st.integers(1, 6)


def times_of(steps: list[float]) -> list[float]:
    times, now = [], 0.0
    for step in steps:
        now += step
        times.append(now)
    return times


def statuses(limiter: Limiter, times: list[float], group: str = "ticker", offset_s: float = EPOCH_S) -> list[int]:
    return [limiter.arrive(group, t, offset_s + t).status for t in times]


def densest(times: list[float], period_s: float = 1.0) -> int:
    return max((sum(t <= other < t + period_s for other in times) for t in times), default=0)


@given(steps=gaps, limit=limits)
def test_rolling_mode_never_accepts_more_than_the_limit_in_any_half_open_second(steps, limit):
    times = times_of(steps)
    limiter = Limiter(SimConfig(limit=limit, window="rolling", ban_after=None))
    accepted = [t for t, status in zip(times, statuses(limiter, times), strict=True) if status == 200]
    assert 0 < densest(accepted) <= limit


@given(steps=gaps, limit=limits)
def test_rolling_mode_refuses_only_what_would_break_the_limit(steps, limit):
    times = times_of(steps)
    limiter = Limiter(SimConfig(limit=limit, window="rolling", ban_after=None))
    accepted: list[float] = []
    for t, status in zip(times, statuses(limiter, times), strict=True):
        room = sum(t - 1.0 < other <= t for other in accepted) < limit
        assert (status == 200) == room
        if room:
            accepted.append(t)


@given(steps=gaps, limit=limits, offset_s=st.sampled_from([0.0, 0.25, 0.984375]))
def test_fixed_mode_counts_by_the_seconds_of_the_wall_clock(steps, limit, offset_s):
    times = times_of(steps)
    limiter = Limiter(SimConfig(limit=limit, window="fixed", ban_after=None))
    used: dict[int, int] = {}
    for t, status in zip(times, statuses(limiter, times, offset_s=offset_s), strict=True):
        second = math.floor(offset_s + t)
        used[second] = used.get(second, 0) + 1
        assert (status == 200) == (used[second] <= limit)


@given(steps=gaps, limit=limits)
def test_first_mode_counts_a_second_from_the_first_request(steps, limit):
    times = times_of(steps)
    limiter = Limiter(SimConfig(limit=limit, window="first", ban_after=None))
    start, used = -math.inf, 0
    for t, status in zip(times, statuses(limiter, times), strict=True):
        if t >= start + 1.0:
            start, used = t, 0
        used += 1
        assert (status == 200) == (used <= limit)


@pytest.mark.parametrize("window", WINDOWS)
@given(steps=gaps, limit=limits)
def test_the_greatest_counts_equal_brute_force_in_every_mode(window, steps, limit):
    times = times_of(steps)
    limiter = Limiter(SimConfig(limit=limit, window=window, ban_after=None))
    accepted = [t for t, status in zip(times, statuses(limiter, times), strict=True) if status == 200]
    seen = limiter.statistics()["ticker"]
    assert seen.greatest_per_second == densest(times)
    assert seen.greatest_accepted_per_second == densest(accepted)
    assert (seen.requests, seen.accepted) == (len(times), len(accepted))
    assert seen.refused == len(times) - len(accepted)


@pytest.mark.parametrize("window", WINDOWS)
def test_every_group_has_its_own_limit(window):
    limiter = Limiter(SimConfig(limit=2, window=window))
    assert statuses(limiter, [0.0] * 3, "candles") == [200, 200, 429]
    for group in ("market", "ticker", "orderbook", "crix-trades"):
        assert statuses(limiter, [0.0], group) == [200]


@pytest.mark.parametrize("window", WINDOWS)
def test_the_header_counts_down_to_zero_and_stays_there_on_a_refusal(window):
    limiter = Limiter(SimConfig(window=window))
    seen = [limiter.arrive("candles", 0.0, EPOCH_S).remaining_req for _ in range(11)]
    assert seen[0] == "group=candles; min=600; sec=9"
    assert seen[9:] == ["group=candles; min=600; sec=0"] * 2


@pytest.mark.parametrize("window", WINDOWS)
def test_an_origin_gets_one_request_per_ten_seconds(window):
    limiter = Limiter(SimConfig(window=window))
    verdict = limiter.arrive(ORIGIN, 0.0, EPOCH_S)
    assert (verdict.status, verdict.remaining_req) == (200, "group=origin; min=6; sec=0")
    assert statuses(limiter, [9.9, 10.0], ORIGIN) == [429, 200]


def test_refusals_add_up_to_a_block_of_every_group_that_doubles_each_time():
    limiter = Limiter(SimConfig(limit=1, ban_after=3, ban_window_s=10, ban_s=4))
    assert statuses(limiter, [0.0] * 5) == [200, 429, 429, 429, 418]
    verdict = limiter.arrive("candles", 1.0, EPOCH_S + 1)
    assert (verdict.status, verdict.blocked_s, verdict.left) == (418, 3.0, 0)
    assert statuses(limiter, [4.0] * 5) == [200, 429, 429, 429, 418]
    assert limiter.arrive("ticker", 11.5, EPOCH_S + 11.5).blocked_s == 0.5
    assert statuses(limiter, [12.0]) == [200]


def test_refusals_that_are_far_apart_never_block():
    limiter = Limiter(SimConfig(limit=1, ban_after=2, ban_window_s=10))
    for start_s in range(0, 200, 10):
        assert statuses(limiter, [float(start_s)] * 2) == [200, 429]


def test_without_ban_after_nobody_is_ever_blocked():
    limiter = Limiter(SimConfig(limit=1, ban_after=None))
    assert set(statuses(limiter, [0.0] * 1000)) == {200, 429}


def test_a_block_counts_as_refused_and_as_banned():
    limiter = Limiter(SimConfig(limit=1, ban_after=1))
    statuses(limiter, [0.0] * 4)
    seen = limiter.statistics()["ticker"]
    assert (seen.requests, seen.accepted, seen.refused, seen.banned) == (4, 1, 3, 2)


def test_statistics_name_every_group_also_the_idle_ones():
    seen = Limiter(SimConfig()).statistics()
    assert set(seen) == {*GROUPS, ORIGIN, CONNECT}
    assert all(group.requests == group.greatest_per_second == 0 for group in seen.values())


@given(steps=gaps, limit=limits, window=st.sampled_from(WINDOWS))
def test_messages_are_held_to_their_second_and_their_minute(steps, limit, window):
    times = [t * 10 for t in times_of(steps)]
    limiter = MessageLimiter(SimConfig(message_limit=limit, minute_limit=2 * limit, window=window))
    accepted = [t for t in times if limiter.arrive(t, EPOCH_S + t)]
    count = limiter.count()
    assert (count.messages, count.refused) == (len(times), len(times) - len(accepted))
    assert count.greatest_per_second == densest(times)
    assert count.greatest_accepted_per_second == densest(accepted)
    assert count.greatest_per_minute == densest(times, 60.0)
    # A window that is not rolling lets through twice as many around its edge.
    edge = 1 if window == "rolling" else 2
    assert densest(accepted) <= edge * limit
    assert densest(accepted, 60.0) <= edge * 2 * limit


def test_connections_have_a_limit_of_their_own_and_another_name_on_the_wire():
    limiter = Limiter(SimConfig(limit=1, connect_limit=3))
    verdicts = [limiter.arrive(CONNECT, 0.0, EPOCH_S) for _ in range(4)]
    assert [verdict.status for verdict in verdicts] == [200, 200, 200, 429]
    assert verdicts[0].remaining_req == "group=websocket; min=180; sec=2"


def test_a_second_is_half_open():
    limiter = Limiter(SimConfig(limit=1, window="rolling"))
    assert statuses(limiter, [0.1, 1.1]) == [200, 200]
    assert limiter.statistics()["ticker"].greatest_per_second == 1


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("limit", 0, "limit must be at least 1, was 0"),
        ("markets", 0, "markets must be 1 to 10000, was 0"),
        ("markets", 10_001, "markets must be 1 to 10000, was 10001"),
        ("seed", "7", "seed must be an int, was '7'"),
        ("limit", True, "limit must be an int, was True"),
        ("window", "sliding", "window must be one of fixed, rolling, first, was 'sliding'"),
        ("latency_s", -0.1, "latency_s must be 0 or more s, was -0.1"),
        ("jitter_s", math.nan, "jitter_s must be 0 or more s, was nan"),
        ("latency_s", "20", "latency_s must be a number of seconds, was '20'"),
        ("ban_s", 0, "ban_s must be more than 0 s, was 0"),
        ("ban_after", 0, "ban_after must be at least 1, was 0"),
        ("refusal", "xml", "refusal must be one of text, json, empty, was 'xml'"),
        ("origin_rule", "yes", "origin_rule"),
        ("idle_s", 0, "idle_s must be more than 0 s, was 0"),
        ("connect_limit", 0, "connect_limit must be at least 1, was 0"),
        ("excess", "drop", "excess must be one of close, keep, was 'drop'"),
        ("reordered", 1.5, "reordered must be from 0 to 1, was 1.5"),
        ("duplicated", "all", "duplicated must be a number from 0 to 1, was 'all'"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name_and_value(field, value, rule):
    with pytest.raises((ValueError, TypeError)) as caught:
        SimConfig(**{field: value})
    assert rule in str(caught.value)
