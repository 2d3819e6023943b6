"""What waits for a subscriber: each policy against a list that does the same slowly, and the laws of all three."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketpipe.core.buffers import ASIDE, POLICIES, SubscriptionStatistics, check_buffer, open_buffer
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import SubscriberLagged
from marketpipe.models import Candle, CandleState, Change, Gap, Level, Orderbook, Side, Source, Ticker, Trade

ONE = Decimal(1)
MINUTE_MS = 60_000
LOST = "dropped: the consumer is behind"


def trade(market: str = "KRW-BTC", at_ms: int = 0, number: int = 0) -> Trade:
    return Trade(market, Side.BUY, at_ms, number, ONE, ONE, at_ms, at_ms, Source.STREAM)


def book(market: str = "KRW-BTC", at_ms: int = 0) -> Orderbook:
    level = (Level(ONE, ONE),)
    return Orderbook(market, level, level, ONE, ONE, Decimal(0), at_ms, at_ms, Source.STREAM)


def ticker(market: str = "KRW-BTC", at_ms: int = 0) -> Ticker:
    day, numbers = date(2026, 1, 1), (ONE,) * 14
    return Ticker(market, Change.EVEN, day, day, at_ms, at_ms, *numbers, received_ms=at_ms, source=Source.STREAM)


def bar(
    minute: int = 0, state: CandleState = CandleState.RUNNING, *, market="KRW-BTC", at_ms: int = 0, revision: int = 0
) -> Candle:
    prices = (ONE,) * 6
    times = (at_ms, at_ms)
    return Candle(market, Timeframe.M1, minute * MINUTE_MS, *prices, *times, Source.STREAM, state, revision)


def gap(market: str = "KRW-BTC", at_ms: int = 0) -> Gap:
    return Gap(market, at_ms, at_ms, "closed 1006")


RUNNING, FINAL = CandleState.RUNNING, CandleState.FINAL


def drained(buffer) -> list[Any]:
    return [buffer.take() for _ in range(len(buffer))]


# Scripts: each step offers live values, tells what is owed, or takes some. Values are numbered by their exchange_ms.

markets = st.sampled_from(["KRW-BTC", "KRW-ETH", "KRW-XRP"])
values = (
    st.builds(trade, markets)
    | st.builds(ticker, markets)
    | st.builds(bar, st.integers(0, 3), st.sampled_from(CandleState), market=markets, revision=st.integers(0, 1))
)
steps = st.one_of(
    st.tuples(st.just("offer"), st.lists(values, max_size=6)),
    st.tuples(st.just("tell"), st.lists(st.builds(gap, markets) | values, max_size=4)),
    st.tuples(st.just("take"), st.integers(1, 6)),
)
scripts = st.lists(steps, max_size=25)
depths = st.integers(1, 5)
firsts = st.lists(values, max_size=4)


def numbered(script: Sequence[Any], first: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The script with `first` as its first telling, and every event carrying its own number as its time."""
    number = 0
    for verb, what in [("first", first), *script]:
        if verb == "take":
            yield verb, what
            continue
        events = []
        for event in what:
            number += 1
            changes = {"start_ms": number, "end_ms": number} if isinstance(event, Gap) else {"exchange_ms": number}
            events.append(attrs.evolve(event, **changes))
        yield verb, events


def number_of(event: Any) -> int:
    return event.start_ms if isinstance(event, Gap) else event.exchange_ms


@attrs.define
class Model:
    """What a policy means, on a list: slots of (event, what it counts against, its key)."""

    policy: str
    depth: int
    aside: int
    slots: list[list[Any]] = attrs.Factory(list)
    lost: list[Any] = attrs.Factory(list)
    conflated: int = 0
    cut: bool = False

    def give(self, verb: str, events: list[Any]) -> None:
        ends = self.policy != "drop-oldest"
        if ends and verb == "tell" and events and self.count("aside") >= self.aside:
            self.cut = True
        for event in events:
            self.add(event, self.bound(event, verb))
        while not ends and self.count("depth") > self.depth:
            self.drop("depth")
        while not ends and self.count("aside") > self.aside:
            self.drop("aside")

    def bound(self, event: Any, verb: str) -> str:
        if self.policy == "conflate" and not isinstance(event, Gap | Candle):
            return "nothing"  # there are only so many markets
        owed = verb == "first" or (verb == "tell" and self.policy != "drop-oldest")
        return "aside" if owed or isinstance(event, Gap) else "depth"

    def add(self, event: Any, bound: str) -> None:
        if not self.cut and self.policy == "conflate" and self.conflates(event):
            self.conflated += 1
            return
        if self.policy != "drop-oldest" and bound == "depth" and self.count("depth") >= self.depth:
            self.cut = True
        if self.cut:
            self.lost.append(event)
        else:
            self.slots.append([event, bound, self.key(event)])

    def count(self, bound: str) -> int:
        return sum(slot[1] == bound for slot in self.slots)

    def drop(self, bound: str) -> None:
        oldest = next(slot for slot in self.slots if slot[1] == bound)
        self.slots.remove(oldest)
        self.lost.append(oldest[0])

    def key(self, event: Any) -> Any:
        """What shares a slot; None if nothing does, for a gap and for whatever waits beside a FINAL."""
        if isinstance(event, Gap):
            return None
        key = (type(event), event.market, event.open_ms if isinstance(event, Candle) else None)
        return None if any(slot[2] == key for slot in self.after_gap(event.market)) else key

    def conflates(self, event: Any) -> bool:
        if isinstance(event, Gap):
            return False
        key = (type(event), event.market, event.open_ms if isinstance(event, Candle) else None)
        for slot in self.after_gap(event.market):
            if slot[2] == key and getattr(slot[0], "state", RUNNING) is RUNNING:
                slot[0] = event
                return True
        return False

    def after_gap(self, market: str) -> list[list[Any]]:
        behind = [at for at, (event, *_) in enumerate(self.slots) if isinstance(event, Gap) and event.market == market]
        return self.slots[behind[-1] + 1 :] if behind else self.slots


@attrs.define
class Trial:
    """A buffer beside its model, through one script. `taken` is everything that came out, losses told included."""

    buffer: Any
    model: Model
    offered: list[Any] = attrs.Factory(list)
    taken: list[Any] = attrs.Factory(list)
    untold: dict[str, list[Any]] = attrs.Factory(dict)

    def run(self, script: Sequence[tuple[str, Any]]) -> Trial:
        for verb, what in script:
            if verb == "take":
                for _ in range(min(what, len(self.buffer))):
                    self.take()
            else:
                self.give(verb, what)
            self.check_the_law()
        while len(self.buffer):
            self.take()
            self.check_the_law()
        return self

    def give(self, verb: str, events: list[Any]) -> None:
        if verb != "first":  # those are in the buffer since it was made
            (self.buffer.tell if verb == "tell" else self.buffer.offer)(events)
        self.offered += events
        lost = len(self.model.lost)
        self.model.give(verb, events)
        for event in self.model.lost[lost:]:
            self.untold.setdefault(event.market, []).append(event)

    def take(self) -> None:
        event = self.buffer.take()
        self.taken.append(event)
        if isinstance(event, Gap) and event.cause == LOST:
            self.check_told(event)
            return
        assert event is self.model.slots.pop(0)[0]
        if self.model.policy == "drop-oldest":
            lost = [number_of(lost) for losses in self.untold.values() for lost in losses]
            assert min(lost, default=number_of(event)) >= number_of(event), "the loss of something older is not told"

    def check_told(self, event: Gap) -> None:
        losses = self.untold.pop(event.market)
        times = [number_of(lost) for lost in losses]
        assert (event.start_ms, event.end_ms) == (min(times), max(times))
        assert event.proof.split()[0] == str(len(losses))
        assert not event.is_open

    def check_the_law(self) -> None:
        counts = self.buffer.statistics()
        told = sum(isinstance(event, Gap) and event.cause == LOST for event in self.taken)
        assert counts == SubscriptionStatistics(
            received=len(self.offered),
            delivered=len(self.taken) - told,
            conflated=self.model.conflated,
            dropped=len(self.model.lost),
            queued=len(self.model.slots),
            gaps=told,
        )
        assert counts.received == counts.delivered + counts.conflated + counts.dropped + counts.queued
        assert self.buffer.is_cut == self.model.cut == (self.buffer.lagged() is not None)


def trial(policy: str, depth: int, script: Any, first: Any, aside: int = 100) -> Trial:
    script = list(numbered(script, first))
    buffer = open_buffer(policy, depth, script[0][1], aside=aside)
    return Trial(buffer, Model(policy, depth, aside + len(first))).run(script)


ways = {"depth": depths, "script": scripts, "first": firsts, "aside": st.sampled_from([2, 100])}
thoroughly = settings(max_examples=150, deadline=None)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_does_what_a_list_would_do_slowly(policy):
    @thoroughly
    @given(**ways)
    def check(depth, script, first, aside):
        trial(policy, depth, script, first, aside)

    check()


@pytest.mark.slow
@thoroughly
@given(**ways)
def test_cut_off_delivers_everything_up_to_a_point_and_nothing_after_it(depth, script, first, aside):
    done = trial("cut-off", depth, script, first, aside)
    assert done.taken == done.offered[: len(done.taken)]
    lagged = done.buffer.lagged()
    if lagged is None:
        assert done.taken == done.offered
    else:
        lost = done.offered[len(done.taken) :]
        assert f"{len(lost)} value" in str(lagged)
        assert f"(exchange_ms {number_of(lost[0])})" in str(lagged)


@pytest.mark.slow
@thoroughly
@given(**ways)
def test_drop_oldest_delivers_in_order_and_tells_of_each_loss_once(depth, script, first, aside):
    done = trial("drop-oldest", depth, script, first, aside)
    told = [event for event in done.taken if isinstance(event, Gap) and event.cause == LOST]
    kept = [event for event in done.taken if event not in told]
    assert kept == sorted(kept, key=number_of)
    assert sum(int(event.proof.split()[0]) for event in told) == len(done.offered) - len(kept)
    assert done.untold == {}
    if aside == 100:
        owed = [event for event in done.offered if isinstance(event, Gap) or number_of(event) <= len(first)]
        assert [event for event in kept if event in owed] == owed


@pytest.mark.slow
@thoroughly
@given(script=scripts, first=firsts)
def test_conflation_loses_neither_the_newest_nor_a_final_bar_nor_a_gap(script, first):
    done = trial("conflate", 1000, script, first)
    newest = {}
    for event in done.offered:
        if isinstance(event, Gap) or getattr(event, "state", None) is FINAL:
            assert event in done.taken
        else:
            newest[type(event), event.market, getattr(event, "open_ms", None)] = event
    for key, event in newest.items():
        finals = [e for e in done.taken if isinstance(e, Candle) and (Candle, e.market, e.open_ms) == key]
        assert event in done.taken or any(e.state is FINAL and number_of(e) > number_of(event) for e in finals)


def test_a_slow_reader_of_conflated_values_gets_the_newest_of_each_market_in_the_order_of_the_first():
    buffer = open_buffer("conflate", 1)
    btc, eth = [ticker("KRW-BTC", at) for at in (1, 3)], [ticker("KRW-ETH", at) for at in (2, 4)]
    buffer.offer([btc[0], eth[0], btc[1]])
    buffer.offer([eth[1]])
    assert drained(buffer) == [btc[1], eth[1]]
    assert buffer.statistics() == SubscriptionStatistics(received=4, delivered=2, conflated=2)


def test_a_ticker_does_not_replace_the_order_book_of_its_market():
    buffer = open_buffer("conflate", 1)
    buffer.offer([ticker(at_ms=1), book(at_ms=2), ticker(at_ms=3), book(at_ms=4)])
    assert drained(buffer) == [ticker(at_ms=3), book(at_ms=4)]


def test_a_final_bar_takes_the_place_of_its_running_one_and_keeps_it():
    buffer = open_buffer("conflate", 10)
    final, amended, following = bar(0, FINAL, at_ms=3), bar(0, FINAL, at_ms=4, revision=1), bar(1, at_ms=2)
    buffer.offer([bar(0, at_ms=1), following, final, amended])
    assert drained(buffer) == [final, following, amended]


def test_a_value_does_not_overtake_the_gap_of_its_market_by_taking_an_older_place():
    buffer = open_buffer("conflate", 10)
    buffer.offer([trade("KRW-BTC", 1), trade("KRW-ETH", 2)])
    buffer.tell([gap("KRW-BTC", 3)])
    buffer.offer([trade("KRW-BTC", 4), trade("KRW-ETH", 5)])
    assert drained(buffer) == [trade("KRW-BTC", 1), trade("KRW-ETH", 5), gap("KRW-BTC", 3), trade("KRW-BTC", 4)]


def test_too_many_bars_at_once_cut_a_conflating_consumer_off():
    buffer = open_buffer("conflate", 2)
    buffer.offer([bar(0, at_ms=1), bar(1, at_ms=2), bar(1, at_ms=3), bar(2, at_ms=4), bar(0, at_ms=5)])
    assert drained(buffer) == [bar(0, at_ms=1), bar(1, at_ms=3)]
    assert "behind by more than its depth of 2;" in str(buffer.lagged())
    assert buffer.statistics() == SubscriptionStatistics(received=5, delivered=2, conflated=1, dropped=2)


def test_bars_that_were_read_make_room_again():
    buffer = open_buffer("conflate", 1)
    for minute in range(5):
        buffer.offer([bar(minute)])
        assert drained(buffer) == [bar(minute)]
    assert not buffer.is_cut


def test_who_was_cut_off_is_told_how_much_was_lost_since_when_and_what_to_do():
    buffer = open_buffer("cut-off", 2)
    buffer.offer([trade("KRW-BTC", 0), trade("KRW-BTC", 1), trade("KRW-ETH", 1_790_000_000_123)])
    assert "1 value was lost" in str(buffer.lagged())
    buffer.offer([trade("KRW-BTC", 3)] * 4)
    assert drained(buffer) == [trade("KRW-BTC", 0), trade("KRW-BTC", 1)]
    error = buffer.lagged()
    assert isinstance(error, SubscriberLagged)
    assert str(error) == (
        "cut off: 5 values were lost so far, the first of KRW-ETH at 2026-09-21T14:13:20.123+00:00 (exchange_ms "
        "1790000000123), because the consumer was behind by more than its depth of 2; read faster, or subscribe with "
        'a larger depth or with policy="drop-oldest"'
    )


def test_room_made_after_the_cut_is_not_used():
    """What comes after a loss would look like a stream without one."""
    buffer = open_buffer("cut-off", 1)
    buffer.offer([trade(at_ms=1), trade(at_ms=2)])
    assert drained(buffer) == [trade(at_ms=1)]
    buffer.offer([trade(at_ms=3)])
    buffer.tell([gap(at_ms=4)])
    buffer.offer([])
    assert len(buffer) == 0
    assert buffer.statistics() == SubscriptionStatistics(received=4, delivered=1, dropped=3)


@pytest.mark.parametrize("policy", ["conflate", "cut-off"])
def test_a_repair_larger_than_the_depth_does_not_cut_off_who_keeps_up(policy):
    buffer = open_buffer(policy, 2)
    repair = [gap(at_ms=1), *(bar(minute, FINAL) for minute in range(50))]
    buffer.tell(repair)
    buffer.offer([bar(50), bar(51)])
    assert drained(buffer) == [*repair, bar(50), bar(51)]


@pytest.mark.parametrize("policy", ["conflate", "cut-off"])
def test_who_never_reads_its_gaps_is_cut_off_in_the_end(policy):
    buffer = open_buffer(policy, 5, aside=3)
    gaps = [gap(at_ms=at) for at in range(5)]
    buffer.tell(gaps[:2])
    buffer.tell([])
    buffer.tell(gaps[2:4])
    buffer.tell([])
    assert not buffer.is_cut
    buffer.tell(gaps[4:])
    assert drained(buffer) == gaps[:4]
    assert "behind by 3 unread gaps and repairs" in str(buffer.lagged())


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_queued_at_first_leaves_the_whole_depth(policy):
    first = [trade(f"KRW-{number}", number) for number in range(20)]
    live = [bar(minute) for minute in range(3)]
    buffer = open_buffer(policy, 3, [*first, gap(at_ms=21)])
    buffer.offer(live)
    assert drained(buffer) == [*first, gap(at_ms=21), *live]


def test_what_was_dropped_is_told_where_it_happened_by_market():
    buffer = open_buffer("drop-oldest", 2)
    buffer.offer([trade("KRW-BTC", 1)])
    assert buffer.take() == trade("KRW-BTC", 1)
    buffer.offer([trade("KRW-BTC", 2), trade("KRW-ETH", 3)])
    buffer.offer([trade("KRW-BTC", 5), trade("KRW-BTC", 4), trade("KRW-BTC", 6), trade("KRW-BTC", 7)])
    assert len(buffer) == 4
    assert drained(buffer) == [
        Gap("KRW-BTC", 2, 5, cause=LOST, proof="3 values were dropped here"),
        Gap("KRW-ETH", 3, 3, cause=LOST, proof="1 value was dropped here"),
        trade("KRW-BTC", 6),
        trade("KRW-BTC", 7),
    ]
    assert buffer.statistics() == SubscriptionStatistics(received=7, delivered=3, dropped=4, gaps=2)
    assert buffer.lagged() is None


def test_a_gap_stays_when_values_around_it_are_dropped():
    buffer = open_buffer("drop-oldest", 1)
    buffer.offer([trade(at_ms=1)])
    buffer.tell([gap(at_ms=2), trade(at_ms=3)])
    buffer.tell([gap(at_ms=4)])
    buffer.offer([trade(at_ms=5)])
    assert drained(buffer) == [
        Gap("KRW-BTC", 1, 3, cause=LOST, proof="2 values were dropped here"),
        gap(at_ms=2),
        gap(at_ms=4),
        trade(at_ms=5),
    ]


def test_a_loss_is_told_after_the_gap_that_came_before_it():
    buffer = open_buffer("drop-oldest", 1)
    buffer.tell([gap(at_ms=1)])
    buffer.offer([trade(at_ms=2), trade(at_ms=3)])
    told = Gap("KRW-BTC", 2, 2, cause=LOST, proof="1 value was dropped here")
    assert drained(buffer) == [gap(at_ms=1), told, trade(at_ms=3)]


def test_the_oldest_of_too_many_unread_gaps_is_dropped_and_told():
    buffer = open_buffer("drop-oldest", 3, aside=2)
    buffer.offer([trade(at_ms=1)])
    buffer.tell([gap(at_ms=at) for at in (2, 3, 4)])
    told = Gap("KRW-BTC", 2, 2, cause=LOST, proof="1 value was dropped here")
    assert drained(buffer) == [trade(at_ms=1), told, gap(at_ms=3), gap(at_ms=4)]


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_taken_from_an_empty_buffer(policy):
    buffer = open_buffer(policy, 1)
    with pytest.raises(IndexError):
        buffer.take()
    assert buffer.statistics() == SubscriptionStatistics()


def test_the_bound_of_what_stands_aside_holds_many_reconnects_of_all_won_markets():
    assert ASIDE >= 20 * 2 * 240


@pytest.mark.parametrize("policy", ["latest", "", None, "CONFLATE"])
def test_an_unknown_policy_is_refused_with_those_there_are(policy):
    with pytest.raises(ValueError, match=re.escape(f"one of conflate, cut-off, drop-oldest, was {policy!r}")):
        check_buffer(policy, 1)


@pytest.mark.parametrize(
    ("depth", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)]
)
def test_a_depth_that_holds_nothing_is_refused(depth, error):
    with pytest.raises(error, match=re.escape(f"depth must be a whole number of at least 1, was {depth!r}")):
        open_buffer("cut-off", depth)
