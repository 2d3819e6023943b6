"""The watch over a line's connection: what its silence means, and what is done about it.

::

    silent for too long ───> stale meanwhile: ping, and REST ──┬──> no news: all is well
    no snapshot in time ───> REST ─────────────────────────────┼──> nothing to show
    every few seconds ─────> audit of every topic ─────────────┴──> stalled: a strike
                                                                       │ has a new connection helped before?
                                  it did not, for any of them: set aside, and subscribed anew now and then
                                  it may: the connection is given up

When to look is `marketpipe.core.liveness`' business, what REST says `marketpipe.actors.probes`'. A connection is given
up by raising `ExchangeUnavailable`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection

import attrs
import trio

from marketpipe.actors.certainty import Certainty
from marketpipe.actors.desks import Desk
from marketpipe.actors.probes import Probe
from marketpipe.actors.standing import Standings
from marketpipe.config import Subscriptions as Options
from marketpipe.core.liveness import Suspicion, Vigil
from marketpipe.core.requests import BATCH_LIMIT
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import ExchangeUnavailable
from marketpipe.logs import fields, told

__all__ = ["Watch"]

logger = logging.getLogger("marketpipe.stream")

# How often REST is asked what the stream should have shown, thin markets included, whose silence is no suspicion: a
# request for every two hundred markets. The first time soon after they were subscribed.
AUDIT_EVERY_S = 10.0
AUDIT_SOON_S = 1.0
# With REST out of reach, a line that flowed (so many frames a second on average) is given up after so long a silence.
BLIND_S = 30.0
FLOWING_PER_S = 0.5


@attrs.define(eq=False)
class Watch:
    """State of the watch over one line's connections, one after the other; `run` and `audit` are its tasks.

    ``again`` is called when the same topics should be subscribed once more. ``vigil`` is to be told of every frame.
    """

    _line: Line
    _standings: Standings
    _certainty: Certainty
    _desk: Desk
    _probe: Probe
    _now_ms: Callable[[float], int]
    _options: Options
    _again: Callable[[], None]
    vigil: Vigil = attrs.field(init=False)
    _began_s: float = attrs.field(default=-math.inf, init=False)
    _frames: int = attrs.field(default=0, init=False)  # on this connection
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _snapshots_s: float = attrs.field(default=-math.inf, init=False)
    _again_s: float = attrs.field(default=math.inf, init=False)  # when what is not sent is subscribed anew
    _audit_s: float = attrs.field(default=math.inf, init=False)
    _audited_s: float = attrs.field(default=-math.inf, init=False)
    _sooner: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.vigil = self._new_vigil()

    def _new_vigil(self) -> Vigil:
        return Vigil(silence_s=self._options.silence_s, snapshot_s=self._options.snapshot_s)

    # -- what it is told ----------------------------------------------------------------------------------------

    def connected(self) -> None:
        """There is a new connection."""
        now_s = trio.current_time()
        self.vigil = self._new_vigil()
        self._began_s, self._frames = now_s, 0
        self._audit_s, self._again_s = now_s + AUDIT_EVERY_S, math.inf

    def subscribed(self, new: Collection[Topic], now_s: float) -> None:
        """A subscribe message goes out, in which ``new`` are on this connection for the first time."""
        self._plan_again(now_s)
        if new:  # but programs that subscribe every second shall not have REST asked every second
            self._audit_s = min(self._audit_s, max(now_s + AUDIT_SOON_S, self._audited_s + AUDIT_EVERY_S / 2))
            self._sooner.set()
        self.regard(now_s)
        self._news.set()

    def regard(self, now_s: float) -> None:
        """Which silences mean something has changed."""
        self.vigil.subscribed(self._standings.watched(), now_s)

    def arrived(self, frames: int) -> None:
        """So many frames have arrived that are no snapshots, whatever they hold."""
        self._frames += frames

    def abandon(self, topic: Topic, reason: str) -> None:
        """The exchange does not list ``topic`` any more: wait for it no longer."""
        if topic not in self._standings.subscribed:  # released meanwhile
            return
        now_s = trio.current_time()
        self._standings.abandon(topic, reason)
        self.regard(now_s)
        self._desk.suspend((topic,), self._now_ms(now_s))
        self._plan_again(now_s)

    # -- silence ------------------------------------------------------------------------------------------------

    async def run(self, ping: Callable[[], Awaitable[None]]) -> None:
        """Look at what is silent whenever something may be. ``ping`` returns when the pong has come."""
        while True:
            now_s = trio.current_time()
            silent = self._without_snapshot(now_s)
            if silent:
                await self._check_the_silent(silent)
                continue
            suspicion = self.vigil.suspicion(now_s)
            if suspicion is not None:
                await self._check(ping, suspicion)
                continue
            if now_s >= self._again_s:
                self._subscribe_again()
            with trio.move_on_at(self._next_look_s(now_s)):
                await self._news.wait()
                self._news = trio.Event()

    def _next_look_s(self, now_s: float) -> float:
        snapshots_s = self._snapshots_s if self._snapshots_s > now_s else math.inf
        return min(self.vigil.next_look_s(now_s), self._again_s, snapshots_s)

    def _without_snapshot(self, now_s: float) -> frozenset[Topic]:
        if now_s < self._snapshots_s:
            return frozenset()
        return self.vigil.without_snapshot(now_s) - self._standings.empty - self._standings.spoilt

    async def _check_the_silent(self, topics: frozenset[Topic]) -> None:
        """Topics without a snapshot either have nothing to show, and nor has REST, or they are kept from us."""
        self._snapshots_s = trio.current_time() + self._options.silence_s
        try:
            known = await self._probe.known(topics)
        except ExchangeUnavailable as error:
            about = fields("not-checked", error, line=self._line)
            logger.info("%s stream: snapshots not checked: %s", self._line, told(error), extra=about)
            return
        still_silent = self.vigil.without_snapshot(trio.current_time())  # meanwhile it may have come
        silent = still_silent & known.keys() & self._standings.subscribed
        self._standings.looked_up(silent)
        stalled = frozenset(topic for topic in silent if known[topic])
        if stalled:
            self._strike(stalled, f"no snapshot of {min(stalled)} within {self._options.snapshot_s:g} s")
        empty = silent - stalled
        self._desk.silent(empty)
        self._standings.nothing_to_show(empty)

    async def _check(self, ping: Callable[[], Awaitable[None]], suspicion: Suspicion) -> None:
        asked_s = trio.current_time()
        asked_ms = self._now_ms(asked_s)
        self._desk.suspend(suspicion.topics, asked_ms)
        self._standings.suspect(suspicion.topics, suspicion.words)
        # What could not be read of one is no reason to begin anew with all.
        asked = self._likeliest(suspicion.topics - self._standings.spoilt or suspicion.topics)
        with self._certainty.doubted(suspicion.whole):
            if suspicion.whole:  # otherwise others have just shown that the connection lives
                await ping()
            heard_ms = None if suspicion.whole else self._heard_ms
            found = await self._judged(suspicion, asked, asked_ms, heard_ms)
        if found is None:
            self.vigil.cleared(suspicion.topics, asked_s)  # looked at again in a moment, and stale until then
            self._standings.unchecked(suspicion.topics)
            return
        stalled = self._standings.watched() & frozenset(found)
        if stalled:
            self._certainty.stalled(stalled)
            if suspicion.whole:  # nobody's fault: the connection's
                raise ExchangeUnavailable(f"stalled: {suspicion.words}")
            self._strike(stalled, suspicion.words)
        self.vigil.cleared(suspicion.topics, asked_s)
        self._certainty.checked(asked_s)
        self._desk.resume(self._standings.well(suspicion.topics))

    async def _judged(
        self, suspicion: Suspicion, asked: Collection[Topic], asked_ms: int, heard_ms: Callable[[], int] | None
    ) -> Collection[Topic] | None:
        """Which of ``asked`` are stalled; None if REST cannot tell.

        A connection that answers pings is not given up only because REST is in trouble: that would turn every trouble
        of REST into one of the streams. But what used to flow and has been silent for so long has stopped.
        """
        try:
            return await self._probe.stalled(asked, self._desk.shown_ms, asked_ms, heard_ms)
        except ExchangeUnavailable as error:
            lasted_s = trio.current_time() - self._began_s
            if suspicion.whole and suspicion.silent_s >= BLIND_S and self._frames >= lasted_s * FLOWING_PER_S:
                raise
            still = suspicion.topics & self._standings.watched()  # some may have been released meanwhile
            self._standings.suspect(still, f"{suspicion.words}, and not checked: {error}")
            return None

    def _likeliest(self, topics: frozenset[Topic]) -> Collection[Topic]:
        # One request is enough: those that showed something last are the likeliest to have news.
        return sorted(topics, key=lambda topic: (-(self._desk.shown_ms(topic) or 0), topic.market))[:BATCH_LIMIT]

    def _heard_ms(self) -> int:
        return max((self._desk.shown_ms(topic) or 0 for topic in self._standings.subscribed), default=0)

    # -- the audit ----------------------------------------------------------------------------------------------

    async def audit(self) -> None:
        """Hold what REST tells against what the stream has shown, of every topic, again and again."""
        # Beside the watch: whoever waits here for what may be on its way must not hold up a check.
        while True:
            now_s = trio.current_time()
            if now_s >= self._audit_s:
                await self._audit()
                continue
            self._sooner = trio.Event()
            with trio.move_on_at(self._audit_s):
                await self._sooner.wait()

    async def _audit(self) -> None:
        """Look whether any topic is kept from us whose silence alone would not be suspicious, or was in part."""
        asked_s = trio.current_time()
        self._audited_s, self._audit_s = asked_s, asked_s + AUDIT_EVERY_S
        standings = self._standings
        watched = standings.watched() - standings.spoilt
        topics = {topic for topic in watched if topic in standings.empty or self._desk.shown_ms(topic) is not None}
        # What was set aside nobody waits for, so nobody else would notice that it is not listed any more.
        asked = topics | standings.withheld()
        if not asked:
            return
        asked_ms = self._now_ms(asked_s)
        try:
            answers = await self._probe.values(asked)
            values = {topic: answers[topic] for topic in topics & standings.subscribed & answers.keys()}
            self._desk.audited(values, asked_ms)
            found = await self._probe.late(values, self._desk.shown_ms, asked_ms, self._heard_ms)
        except ExchangeUnavailable as error:
            about = fields("not-audited", error, line=self._line)
            logger.info("%s stream: not audited: %s", self._line, told(error), extra=about)
            return
        stalled = standings.watched() & frozenset(found)
        if stalled:
            self._strike(stalled, f"{min(stalled)} has traded, and nothing of it was sent")
        self._desk.resume(standings.well(standings.blind & values.keys()))

    # -- what is not sent ---------------------------------------------------------------------------------------

    def _strike(self, stalled: frozenset[Topic], words: str) -> None:
        """Begin with a new connection, unless that has not helped before: then go on without them, for the others."""
        self._certainty.stalled(stalled)
        if self._standings.strike(stalled):
            raise ExchangeUnavailable(f"stalled: {words}")
        self._set_aside(stalled)

    def _set_aside(self, topics: Collection[Topic]) -> None:
        now_s = trio.current_time()
        self._standings.set_aside(topics)
        self._certainty.withheld(topics, "the exchange does not send it")
        self.regard(now_s)
        self._plan_again(now_s)

    def _plan_again(self, now_s: float) -> None:
        self._again_s = now_s + self._standings.again_s()

    def _subscribe_again(self) -> None:
        """The same once more, for the sake of those that the exchange does not send."""
        self._standings.try_again()
        self._again_s = math.inf
        self._again()
