"""How each topic of a line stands: its state and why, what is held against it, and what it has shown.

What is held against a topic, or known of it, are sets, since most of the time they are empty:

======  ===============================  ==================================  =======================================
set     since                            until                               therefore
======  ===============================  ==================================  =======================================
erring  a new connection was no help     a frame                             its silence means nothing
spoilt  a frame could not be read        one that can, or a new connection   its silence is no reason to begin anew
blind   REST could not tell              a frame, a check, a new connection  any frame ends its being stale
empty   REST was asked for a snapshot    a new connection                    it is not asked for that again
struck  it was found to be kept from us  a frame that is no snapshot         its strikes count
======  ===============================  ==================================  =======================================

Nothing here asks or tells anybody: what follows from a standing is the business of whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import attrs
import trio

from marketpipe.clock import Clock
from marketpipe.core.demand import Demand
from marketpipe.core.topics import Line, Topic
from marketpipe.status import SubscriptionState, SubscriptionStatus

__all__ = ["Standings"]

# What the exchange does not send is subscribed anew after so long, and then more and more rarely.
AGAIN_S = 60.0
AGAIN_AT_MOST_S = 600.0
# A topic whose connection was replaced so often because of it, and that never showed anything since, is not waited for.
STRIKES = 2
UNSENT = "the exchange trades it, and does not send it"


@attrs.define
class _Standing:
    state: SubscriptionState
    reason: str
    since_ms: int
    shown: trio.Event = attrs.field(factory=trio.Event)
    strikes: int = 0
    flaw: str = ""  # why it is not waited for, if that is not `UNSENT`
    again_s: float = AGAIN_S  # the next pause before it is subscribed anew


@attrs.define(eq=False)
class Standings:
    """Every topic of ``line`` that is or was wanted.

    The sets are there to be read; only the methods change them.
    """

    _line: Line
    _demand: Demand
    _clock: Clock
    subscribed: frozenset[Topic] = attrs.field(default=frozenset(), init=False)  # on this connection
    erring: set[Topic] = attrs.field(factory=set, init=False)  # not waited for; a frame brings them back
    spoilt: set[Topic] = attrs.field(factory=set, init=False)  # could not be read last; a frame brings them back
    odd: set[Topic] = attrs.field(factory=set, init=False)  # all that a frame brings back: one look for each frame
    empty: frozenset[Topic] = attrs.field(default=frozenset(), init=False)  # checked: nothing to show yet
    struck: set[Topic] = attrs.field(factory=set, init=False)  # until a frame that is no snapshot
    blind: set[Topic] = attrs.field(factory=set, init=False)  # silent, and REST could not tell; a frame ends it
    _all: dict[Topic, _Standing] = attrs.field(factory=dict, init=False)
    _report: dict[Topic, SubscriptionStatus] = attrs.field(factory=dict, init=False)  # as it was when it was looked at
    _news: set[Topic] = attrs.field(factory=set, init=False)  # what has changed since
    _reported: frozenset[Topic] = attrs.field(default=frozenset(), init=False)  # what was wanted then

    # -- asking -------------------------------------------------------------------------------------------------

    def wanted(self) -> frozenset[Topic]:
        """What is wanted of the line; the same object until it changes."""
        return self._demand.wanted(self._line)

    def watched(self) -> frozenset[Topic]:
        """Those subscribed whose silence means something."""
        return self.subscribed - self.erring

    def withheld(self) -> set[Topic]:
        """Those subscribed that are set aside though, for all that is known, they are listed."""
        return {topic for topic in self.erring if not self._of(topic).flaw}

    def is_active(self, topic: Topic) -> bool:
        """Whether ``topic`` flows at this moment."""
        standing = self._all.get(topic)
        return standing is not None and standing.state is SubscriptionState.ACTIVE

    async def wait_shown(self, topic: Topic) -> None:
        """Wait until ``topic``, which must be wanted, has shown something, or is known to have nothing to show."""
        await trio.lowlevel.checkpoint()  # whoever has left already wants nothing
        await self._of(topic).shown.wait()

    def unshown(self) -> list[Topic]:
        """Topics with consumers that have shown nothing yet, and are not known to have nothing to show."""
        return [topic for topic in self.wanted() if self._demand.leases(topic) and not self._of(topic).shown.is_set()]

    def report(self) -> Mapping[Topic, SubscriptionStatus]:
        """Every topic that is or was wanted, for people. The same object until something changes; leave it as it is."""
        # Most of the time nothing has, and there may be thousands of topics.
        demand, wanted = self._demand, self.wanted()
        if wanted is not self._reported:
            for topic in wanted:
                if self._of(topic).state is SubscriptionState.RELEASED:
                    self._enter(topic, SubscriptionState.PENDING, "wanted again, not subscribed yet")
            self._reported = wanted
        self._news.update(topic for topic in demand.news(self._line) if topic in self._all)
        if self._news:
            self._report = self._report.copy()
            for topic in self._news:
                each = self._all[topic]
                told = each.state, each.reason, each.since_ms, demand.leases(topic), demand.is_hot(topic)
                self._report[topic] = SubscriptionStatus(*told)
            self._news = set()
        return self._report

    # -- the connection -----------------------------------------------------------------------------------------

    def connected(self) -> None:
        """A new connection, on which nothing is subscribed, and nothing was silent or unreadable yet."""
        self.subscribed = self.empty = frozenset()
        self.spoilt, self.blind = set(), set()
        self._gather_the_odd()

    def failed(self, reason: str) -> None:
        """There is no connection."""
        for topic in self.wanted():
            self._enter(topic, SubscriptionState.RECONNECTING, reason)

    def subscribe(self, wanted: frozenset[Topic]) -> None:
        """``wanted`` are what is subscribed from now on; those with too many strikes are not waited for."""
        for topic in wanted - self.subscribed:
            self._enter(topic, SubscriptionState.PENDING, "subscribed, nothing shown yet")
        self.subscribed = wanted
        self.erring = {topic for topic in wanted if self._of(topic).strikes >= STRIKES}
        for topic in self.erring:
            self._enter(topic, SubscriptionState.ERROR, self._of(topic).flaw or UNSENT)
        self.empty &= wanted
        self.spoilt &= wanted
        self._gather_the_odd()

    def release_all_but(self, wanted: frozenset[Topic]) -> list[Topic]:
        """Nobody wants the others any more, which are returned as far as that is news."""
        released = SubscriptionState.RELEASED
        held = [topic for topic in self._all.keys() - wanted if self._all[topic].state is not released]
        self.struck.difference_update(held)
        for topic in held:
            self._all[topic] = _Standing(released, "nobody wants it any more", self._clock.now_ms())
        self._news.update(held)
        return held

    def nothing_subscribed(self) -> None:
        """Nothing is wanted, and the connection is left."""
        self.subscribed = frozenset()

    # -- what it shows ------------------------------------------------------------------------------------------

    def show(self, topic: Topic) -> bool:
        """``topic`` flows, and what was held against it is over. True if it shows something for the first time."""
        shown = self._of(topic).shown
        is_first = not shown.is_set()
        shown.set()
        for held_against in (self.erring, self.spoilt, self.blind, self.odd):
            held_against.discard(topic)
        self._enter(topic, SubscriptionState.ACTIVE, "")
        return is_first

    def forgive(self, topic: Topic) -> None:
        """``topic`` has shown more than a snapshot: its strikes are void."""
        self.struck.discard(topic)
        standing = self._of(topic)
        standing.strikes, standing.flaw, standing.again_s = 0, "", AGAIN_S

    def spoil(self, topic: Topic, reason: str) -> None:
        """A frame of ``topic`` cannot be read."""
        self.spoilt.add(topic)
        self.odd.add(topic)
        self._enter(topic, SubscriptionState.ERROR, reason)

    # -- what checks find ---------------------------------------------------------------------------------------

    def suspect(self, topics: Collection[Topic], reason: str) -> None:
        """These are silent for longer than they should be. What could not be read says so already."""
        for topic in topics:
            if topic not in self.spoilt:
                self._enter(topic, SubscriptionState.STALE, reason)

    def unchecked(self, topics: Collection[Topic]) -> None:
        """REST could not tell of these: a frame ends their being stale, also where it is not their first."""
        self.blind.update(self.watched().intersection(topics))
        self._gather_the_odd()

    def well(self, topics: Collection[Topic]) -> frozenset[Topic]:
        """These have had no news, and those are returned of which that proves that they are well."""
        well = self.watched().intersection(topics) - self.spoilt
        self.blind -= well
        self._gather_the_odd()
        for topic in well:
            shown = self._of(topic).shown.is_set()
            self._enter(topic, SubscriptionState.ACTIVE if shown else SubscriptionState.PENDING, "checked: no news")
        return well

    def looked_up(self, topics: Collection[Topic]) -> None:
        """REST was asked for the sake of these, which had no snapshot: once for each connection."""
        self.empty |= frozenset(topics)

    def nothing_to_show(self, topics: Collection[Topic]) -> None:
        """Nor has REST anything of these."""
        for topic in topics:
            self._of(topic).shown.set()
            self._enter(topic, SubscriptionState.PENDING, "listed, but the exchange has nothing to show of it yet")

    # -- what is not sent ---------------------------------------------------------------------------------------

    def strike(self, topics: Collection[Topic]) -> bool:
        """These are kept from us. True if that has not happened so often yet that a new connection is no help."""
        self.struck.update(topics)
        for topic in topics:
            self._of(topic).strikes += 1
        return any(self._of(topic).strikes < STRIKES for topic in topics)

    def set_aside(self, topics: Collection[Topic]) -> None:
        """These are waited for no longer, for the sake of the others."""
        self.erring.update(topics)
        self._gather_the_odd()
        for topic in topics:
            self._enter(topic, SubscriptionState.ERROR, UNSENT)

    def abandon(self, topic: Topic, reason: str) -> None:
        """The exchange does not list ``topic`` any more."""
        self.erring.add(topic)
        self.odd.add(topic)
        self.struck.add(topic)
        standing = self._of(topic)
        standing.strikes, standing.flaw = STRIKES, reason
        standing.shown.set()
        self._enter(topic, SubscriptionState.ERROR, reason)

    def again_s(self) -> float:
        """How long to wait before those that are not sent are subscribed anew; ``math.inf`` if there are none."""
        return min((self._of(topic).again_s for topic in self.erring), default=math.inf)

    def try_again(self) -> None:
        """They are subscribed anew now: the next time later."""
        for topic in self.erring:
            standing = self._of(topic)
            standing.again_s = min(2 * standing.again_s, AGAIN_AT_MOST_S)

    # -- one of them --------------------------------------------------------------------------------------------

    def _of(self, topic: Topic) -> _Standing:
        standing = self._all.get(topic)
        if standing is None:
            now_ms = self._clock.now_ms()
            standing = self._all[topic] = _Standing(SubscriptionState.PENDING, "not connected yet", now_ms)
            self._news.add(topic)
        return standing

    def _enter(self, topic: Topic, state: SubscriptionState, reason: str) -> None:
        standing = self._of(topic)
        if standing.state is not state:
            standing.since_ms = self._clock.now_ms()
        if (standing.state, standing.reason) != (state, reason):
            standing.state, standing.reason = state, reason
            self._news.add(topic)

    def _gather_the_odd(self) -> None:
        self.odd = self.erring | self.spoilt | self.blind
