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
- *tell*: every half second the desk hears up to when everything has arrived;
- *work*: the desk's mending.

What silence means is `marketpipe.actors.watch`'s business, how each topic stands `marketpipe.actors.standing`'s, and
what is certain `marketpipe.actors.certainty`'s. Everything that is known of a loss the desk is told the moment it is
known.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import attrs
import trio

from marketpipe.actors.certainty import Certainty
from marketpipe.actors.desks import Desk
from marketpipe.actors.probes import Probe
from marketpipe.actors.standing import Standings
from marketpipe.actors.turns import turn, turn_to_connect
from marketpipe.actors.watch import Watch
from marketpipe.clock import Clock
from marketpipe.config import Subscriptions as Options
from marketpipe.core.budgets import Budgets
from marketpipe.core.demand import Demand
from marketpipe.core.exchange_time import ExchangeTime
from marketpipe.core.pacing import Slots, Ticket, full_jitter_s
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.errors import BadPayload, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.logs import Sparing, fields, told
from marketpipe.models import Candle, Orderbook, Ticker, Trade
from marketpipe.status import ConnectionStatus, QueueStatus, SubscriptionStatus

__all__ = ["Keeper", "Session", "StreamExchange"]

logger = logging.getLogger("marketpipe.stream")

KINDS = {Line.TICKER: Ticker, Line.TRADE: Trade, Line.ORDERBOOK: Orderbook, Line.CANDLE: Candle}


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

    @property
    def read_s(self) -> float | None:
        """When (monotonic) the oldest of the frames received last was read from the socket; None if it is not known."""
        ...

    def backlog(self) -> tuple[int, int]:
        """How many messages have been read and not been received: now, and at the most so far."""
        ...


class StreamExchange(Protocol):
    """The WebSocket side of the exchange."""

    def connect(self) -> AbstractAsyncContextManager[Session]:
        """Connect; leaving the block closes."""
        ...


@attrs.define(eq=False)
class Keeper:
    """State of one line's connection; `run` is the task.

    ``draw`` gives uniform numbers in [0, 1) for the back-off. ``began`` is called with each topic that shows something
    for the first time, before its consumers get it. ``undecoded``: how many messages a connection lets wait.
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
    _undecoded: int | None = None
    _standings: Standings = attrs.field(init=False)
    _certainty: Certainty = attrs.field(init=False)
    _watch: Watch = attrs.field(init=False)
    _key: Callable[[Any], Any] = attrs.field(init=False)  # the same of a topic and of what its frames hold
    _kind: type = attrs.field(init=False)  # of the line's values
    _by_key: dict[Any, Topic] = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _settled_s: float = attrs.field(default=-math.inf, init=False)
    _is_again: bool = attrs.field(default=False, init=False)  # the same is to be subscribed once more
    _failure: ExchangeError | None = attrs.field(default=None, init=False)
    _attempts: int = attrs.field(default=0, init=False)
    _connected_since_ms: int | None = attrs.field(default=None, init=False)
    _connects: int = attrs.field(default=0, init=False)
    _messages: int = attrs.field(default=0, init=False)
    _frames: int = attrs.field(default=0, init=False)
    _unreadable: int = attrs.field(default=0, init=False)
    _losses: int = attrs.field(default=0, init=False)
    _reconnects: int = attrs.field(default=0, init=False)
    _is_lost: bool = attrs.field(default=False, init=False)  # and no connection has been made since
    _last_loss: str = attrs.field(default="", init=False)
    _last_frame_s: float | None = attrs.field(default=None, init=False)
    _complaints: Sparing = attrs.field(factory=Sparing, init=False)
    _session: Session | None = attrs.field(default=None, init=False)
    _most_undecoded: int = attrs.field(default=0, init=False)  # over the connections that are gone

    def __attrs_post_init__(self) -> None:
        self._kind = KINDS[self.line]
        self._key = attrgetter("market", "timeframe") if self.line is Line.CANDLE else attrgetter("market")
        self._standings = Standings(self.line, self._demand, self._clock)
        self._certainty = Certainty(self._desk, self._now_ms)
        self._watch = Watch(
            self.line,
            self._standings,
            self._certainty,
            self._desk,
            self._probe,
            self._now_ms,
            self._options,
            self._subscribe_again,
        )

    def changed(self) -> None:
        """What is wanted has changed; it is looked at when no more changes are expected to join it."""
        if not self._changed.is_set():
            self._settled_s = trio.current_time() + self._options.settle_s
            self._changed.set()

    async def wait_shown(self, topic: Topic) -> None:
        """Wait until ``topic``, which must be wanted, has shown something, or is known to have nothing to show."""
        await self._standings.wait_shown(topic)

    def is_active(self, topic: Topic) -> bool:
        """Whether ``topic`` flows at this moment."""
        return self._standings.is_active(topic)

    def unshown(self) -> list[Topic]:
        """Topics with consumers that have shown nothing yet, and are not known to have nothing to show."""
        return self._standings.unshown()

    def abandon(self, topic: Topic, reason: str) -> None:
        """The exchange does not list ``topic`` any more: wait for it no longer."""
        self._watch.abandon(topic, reason)

    # -- the connection's life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the line for ever."""
        while True:
            await self._until_wanted()
            try:
                await self._connect()
            except ExchangeError as error:
                logger.warning("%s stream: %s", self.line, told(error), extra=fields("lost", error, line=self.line))
                await trio.sleep(self._pause_s(error))

    async def _until_wanted(self) -> None:
        while not self._standings.wanted():
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
        self._reconnects += self._is_lost
        self._is_lost = False
        self._session, self._connected_since_ms = session, self._clock.now_ms()
        self._failure, self._is_again = None, False
        self._standings.connected()
        self._watch.connected()
        tasks: dict[str, Callable[[], Awaitable[None]]] = {
            "read": partial(self._read, session),
            "speak": partial(self._speak, session),
            "watch": partial(self._watch.run, session.ping),
            "audit": self._watch.audit,
        }
        try:
            async with trio.open_nursery() as nursery:
                for name, task in tasks.items():
                    nursery.start_soon(self._until_failed, nursery, task, name=f"{self.line} {name}")
                nursery.start_soon(self._desk.work, name=f"{self.line} work")
                nursery.start_soon(self._certainty.tell, name=f"{self.line} tell")
        finally:
            self._most_undecoded = self.backlog().peak
            self._session = self._connected_since_ms = None
        if self._failure is not None:
            raise self._failure

    async def _until_failed(self, nursery: trio.Nursery, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
            nursery.cancel_scope.cancel(reason="nobody wants the line any more")
        except ExchangeError as error:
            if self._failure is None:
                self._failure = error
                self._lost(error)  # now: closing may take a moment
            nursery.cancel_scope.cancel(reason=str(error))

    def _lost(self, error: ExchangeError) -> None:
        self._losses += 1
        self._is_lost = True
        self._failed(str(error))
        self._certainty.lost(self._standings.subscribed, str(error))

    def _failed(self, reason: str) -> None:
        self._last_loss = reason
        self._standings.failed(reason)

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read(self, session: Session) -> None:
        while True:
            frames = await session.receive()
            self._handle(frames, session.read_s)

    def _handle(self, frames: Sequence[Frame], read_s: float | None) -> None:
        if self._failure is not None:  # the loss was told: nothing may become current after it
            return
        now_s, count = trio.current_time(), len(frames)
        self._frames += count
        self._last_frame_s = now_s
        if not frames[-1].snapshot:  # which come together, right after subscribing
            self._watch.arrived(count)
        known: list[Frame] = []
        for frame in frames:
            if frame.value.__class__ is self._kind:
                if self._is_known(frame, now_s):
                    known.append(frame)
            else:
                self._take(known, now_s, read_s)  # what came before it does not heal it
                known = []
                self._spoiled(self._flaw(frame.value), now_s)
        self._take(known, now_s, read_s)

    def _take(self, known: Sequence[Frame], now_s: float, read_s: float | None) -> None:
        if not known:
            return
        if not known[-1].snapshot:  # which may show what happened hours ago
            self._time.observe(known[-1].value.exchange_ms, now_s)
        self._certainty.arrived(now_s)
        self._desk.take(known, now_s, read_s)

    def _is_known(self, frame: Frame, now_s: float) -> bool:
        topic = self._by_key.get(self._key(frame.value))
        if topic is None:  # left over from a subscription that was replaced
            self._watch.vigil.sign_of_life(now_s)
            return False
        standings = self._standings
        # Nearly always there are none of either, and hashing a topic is not for nothing.
        if self._watch.vigil.seen(topic, now_s) or (standings.odd and topic in standings.odd):
            self._show(topic, now_s)
        if standings.struck and not frame.snapshot and topic in standings.struck:
            standings.forgive(topic)
        return True

    def _show(self, topic: Topic, now_s: float) -> None:
        was_erring = topic in self._standings.erring
        if was_erring:  # nobody waits for it any more, so nobody would notice that no snapshot comes
            self._desk.silent((topic,))
        if self._standings.show(topic):
            self._began(topic)
        if was_erring:
            self._watch.regard(now_s)

    def _flaw(self, value: object) -> BadPayload:
        if isinstance(value, BadPayload):
            return value
        return BadPayload(f"the {self.line} connection carries only what was subscribed, and this is {value!r:.200}")

    def _spoiled(self, error: BadPayload, now_s: float) -> None:
        self._unreadable += 1
        self._watch.vigil.sign_of_life(now_s)
        now_ms = self._now_ms(now_s)
        topics = [topic for topic in self._standings.subscribed if topic.market == error.market]
        unsaid = self._complaints.unsaid(now_s)
        if unsaid is not None:
            about = fields("unreadable-frame", error, line=self.line, market=error.market, unsaid=unsaid)
            logger.warning("%s stream: a frame is %s", self.line, told(error), extra=about)
        for topic in topics:
            self._desk.spoiled(topic, now_ms, now_ms, f"unreadable frame: {told(error)}")
            self._standings.spoil(topic, str(error))

    # -- speaking -----------------------------------------------------------------------------------------------

    async def _speak(self, session: Session) -> None:
        options = self._options
        per_second = Slots(options.messages_per_second)
        per_minute = Slots(options.messages_per_minute, window_s=60.0)
        while True:
            await trio.sleep_until(self._settled_s)
            wanted = self._standings.wanted()
            if not wanted:
                self._release_all()
                return
            if wanted == self._standings.subscribed and not self._is_again:
                await self._wait_for_change()
                continue
            tickets = await turn(per_second, per_minute)
            self._changed, self._is_again = trio.Event(), False
            await self._subscribe(session, self._standings.wanted() or wanted)
            for slots, ticket in zip((per_second, per_minute), tickets, strict=True):
                slots.answered(ticket, trio.current_time())

    async def _subscribe(self, session: Session, wanted: frozenset[Topic]) -> None:
        now_s = trio.current_time()
        self._release_all_but(wanted)  # also what was given up while there was no connection
        new, kept = wanted - self._standings.subscribed, wanted & self._standings.subscribed
        self._desk.subscribing(new, kept, self._now_ms(now_s))
        self._standings.subscribe(wanted)
        self._by_key = {self._key(topic): topic for topic in wanted}
        self._watch.subscribed(new, now_s)
        self._messages += 1
        await session.subscribe(wanted)

    def _subscribe_again(self) -> None:
        self._is_again = True
        self.changed()

    def _release_all(self) -> None:
        self._release_all_but(self._standings.wanted())
        self._standings.nothing_subscribed()
        self._by_key = {}

    def _release_all_but(self, wanted: frozenset[Topic]) -> None:
        released = self._standings.release_all_but(wanted)
        self._probe.forget(released)
        self._desk.release(released, self._now_ms(trio.current_time()))

    async def _wait_for_change(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    # -- what it says of itself ---------------------------------------------------------------------------------

    def subscriptions(self) -> Mapping[Topic, SubscriptionStatus]:
        """Every topic that is or was wanted."""
        return self._standings.report()

    def backlog(self) -> QueueStatus:
        """Messages that were read from the socket, and not decoded yet."""
        depth, most = (0, 0) if self._session is None else self._session.backlog()
        return QueueStatus(depth, max(most, self._most_undecoded), self._undecoded)

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
            reconnects=self._reconnects,
        )
