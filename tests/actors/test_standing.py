"""How a topic stands: what is held against it, and what ends that. The rest is tested where it shows, at the keeper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st
from paper_streams import EPOCH_MS

from marketpipe.actors.standing import AGAIN_AT_MOST_S, AGAIN_S, STRIKES, UNSENT, Standings
from marketpipe.core.demand import Demand
from marketpipe.core.topics import Line, Topic
from marketpipe.status import SubscriptionState

TOPICS = [Topic(Line.TRADE, f"KRW-{name}") for name in ("BTC", "ETH", "XRP")]
BTC, ETH, XRP = TOPICS
ALL = frozenset(TOPICS)


@attrs.define
class HandClock:
    ms: int = EPOCH_MS

    def now_ms(self) -> int:
        return self.ms


def standings_of(*wanted: Topic, clock: HandClock | None = None) -> Standings:
    """Of a line of which ``wanted`` are leased, and subscribed."""
    demand = Demand(lambda line: None)
    demand.lease(wanted)
    standings = Standings(Line.TRADE, demand, clock or HandClock())
    standings.connected()
    standings.subscribe(frozenset(wanted))
    return standings


def state_of(standings: Standings, topic: Topic = BTC) -> tuple[SubscriptionState, str]:
    status = standings.report()[topic]
    return status.state, status.reason


# -- what a frame brings back -------------------------------------------------------------------------------------


@attrs.define
class Model:
    """The same with nothing but sets, and no summary of them."""

    subscribed: set[Topic] = attrs.field(factory=lambda: set(TOPICS))
    erring: set[Topic] = attrs.field(factory=set)
    spoilt: set[Topic] = attrs.field(factory=set)
    blind: set[Topic] = attrs.field(factory=set)
    strikes: dict[Topic, int] = attrs.field(factory=lambda: dict.fromkeys(TOPICS, 0))

    def connected(self, topics: frozenset[Topic]) -> None:
        self.subscribed, self.spoilt, self.blind = set(), set(), set()

    def subscribe(self, topics: frozenset[Topic]) -> None:
        self.subscribed, self.spoilt = set(topics), self.spoilt & topics
        self.erring = {topic for topic in topics if self.strikes[topic] >= STRIKES}

    def show(self, topics: frozenset[Topic]) -> None:
        self.erring, self.spoilt, self.blind = self.erring - topics, self.spoilt - topics, self.blind - topics

    def spoil(self, topics: frozenset[Topic]) -> None:
        self.spoilt |= topics

    def strike(self, topics: frozenset[Topic]) -> None:
        self.strikes.update({topic: self.strikes[topic] + 1 for topic in topics})

    def forgive(self, topics: frozenset[Topic]) -> None:
        self.strikes.update(dict.fromkeys(topics, 0))

    def set_aside(self, topics: frozenset[Topic]) -> None:
        self.erring |= topics

    def abandon(self, topics: frozenset[Topic]) -> None:
        self.erring |= topics
        self.strikes.update(dict.fromkeys(topics, STRIKES))

    def unchecked(self, topics: frozenset[Topic]) -> None:
        self.blind |= topics & self.subscribed - self.erring

    def well(self, topics: frozenset[Topic]) -> None:
        self.blind -= topics & self.subscribed - self.erring - self.spoilt


def each(do: Callable[[Topic], Any]) -> Callable[[frozenset[Topic]], None]:
    def do_each(topics: frozenset[Topic]) -> None:
        for topic in topics:
            do(topic)

    return do_each


TOPIC_SETS = st.just(ALL) | st.frozensets(st.sampled_from(TOPICS), min_size=1)
STEPS = [name for name in vars(Model) if not name.startswith("_") and callable(vars(Model)[name])]


@given(st.lists(st.tuples(st.sampled_from(STEPS), TOPIC_SETS), min_size=5, max_size=30))
@example([("unchecked", ALL), ("well", ALL)])
@example([("unchecked", ALL), ("show", frozenset({BTC})), ("well", frozenset({ETH}))])
@example([("spoil", ALL), ("subscribe", frozenset({BTC}))])
def test_what_a_frame_brings_back_is_known_at_one_look_whatever_happened(steps):
    standings, model = standings_of(*TOPICS), Model()
    real: dict[str, Callable[[frozenset[Topic]], Any]] = {
        "connected": lambda topics: standings.connected(),
        "subscribe": standings.subscribe,
        "show": each(standings.show),
        "spoil": each(lambda topic: standings.spoil(topic, "a flaw")),
        "strike": standings.strike,
        "forgive": each(standings.forgive),
        "set_aside": standings.set_aside,
        "abandon": each(lambda topic: standings.abandon(topic, "not listed")),
        "unchecked": standings.unchecked,
        "well": standings.well,
    }
    for name, topics in steps:
        real[name](topics)
        getattr(model, name)(topics)
        assert standings.odd == model.erring | model.spoilt | model.blind, name
        assert (standings.erring, standings.spoilt) == (model.erring, model.spoilt), name
        assert standings.watched() == model.subscribed - model.erring, name


def test_only_what_is_new_is_shown_for_the_first_time():
    standings = standings_of(BTC)
    assert standings.show(BTC)
    assert not standings.show(BTC)
    standings.connected()
    assert not standings.show(BTC)  # of this subscription, whatever connection carries it
    standings.release_all_but(frozenset())
    assert standings.show(BTC)


# -- strikes ------------------------------------------------------------------------------------------------------


def test_a_new_connection_is_a_help_until_all_of_them_have_their_strikes():
    standings = standings_of(*TOPICS)
    assert standings.strike({BTC})
    assert standings.strike({BTC, ETH})  # ETH has had no new connection of its own yet
    assert not standings.strike({BTC, ETH})


def test_who_has_its_strikes_is_not_waited_for_on_the_next_connection_either():
    standings = standings_of(*TOPICS)
    for _ in range(STRIKES):
        standings.strike({BTC})
    standings.connected()
    standings.subscribe(ALL)
    assert standings.watched() == {ETH, XRP}
    assert state_of(standings) == (SubscriptionState.ERROR, UNSENT)


def test_what_is_forgiven_begins_again_with_nothing_held_against_it():
    standings = standings_of(*TOPICS)
    standings.abandon(BTC, "not listed")
    standings.try_again()
    standings.show(BTC)
    standings.forgive(BTC)
    assert BTC not in standings.struck
    standings.connected()
    standings.subscribe(ALL)
    assert standings.watched() == ALL
    standings.set_aside({BTC})
    assert standings.again_s() == AGAIN_S


def test_what_is_not_sent_is_tried_more_and_more_rarely():
    standings = standings_of(*TOPICS)
    assert standings.again_s() == float("inf")
    standings.set_aside({BTC})
    pauses = []
    for _ in range(6):
        pauses.append(standings.again_s())
        standings.try_again()
    assert pauses == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S, 8 * AGAIN_S, AGAIN_AT_MOST_S, AGAIN_AT_MOST_S]
    standings.set_aside({ETH})
    assert standings.again_s() == AGAIN_S  # the one that may be back soonest decides


# -- states -------------------------------------------------------------------------------------------------------


def test_a_state_is_as_old_as_itself_and_not_as_its_reason():
    clock = HandClock()
    standings = standings_of(BTC, clock=clock)
    standings.suspect({BTC}, "no frame for 2.0 s")
    clock.ms += 1_000
    standings.suspect({BTC}, "no frame for 3.0 s")
    status = standings.report()[BTC]
    assert (status.reason, status.since_ms) == ("no frame for 3.0 s", EPOCH_MS)
    standings.show(BTC)
    assert standings.report()[BTC].since_ms == EPOCH_MS + 1_000


def test_what_could_not_be_read_says_so_until_it_can_and_a_check_does_not_excuse_it():
    standings = standings_of(BTC, ETH)
    for topic in (BTC, ETH):
        standings.show(topic)
    standings.spoil(BTC, "not a number")
    standings.suspect({BTC, ETH}, "no frame for 2.0 s")
    assert state_of(standings) == (SubscriptionState.ERROR, "not a number")
    assert standings.well({BTC, ETH}) == {ETH}
    assert state_of(standings) == (SubscriptionState.ERROR, "not a number")
    standings.show(BTC)
    assert state_of(standings) == (SubscriptionState.ACTIVE, "")


def test_what_is_let_go_is_named_once():
    standings = standings_of(BTC, ETH)
    assert standings.release_all_but(frozenset({ETH})) == [BTC]
    assert standings.release_all_but(frozenset({ETH})) == []


@pytest.mark.parametrize(
    "end",
    [
        lambda standings: standings.show(BTC),
        lambda standings: standings.nothing_to_show({BTC}),
        lambda standings: standings.abandon(BTC, "not listed"),
    ],
    ids=["a frame", "nothing to show", "not listed"],
)
async def test_whoever_waits_for_the_first_frame_hears_that_there_is_none(autojump_clock, end):
    standings = standings_of(BTC)
    assert standings.unshown() == [BTC]
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(standings.wait_shown, BTC)
            await trio.testing.wait_all_tasks_blocked()
            end(standings)
    assert standings.unshown() == []


# -- the report ---------------------------------------------------------------------------------------------------


def test_a_report_is_the_same_until_something_changes_and_then_another():
    standings = standings_of(*TOPICS)
    first = standings.report()
    assert standings.report() is first
    standings.show(BTC)
    second = standings.report()
    assert second[BTC].state is SubscriptionState.ACTIVE
    assert first[BTC].state is SubscriptionState.PENDING  # what was handed out stays what it was
    standings.show(BTC)
    assert standings.report() is second


def test_a_report_tells_of_leases_and_heat_that_change_by_themselves():
    demand = Demand(lambda line: None, heat_reads=1)
    lease = demand.lease(TOPICS)
    standings = Standings(Line.TRADE, demand, HandClock())
    assert {each.leases for each in standings.report().values()} == {1}
    other = demand.lease([BTC])
    demand.read(ETH, 0.0)
    report = standings.report()
    assert [(report[topic].leases, report[topic].hot) for topic in TOPICS] == [(2, False), (1, True), (1, False)]
    demand.release(other)
    demand.release(lease)
    demand.expire(1e9)
    report = standings.report()
    assert [(report[topic].leases, report[topic].hot) for topic in TOPICS] == [(0, False)] * 3


@given(st.lists(st.tuples(st.sampled_from(["lease", "release", "read", "keep", "show", "fail"]), st.integers(0, 2))))
def test_a_report_says_the_same_however_often_it_was_looked_at(steps):
    demand = Demand(lambda line: None, heat_reads=2)
    looked, leases = Standings(Line.TRADE, demand, HandClock()), []
    fresh_each_time = Standings(Line.TRADE, demand, HandClock())
    for do, number in steps:
        match do:
            case "lease":
                leases.append(demand.lease([TOPICS[number]]))
            case "release" if leases:
                demand.release(leases.pop())
            case "read":
                demand.read(TOPICS[number], 0.0)
        for standings in (looked, fresh_each_time):
            match do:
                case "keep":
                    standings.release_all_but(standings.wanted())
                    standings.subscribe(standings.wanted())
                case "show" if TOPICS[number] in standings.subscribed:
                    standings.show(TOPICS[number])
                case "fail":
                    standings.failed("gone")
        report = looked.report()
        for topic, each in report.items():
            assert (each.leases, each.hot) == (demand.leases(topic), demand.is_hot(topic))
            assert (each.state, each.reason) == (looked._all[topic].state, looked._all[topic].reason)
        assert report.keys() == looked._all.keys() >= looked.wanted()
        assert not any(report[topic].state is SubscriptionState.RELEASED for topic in looked.wanted())
