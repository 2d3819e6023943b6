"""The keeper of one line: connects, says what is wanted, reads, watches, and begins again.

::

    wanted ──> turn to connect ──> connected ──> subscribe ──> read ... ──┐
      ^             ^                  │ nobody wants anything: close      │
      │             └── back-off <── lost <── closed, stalled, unreadable ─┘

While connected, these tasks share the connection, and the first that fails ends it:

- *read*: takes the frames and hands them to the line's desk, in the batches in which they come;
- *speak*: sends the whole union whenever it has changed, changes of 200 ms together, within the exchange's limits on
  messages (5 a second and 100 a minute for each connection; reference/rate-limits, 2026-10-07);
- *watch*: when `marketpipe.core.liveness` finds a silence suspicious, its values age again at once, while a ping and a
  question to REST decide: a missing pong, or news that the stream did not show, is a stall;
- *audit*: every few seconds what REST tells is held against what the stream has shown, of every topic;
- *work*: the desk's mending.

Everything the keeper knows of a loss it tells the desk the moment it knows it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs
import trio

from marketpipe.actors.desks import Desk
from marketpipe.actors.probes import Probe
from marketpipe.actors.turns import turn, turn_to_connect
from marketpipe.clock import Clock
from marketpipe.config import Subscriptions as Options
from marketpipe.core.budgets import Budgets
from marketpipe.core.demand import Demand
from marketpipe.core.exchange_time import ExchangeTime
from marketpipe.core.liveness import Suspicion, Vigil
from marketpipe.core.pacing import Slots, Ticket, full_jitter_s
from marketpipe.core.requests import BATCH_LIMIT
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.errors import BadPayload, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.status import ConnectionStatus, SubscriptionState, SubscriptionStatus

__all__ = ["Keeper", "Session", "StreamExchange"]

logger = logging.getLogger("marketpipe.stream")

# How often REST is asked what the stream should have shown, thin markets included, whose silence is no suspicion: a
# request for every two hundred markets. The first time soon after they were subscribed.
AUDIT_EVERY_S = 10.0
AUDIT_SOON_S = 1.0
# What the exchange does not send is subscribed anew after so long, and then more and more rarely.
AGAIN_S = 60.0
AGAIN_AT_MOST_S = 600.0
# How often the desk is told up to when everything has arrived.
PROVEN_EVERY_S = 0.5
# A topic whose connection was replaced so often because of it, and that never showed anything since, is not waited for.
STRIKES = 2
# With REST out of reach, a line that flowed (so many frames a second on average) is given up after so long a silence.
BLIND_S = 30.0
FLOWING_PER_S = 0.5
UNSENT = "the exchange trades it, and does not send it"


class Session(Protocol):
    """One connection, as the keeper needs it. Everything raises `ExchangeError` when the connection is over."""

    async def subscribe(self, topics: Collection[Topic]) -> None:
        """Replace the whole subscription; returns when the exchange has received it."""
        ...

    async def receive(self) -> Sequence[Frame]:
        """What has arrived, oldest first."""
        ...

    async def ping(self) -> None:
        """Return when the pong has come."""
        ...


class StreamExchange(Protocol):
    """The WebSocket side of the exchange."""

    def connect(self) -> AbstractAsyncContextManager[Session]:
        """Connect; leaving the block closes."""
        ...


@attrs.define
class _State:
    state: SubscriptionState
    reason: str
    since_ms: int
    shown: trio.Event = attrs.field(factory=trio.Event)
    strikes: int = 0
    flaw: str = ""  # why it is not waited for, if that is not `UNSENT`
    again_s: float = AGAIN_S  # the next pause before it is subscribed anew


@attrs.define(eq=False)
class Keeper:
    """State of one line's connection; `run` is the task.

    ``draw`` gives uniform numbers in [0, 1) for the back-off. ``began`` is called with each topic that shows something
    for the first time, before its consumers get it.
    """

    line: Line
    _exchange: StreamExchange
    _desk: Desk
    _demand: Demand
    _probe: Probe
    _time: ExchangeTime
    _now_ms: Callable[[float], int]
    _clock: Clock
    _options: Options
    _budgets: Budgets
    _draw: Callable[[], float]
    _began: Callable[[Topic], None] = lambda topic: None
    _states: dict[Topic, _State] = attrs.field(factory=dict, init=False)
    _by_key: dict[Any, Topic] = attrs.field(factory=dict, init=False)
    _subscribed: frozenset[Topic] = attrs.field(default=frozenset(), init=False)
    _vigil: Vigil = attrs.field(init=False)
    _erring: set[Topic] = attrs.field(factory=set, init=False)  # not waited for; a frame brings them back
    _blind: set[Topic] = attrs.field(factory=set, init=False)  # silent, and REST could not tell; a frame ends it
    _began_s: float = attrs.field(default=-math.inf, init=False)
    _frames_here: int = attrs.field(default=0, init=False)  # on this connection
    _spoilt: set[Topic] = attrs.field(factory=set, init=False)  # could not be read last; a frame brings them back
    _empty: frozenset[Topic] = attrs.field(default=frozenset(), init=False)  # checked: nothing to show yet
    _stalled: frozenset[Topic] = attrs.field(default=frozenset(), init=False)  # found so by the last check
    _struck: set[Topic] = attrs.field(factory=set, init=False)  # until a frame that is no snapshot
    _audit_s: float = attrs.field(default=math.inf, init=False)
    _sooner: trio.Event = attrs.field(factory=trio.Event, init=False)
    _audited_s: float = attrs.field(default=-math.inf, init=False)
    _again_s: float = attrs.field(default=math.inf, init=False)  # when what is not sent is subscribed anew
    _is_again: bool = attrs.field(default=False, init=False)
    _snapshots_s: float = attrs.field(default=-math.inf, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _settled_s: float = attrs.field(default=-math.inf, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _suspicious: bool = attrs.field(default=False, init=False)
    _proven_s: float = attrs.field(default=-math.inf, init=False)
    _failure: ExchangeError | None = attrs.field(default=None, init=False)
    _attempts: int = attrs.field(default=0, init=False)
    _connected_since_ms: int | None = attrs.field(default=None, init=False)
    _connects: int = attrs.field(default=0, init=False)
    _messages: int = attrs.field(default=0, init=False)
    _frames: int = attrs.field(default=0, init=False)
    _unreadable: int = attrs.field(default=0, init=False)
    _losses: int = attrs.field(default=0, init=False)
    _last_loss: str = attrs.field(default="", init=False)
    _last_frame_s: float | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._vigil = self._new_vigil()

    def _new_vigil(self) -> Vigil:
        return Vigil(silence_s=self._options.silence_s, snapshot_s=self._options.snapshot_s)

    def changed(self) -> None:
        """What is wanted has changed; it is looked at when no more changes are expected to join it."""
        if not self._changed.is_set():
            self._settled_s = trio.current_time() + self._options.settle_s
            self._changed.set()

    async def wait_shown(self, topic: Topic) -> None:
        """Wait until ``topic``, which must be wanted, has shown something, or is known to have nothing to show."""
        await trio.lowlevel.checkpoint()  # whoever has left already wants nothing
        await self._state_of(topic).shown.wait()

    def is_active(self, topic: Topic) -> bool:
        """Whether ``topic`` flows at this moment."""
        state = self._states.get(topic)
        return state is not None and state.state is SubscriptionState.ACTIVE

    def unshown(self) -> list[Topic]:
        """Topics with consumers that have shown nothing yet, and are not known to have nothing to show."""
        return [
            topic for topic in self._wanted() if self._demand.leases(topic) and not self._state_of(topic).shown.is_set()
        ]

    # -- the connection's life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the line for ever."""
        while True:
            await self._until_wanted()
            try:
                await self._connect()
            except ExchangeError as error:
                logger.warning("%s stream: %s", self.line, error)
                await trio.sleep(self._pause_s(error))

    async def _until_wanted(self) -> None:
        while not self._wanted():
            self._release_all()
            await self._wait_for_change()

    async def _connect(self) -> None:
        ticket = await turn_to_connect(self._budgets)
        began_s, connected = trio.current_time(), False
        try:
            async with self._exchange.connect() as session:
                self._give_back(ticket, None)
                connected = True
                await self._keep(session)
        except ExchangeError as error:
            if not connected:
                self._give_back(ticket, error)
                self._failed(str(error))
            lasted = connected and trio.current_time() - began_s >= self._options.stable_s
            self._attempts = 1 if lasted else self._attempts + 1
            raise
        except BaseException:
            if not connected:
                self._give_back(ticket, ExchangeUnavailable("left while connecting", abandoned=True))
            raise
        self._attempts = 0

    def _give_back(self, ticket: Ticket, error: ExchangeError | None) -> None:
        now_s, slots = trio.current_time(), self._budgets.connects
        match error:
            case RateLimited():
                slots.refused(ticket, now_s, error.retry_after_s)
            case ExchangeUnavailable(sent=False):
                slots.unsent(ticket, now_s)
            case ExchangeUnavailable(status=None):
                slots.abandoned(ticket, now_s)
            case _:
                slots.answered(ticket, now_s)
        self._budgets.changed()

    def _pause_s(self, error: ExchangeError) -> float:
        options = self._options
        pause_s = full_jitter_s(
            self._attempts - 1, base_s=options.reconnect_base_s, cap_s=options.reconnect_cap_s, draw=self._draw()
        )
        if isinstance(error, Banned) and error.until_ms:
            pause_s = max(pause_s, (error.until_ms - self._clock.now_ms()) / 1000)
        return pause_s

    async def _keep(self, session: Session) -> None:
        """Share the connection between its tasks until one fails (raised), or nobody wants it any more."""
        self._connects += 1
        self._connected_since_ms = self._clock.now_ms()
        self._failure, self._vigil = None, self._new_vigil()
        self._subscribed = self._empty = frozenset()
        self._spoilt, self._blind = set(), set()
        self._began_s, self._frames_here = trio.current_time(), 0
        self._audit_s, self._again_s, self._is_again = trio.current_time() + AUDIT_EVERY_S, math.inf, False
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._read, self._speak, self._watch, self._audit_regularly):
                    nursery.start_soon(self._until_failed, nursery, task, session, name=f"{self.line} {task.__name__}")
                nursery.start_soon(self._desk.work, name=f"{self.line} work")
                nursery.start_soon(self._tell_what_is_proven, name=f"{self.line} proven")
        finally:
            self._connected_since_ms = None
        if self._failure is not None:
            raise self._failure

    async def _until_failed(
        self, nursery: trio.Nursery, task: Callable[[Session], Awaitable[None]], session: Session
    ) -> None:
        try:
            await task(session)
            nursery.cancel_scope.cancel(reason="nobody wants the line any more")
        except ExchangeError as error:
            if self._failure is None:
                self._failure = error
                self._lost(error)  # now: closing may take a moment
            nursery.cancel_scope.cancel(reason=str(error))

    def _lost(self, error: ExchangeError) -> None:
        self._losses += 1
        self._failed(str(error))
        now_s = trio.current_time()
        # Certain is what came before the last sign that everything had arrived.
        start_ms = self._now_ms(self._proven_s if self._proven_s > -math.inf else now_s)
        self._desk_lost(self._subscribed, start_ms, str(error))
        self._proven_s = -math.inf

    def _desk_lost(self, topics: Collection[Topic], start_ms: int, cause: str) -> None:
        # What was kept from us while others came is certain only as far as it was shown.
        now_ms = self._now_ms(trio.current_time())
        for topic in self._stalled & frozenset(topics):
            self._desk.lost((topic,), min(start_ms, self._desk.shown_ms(topic) or start_ms), now_ms, cause)
        self._desk.lost(frozenset(topics) - self._stalled, start_ms, now_ms, cause)
        self._stalled = frozenset()

    def _failed(self, reason: str) -> None:
        self._last_loss = reason
        for topic in self._wanted():
            self._enter(topic, SubscriptionState.RECONNECTING, reason)

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read(self, session: Session) -> None:
        while True:
            frames = await session.receive()
            self._handle(frames)

    def _handle(self, frames: Sequence[Frame]) -> None:
        if self._failure is not None:  # the loss was told: nothing may become current after it
            return
        now_s = trio.current_time()
        self._frames += len(frames)
        self._frames_here += len(frames)
        self._last_frame_s = now_s
        known: list[Frame] = []
        for frame in frames:
            if isinstance(frame.value, BadPayload):
                self._take(known, now_s)  # what came before it does not heal it
                known = []
                self._spoiled(frame.value, now_s)
            elif self._is_known(frame, now_s):
                known.append(frame)
        self._take(known, now_s)

    def _take(self, known: Sequence[Frame], now_s: float) -> None:
        if not known:
            return
        if not known[-1].snapshot:  # which may show what happened hours ago
            self._time.observe(known[-1].value.exchange_ms, now_s)
        if not self._suspicious:
            self._proven_s = now_s
        self._desk.take(known, now_s)

    def _is_known(self, frame: Frame, now_s: float) -> bool:
        value = frame.value
        key = value.market if self.line is not Line.CANDLE else (value.market, value.timeframe)
        topic = self._by_key.get(key)
        if topic is None:  # left over from a subscription that was replaced
            self._vigil.sign_of_life(now_s)
            return False
        odd = self._erring or self._spoilt or self._blind  # hashing a topic is not for nothing
        if self._vigil.seen(topic, now_s) or (odd and self._is_odd(topic)):
            self._show(topic, now_s)
        if self._struck and not frame.snapshot and topic in self._struck:
            self._struck.discard(topic)
            state = self._state_of(topic)
            state.strikes, state.flaw, state.again_s = 0, "", AGAIN_S
        return True

    def _is_odd(self, topic: Topic) -> bool:
        return topic in self._erring or topic in self._spoilt or topic in self._blind

    def _show(self, topic: Topic, now_s: float) -> None:
        state = self._state_of(topic)
        if topic in self._erring:  # nobody waits for it any more, so nobody would notice that no snapshot comes
            self._desk.silent((topic,))
        if not state.shown.is_set():
            state.shown.set()
            self._began(topic)
        self._spoilt.discard(topic)
        self._blind.discard(topic)
        self._enter(topic, SubscriptionState.ACTIVE, "")
        if topic in self._erring:
            self._erring.discard(topic)
            self._vigil.subscribed(self._watched(), now_s)

    def _spoiled(self, error: BadPayload, now_s: float) -> None:
        self._unreadable += 1
        self._vigil.sign_of_life(now_s)
        now_ms = self._now_ms(now_s)
        topics = [topic for topic in self._subscribed if topic.market == error.market]
        logger.warning("%s stream: %s", self.line, error)
        for topic in topics:
            self._desk.spoiled(topic, now_ms, now_ms, f"unreadable frame: {error}")
            self._spoilt.add(topic)
            self._enter(topic, SubscriptionState.ERROR, str(error))

    # -- speaking -----------------------------------------------------------------------------------------------

    async def _speak(self, session: Session) -> None:
        options = self._options
        per_second = Slots(options.messages_per_second)
        per_minute = Slots(options.messages_per_minute, window_s=60.0)
        while True:
            await trio.sleep_until(self._settled_s)
            wanted = self._wanted()
            if not wanted:
                self._release_all()
                return
            if wanted == self._subscribed and not self._is_again:
                await self._wait_for_change()
                continue
            tickets = await turn(per_second, per_minute)
            self._changed, self._is_again = trio.Event(), False
            await self._subscribe(session, self._wanted() or wanted)
            for slots, ticket in zip((per_second, per_minute), tickets, strict=True):
                slots.answered(ticket, trio.current_time())

    async def _subscribe(self, session: Session, wanted: frozenset[Topic]) -> None:
        now_s = trio.current_time()
        new = wanted - self._subscribed
        self._release(frozenset(self._states) - wanted)  # also what was given up while there was no connection
        for topic in new:
            self._enter(topic, SubscriptionState.PENDING, "subscribed, nothing shown yet")
        self._desk.subscribing(new, wanted & self._subscribed, self._now_ms(now_s))
        self._subscribed = wanted
        self._by_key = {_key(topic): topic for topic in wanted}
        self._erring = {topic for topic in wanted if self._state_of(topic).strikes >= STRIKES}
        for topic in self._erring:
            self._enter(topic, SubscriptionState.ERROR, self._state_of(topic).flaw or UNSENT)
        self._plan_again(now_s)
        if new:  # but programs that subscribe every second shall not have REST asked every second
            self._audit_s = min(self._audit_s, max(now_s + AUDIT_SOON_S, self._audited_s + AUDIT_EVERY_S / 2))
            self._sooner.set()
        self._empty &= wanted
        self._spoilt &= wanted
        self._vigil.subscribed(self._watched(), now_s)
        self._news.set()
        self._messages += 1
        await session.subscribe(wanted)

    def _plan_again(self, now_s: float) -> None:
        pauses = [self._state_of(topic).again_s for topic in self._erring]
        self._again_s = now_s + min(pauses) if pauses else math.inf

    def _subscribe_again(self) -> None:
        """The same once more, for the sake of those that the exchange does not send."""
        for topic in self._erring:
            state = self._state_of(topic)
            state.again_s = min(2 * state.again_s, AGAIN_AT_MOST_S)
        self._again_s = math.inf
        self._is_again = True
        self.changed()

    def _watched(self) -> frozenset[Topic]:
        return self._subscribed - self._erring

    def _wanted(self) -> frozenset[Topic]:
        return self._demand.wanted(self.line)

    async def _wait_for_change(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    # -- watching -----------------------------------------------------------------------------------------------

    async def _watch(self, session: Session) -> None:
        while True:
            now_s = trio.current_time()
            silent = self._without_snapshot(now_s)
            if silent:
                await self._check_the_silent(silent)
                continue
            suspicion = self._vigil.suspicion(now_s)
            if suspicion is not None:
                await self._check(session, suspicion)
                continue
            if now_s >= self._again_s:
                self._subscribe_again()
            with trio.move_on_at(self._next_look_s(now_s)):
                await self._news.wait()
                self._news = trio.Event()

    def _next_look_s(self, now_s: float) -> float:
        snapshots_s = self._snapshots_s if self._snapshots_s > now_s else math.inf
        return min(self._vigil.next_look_s(now_s), self._again_s, snapshots_s)

    def _without_snapshot(self, now_s: float) -> frozenset[Topic]:
        if now_s < self._snapshots_s:
            return frozenset()
        return self._vigil.without_snapshot(now_s) - self._empty - self._spoilt

    async def _check_the_silent(self, topics: frozenset[Topic]) -> None:
        """Topics without a snapshot either have nothing to show, and nor has REST, or they are kept from us."""
        self._snapshots_s = trio.current_time() + self._options.silence_s
        try:
            known = await self._probe.known(topics)
        except ExchangeUnavailable as error:
            logger.info("%s stream: snapshots not checked: %s", self.line, error)
            return
        silent = (
            self._vigil.without_snapshot(trio.current_time()) & known.keys() & self._subscribed
        )  # meanwhile it may have come
        self._empty |= silent
        stalled = frozenset(topic for topic in silent if known[topic])
        if stalled:
            self._strike(stalled, f"no snapshot of {min(stalled)} within {self._options.snapshot_s:g} s")
        empty = silent - stalled
        self._desk.silent(empty)
        for topic in empty:
            self._state_of(topic).shown.set()
            self._enter(topic, SubscriptionState.PENDING, "listed, but the exchange has nothing to show of it yet")

    async def _audit_regularly(self, session: Session) -> None:
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
        watched = self._watched() - self._spoilt
        topics = [topic for topic in watched if topic in self._empty or self._desk.shown_ms(topic) is not None]
        if not topics:
            return
        asked_ms = self._now_ms(asked_s)
        try:
            values = await self._probe.values(topics)
            self._desk.audited({topic: values[topic] for topic in self._subscribed & values.keys()}, asked_ms)
            found = await self._probe.late(values, self._desk.shown_ms, asked_ms, self._heard_ms)
        except ExchangeUnavailable as error:
            logger.info("%s stream: not audited: %s", self.line, error)
            return
        stalled = self._watched() & frozenset(found)
        if stalled:
            self._strike(stalled, f"{min(stalled)} has traded, and nothing of it was sent")

    def _heard_ms(self) -> int:
        return max((self._desk.shown_ms(topic) or 0 for topic in self._subscribed), default=0)

    def abandon(self, topic: Topic, reason: str) -> None:
        """The exchange does not list ``topic`` any more: wait for it no longer."""
        if topic not in self._subscribed:  # released meanwhile
            return
        now_s = trio.current_time()
        self._erring.add(topic)
        self._vigil.subscribed(self._watched(), now_s)
        self._desk.suspend((topic,), self._now_ms(now_s))
        state = self._state_of(topic)
        state.strikes, state.flaw = STRIKES, reason
        self._struck.add(topic)
        state.shown.set()
        self._plan_again(now_s)
        self._enter(topic, SubscriptionState.ERROR, reason)

    def _strike(self, stalled: Collection[Topic], words: str) -> None:
        """Begin with a new connection, unless that has not helped before: then go on without them, for the others."""
        self._stalled = frozenset(stalled)
        self._struck.update(stalled)
        for topic in stalled:
            self._state_of(topic).strikes += 1
        if any(self._state_of(topic).strikes < STRIKES for topic in stalled):
            raise ExchangeUnavailable(f"stalled: {words}")
        self._set_aside(stalled)

    def _set_aside(self, topics: Collection[Topic]) -> None:
        now_s = trio.current_time()
        self._erring.update(topics)
        for topic in topics:
            self._enter(topic, SubscriptionState.ERROR, UNSENT)
        self._desk_lost(topics, self._now_ms(now_s), "the exchange does not send it")
        self._vigil.subscribed(self._watched(), now_s)
        self._plan_again(now_s)

    async def _check(self, session: Session, suspicion: Suspicion) -> None:
        asked_s = trio.current_time()
        asked_ms = self._now_ms(asked_s)
        self._suspicious = suspicion.whole
        self._desk.suspend(suspicion.topics, asked_ms)
        for topic in suspicion.topics - self._spoilt:
            self._enter(topic, SubscriptionState.STALE, suspicion.words)
        # What could not be read of one is no reason to begin anew with all.
        asked = self._likeliest(suspicion.topics - self._spoilt or suspicion.topics)
        try:
            if suspicion.whole:  # otherwise others have just shown that the connection lives
                await session.ping()
            heard_ms = None if suspicion.whole else self._heard_ms
            found = await self._judged(suspicion, asked, asked_ms, heard_ms)
        finally:
            self._suspicious = False
        if found is None:
            self._vigil.cleared(suspicion.topics, asked_s)  # looked at again in a moment, and stale until then
            self._blind |= suspicion.topics & self._watched()
            return
        stalled = self._watched() & frozenset(found)
        if stalled:
            self._stalled = stalled
            if suspicion.whole:  # nobody's fault: the connection's
                raise ExchangeUnavailable(f"stalled: {suspicion.words}")
            self._strike(stalled, suspicion.words)
        self._vigil.cleared(suspicion.topics, asked_s)
        self._proven_s = max(self._proven_s, asked_s)
        well = suspicion.topics & self._watched() - self._spoilt
        self._blind -= well
        self._desk.resume(well)
        for topic in well:
            shown = self._state_of(topic).shown.is_set()
            self._enter(topic, SubscriptionState.ACTIVE if shown else SubscriptionState.PENDING, "checked: no news")

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
            if suspicion.whole and suspicion.silent_s >= BLIND_S and self._frames_here >= lasted_s * FLOWING_PER_S:
                raise
            for topic in suspicion.topics - self._spoilt:
                self._enter(topic, SubscriptionState.STALE, f"{suspicion.words}, and not checked: {error}")
            return None

    def _likeliest(self, topics: frozenset[Topic]) -> Collection[Topic]:
        # One request is enough: those that showed something last are the likeliest to have news.
        return sorted(topics, key=lambda topic: (-(self._desk.shown_ms(topic) or 0), topic.market))[:BATCH_LIMIT]

    async def _tell_what_is_proven(self) -> None:
        while True:
            await trio.sleep(PROVEN_EVERY_S)
            if self._proven_s > -math.inf:
                self._desk.proven(self._now_ms(self._proven_s))

    # -- states -------------------------------------------------------------------------------------------------

    def _state_of(self, topic: Topic) -> _State:
        state = self._states.get(topic)
        if state is None:
            state = self._states[topic] = _State(SubscriptionState.PENDING, "not connected yet", self._clock.now_ms())
        return state

    def _enter(self, topic: Topic, state: SubscriptionState, reason: str) -> None:
        current = self._state_of(topic)
        if current.state is not state:
            current.since_ms = self._clock.now_ms()
        current.state, current.reason = state, reason

    def _release_all(self) -> None:
        self._release(frozenset(self._states) - self._wanted())
        self._subscribed = frozenset()
        self._by_key = {}

    def _release(self, topics: Collection[Topic]) -> None:
        held = [topic for topic in topics if self._state_of(topic).state is not SubscriptionState.RELEASED]
        self._desk.release(held, self._now_ms(trio.current_time()))
        self._struck.difference_update(held)
        for topic in held:
            now_ms = self._clock.now_ms()
            self._states[topic] = _State(SubscriptionState.RELEASED, "nobody wants it any more", now_ms)

    def subscriptions(self) -> Mapping[Topic, SubscriptionStatus]:
        """Every topic that is or was wanted."""
        for topic in self._wanted():
            if self._state_of(topic).state is SubscriptionState.RELEASED:
                self._enter(topic, SubscriptionState.PENDING, "wanted again, not subscribed yet")
        return {
            topic: SubscriptionStatus(
                state.state, state.reason, state.since_ms, self._demand.leases(topic), self._demand.is_hot(topic)
            )
            for topic, state in self._states.items()
        }

    def status(self) -> ConnectionStatus:
        """The connection now, and what has become of it so far."""
        tally, last_s = self._desk.tally, self._last_frame_s
        return ConnectionStatus(
            connected_since_ms=self._connected_since_ms,
            connects=self._connects,
            messages=self._messages,
            frames=self._frames,
            unreadable=self._unreadable,
            losses=self._losses,
            last_loss=self._last_loss,
            gaps=tally.gaps,
            repaired=tally.repaired,
            trades_repaired=tally.trades_repaired,
            last_frame_age_s=None if last_s is None else trio.current_time() - last_s,
        )


def _key(topic: Topic) -> Any:
    return topic.market if topic.timeframe is None else (topic.market, topic.timeframe)
