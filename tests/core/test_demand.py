"""Who wants which stream, against a model that keeps every read and every lease for ever."""

from __future__ import annotations

import math
from collections import Counter

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marketpipe.core.demand import Demand, Lease
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic

BTC = Topic(Line.TICKER, "KRW-BTC")
ETH = Topic(Line.TICKER, "KRW-ETH")
BOOK = Topic(Line.ORDERBOOK, "KRW-BTC")
TRADE = Topic(Line.TRADE, "KRW-BTC")
MINUTE = Topic(Line.CANDLE, "KRW-BTC", Timeframe.M1)
TOPICS = [BTC, ETH, BOOK, TRADE, MINUTE, Topic(Line.CANDLE, "KRW-BTC", Timeframe.H1)]


@attrs.define
class Listener:
    """Writes down which lines it was told of, and sees what is wanted at that moment."""

    demand: Demand = attrs.field(init=False)
    told: list[Line] = attrs.field(factory=list)
    seen: list[frozenset[Topic]] = attrs.field(factory=list)

    def __call__(self, line: Line) -> None:
        self.told.append(line)
        self.seen.append(self.demand.wanted(line))


def listened(**options: float) -> tuple[Demand, Listener]:
    listener = Listener()
    listener.demand = Demand(listener, **options)
    return listener.demand, listener


class AgainstModel(RuleBasedStateMachine):
    """Unions, counts, heat and calls are those of the model. Every time is a multiple of 1/8 s, exact in floats."""

    topics = st.sampled_from(TOPICS)
    several = st.lists(topics, max_size=4)
    HEAT_READS, HEAT_S, IDLE_S = 3, 2.0, 5.0

    def __init__(self) -> None:
        super().__init__()
        self.demand, self.listener = listened(heat_reads=self.HEAT_READS, heat_s=self.HEAT_S, idle_s=self.IDLE_S)
        self.now_s = 1000.0
        self.open: list[Lease] = []
        self.closed: list[Lease] = []
        self.reads: dict[Topic, list[float]] = {topic: [] for topic in TOPICS}
        self.hot: dict[Topic, float] = {}
        self.shown = {line: self.demand.wanted(line) for line in Line}

    def union(self, line: Line) -> frozenset[Topic]:
        return frozenset(topic for lease in self.open for topic in lease.topics if topic.line is line) | frozenset(
            topic for topic in self.hot if topic.line is line
        )

    def check(self) -> None:
        """Called after each operation: exactly the lines whose union changed were told of, once, after the change."""
        changed = [line for line in Line if self.union(line) != self.shown[line]]
        assert Counter(self.listener.told) == Counter(changed)
        assert self.listener.seen == [self.union(line) for line in self.listener.told]
        for line in Line:
            wanted = self.demand.wanted(line)
            assert wanted == self.union(line)
            assert (wanted is self.shown[line]) == (line not in changed)
            self.shown[line] = wanted
        self.listener.told.clear()
        self.listener.seen.clear()

    @rule(passed=st.integers(0, 20) | st.sampled_from([16, 17, 39, 40]))
    def time_passes(self, passed):
        self.now_s += passed / 8

    @rule(topics=several)
    def lease(self, topics):
        lease = self.demand.lease(iter(topics))
        assert lease.topics == frozenset(topics)
        self.open.append(lease)
        self.check()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data):
        lease = data.draw(st.sampled_from(self.open))
        self.open.remove(lease)
        self.closed.append(lease)
        self.demand.release(lease)
        self.check()

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def release_again(self, data):
        self.demand.release(data.draw(st.sampled_from(self.closed)))
        self.check()

    @rule(topic=topics)
    def read(self, topic):
        self.demand.read(topic, self.now_s)
        reads = self.reads[topic]
        reads.append(self.now_s)
        often = len(reads) >= self.HEAT_READS and self.now_s - reads[-self.HEAT_READS] <= self.HEAT_S
        if topic in self.hot or often:
            self.hot[topic] = self.now_s
        self.check()

    def cool(self, topics) -> None:
        for topic in topics:
            self.hot.pop(topic, None)
            self.reads[topic].clear()

    @rule()
    def expire(self):
        self.demand.expire(self.now_s)
        self.cool([topic for topic, read_s in self.hot.items() if self.now_s - read_s >= self.IDLE_S])
        self.check()
        assert self.demand.next_expiry_s() > self.now_s, "whoever sleeps until then would never sleep"

    @precondition(lambda self: self.hot)
    @rule()
    def sleep_until_the_next_expiry(self):
        self.now_s = max(self.now_s, self.demand.next_expiry_s())
        self.expire()

    @rule(topics=several)
    def drop(self, topics):
        self.demand.drop(iter(topics))
        self.cool(topics)
        self.check()

    @invariant()
    def counts_agree(self):
        for topic in TOPICS:
            assert self.demand.leases(topic) == sum(topic in lease.topics for lease in self.open)
            assert self.demand.is_hot(topic) == (topic in self.hot)

    @invariant()
    def the_next_expiry_is_never_late(self):
        earliest_s = min(self.hot.values(), default=math.inf) + self.IDLE_S
        assert self.demand.next_expiry_s() <= earliest_s
        assert (self.demand.next_expiry_s() == math.inf) == (not self.hot)


TestAgainstModel = pytest.mark.slow(AgainstModel.TestCase)
TestAgainstModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_two_reads_are_not_enough_and_the_third_is():
    demand, listener = listened()
    demand.read(BTC, 0.0)
    demand.read(BTC, 5.0)
    assert not demand.is_hot(BTC)
    demand.read(BTC, 10.0)
    assert demand.is_hot(BTC)
    assert demand.wanted(Line.TICKER) == {BTC}
    assert listener.told == [Line.TICKER]


def test_reads_too_far_apart_never_make_a_topic_hot():
    demand, listener = listened()
    for count in range(100):
        demand.read(BTC, count * 5.001)
    assert not demand.is_hot(BTC)
    assert listener.told == []


def test_one_read_is_enough_where_one_is_asked_for():
    demand, listener = listened(heat_reads=1)
    demand.read(BTC, 0.0)
    assert demand.is_hot(BTC)
    assert listener.told == [Line.TICKER]


def test_heat_ends_with_its_idle_time_after_the_last_read_and_not_before():
    demand, listener = listened()
    for now_s in (0.0, 1.0, 2.0, 100.0):
        demand.read(BTC, now_s)
    demand.expire(279.9)
    assert demand.is_hot(BTC)
    assert demand.next_expiry_s() == 280.0
    demand.expire(280.0)
    assert not demand.is_hot(BTC)
    assert demand.wanted(Line.TICKER) == frozenset()
    assert demand.next_expiry_s() == math.inf
    assert listener.told == [Line.TICKER] * 2


def test_whoever_sleeps_until_the_next_expiry_lets_go_in_time_and_rarely():
    """A topic read all the time does not wake anybody at each read."""
    demand, _ = listened()
    wakes, now_s = 0, 0.0
    for _ in range(10_000):
        now_s += 0.25
        demand.read(BTC, now_s)
        if demand.next_expiry_s() <= now_s:
            wakes += 1
            demand.expire(now_s)
    assert demand.is_hot(BTC)
    assert wakes <= now_s / 180 + 1


def test_what_is_leased_outlives_its_heat():
    demand, listener = listened()
    for _ in range(3):
        demand.read(BTC, 0.0)
    lease = demand.lease([BTC])
    demand.expire(500.0)
    assert not demand.is_hot(BTC)
    assert demand.wanted(Line.TICKER) == {BTC}
    assert listener.told == [Line.TICKER]
    demand.release(lease)
    assert listener.told == [Line.TICKER] * 2


def test_what_is_hot_outlives_its_lease():
    demand, listener = listened()
    lease = demand.lease([BTC])
    for _ in range(3):
        demand.read(BTC, 0.0)
    demand.release(lease)
    assert demand.leases(BTC) == 0
    assert demand.wanted(Line.TICKER) == {BTC}
    assert listener.told == [Line.TICKER]


def test_a_lease_that_spans_lines_tells_each_of_them_once():
    demand, listener = listened()
    demand.lease([BTC, ETH, BTC, BOOK, MINUTE])
    assert Counter(listener.told) == {Line.TICKER: 1, Line.ORDERBOOK: 1, Line.CANDLE: 1}


def test_a_lease_of_nothing_changes_nothing():
    demand, listener = listened()
    demand.release(demand.lease([]))
    assert listener.told == []


def test_a_lease_of_another_demand_is_not_taken_for_ours():
    """Equal topics do not make an equal lease."""
    demand, _ = listened()
    stranger = listened()[0].lease([BTC])
    demand.lease([BTC])
    demand.release(stranger)
    assert demand.leases(BTC) == 1


def test_a_delisted_topic_is_forgotten_but_not_taken_from_those_who_hold_it():
    demand, _ = listened()
    for _ in range(3):
        demand.read(BTC, 0.0)
        demand.read(BOOK, 0.0)
    demand.lease([BOOK])
    demand.drop([BTC, BOOK, TRADE])
    assert not demand.is_hot(BTC)
    assert not demand.is_hot(BOOK)
    assert demand.wanted(Line.TICKER) == frozenset()
    assert demand.wanted(Line.ORDERBOOK) == {BOOK}
    assert demand.next_expiry_s() == math.inf


def test_a_dropped_topic_must_be_read_as_often_as_a_new_one():
    demand, _ = listened()
    demand.read(BTC, 0.0)
    demand.read(BTC, 0.0)
    demand.drop([BTC])
    demand.read(BTC, 0.0)
    assert not demand.is_hot(BTC)


def test_dropping_one_keeps_the_expiry_of_the_others():
    demand, _ = listened()
    for topic, now_s in [(BTC, 0.0), (ETH, 50.0)]:
        for _ in range(3):
            demand.read(topic, now_s)
    demand.drop([BTC])
    assert demand.next_expiry_s() <= 230.0
    demand.expire(demand.next_expiry_s())
    assert demand.next_expiry_s() == 230.0


def test_reads_of_ever_new_topics_leave_nothing_behind():
    """Only what was read within the last 10 s is remembered, at 100 new topics a second."""
    demand, _ = listened()
    for number in range(20_000):
        demand.read(Topic(Line.TICKER, f"KRW-{number}"), number / 100)
        assert len(demand._reads) <= 1002
    demand.expire(number / 100 + 10.01)
    assert len(demand._reads) == 0


def test_reading_one_topic_again_does_not_keep_the_others():
    demand, _ = listened(heat_reads=1000)
    demand.read(BTC, 0.0)
    for number in range(50):
        demand.read(Topic(Line.TICKER, f"KRW-{number}"), 0.0)
    demand.read(BTC, 1.0)
    demand.read(BTC, 10.5)
    assert list(demand._reads) == [BTC]


@pytest.mark.parametrize("name", ["heat_reads", "heat_s", "idle_s"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_cannot_work_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0, was {value!r}"):
        listened(**{name: value})


def test_of_a_topic_that_is_rarely_read_no_more_reads_are_kept_than_make_it_hot():
    demand, _ = listened(heat_reads=3, heat_s=2.0)
    for second in range(0, 1_000, 2):
        demand.read(BTC, float(second))
    assert [len(reads) for reads in demand._reads.values()] == [3]


def test_news_are_told_once():
    demand, _ = listened()
    demand.lease([BTC, BOOK])
    assert (demand.news(Line.TICKER), demand.news(Line.ORDERBOOK)) == ({BTC}, {BOOK})
    assert demand.news(Line.TICKER) == set()


def test_a_read_is_remembered_for_as_long_as_it_counts():
    demand, _ = listened(heat_reads=2, heat_s=2.0)
    demand.read(BTC, 0.0)
    demand.read(ETH, 2.0)
    demand.read(BTC, 2.0)
    assert demand.is_hot(BTC)
