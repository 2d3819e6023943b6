"""Silence is suspected in time and not all the time, on a clock that only the test moves."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marketpipe.core.liveness import Suspicion, Vigil, is_stalled
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic

BTC, ETH, XRP = (Topic(Line.TRADE, f"KRW-{base}") for base in ("BTC", "ETH", "XRP"))
TOPICS = [BTC, ETH, XRP]
SILENCE_S, SNAPSHOT_S = 2.0, 5.0
CHECK_S = 0.2  # what a check takes in these tests


def watching(*topics: Topic, now_s: float = 0.0) -> Vigil:
    vigil = Vigil()
    vigil.subscribed(topics, now_s)
    return vigil


def paced(vigil: Vigil, topic: Topic, interval_s: float, count: int = 20, start_s: float = 0.0) -> float:
    """``count`` frames of ``topic``, so far apart; when the last of them came."""
    for number in range(count):
        vigil.seen(topic, start_s + number * interval_s)
    return start_s + (count - 1) * interval_s


# -- a watcher, who looks when he was told to and at no other time -----------------------------------------------------


@attrs.define
class Alarm:
    at_s: float
    suspicion: Suspicion


def watch(vigil: Vigil, events: Iterable[tuple[float, Topic | None]], until_s: float) -> Iterator[Alarm]:
    """Let ``events`` (a frame of a topic, or a sign of life) happen, and clear each suspicion after a check."""
    events = iter(events)
    event = next(events, (math.inf, None))
    look_s = vigil.next_look_s(0.0)
    while min(look_s, event[0]) <= until_s:
        if event[0] <= look_s:
            now_s, topic = event
            if topic is None:
                vigil.sign_of_life(now_s)
            else:
                vigil.seen(topic, now_s)
            event = next(events, (math.inf, None))
            continue
        suspicion = vigil.suspicion(look_s)
        if suspicion is None:
            look_s = vigil.next_look_s(look_s)
            continue
        yield Alarm(look_s, suspicion)
        vigil.cleared(suspicion.topics, look_s)
        look_s = vigil.next_look_s(look_s + CHECK_S)


def periodic(interval_s: float, missing: float = 0.0) -> Callable[[random.Random], Iterator[float]]:
    """A grid, such as that of order books and candles, on which some places stay empty."""

    def arrivals(draw: random.Random) -> Iterator[float]:
        now_s = 0.0
        while True:
            now_s += interval_s
            if draw.random() >= missing:
                yield now_s + draw.uniform(0, interval_s / 20)

    return arrivals


def at_random(mean_s: float) -> Callable[[random.Random], Iterator[float]]:
    """Each frame without regard to the others."""

    def arrivals(draw: random.Random) -> Iterator[float]:
        now_s = 0.0
        while True:
            now_s += draw.expovariate(1 / mean_s)
            yield now_s

    return arrivals


def in_bunches(mean_s: float, size: float, width_s: float) -> Callable[[random.Random], Iterator[float]]:
    """Bunches at random, of ``size`` frames on average."""

    def arrivals(draw: random.Random) -> Iterator[float]:
        waiting: list[float] = []
        for now_s in at_random(mean_s)(draw):
            while waiting and waiting[0] <= now_s:
                yield heapq.heappop(waiting)
            heapq.heappush(waiting, now_s)
            while draw.random() > 1 / size:
                heapq.heappush(waiting, now_s + draw.uniform(0, width_s))

    return arrivals


def by_turns(busy_s: float, quiet_s: float, turn_s: float) -> Callable[[random.Random], Iterator[float]]:
    """At random, with one mean and then the other."""

    def arrivals(draw: random.Random) -> Iterator[float]:
        now_s, means = 0.0, [busy_s, quiet_s]
        while True:
            end_s = now_s + draw.expovariate(1 / turn_s)
            while (now_s := now_s + draw.expovariate(1 / means[0])) < end_s:
                yield now_s
            now_s, means = end_s, means[::-1]

    return arrivals


def flowing(arrivals: Iterator[float], until_s: float) -> Iterator[tuple[float, Topic | None]]:
    """Frames of BTC until then, on a connection that has a frame of something else every 0.5 s for ever."""
    frames: Iterator[tuple[float, Topic | None]] = (
        (now_s, BTC) for now_s in itertools.takewhile(lambda now_s: now_s <= until_s, arrivals)
    )
    others: Iterator[tuple[float, Topic | None]] = ((number / 2, None) for number in itertools.count())
    return heapq.merge(frames, others, key=lambda event: event[0])


HOURS = 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrivals", "an_hour"),
    [
        pytest.param(periodic(0.1), 0, id="an order book every 100 ms"),
        pytest.param(periodic(1.0), 0, id="a candle every second"),
        pytest.param(periodic(1.0, 0.15), 8, id="a candle in most seconds"),
        pytest.param(periodic(1.0, 0.5), 2, id="a candle in every other second"),
        pytest.param(at_random(0.2), 2, id="5 a second"),
        pytest.param(at_random(0.5), 6, id="2 a second"),
        pytest.param(at_random(1.0), 20, id="1 a second"),
        pytest.param(at_random(1.5), 10, id="2 in 3 seconds"),
        pytest.param(at_random(3.0), 2, id="1 in 3 seconds"),
        pytest.param(at_random(30.0), 0, id="2 a minute"),
        pytest.param(in_bunches(0.5, 5, 0.05), 4, id="five at once, twice a second"),
        pytest.param(in_bunches(1.0, 5, 0.5), 40, id="five within half a second, every second"),
        pytest.param(in_bunches(2.0, 5, 0.05), 3, id="five at once, every 2 seconds"),
        pytest.param(in_bunches(2.0, 5, 0.5), 22, id="five within half a second, every 2 seconds"),
        pytest.param(in_bunches(10.0, 20, 1.0), 10, id="twenty within a second, every 10 seconds"),
        pytest.param(by_turns(0.1, 5.0, 5.0), 70, id="a market that comes and goes in seconds"),
        pytest.param(by_turns(0.2, 3.0, 30.0), 45, id="a market that comes and goes in half minutes"),
    ],
)
def test_a_market_that_lives_seldom_cries_wolf(arrivals, an_hour):
    """False alarms of one topic in an hour. One is one request, of the 36,000 that an hour allows."""
    until_s = HOURS * 3600
    alarms = list(watch(watching(BTC), flowing(arrivals(random.Random(2)), until_s), until_s))
    assert len(alarms) / HOURS <= an_hour
    assert all(not alarm.suspicion.whole for alarm in alarms)


@settings(max_examples=60)
@given(
    arrivals=st.sampled_from(
        [
            periodic(0.1),
            periodic(1.0),
            at_random(0.05),
            at_random(0.25),
            in_bunches(0.25, 5, 0.1),
            by_turns(0.02, 0.25, 10.0),
        ]
    ),
    seed=st.integers(0, 10**6),
    stall_s=st.floats(20.0, 90.0),
)
def test_a_stall_of_a_busy_topic_is_suspected_within_twice_the_silence(arrivals, seed, stall_s):
    """At whatever moment it begins, and whatever false alarms there were before."""
    vigil = watching(BTC)
    alarms = list(watch(vigil, flowing(arrivals(random.Random(seed)), stall_s), stall_s + 10))
    last_s = vigil._watches[BTC].heard_s
    assert stall_s - 5 < last_s <= stall_s
    assert any(last_s + SILENCE_S - 1e-9 < alarm.at_s <= last_s + 2 * SILENCE_S + 1e-9 for alarm in alarms)


@given(
    gaps=st.lists(st.floats(0.0, 1.9), max_size=30),
    kinds=st.lists(st.sampled_from([*TOPICS, None]), min_size=30, max_size=30),
)
def test_a_stall_of_the_connection_is_suspected_after_the_silence_and_not_before(gaps, kinds):
    """From the first moment on, if there never is a frame."""
    events, now_s = [], 0.0
    for gap_s, kind in zip(gaps, kinds, strict=False):
        now_s += gap_s
        events.append((now_s, kind))
    first = next(watch(watching(*TOPICS), events, now_s + 60), None)
    assert first is not None
    assert first.suspicion.whole
    assert first.suspicion.topics == frozenset(TOPICS)
    assert first.at_s == pytest.approx(now_s + SILENCE_S, abs=1e-6)


@given(every_s=st.floats(0.05, 3.0), last_frame_s=st.floats(0.0, 20.0))
def test_subscribing_again_and_again_does_not_hide_a_stall(every_s, last_frame_s):
    """The first message after the last frame is given time for its snapshots, and no other is."""
    vigil = watching(BTC)
    vigil.sign_of_life(last_frame_s)
    now_s, number = last_frame_s, 0
    while vigil.suspicion(now_s) is None and now_s < last_frame_s + 60:
        number += 1
        before_s, now_s = now_s, min(last_frame_s + number * every_s, max(now_s, vigil.next_look_s(now_s)))
        if vigil.suspicion(now_s) is None:
            vigil.subscribed([BTC, Topic(Line.TRADE, f"KRW-{number}")], now_s)
        assert now_s > before_s
    assert last_frame_s + SILENCE_S - 1e-9 <= now_s <= last_frame_s + 1.5 * SILENCE_S + 1e-9


class AgainstModel(RuleBasedStateMachine):
    """The connection as a whole, first frames and snapshots, against the bare log. Times are multiples of 1/8 s."""

    some = st.sets(st.sampled_from(TOPICS))

    def __init__(self) -> None:
        super().__init__()
        self.vigil = Vigil(silence_s=SILENCE_S, snapshot_s=SNAPSHOT_S)
        self.now_s = 1000.0
        self.topics: set[Topic] = set()
        self.unseen: dict[Topic, float] = {}
        self.heard_s = self.excused_s = self.asked_s = -math.inf

    def due_s(self) -> float:
        return max(self.heard_s + SILENCE_S, self.excused_s + SILENCE_S, self.asked_s + SILENCE_S / 2)

    @rule(eighths=st.integers(1, 10))
    def time_passes(self, eighths):
        self.now_s += eighths / 8

    @rule()
    def time_passes_until_the_next_look(self):
        self.now_s = min(self.vigil.next_look_s(self.now_s), self.now_s + 100)

    @rule(topics=some)
    def subscribe(self, topics):
        answered = self.asked_s <= max(self.heard_s, self.excused_s)
        if not self.topics:
            self.heard_s = self.now_s
        elif topics - self.topics and self.now_s < self.due_s() and answered:
            self.asked_s = self.now_s
        self.unseen = {topic: self.unseen.get(topic, self.now_s) for topic in topics - (self.topics - set(self.unseen))}
        self.topics = topics
        self.vigil.subscribed(topics, self.now_s)

    @rule(topic=st.sampled_from(TOPICS))
    def frame(self, topic):
        assert self.vigil.seen(tuple(topic), self.now_s) == (topic in self.unseen)
        self.unseen.pop(topic, None)
        self.heard_s = self.now_s

    @rule()
    def frame_of_nothing(self):
        self.vigil.sign_of_life(self.now_s)
        self.heard_s = self.now_s

    @rule(topics=some, ago=st.integers(0, 4))
    def clear(self, topics, ago):
        asked_s = self.now_s - ago / 8
        self.vigil.cleared(topics, asked_s)
        for topic in topics & set(self.unseen):
            if self.unseen[topic] + SNAPSHOT_S <= asked_s:
                self.unseen[topic] = asked_s
        if self.topics <= topics:
            self.excused_s = asked_s

    @invariant()
    def the_whole_is_suspicious_when_it_is_due(self):
        for ahead in range(30):
            later_s = self.now_s + ahead / 8
            suspicion = self.vigil.suspicion(later_s)
            whole = bool(self.topics) and self.due_s() <= later_s
            assert (suspicion is not None and suspicion.whole) == whole
            if whole:
                assert suspicion.topics == self.topics
                assert suspicion.silent_s == later_s - self.heard_s

    @invariant()
    def snapshots_are_missed_in_time(self):
        assert self.vigil.without_snapshot(self.now_s) == {
            topic for topic, since_s in self.unseen.items() if since_s + SNAPSHOT_S <= self.now_s
        }

    @invariant()
    def nothing_changes_before_the_next_look(self):
        look_s = self.vigil.next_look_s(self.now_s)
        if not self.topics:
            assert look_s == math.inf
            return
        assert self.now_s < look_s <= self.now_s + SILENCE_S
        for later_s in (self.now_s, (self.now_s + look_s) / 2, math.nextafter(look_s, 0)):
            suspicion, now = self.vigil.suspicion(later_s), self.vigil.suspicion(self.now_s)
            assert (suspicion and suspicion.topics) == (now and now.topics)
            assert self.vigil.without_snapshot(later_s) == self.vigil.without_snapshot(self.now_s)


TestAgainstModel = pytest.mark.slow(AgainstModel.TestCase)
TestAgainstModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# -- examples ----------------------------------------------------------------------------------------------------------


def test_nothing_is_suspicious_where_nothing_is_subscribed():
    vigil = Vigil()
    assert vigil.suspicion(100.0) is None
    assert vigil.next_look_s(100.0) == math.inf
    vigil.subscribed([BTC], 100.0)
    vigil.subscribed([], 101.0)
    assert vigil.suspicion(1000.0) is None
    assert vigil.without_snapshot(1000.0) == frozenset()


def test_silence_from_the_first_moment_is_told_in_words():
    vigil = watching(BTC, ETH, now_s=10.0)
    assert vigil.suspicion(11.99) is None
    assert vigil.suspicion(12.125) == Suspicion(frozenset({BTC, ETH}), True, 2.125, "no frame for 2.1 s")


def test_subscribing_after_a_pause_without_any_starts_the_silence_anew():
    vigil = watching(BTC)
    vigil.subscribed([], 1.0)
    vigil.subscribed([BTC], 50.0)
    assert vigil.suspicion(51.9) is None
    assert vigil.suspicion(52.0) is not None


def test_a_subscription_is_given_time_for_its_snapshots():
    vigil = watching(BTC)
    vigil.subscribed([BTC, ETH], 1.5)
    assert vigil.suspicion(2.4) is None
    assert vigil.suspicion(2.5) is not None


def test_leaving_topics_or_keeping_them_gives_no_time():
    vigil = watching(BTC, ETH)
    vigil.subscribed([BTC, ETH], 1.5)
    vigil.subscribed([BTC], 1.75)
    assert vigil.suspicion(2.0) is not None


def test_a_subscription_is_given_time_once_after_each_sign_that_all_is_well():
    vigil = watching(BTC)
    vigil.subscribed([BTC, ETH], 1.5)
    vigil.cleared([BTC, ETH], 2.5)
    vigil.subscribed([BTC, ETH, XRP], 4.0)
    assert vigil.suspicion(4.9) is None
    assert vigil.suspicion(5.0) is not None


def test_a_frame_of_something_else_shows_that_the_connection_lives():
    """An order of the exchange's own, or what is left over of a subscription that was replaced."""
    vigil = watching(BTC)
    vigil.sign_of_life(1.5)
    assert vigil.seen(ETH, 3.0) is False
    assert vigil.suspicion(4.9) is None
    assert vigil.without_snapshot(5.0) == {BTC}


def test_a_busy_topic_is_suspected_alone():
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.25)
    vigil.sign_of_life(last_s + 1.5)
    assert vigil.suspicion(last_s + 1.99) is None
    assert vigil.suspicion(last_s + 2.0) == Suspicion(frozenset({BTC}), False, 2.0, "no frame of KRW-BTC for 2.0 s")


def test_several_silent_topics_are_one_suspicion_and_the_longest_is_named():
    vigil = watching(BTC, ETH, XRP)
    paced(vigil, BTC, 0.25, start_s=0.25)
    last_s = paced(vigil, ETH, 0.25)
    vigil.sign_of_life(last_s + 2.0)
    suspicion = vigil.suspicion(last_s + 2.5)
    assert suspicion is not None
    assert suspicion.topics == {BTC, ETH}
    assert suspicion.words == "no frame of KRW-ETH and 1 more for 2.5 s"


def test_a_candle_is_named_with_its_timeframe():
    minute = Topic(Line.CANDLE, "KRW-BTC", Timeframe.M1)
    vigil = watching(minute, ETH)
    last_s = paced(vigil, minute, 1.0)
    vigil.sign_of_life(last_s + 3.5)
    suspicion = vigil.suspicion(last_s + 4.0)
    assert suspicion is not None
    assert suspicion.words == "no frame of candle.1m KRW-BTC for 4.0 s"


@pytest.mark.parametrize(
    ("interval_s", "patience_s"),
    [(0.1, 2.0), (0.11, 2.0), (0.25, 2.0), (0.375, 3.0), (0.5, 4.0), (1.0, 4.0), (1.125, 4.0)],
)
def test_the_slower_a_topic_the_longer_it_may_be_silent(interval_s, patience_s):
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, interval_s, count=100)
    vigil.sign_of_life(last_s + patience_s)
    assert vigil.suspicion(last_s + patience_s - 0.1) is None
    assert vigil.suspicion(last_s + patience_s + 0.1) is not None


@pytest.mark.parametrize(("interval_s", "count"), [(1.3, 1000), (0.3, 8)])
def test_silence_of_a_thin_or_hardly_known_topic_is_normal(interval_s, count):
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, interval_s, count)
    vigil.sign_of_life(last_s + 100.0)
    assert vigil.suspicion(last_s + 100.0) is None


def test_eight_intervals_are_enough_to_know_a_topic():
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.3, count=9)
    vigil.sign_of_life(last_s + 4.0)
    assert vigil.suspicion(last_s + 4.0) is not None


def test_of_the_first_intervals_none_weighs_more():
    """A snapshot may come long before the frame that follows it."""
    vigil = watching(BTC, ETH)
    vigil.seen(BTC, 0.0)
    last_s = paced(vigil, BTC, 0.25, count=8, start_s=3.0)
    vigil.sign_of_life(last_s + 4.0)
    assert vigil.suspicion(last_s + 4.0) is not None


def test_one_bunch_is_one_arrival():
    """A hundred trades at once, every three seconds, are not thirty a second."""
    vigil = watching(BTC, ETH)
    for bunch in range(20):
        for number in range(100):
            vigil.seen(BTC, bunch * 3.0 + number / 1000)
    vigil.sign_of_life(66.0)
    assert vigil.suspicion(66.0) is None


def test_a_topic_that_was_subscribed_anew_is_not_known_any_more():
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.25)
    vigil.subscribed([ETH], last_s)
    vigil.subscribed([BTC, ETH], last_s)
    vigil.sign_of_life(last_s + 4.0)
    assert vigil.suspicion(last_s + 4.0) is None
    assert vigil.seen(BTC, last_s + 4.0) is True


def test_a_topic_that_stays_subscribed_stays_known():
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.25)
    vigil.subscribed([BTC, ETH, XRP], last_s)
    vigil.sign_of_life(last_s + 2.0)
    assert vigil.suspicion(last_s + 2.0) is not None
    assert vigil.seen(BTC, last_s + 2.0) is False


def test_what_was_cleared_is_suspicious_again_after_another_silence():
    """Counted from when the check was asked, however late its answer was told."""
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.25)
    vigil.sign_of_life(last_s + 2.0)
    vigil.cleared([BTC], last_s + 2.0)
    vigil.sign_of_life(last_s + 3.9)
    assert vigil.suspicion(last_s + 3.9) is None
    vigil.sign_of_life(last_s + 4.5)
    assert vigil.suspicion(last_s + 4.5) is not None


def test_a_topic_that_really_fell_silent_is_thin_after_a_few_checks():
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.25)
    alarms = list(watch(vigil, [(last_s + number / 2, None) for number in range(400)], last_s + 190))
    assert 2 <= len(alarms) <= 6


def test_clearing_some_topics_does_not_clear_the_connection():
    vigil = watching(BTC, ETH)
    vigil.cleared([BTC], 2.0)
    suspicion = vigil.suspicion(2.0)
    assert suspicion is not None
    assert suspicion.whole
    vigil.cleared([BTC, ETH, XRP], 2.0)
    assert vigil.suspicion(3.9) is None
    assert vigil.suspicion(4.0) is not None


def test_clearing_before_a_topic_was_suspected_is_no_false_alarm_of_its_own():
    """It was checked because the connection was silent as a whole; what is known of its pace stays."""
    vigil = watching(BTC, ETH)
    last_s = paced(vigil, BTC, 0.25)
    for _ in range(5):
        vigil.cleared([BTC, ETH], last_s + 1.9)
    last_s = paced(vigil, BTC, 0.25, start_s=last_s + 2.0)
    vigil.sign_of_life(last_s + 2.5)
    assert vigil.suspicion(last_s + 2.5) is not None


def test_clearing_a_topic_that_never_was_heard_leaves_its_pace_to_be_learned():
    vigil = watching(BTC, ETH)
    vigil.cleared([BTC, ETH], 2.0)
    last_s = paced(vigil, BTC, 0.25, start_s=3.0)
    vigil.sign_of_life(last_s + 2.0)
    assert vigil.suspicion(last_s + 2.0) is not None


def test_an_overdue_snapshot_that_was_cleared_is_missed_again_later():
    vigil = watching(BTC, ETH)
    vigil.seen(ETH, 0.3)
    assert vigil.without_snapshot(4.9) == frozenset()
    assert vigil.without_snapshot(5.0) == {BTC}
    vigil.cleared([BTC], 5.0)
    assert vigil.without_snapshot(9.9) == frozenset()
    assert vigil.without_snapshot(10.0) == {BTC}
    assert vigil.seen(BTC, 11.0) is True
    assert vigil.without_snapshot(100.0) == frozenset()


def test_clearing_a_silent_connection_again_and_again_does_not_excuse_a_missing_snapshot():
    vigil = watching(BTC)
    for number in range(1, 5):
        vigil.cleared([BTC], float(number))
    assert vigil.without_snapshot(5.0) == {BTC}


@pytest.mark.parametrize("name", ["silence_s", "snapshot_s"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan])
def test_what_cannot_work_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0, was {value!r}"):
        Vigil(**{name: value})


# -- the outcome of a check --------------------------------------------------------------------------------------------

ASKED_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("shown_ms", "probed_ms", "stalled"),
    [
        (ASKED_MS - 5000, ASKED_MS - 5000, False),  # nothing happened
        (ASKED_MS - 5000, ASKED_MS - 6000, False),  # REST is behind the stream
        (ASKED_MS - 5000, ASKED_MS - 4999, True),
        (ASKED_MS - 5000, ASKED_MS - 1000, True),
        (ASKED_MS - 5000, ASKED_MS - 999, False),  # may still be on its way
        (ASKED_MS - 5000, ASKED_MS + 100, False),
        (None, ASKED_MS - 1000, True),
        (None, ASKED_MS - 999, False),
    ],
)
def test_a_stream_has_stopped_if_rest_knows_what_it_should_have_shown(shown_ms, probed_ms, stalled):
    assert is_stalled(shown_ms, probed_ms, ASKED_MS) is stalled


@given(
    traded_ms=st.lists(st.integers(0, 20_000), min_size=1),
    asked_ms=st.integers(0, 20_000),
    way_ms=st.integers(0, 1000),
    slow_clock_ms=st.integers(0, 3000),
)
def test_a_stream_that_runs_is_never_called_stopped(traded_ms, asked_ms, way_ms, slow_clock_ms):
    """However long a frame took within the slack, and however far behind our idea of the exchange's time is."""
    known = [moment_ms for moment_ms in traded_ms if moment_ms <= asked_ms]
    shown = [moment_ms for moment_ms in known if moment_ms + way_ms <= asked_ms]
    if known:
        assert not is_stalled(max(shown, default=None), max(known), asked_ms - slow_clock_ms, slack_ms=1001)


@given(stopped_ms=st.integers(0, 9000), traded_ms=st.lists(st.integers(0, 9000), min_size=1))
def test_a_stream_that_stopped_is_found_out_once_something_has_happened(stopped_ms, traded_ms):
    shown_ms = max((moment_ms for moment_ms in traded_ms if moment_ms <= stopped_ms), default=None)
    assert is_stalled(shown_ms, max(traded_ms), 10_000) == (max(traded_ms) > stopped_ms)
