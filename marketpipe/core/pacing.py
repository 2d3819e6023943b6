"""Request slots: as many requests as a rate limit allows, and never one more.

**The limit.** The exchange counts the requests of each rate-limit group per second, ten for quotations
(https://docs.upbit.com/kr/reference/rate-limits, 2026-10-07). Whether its seconds are fixed to the wall clock or roll
is not documented reliably, and neither its clock nor the time a request spends on the way is known here.

**The construction.** A group has N slots, N = the limit. A request takes a slot when it is sent and gives it back one
window, plus a guard for clocks that run at different rates, after its *response has arrived*; if nobody waited for the
response, after the latest moment at which the request can still arrive.

**The proof.** The exchange counts request i at some moment a_i with send_i <= a_i <= recv_i. Suppose N + 1 requests
were counted within one half-open second [t, t + 1), and let j be the one of them that was sent last. For every other
one, i: send_i <= send_j <= a_j < t + 1 <= a_i + 1 <= recv_i + 1. So each of them still held its slot when j was sent:
together N + 1 slots of N, which is impossible. The second may begin anywhere, so the bound holds for fixed and for
rolling windows; only differences of one local clock were used, so it needs no synchronised clocks; and nothing was
assumed about the delays. The price is the round trip: N requests per (1 s + round trip), 98 % of the limit at 20 ms.

**What may change is how many of the N slots are used**: the ceiling, see `Ceiling`. It never exceeds N, so whatever it
learns, the proof stands.

``now_s`` is always a monotonic clock's reading in seconds and must not go backwards between calls.
"""

from __future__ import annotations

import heapq
from typing import Protocol

import attrs

__all__ = ["Ban", "Ceiling", "Latch", "Limit", "SlotStatistics", "Slots", "Ticket", "full_jitter_s"]


@attrs.frozen(eq=False)
class Ticket:
    """A slot taken by one request. Give it back exactly once: answered, refused, abandoned or unsent.

    ``held`` is how many slots were taken, this one included. ``freed`` is how many requests had given their slots back
    for good when this one was sent: none of those can share a second of the exchange with this one.
    """

    sent_s: float
    held: int
    freed: int


@attrs.frozen
class SlotStatistics:
    """A glance at one group. ``utilisation`` is the share of the limit that was sent within the last window, 0..1."""

    limit: int
    ceiling: int
    in_flight: int
    sent: int
    refused: int
    utilisation: float
    blocked_s: float


class Limit(Protocol):
    """A rate limit as whoever sends requests sees it: `Slots`, or a share in them."""

    def acquire(self, now_s: float) -> Ticket | None: ...
    def available(self, now_s: float) -> int: ...
    def next_free_s(self, now_s: float) -> float | None: ...
    def answered(self, ticket: Ticket, now_s: float, remaining: int | None = None) -> None: ...
    def refused(self, ticket: Ticket, now_s: float, retry_after_s: float = 0.0) -> None: ...
    def abandoned(self, ticket: Ticket, now_s: float) -> None: ...
    def unsent(self, ticket: Ticket, now_s: float) -> None: ...
    def statistics(self, now_s: float) -> SlotStatistics: ...


class Latch(Protocol):
    """A `Ban`, or a share in one."""

    def ban(self, now_s: float, duration_s: float | None) -> float: ...
    def until_s(self, now_s: float) -> float | None: ...


def _at_least_one(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"{attribute.name} must be at least 1, was {value!r}")


@attrs.define(eq=False)
class Ceiling:
    """How many of a group's slots to use: learned from refusals and from ``Remaining-Req``; 1..``limit``.

    Additive increase, multiplicative decrease, with a memory:

    - It starts at the limit. A refusal halves it, and the *learned maximum* falls to one request less than were open
      when the refused one was sent (but not below the halved ceiling). Refusals of requests that were sent before the
      last reduction belong to the same burst and may sharpen the learned maximum, but do not halve again.
    - While requests succeed it climbs by one per ``climb_s`` up to the learned maximum, which was safe before.
    - There it probes: after ``probe_s`` without a refusal, and if it was fully used meanwhile, the learned maximum
      rises by one. A probe that holds halves the wait for the next, so that a passing disturbance is forgotten within
      half a minute. A probe that fails doubles it, up to ``probe_max_s``, so that a limit which really is lower is
      tested ever more rarely. A refusal that no probe explains means that conditions have changed, and resets it.
    - Evidence that others on this address use the same limit lowers it for now; it climbs back as above.
    """

    limit: int = attrs.field(validator=_at_least_one)
    climb_s: float = attrs.field(default=1.0, kw_only=True)
    probe_s: float = attrs.field(default=10.0, kw_only=True)
    probe_max_s: float = attrs.field(default=600.0, kw_only=True)
    verdict_s: float = attrs.field(default=3.0, kw_only=True)
    slots: int = attrs.field(init=False)
    learned: int = attrs.field(init=False)
    _wait_s: float = attrs.field(init=False)
    _clean_since_s: float = attrs.field(init=False, default=float("-inf"))
    _reduced_s: float = attrs.field(init=False, default=float("-inf"))
    _probing: bool = attrs.field(init=False, default=False)
    _full_since_s: float = attrs.field(init=False, default=float("inf"))  # since the last change; inf: not yet

    def __attrs_post_init__(self) -> None:
        self.slots = self.learned = self.limit
        self._wait_s = self.probe_s

    def limit_to(self, limit: int) -> None:
        """The limit is another from now on. What was learned holds; where nothing was, the whole of it is used."""
        in_full = limit if self.slots == self.limit else self.slots
        learned = limit if self.learned == self.limit else self.learned
        self.limit = limit
        self.slots, self.learned = min(in_full, limit), min(learned, limit)

    def sending(self, ticket: Ticket) -> None:
        """A request goes out."""
        if ticket.held >= self.slots:
            self._full_since_s = min(self._full_since_s, ticket.sent_s)

    def is_news(self, ticket: Ticket) -> bool:
        """Whether this request was sent after the last reduction, so that its fate says something about it."""
        return ticket.sent_s > self._reduced_s

    def refused(self, ticket: Ticket, now_s: float) -> None:
        """A request was refused with 429: reduce, once per burst."""
        if self.is_news(ticket):
            self._reduce(ticket, now_s)
        self.learned = min(self.learned, max(self.slots, ticket.held - 1))
        self._clean_since_s = now_s

    def _reduce(self, ticket: Ticket, now_s: float) -> None:
        # A limit that is really lower shows in the first seconds in which the probed slot is used; later is no verdict.
        under_test = self._probing and ticket.sent_s <= self._full_since_s + self.verdict_s
        if under_test and ticket.held >= self.learned:
            self._wait_s = min(self.probe_max_s, max(self.probe_s, self._wait_s * 2))
        else:
            self._wait_s = self.probe_s
        self._probing = False
        self._change(max(1, self.slots // 2), now_s)
        self._reduced_s = now_s

    def succeeded(self, now_s: float) -> None:
        """A request that `is_news` was answered: climb if it is time to."""
        if self.slots == self.limit and not self._probing:
            return
        clean_s = now_s - self._clean_since_s
        if self.slots < self.learned:
            self._climb(int(clean_s / self.climb_s), now_s)
        elif clean_s >= self._wait_s and self._full_since_s < now_s:
            self._probe(now_s)

    def _climb(self, steps: int, now_s: float) -> None:
        if steps > 0:
            self._change(min(self.learned, self.slots + steps), now_s)

    def _probe(self, now_s: float) -> None:
        if self._probing:  # the one before it held
            self._wait_s = max(self.climb_s, min(self.probe_s, self._wait_s / 2))
        self._probing = self.learned < self.limit
        if self._probing:
            self.learned += 1
            self._change(self.learned, now_s)

    def shared(self, others: int, now_s: float) -> None:
        """Others on this address have used at least ``others`` of the exchange's current second."""
        room = max(1, self.limit - others)
        if others > 0 and room <= self.slots:
            self._change(room, now_s)

    def _change(self, slots: int, now_s: float) -> None:
        self.slots = slots
        self._clean_since_s = now_s
        self._full_since_s = float("inf")


@attrs.define(eq=False)
class Slots:
    """One rate-limit group: at most ``limit`` requests in any ``window_s`` at the exchange, whatever the network does.

    ``guard_s`` covers clocks that run at different rates (0.001 in 1 s is far more than real ones differ) and the
    rounding of floats. ``abandoned_hold_s`` is how long after being abandoned a request may still arrive.
    A refusal blocks the group; refusals without a success between them double the block, up to ``block_max_s``.
    ``climb_s``, ``probe_s`` and ``probe_max_s`` are those of `Ceiling`.
    """

    limit: int = attrs.field(default=10, validator=_at_least_one)
    window_s: float = attrs.field(default=1.0, kw_only=True)
    guard_s: float = attrs.field(default=0.001, kw_only=True)
    abandoned_hold_s: float = attrs.field(default=5.0, kw_only=True)
    block_max_s: float = attrs.field(default=30.0, kw_only=True)
    climb_s: float = attrs.field(default=1.0, kw_only=True)
    probe_s: float = attrs.field(default=10.0, kw_only=True)
    probe_max_s: float = attrs.field(default=600.0, kw_only=True)
    _ceiling: Ceiling = attrs.field(init=False)
    _in_flight: set[Ticket] = attrs.field(init=False, factory=set)
    _resting: list[tuple[float, float]] = attrs.field(init=False, factory=list)  # heap of (free again, sent)
    _freed: int = attrs.field(init=False, default=0)
    _sent: int = attrs.field(init=False, default=0)
    _refused: int = attrs.field(init=False, default=0)
    _blocked_until_s: float = attrs.field(init=False, default=float("-inf"))
    _refused_in_a_row: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._ceiling = Ceiling(self.limit, climb_s=self.climb_s, probe_s=self.probe_s, probe_max_s=self.probe_max_s)

    def retune(self, limit: int, *, guard_s: float, abandoned_hold_s: float) -> None:
        """Other numbers from now on. What rests already rests as long as it was told to."""
        self._ceiling.limit_to(limit)
        self.limit, self.guard_s, self.abandoned_hold_s = limit, guard_s, abandoned_hold_s

    def acquire(self, now_s: float) -> Ticket | None:
        """Take a slot for a request that is sent now or later, or None if none is free."""
        if self.available(now_s) == 0:
            return None
        ticket = Ticket(sent_s=now_s, held=self._held() + 1, freed=self._freed)
        self._in_flight.add(ticket)
        self._sent += 1
        self._ceiling.sending(ticket)
        return ticket

    def available(self, now_s: float) -> int:
        """How many requests may be sent at this moment."""
        self._release(now_s)
        return 0 if now_s < self._blocked_until_s else max(0, self._ceiling.slots - self._held())

    def next_free_s(self, now_s: float) -> float | None:
        """When `acquire` will succeed if nothing else happens (``now_s`` if it would at once).

        None means that time alone frees nothing: every slot in use waits for its answer. Ask again after any change.
        """
        self._release(now_s)
        excess = self._held() - self._ceiling.slots + 1
        if excess > len(self._resting):
            return None
        free_s = heapq.nsmallest(excess, self._resting)[-1][0] if excess > 0 else now_s
        return max(free_s, self._blocked_until_s)

    def answered(self, ticket: Ticket, now_s: float, remaining: int | None = None) -> None:
        """The response has arrived, whatever its status but 429. ``remaining`` is ``sec`` of its ``Remaining-Req``."""
        self._take_back(ticket)
        self._rest(ticket, now_s)
        if self._ceiling.is_news(ticket):
            self._refused_in_a_row = 0
            self._ceiling.succeeded(now_s)
        if remaining is not None:
            self._ceiling.shared(self.limit - remaining - self._ours(ticket), now_s)

    def refused(self, ticket: Ticket, now_s: float, retry_after_s: float = 0.0) -> None:
        """The response is a 429: the whole group rests until the exchange's next second at least.

        "Stop the whole group until the next second" (reference/rate-limits, 2026-10-07). Its seconds are not known
        here, so the shortest block is a full window. ``retry_after_s`` may only lengthen it.
        """
        self._take_back(ticket)
        self._rest(ticket, now_s)
        self._refused += 1
        if self._ceiling.is_news(ticket):
            self._refused_in_a_row = min(self._refused_in_a_row + 1, 32)
        self._ceiling.refused(ticket, now_s)
        block_s = max(self.window_s, retry_after_s)
        escalated_s = min(self.block_max_s, block_s * 2 ** max(0, self._refused_in_a_row - 1))
        self._blocked_until_s = max(self._blocked_until_s, now_s + max(block_s, escalated_s))

    def abandoned(self, ticket: Ticket, now_s: float) -> None:
        """We stopped waiting, or the connection broke: the request may still arrive, so its slot rests longer."""
        self._take_back(ticket)
        self._rest(ticket, now_s + self.abandoned_hold_s)

    def unsent(self, ticket: Ticket, now_s: float) -> None:
        """The request certainly never left this machine: its slot is free at once."""
        self._take_back(ticket)
        self._release(now_s)
        self._sent -= 1

    def statistics(self, now_s: float) -> SlotStatistics:
        """The state of the group at this moment."""
        self._release(now_s)
        # A request sent within the last window still holds its slot, in flight or resting.
        recent = [t.sent_s for t in self._in_flight] + [sent_s for _, sent_s in self._resting]
        return SlotStatistics(
            limit=self.limit,
            ceiling=self._ceiling.slots,
            in_flight=len(self._in_flight),
            sent=self._sent,
            refused=self._refused,
            utilisation=sum(sent_s > now_s - self.window_s for sent_s in recent) / self.limit,
            blocked_s=max(0.0, self._blocked_until_s - now_s),
        )

    def _ours(self, ticket: Ticket) -> int:
        # The most requests of ours that the exchange can have counted in one second up to the ticket's: all that were
        # sent so far, except those whose slots were free again when it went out (they were counted over a second
        # earlier, see the proof). Never less than the true number, so alone on an address nothing is ever tightened.
        return self._sent - ticket.freed

    def _held(self) -> int:
        return len(self._in_flight) + len(self._resting)

    def _release(self, now_s: float) -> None:
        while self._resting and self._resting[0][0] <= now_s:
            heapq.heappop(self._resting)
            self._freed += 1

    def _take_back(self, ticket: Ticket) -> None:
        if ticket not in self._in_flight:
            raise ValueError(f"{ticket!r} is not in flight: it was given back before, or belongs to another group")
        self._in_flight.remove(ticket)

    def _rest(self, ticket: Ticket, arrived_s: float) -> None:
        heapq.heappush(self._resting, (arrived_s + self.window_s + self.guard_s, ticket.sent_s))


@attrs.define(eq=False)
class Ban:
    """The latch of a 418: no REST at all until the ban ends.

    The exchange says how long, in words that are not documented (reference/rate-limits, 2026-10-07: "the reply carries
    the block time", longer with every repetition). Where no time could be read: ``first_s``, doubled for every further
    ban up to ``longest_s``, and forgotten after ``quiet_s`` without one.
    """

    first_s: float = attrs.field(default=60.0, kw_only=True)
    longest_s: float = attrs.field(default=3600.0, kw_only=True)
    quiet_s: float = attrs.field(default=6 * 3600.0, kw_only=True)
    _until_s: float = attrs.field(init=False, default=float("-inf"))
    _bans: int = attrs.field(init=False, default=0)

    def ban(self, now_s: float, duration_s: float | None) -> float:
        """A 418 came in, with a time to wait or without; returns when the ban ends. A ban is never shortened."""
        repeated = now_s < self._until_s  # the answer to a request that was sent before the ban: not a further one
        if not repeated:
            self._bans = 1 if now_s >= self._until_s + self.quiet_s else min(self._bans + 1, 32)
        if duration_s is None or not duration_s > 0:
            duration_s = 0.0 if repeated else min(self.longest_s, self.first_s * 2 ** (self._bans - 1))
        self._until_s = max(self._until_s, now_s + duration_s)
        return self._until_s

    def until_s(self, now_s: float) -> float | None:
        """When the ban ends, or None if there is none."""
        return self._until_s if now_s < self._until_s else None


def full_jitter_s(attempt: int, *, base_s: float, cap_s: float, draw: float) -> float:
    """Seconds to wait before retry ``attempt`` (0 is the first), with full jitter.

    Anywhere between 0 and ``base_s`` times 2 to the ``attempt``, at most ``cap_s``; ``draw``, a random number in
    [0, 1), makes the choice.
    """
    return draw * min(cap_s, base_s * 2.0 ** min(attempt, 64))
