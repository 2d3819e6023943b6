"""Fan-out: every live value to each subscriber that listens to it, by the policy that subscriber declared.

The hub is no task. Whoever has values publishes them, synchronously: they are put into the subscribers' buffers
(`marketpipe.core.buffers`) and whoever waits is woken. Nobody waits for anybody, so the slowest consumer delays neither
the socket nor its neighbour, and suffers what its own policy says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

import attrs
import trio

from marketpipe.core.buffers import Buffer, Policy, SubscriptionStatistics, open_buffer
from marketpipe.core.latencies import Latencies
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import MarketPipeError, PipelineClosed
from marketpipe.models import Gap
from marketpipe.status import ConsumersStatus, StreamStatus

__all__ = ["Hub", "Subscription"]

T = TypeVar("T")

# Values that are read in one turn, where they wait already: half a millisecond.
AT_ONCE = 64
SHARES = (0.50, 0.95, 0.99)
ENDED = "the pipeline has been left; open a new one to listen again"
DETACHED = "this subscription was closed; open a new one to listen again"

# What a value is published by, on its line: what its topic has beside the line.
_BY_MARKET = attrgetter("market")
_BY_BAR = attrgetter("market", "timeframe")


@attrs.define
class _Flow:
    """What has come over one line."""

    values: int = 0
    latencies: Latencies = attrs.field(factory=Latencies)


@attrs.define(eq=False, repr=False)
class Subscription(Generic[T]):
    """A stream of values, with a `Gap` in band wherever some may be missing: ``async for value in subscription``.

    It never ends quietly. Once everything queued is read, each further read raises why there will be no more:
    `SubscriberLagged` if it was cut off, `PipelineClosed` if the pipeline has been left, or the reason why nothing it
    listens to can come any more, such as `UnknownMarket` for a market that was delisted.

    Several tasks may read it; each value goes to exactly one. A read that is cancelled takes nothing.
    """

    _topics: tuple[Topic, ...]
    _buffer: Buffer
    _leave: Callable[[Subscription[Any]], None]
    _awaited: set[Topic] = attrs.field(init=False)  # topics of which something can still come
    _failed: dict[str, MarketPipeError] = attrs.field(factory=dict, init=False)
    _end: MarketPipeError | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _taken: int = attrs.field(default=0, init=False)
    _arrived: list[Any] = attrs.field(factory=list, init=False)  # its share of the batch that is being published
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._awaited = set(self._topics)

    def __repr__(self) -> str:
        names = ", ".join(self.markets[:3]) + (", ..." if len(self.markets) > 3 else "")
        return f"<Subscription {self._topics[0].stream} {names}: {len(self._buffer)} waiting>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T | Gap:
        """The next value, when there is one. If it is cancelled, which it always can be, nothing has been taken.

        Other tasks get their turn whenever it waits, and otherwise after every `AT_ONCE` values: a consumer that is
        behind must be able to catch up with a socket whose messages are decoded several at a turn.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_ready():
            self._taken += 1
            try:
                return self.receive_nowait()
            finally:
                if self._taken % AT_ONCE == 0:
                    # What was taken is certain to be returned, so this checkpoint can no longer be cancelled.
                    await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._is_ready():  # another reader may have been quicker
            await self._readers.park()
        return self.receive_nowait()

    def receive_nowait(self) -> T | Gap:
        """The next value if one waits, else `trio.WouldBlock`; raises as reading does once there will be none."""
        if self._closed:
            raise trio.ClosedResourceError(DETACHED)
        if self._buffer:
            item: T | Gap = self._buffer.take()
            return item
        if self._end is None:
            self._end = self._buffer.lagged()
        if self._end is None:
            raise trio.WouldBlock
        self._leave(self)
        raise self._end.copy()

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it listens to, in the order asked, those that failed included."""
        return tuple(dict.fromkeys(topic.market for topic in self._topics))

    @property
    def failed(self) -> Mapping[str, MarketPipeError]:
        """Markets from which nothing will come any more, and why."""
        return MappingProxyType(self._failed)

    def refuse(self, failed: Mapping[str, MarketPipeError]) -> None:
        """Markets that were asked for, and cannot be listened to. For whoever attached it."""
        self._failed.update(failed)

    def statistics(self) -> SubscriptionStatistics:
        """What became of its values. After `close`, ``queued`` is what was left unread."""
        return self._buffer.statistics()

    def close(self) -> None:
        """Listen no more. What is queued is given up; who waits for a value gets `trio.ClosedResourceError`."""
        self._closed = True
        self._leave(self)
        self._readers.unpark_all()

    def _is_ready(self) -> bool:
        return bool(self._buffer) or self._closed or self._end is not None or self._buffer.is_cut

    # For the hub.

    def _begin(self, history: Sequence[Any]) -> None:
        self._buffer.begin(history)
        self._wake()

    def _offer(self, values: Sequence[Any]) -> None:
        self._buffer.offer(values)
        self._wake()

    def _tell(self, events: Sequence[Any]) -> None:
        self._buffer.tell(events)
        self._wake()

    def _wake(self) -> None:
        if self._buffer.is_cut:
            self._readers.unpark_all()  # those who find nothing left are told so
        elif self._readers:
            self._readers.unpark(count=len(self._buffer))

    def _fail(self, topic: Topic, error: MarketPipeError, at_ms: int) -> None:
        self._failed[topic.market] = error
        self._awaited.remove(topic)
        if self._awaited:
            self._tell((Gap(topic.market, at_ms, at_ms, cause=str(error), proof="nothing more will come"),))
        else:
            self._finish(error)

    def _finish(self, error: MarketPipeError) -> None:
        if self._end is None:
            self._end = self._buffer.lagged() or error
        self._readers.unpark_all()


@attrs.define(eq=False)
class Hub:
    """Who listens to what. Every method is synchronous and none of them waits."""

    _listeners: dict[Line, dict[Any, dict[Subscription[Any], None]]] = attrs.field(
        factory=lambda: {line: {} for line in Line}, init=False
    )
    _subscriptions: dict[Subscription[Any], None] = attrs.field(factory=dict, init=False)
    _flows: dict[Line, _Flow] = attrs.field(factory=lambda: {line: _Flow() for line in Line}, init=False)
    _gone: ConsumersStatus = attrs.field(factory=ConsumersStatus, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def attach(
        self, topics: Iterable[Topic], *, policy: Policy, depth: int, first: Sequence[Any] = (), silent: bool = False
    ) -> Subscription[Any]:
        """Listen to ``topics`` from now on. ``first`` (current values) is queued at once, outside of depth.

        ``silent``: hear nothing of a topic until `join`.

        `ValueError` or `TypeError` for a policy or depth there is not, and for no topic at all; `PipelineClosed` after
        `close`. Whoever attaches closes the subscription.
        """
        distinct = tuple(dict.fromkeys(topics))
        if not distinct:
            raise ValueError("a subscription needs at least one topic, was given none")
        if self._closed:
            raise PipelineClosed(ENDED)
        subscription: Subscription[Any] = Subscription(distinct, open_buffer(policy, depth, first), self._detach)
        self._subscriptions[subscription] = None
        if not silent:
            for topic in distinct:
                self._listen(subscription, topic)
        return subscription

    def join(self, subscription: Subscription[Any], topic: Topic, history: Sequence[Any] = ()) -> None:
        """Let a subscription attached ``silent`` hear ``topic``, beginning with ``history``, outside of depth.

        Nothing happens if it was closed meanwhile, or nothing more will come of ``topic``.
        """
        if self._awaits(subscription, topic):
            subscription._begin(history)
            self._listen(subscription, topic)

    def publish(self, line: Line, values: Sequence[Any], read_s: float | None = None) -> None:
        """Hand live values on, in order. Tickers, trades and order books go by market, candles also by timeframe.

        ``read_s``: when the oldest of them was read from the socket, if how long they took is to be measured here.
        """
        listeners = self._listeners[line]
        key_of = _BY_BAR if line is Line.CANDLE else _BY_MARKET
        concerned = []
        # Each subscriber gets its share of the batch in one piece: a buffer is entered once for all of it.
        for value in values:
            for subscription in listeners.get(key_of(value), ()):
                if not subscription._arrived:
                    concerned.append(subscription)
                subscription._arrived.append(value)
        for subscription in concerned:
            arrived, subscription._arrived = subscription._arrived, []
            subscription._offer(arrived)
        self._flows[line].values += len(values)
        if read_s is not None and values:
            self.timed(line, len(values), read_s)

    def timed(self, line: Line, count: int, read_s: float) -> None:
        """So many values (above 0), the oldest of which was read from the socket at ``read_s``, are handed on now."""
        now_s = trio.current_time()
        self._flows[line].latencies.record(now_s - read_s, now_s, count)

    def tell(self, topic: Topic, events: Sequence[Any]) -> None:
        """Tell whoever listens to ``topic`` of a gap, with the values that repair it in order, outside of depth."""
        for subscription in self._listeners[topic.line].get(_key(topic), ()):
            subscription._tell(events)
        self._flows[topic.line].values += sum(not isinstance(event, Gap) for event in events)

    def fail(self, topic: Topic, error: MarketPipeError, at_ms: int) -> None:
        """Nothing of ``topic`` will come any more, since ``at_ms`` (exchange time).

        A subscriber that has nothing else to listen to gets a copy of ``error`` after what is queued; any other is told
        of a `Gap` that will not be repaired, and finds the error in `Subscription.failed`.
        """
        for subscription in self._subscriptions:
            self.fail_one(subscription, topic, error, at_ms)

    def fail_one(self, subscription: Subscription[Any], topic: Topic, error: MarketPipeError, at_ms: int) -> None:
        """As `fail`, for one subscriber: what it needs of ``topic`` cannot be had."""
        if self._awaits(subscription, topic):
            self._listen_no_more(subscription, topic)
            subscription._fail(topic, error, at_ms)

    def close(self) -> None:
        """The pipeline leaves: what is queued may still be read, then every subscriber gets `PipelineClosed`."""
        self._closed = True
        for line in self._listeners.values():
            line.clear()
        for subscription in self._subscriptions:
            subscription._finish(PipelineClosed(ENDED))

    def streams(self, now_s: float) -> Mapping[Line, StreamStatus]:
        """What has come over each line, and how soon it was handed on."""
        return {
            line: StreamStatus(flow.values, *flow.latencies.percentiles(now_s, SHARES))
            for line, flow in self._flows.items()
        }

    def statistics(self) -> ConsumersStatus:
        """The counts of this moment, over all subscriptions there are and were."""
        # Plain sums: a frozen object for each of a thousand subscriptions would be most of what a look costs.
        gone, fullest = self._gone, 0
        received, delivered, conflated, dropped, queued = (
            gone.received, gone.delivered, gone.conflated, gone.dropped, gone.queued,
        )  # fmt: skip
        for subscription in self._subscriptions:
            own = subscription.statistics()
            received += own.received
            delivered += own.delivered
            conflated += own.conflated
            dropped += own.dropped
            queued += own.queued
            fullest = max(fullest, own.queued)
        return ConsumersStatus(
            subscribers=len(self._subscriptions),
            received=received,
            delivered=delivered,
            conflated=conflated,
            dropped=dropped,
            queued=queued,
            unread=gone.unread,
            fullest=fullest,
        )

    def _detach(self, subscription: Subscription[Any]) -> None:
        if subscription not in self._subscriptions:
            return
        del self._subscriptions[subscription]
        for topic in subscription._awaited:
            self._listen_no_more(subscription, topic)
        counts = _added(self._gone, subscription.statistics())
        self._gone = attrs.evolve(counts, queued=0, unread=counts.unread + counts.queued)

    def _awaits(self, subscription: Subscription[Any], topic: Topic) -> bool:
        return not self._closed and subscription in self._subscriptions and topic in subscription._awaited

    def _listen(self, subscription: Subscription[Any], topic: Topic) -> None:
        self._listeners[topic.line].setdefault(_key(topic), {})[subscription] = None

    def _listen_no_more(self, subscription: Subscription[Any], topic: Topic) -> None:
        listeners = self._listeners[topic.line].get(_key(topic), {})
        listeners.pop(subscription, None)
        if not listeners:
            self._listeners[topic.line].pop(_key(topic), None)


def _key(topic: Topic) -> Any:
    return (topic.market, topic.timeframe) if topic.line is Line.CANDLE else topic.market


def _added(counts: ConsumersStatus, more: SubscriptionStatistics) -> ConsumersStatus:
    return attrs.evolve(
        counts,
        received=counts.received + more.received,
        delivered=counts.delivered + more.delivered,
        conflated=counts.conflated + more.conflated,
        dropped=counts.dropped + more.dropped,
        queued=counts.queued + more.queued,
    )
