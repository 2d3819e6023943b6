"""The limit is never exceeded, whatever the network does; and the limit is used, whatever has happened before."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count, cycle, repeat
from random import Random

import attrs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from marketpipe.core.pacing import Ban, Ceiling, Slots, Ticket, full_jitter_s

ANSWERED, REFUSED, ABANDONED, UNSENT = "answered", "refused", "abandoned", "unsent"


@attrs.frozen
class Fate:
    """What becomes of one request: ``out_s`` to the exchange, ``back_s`` from it.

    An abandoned request is given up after ``back_s`` and arrives ``out_s`` after it was sent, but no later than the
    hold allows; an unsent one comes back after ``back_s`` and never arrives.
    """

    out_s: float = 0.0
    back_s: float = 0.0
    outcome: str = ANSWERED
    retry_after_s: float = 0.0
    remaining: int | None = None


@attrs.define
class World:
    """A group of slots, its demand, the network and the exchange, on a clock of their own.

    Requests leave as soon as there is demand and a slot; ``arrivals`` is when the exchange counted them. ``reply``
    may replace what the exchange answers to the request that arrives at that moment.
    """

    slots: Slots
    fates: Iterator[Fate]
    reply: Callable[[World, Fate, float], Fate] = lambda world, fate, at_s: fate
    now_s: float = 1000.0
    wanted: int = 0
    arrivals: list[float] = attrs.Factory(list)
    sent: list[float] = attrs.Factory(list)
    refusals: list[float] = attrs.Factory(list)
    ceilings: list[int] = attrs.Factory(list)
    _events: list[tuple[float, int, Callable[[], None]]] = attrs.Factory(list)
    _order: Iterator[int] = attrs.Factory(count)

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), act))

    def want(self, number: int, when_s: float) -> None:
        def act() -> None:
            self.wanted += number

        self.at(when_s, act)

    def run(self, until_s: float = math.inf) -> None:
        """Until nothing is left to happen or the time has come; fails if there is demand that nothing will serve."""
        while self._step(until_s):
            pass

    def _step(self, until_s: float) -> bool:
        free_s = self.slots.next_free_s(self.now_s) if self.wanted else None
        event_s = self._events[0][0] if self._events else math.inf
        assert not self.wanted or free_s is not None or event_s < math.inf, "demand that nothing will ever serve"
        if min(event_s, math.inf if free_s is None else free_s) > until_s or (not self.wanted and event_s == math.inf):
            return False
        if free_s is not None and free_s <= event_s:
            self.now_s = max(self.now_s, free_s)
            self._send()
        else:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        self.ceilings.append(self.slots.statistics(self.now_s).ceiling)
        return True

    def _send(self) -> None:
        ticket = self.slots.acquire(self.now_s)
        assert ticket is not None, "next_free_s() promised a slot"
        self.wanted -= 1
        self.sent.append(self.now_s)
        fate = next(self.fates)
        if fate.outcome == ABANDONED:
            given_up_s = self.now_s + fate.back_s
            self.at(given_up_s, lambda: self.slots.abandoned(ticket, self.now_s))
            arrival_s = min(self.now_s + fate.out_s, given_up_s + self.slots.abandoned_hold_s)
            self.at(arrival_s, lambda: self.arrivals.append(self.now_s))
        elif fate.outcome == UNSENT:
            self.at(self.now_s + fate.back_s, lambda: self.slots.unsent(ticket, self.now_s))
        else:
            self.at(self.now_s + fate.out_s, lambda: self._arrive(ticket, fate))

    def _arrive(self, ticket: Ticket, fate: Fate) -> None:
        self.arrivals.append(self.now_s)
        reply = self.reply(self, fate, self.now_s)
        self.at(self.now_s + fate.back_s, lambda: self._receive(ticket, reply))

    def _receive(self, ticket: Ticket, reply: Fate) -> None:
        if reply.outcome == REFUSED:
            self.refusals.append(self.now_s)
            self.slots.refused(ticket, self.now_s, reply.retry_after_s)
        else:
            self.slots.answered(ticket, self.now_s, reply.remaining)


def greatest_in_a_rolling_second(arrivals: Iterable[float], window_s: float = 1.0) -> int:
    """Brute force: the most arrivals in any half-open window (one that begins with an arrival is the fullest)."""
    return max((sum(start <= a < start + window_s for a in arrivals) for start in arrivals), default=0)


def greatest_in_a_fixed_second(arrivals: Iterable[float], phase: float) -> int:
    return max(Counter(math.floor(a + phase) for a in arrivals).values(), default=0)


# Delays that meet the edges of a second, and any others.
delays = st.one_of(st.sampled_from([0.0, 0.01, 0.5, 0.999, 1.0, 1.001, 3.0]), st.floats(0, 3))
outcomes = st.sampled_from([ANSWERED] * 5 + [REFUSED, UNSENT])
# Given up after a while, and arriving at any time up to the end of the hold.
abandoned = st.builds(Fate, out_s=delays | st.floats(0, 8), back_s=delays, outcome=st.just(ABANDONED))
plain = st.builds(Fate, out_s=delays, back_s=delays)
anything = abandoned | st.builds(
    Fate,
    out_s=delays,
    back_s=delays,
    outcome=outcomes,
    retry_after_s=st.sampled_from([0.0, 0.3, 2.0]),
    remaining=st.none() | st.integers(0, 10),
)
unrefused = plain | abandoned | st.builds(Fate, back_s=delays, outcome=st.just(UNSENT))
demands = st.lists(st.tuples(st.integers(1, 12), st.one_of(st.just(0.0), delays)), min_size=1, max_size=8)


def world_of(limit: int, fates: list[Fate], demand: list[tuple[int, float]], **options: object) -> World:
    world = World(Slots(limit), cycle(fates), **options)  # type: ignore[arg-type]
    when_s = world.now_s
    for number, gap_s in demand:
        when_s += gap_s
        world.want(number, when_s)
    return world


LATE_THEN_EARLY = [Fate(out_s=0.999, back_s=0.001), Fate()]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    limit=st.integers(1, 10),
    fates=st.lists(anything, min_size=1, max_size=40) | st.lists(plain | abandoned, min_size=1, max_size=40),
    demand=demands,
    phase=st.floats(0, 1),
)
@example(limit=1, fates=LATE_THEN_EARLY, demand=[(4, 0.0)], phase=0.0)
@example(limit=1, fates=[Fate(3.0, 0.1, ABANDONED), Fate()], demand=[(3, 0.0)], phase=0.5)
def test_no_second_at_the_exchange_sees_more_than_the_limit(limit, fates, demand, phase):
    """Any delays, any order of arrival, refusals, abandoned and unsent requests, any hints: never above the limit."""
    assume(any(fate.outcome != UNSENT for fate in fates))
    world = world_of(limit, fates, demand)
    world.run()
    assert greatest_in_a_rolling_second(world.arrivals) <= limit
    assert greatest_in_a_fixed_second(world.arrivals, phase) <= limit
    assert all(1 <= ceiling <= limit for ceiling in world.ceilings)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(fates=st.lists(anything, min_size=1, max_size=40), demand=demands)
def test_whatever_is_wanted_is_sent_in_the_end(fates, demand):
    """Liveness: as long as answers come, time passes or requests are given up, demand is served to the last request."""
    world = world_of(3, fates, demand)
    world.run()
    assert world.wanted == 0
    assert len(world.sent) == sum(number for number, _ in demand)
    assert world.slots.statistics(world.now_s).in_flight == 0


@settings(max_examples=50, deadline=None)
@given(fates=st.lists(anything, min_size=1, max_size=20), demand=demands)
def test_a_limit_per_minute_is_kept_in_the_same_way(fates, demand):
    """The window is a parameter: a hundred a minute is the same construction as ten a second."""
    world = World(Slots(7, window_s=60.0), cycle(fates))
    world.want(sum(number for number, _ in demand), world.now_s)
    world.run()
    assert greatest_in_a_rolling_second(world.arrivals, 60.0) <= 7


def fixed_seconds(phase: float) -> Callable[[World, Fate, float], Fate]:
    def reply(world: World, fate: Fate, at_s: float) -> Fate:
        used = sum(math.floor(a + phase) == math.floor(at_s + phase) for a in world.arrivals)
        return attrs.evolve(fate, remaining=max(0, world.slots.limit - used))

    return reply


def rolling_seconds(world: World, fate: Fate, at_s: float) -> Fate:
    used = sum(at_s - 1.0 < a <= at_s for a in world.arrivals)
    return attrs.evolve(fate, remaining=max(0, world.slots.limit - used))


counting = st.one_of(st.just(rolling_seconds), st.floats(0, 1).map(fixed_seconds))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(limit=st.integers(1, 10), fates=st.lists(unrefused, min_size=1, max_size=40), demand=demands, reply=counting)
def test_alone_on_the_address_the_hint_never_tightens_anything(limit, fates, demand, reply):
    """`Remaining-Req` of our own requests is explained by our own requests, in fixed and in rolling seconds."""
    assume(any(fate.outcome != UNSENT for fate in fates))
    world = world_of(limit, fates, demand, reply=reply)
    world.run()
    assert set(world.ceilings) <= {limit}


def test_requests_of_others_lower_the_ceiling_and_are_forgotten_again():
    """Six of ten were used by others: four are left for us now, and one more with each second that shows nothing."""
    slots = Slots(10)
    first = slots.acquire(0.0)
    slots.answered(first, 0.02, remaining=3)
    assert slots.statistics(0.02).ceiling == 4
    assert slots.available(0.02) == 3
    for second in range(1, 7):
        slots.answered(slots.acquire(second + 0.1), second + 0.12, remaining=None)
    assert slots.statistics(7.0).ceiling == 10


def test_others_that_keep_using_the_limit_keep_the_ceiling_down():
    """Every second reply shows five of others: the ceiling stays at five and does not climb in between."""
    slots = Slots(10)
    for turn in range(20):  # two of ours a second
        at_s = turn / 2
        ours = min(3, turn + 1)  # the slot of the request a second ago rests for its round trip still
        slots.answered(slots.acquire(at_s), at_s + 0.02, remaining=None if turn % 2 else 10 - ours - 5)
        assert slots.statistics(at_s + 0.02).ceiling == 5


def test_a_limit_used_up_by_others_still_leaves_one_slot():
    slots = Slots(10)
    slots.answered(slots.acquire(0.0), 0.02, remaining=0)
    assert slots.statistics(0.02).ceiling == 1
    assert slots.next_free_s(0.02) == pytest.approx(1.021)


def steady(latency_s: float = 0.02) -> Iterator[Fate]:
    return repeat(Fate(latency_s / 2, latency_s / 2))


def test_the_limit_is_used_at_twenty_milliseconds(capsys):
    """30 s of continuous demand use at least 95 % of what the limit allows."""
    world = World(Slots(10), steady())
    world.want(10_000, world.now_s)
    world.run(until_s=world.now_s + 30.0)
    # From the first request to the last burst: the 30 s themselves would end in the middle of a round.
    used = (len(world.sent) - 10) / (world.sent[-1] - world.sent[0]) / 10
    peak = greatest_in_a_rolling_second(world.arrivals)
    with capsys.disabled():
        print(f"\n  pacing: {used:.1%} of the limit used over 30 s at 20 ms latency, greatest rolling second {peak}")
    assert used >= 0.95
    assert peak == 10
    statistics = world.slots.statistics(world.now_s)
    assert statistics.utilisation >= 0.9
    assert statistics.sent == len(world.sent)


def refusing_until(end_s: float, share: float, seed: int) -> Callable[[World, Fate, float], Fate]:
    draws = Random(seed)

    def reply(world: World, fate: Fate, at_s: float) -> Fate:
        refused = at_s < end_s and draws.uniform(0, 1) < share
        return attrs.evolve(fate, outcome=REFUSED) if refused else fate

    return reply


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.3, 1.0])
def test_throughput_comes_back_within_a_minute_after_the_last_refusal(share):
    """Refusals that come at random for a minute leave nothing behind once they have stopped for a minute."""
    for seed in range(6):
        world = World(Slots(10), steady(), reply=refusing_until(1060.0, share, seed))
        world.want(100_000, world.now_s)
        world.run(until_s=1120.0)
        assert world.slots.statistics(1120.0).ceiling == 10, f"seed {seed}"
        world.run(until_s=1125.0)
        assert sum(at_s >= 1120.0 for at_s in world.sent) >= 45
        assert greatest_in_a_rolling_second(world.arrivals[-300:]) <= 10


@pytest.mark.parametrize("real", [1, 4, 6, 9])
def test_a_limit_that_is_really_lower_is_found_and_rarely_tested(real):
    """Ten minutes against an exchange that allows less: its limit is used, and refusals become rare."""

    def reply(world: World, fate: Fate, at_s: float) -> Fate:
        used = sum(at_s - 1.0 < a <= at_s for a in world.arrivals[-12:])
        return attrs.evolve(fate, outcome=REFUSED) if used > real else fate

    world = World(Slots(10), steady(), reply=reply)
    world.want(100_000, world.now_s)
    world.run(until_s=1600.0)
    late = [at_s for at_s in world.refusals if at_s >= 1300.0]
    assert len(late) <= 3
    assert len(world.sent) >= 0.85 * real * 600


def burst(slots: Slots, number: int, now_s: float) -> list[Ticket]:
    tickets = [slots.acquire(now_s) for _ in range(number)]
    assert None not in tickets
    return tickets  # type: ignore[return-value]


def test_one_burst_of_refusals_halves_once():
    """Five refusals of one burst are one piece of evidence."""
    slots = Slots(10)
    tickets = burst(slots, 10, 0.0)
    for ticket in tickets[:5]:
        slots.answered(ticket, 0.02)
    for ticket in tickets[5:]:
        slots.refused(ticket, 0.03)
    assert slots.statistics(0.03).ceiling == 5
    assert slots.statistics(0.03).refused == 5
    assert slots.available(0.5) == 0
    assert slots.next_free_s(0.5) == pytest.approx(1.031)
    assert slots.available(1.04) == 5


def test_the_first_refused_of_a_burst_tells_how_many_were_too_many():
    """Six went through and the seventh was refused: the ceiling climbs back to six and waits there."""
    slots = Slots(10)
    tickets = burst(slots, 10, 0.0)
    for ticket in tickets[:6]:
        slots.answered(ticket, 0.02)
    for ticket in reversed(tickets[6:]):
        slots.refused(ticket, 0.03)
    for tenth in range(20, 90):
        if slots.available(tenth / 10):
            slots.answered(slots.acquire(tenth / 10), tenth / 10 + 0.01)
    assert slots.statistics(9.0).ceiling == 6


def test_a_refusal_blocks_the_group_for_the_time_the_exchange_names():
    slots = Slots(10)
    slots.refused(slots.acquire(0.0), 0.02, 7.0)
    assert slots.acquire(7.01) is None
    assert slots.next_free_s(1.0) == pytest.approx(7.02)
    assert slots.statistics(1.02).blocked_s == pytest.approx(6.0)
    assert slots.acquire(7.02) is not None


def test_refusals_without_a_success_between_them_double_the_block():
    """1, 2, 4, 8, 16 and then 30 s; one success and it is 1 s again."""
    slots, now_s, blocks = Slots(10), 0.0, []
    for _ in range(7):
        slots.refused(slots.acquire(now_s), now_s)
        blocks.append(slots.statistics(now_s).blocked_s)
        now_s = slots.next_free_s(now_s)
    assert blocks == [1, 2, 4, 8, 16, 30, 30]
    slots.answered(slots.acquire(now_s), now_s)
    now_s = slots.next_free_s(now_s)
    slots.refused(slots.acquire(now_s), now_s)
    assert slots.statistics(now_s).blocked_s == pytest.approx(1)


def test_the_longest_block_does_not_shorten_a_longer_one_that_the_exchange_named():
    slots = Slots(10)
    slots.refused(slots.acquire(0.0), 0.0, 90.0)
    assert slots.statistics(0.0).blocked_s == 90.0


def test_a_success_from_before_the_reduction_proves_nothing():
    """It neither ends the escalation nor lets the ceiling climb."""
    slots = Slots(10)
    old = slots.acquire(0.0)
    slots.refused(slots.acquire(0.0), 0.1)
    slots.answered(old, 2.9)
    assert slots.statistics(2.9).ceiling == 5
    slots.refused(slots.acquire(3.0), 3.0)
    assert slots.statistics(3.0).blocked_s == pytest.approx(2.0)


def test_the_ceiling_is_not_probed_by_demand_that_never_reaches_it():
    """One request a second says nothing about six: the learned maximum stays where the evidence is."""
    slots = Slots(10)
    for ticket in burst(slots, 10, 0.0):
        slots.refused(ticket, 0.01)
    for second in range(2, 60):
        slots.answered(slots.acquire(second), second + 0.01)
    assert slots.statistics(60.0).ceiling == 5


def use(ceiling: Ceiling, start_s: float, seconds: float) -> None:
    """Use all of a ceiling, and succeed, every tenth of a second."""
    for tenth in range(int(seconds * 10)):
        ticket = Ticket(start_s + tenth / 10, held=ceiling.slots, freed=0)
        ceiling.sending(ticket)
        ceiling.succeeded(ticket.sent_s + 0.02)


@pytest.mark.parametrize(("after_s", "next_probe_s"), [(2.0, 20.0), (5.0, 10.0)])
def test_only_the_first_seconds_of_use_judge_a_probe(after_s, next_probe_s):
    """A limit that is really lower shows at once and doubles the wait; a refusal later on is a new disturbance."""
    ceiling = Ceiling(10)
    ceiling.refused(Ticket(0.0, held=10, freed=0), 0.0)
    use(ceiling, 1.0, 15.0)
    assert (ceiling.slots, ceiling.learned) == (10, 10), "climbed to nine, and probes ten"
    probed_s = 4.0 + 10.0 + 0.02
    ceiling.refused(Ticket(probed_s + after_s, held=10, freed=0), probed_s + after_s)
    back_at_nine_s = probed_s + after_s + 5.0
    use(ceiling, probed_s + after_s + 0.5, 4.5 + next_probe_s - 2.0)
    assert (ceiling.slots, ceiling.learned) == (9, 9)
    use(ceiling, back_at_nine_s + next_probe_s - 2.0, 3.0)
    assert (ceiling.slots, ceiling.learned) == (10, 10)


def test_time_alone_frees_nothing_while_every_slot_waits_for_its_answer():
    slots = Slots(2)
    first, second = burst(slots, 2, 0.0)
    assert slots.acquire(5.0) is None
    assert slots.next_free_s(5.0) is None
    slots.answered(first, 6.0)
    assert slots.next_free_s(6.0) == pytest.approx(7.001)
    slots.unsent(second, 6.5)
    assert slots.next_free_s(6.5) == 6.5
    assert slots.statistics(6.5).sent == 1


def test_an_abandoned_request_holds_its_slot_until_it_cannot_arrive_any_more():
    slots = Slots(1, abandoned_hold_s=5.0)
    slots.abandoned(slots.acquire(0.0), 2.0)
    assert slots.next_free_s(2.0) == pytest.approx(8.001)
    assert slots.acquire(8.0) is None
    assert slots.acquire(8.002) is not None


def test_a_ticket_is_given_back_once_and_to_its_own_group():
    slots = Slots(10)
    ticket = slots.acquire(0.0)
    slots.answered(ticket, 0.1)
    for give_back in (slots.answered, slots.refused, slots.abandoned, slots.unsent):
        with pytest.raises(ValueError, match="not in flight"):
            give_back(ticket, 0.2)
    with pytest.raises(ValueError, match="not in flight"):
        slots.answered(Slots(10).acquire(0.0), 0.2)


@given(before=st.integers(1, 20), after=st.integers(1, 20), held=st.integers(0, 20))
def test_another_limit_holds_at_once(before, after, held):
    """What is held by then counts; nothing was learned, so the whole of the new limit may be used."""
    slots = Slots(before, guard_s=0.0)
    tickets = [ticket for _ in range(held) if (ticket := slots.acquire(0.0))]
    slots.retune(after, guard_s=0.5, abandoned_hold_s=2.0)
    assert slots.available(0.0) == max(0, after - len(tickets))
    assert slots.statistics(0.0).limit == after
    for ticket in tickets:
        slots.answered(ticket, 0.1)
    if tickets:
        assert slots.available(1.599) == max(0, after - len(tickets))
    assert slots.available(1.601) == after


@pytest.mark.parametrize(("limit", "ceiling", "ceilings"), [(20, 5, [6, 7, 8, 9, 9]), (8, 5, [6, 7, 8]), (4, 4, [4])])
def test_what_was_learned_of_a_limit_holds_for_another(limit, ceiling, ceilings):
    """Of 10, the tenth was refused: 9 are safe, however many there are said to be now."""
    slots = Slots(10)
    tickets = [slots.acquire(0.0) for _ in range(10)]
    for ticket in tickets[:9]:
        slots.answered(ticket, 0.1)
    slots.refused(tickets[9], 0.1)
    assert slots.statistics(0.1).ceiling == 5
    slots.retune(limit, guard_s=0.001, abandoned_hold_s=5.0)
    assert slots.statistics(0.1).ceiling == ceiling
    for second, expected in enumerate(ceilings):
        ticket = slots.acquire(1.2 + second)
        slots.answered(ticket, 1.2 + second)
        assert slots.statistics(1.2 + second).ceiling == expected


def test_what_rests_already_rests_as_long_as_it_was_told_to():
    slots = Slots(2, abandoned_hold_s=5.0)
    early, late = slots.acquire(0.0), slots.acquire(0.0)
    slots.abandoned(early, 0.0)
    slots.retune(2, guard_s=0.001, abandoned_hold_s=1.0)
    slots.abandoned(late, 0.0)
    assert (slots.available(2.0), slots.available(2.002)) == (0, 1)
    assert (slots.available(6.0), slots.available(6.002)) == (1, 2)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="limit must be at least 1, was 0"):
        Slots(0)


def test_an_unknown_ban_doubles_with_every_repetition_and_is_forgotten_in_a_long_quiet():
    ban, now_s, lengths = Ban(), 0.0, []
    for _ in range(8):
        until_s = ban.ban(now_s, None)
        lengths.append(until_s - now_s)
        now_s = until_s
        assert ban.until_s(now_s) is None
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert ban.ban(now_s + ban.quiet_s, None) == now_s + ban.quiet_s + 60


def test_a_second_answer_of_the_same_ban_is_no_repetition():
    """Several requests were in flight when the ban began; their 418s do not lengthen it, unless they say so."""
    ban = Ban()
    assert ban.ban(0.0, None) == 60
    assert ban.ban(1.0, None) == 60
    assert ban.until_s(59.9) == 60
    assert ban.ban(2.0, 100.0) == 102
    assert ban.ban(3.0, 5.0) == 102, "a ban is never shortened"
    assert ban.ban(101.5, None) == 102


@pytest.mark.parametrize("nonsense", [0.0, -5.0, math.nan])
def test_a_time_that_is_no_time_counts_as_unknown(nonsense):
    assert Ban().ban(0.0, nonsense) == 60


def test_a_known_ban_is_taken_as_it_is():
    assert Ban().ban(10.0, 7.5) == 17.5
    assert Ban().ban(10.0, 0.5) == 10.5
    assert Ban().until_s(0.0) is None


@settings(deadline=None)
@given(attempt=st.integers(0, 2000), draw=st.floats(0, 1, exclude_max=True))
def test_full_jitter_stays_below_the_doubled_base_and_the_cap(attempt, draw):
    delay_s = full_jitter_s(attempt, base_s=0.5, cap_s=30.0, draw=draw)
    assert 0 <= delay_s <= min(30.0, 0.5 * 2.0 ** min(attempt, 10))
    assert full_jitter_s(3, base_s=0.5, cap_s=30.0, draw=0.5) == 2.0
