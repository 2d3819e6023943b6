"""The subscription manager: what is wanted of the live streams, and the connections that carry it.

::

      stream_*() ── leases ──┐                        ┌── Keeper ticker ──── SnapshotDesk ──> cache, hub
                             ├──> Demand ── unions ──>├── Keeper orderbook ─ SnapshotDesk ──> cache, hub
      reads ──── heat ───────┘                        ├── Keeper trade ───── TradeDesk ─────> hub
                                                      └── Keeper candle ──── CandleDesk ────> Deduplicator ──> hub

It owns every connection: nobody else opens one. Who wants what is `marketpipe.core.demand`'s business, each line's
connection its keeper's, and what becomes of the values its desk's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import zip_longest
from typing import Any

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.cache import Cache
from marketpipe.actors.candle_desk import CandleDesk
from marketpipe.actors.connection import Keeper, StreamExchange
from marketpipe.actors.deduplicator import BarMessage, BarPage, BarsView
from marketpipe.actors.desks import Desk, SnapshotDesk
from marketpipe.actors.histories import Histories
from marketpipe.actors.hub import Hub, Subscription
from marketpipe.actors.periods import Periods
from marketpipe.actors.probes import Probe
from marketpipe.actors.trade_desk import TradeDesk
from marketpipe.clock import Clock
from marketpipe.config import Subscriptions as Options
from marketpipe.core.budgets import Budgets
from marketpipe.core.buffers import Policy
from marketpipe.core.demand import Demand
from marketpipe.core.exchange_time import ExchangeTime, SureTime
from marketpipe.core.history import Piece
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Line, Topic
from marketpipe.errors import UnknownMarket
from marketpipe.models import Candle, Gap, Trade
from marketpipe.status import ConnectionStatus, QueueStatus, SubscriptionStatus

__all__ = ["Subscriptions"]

# How often it is looked whether something has not been read for long enough.
EXPIRE_EVERY_S = 1.0


@attrs.define(eq=False)
class Subscriptions:
    """State of the actor; `run` is the actor.

    ``rest_ms`` is the exchange's time as REST knows it. ``archive`` gets the bars that were read a second time.
    ``undecoded``: how many messages a connection lets wait.
    """

    _exchange: StreamExchange
    _asker: Asker
    _cache: Cache
    _hub: Hub
    _deduplicator: trio.MemorySendChannel[BarMessage]
    _bars: BarsView
    _clock: Clock
    _options: Options
    _budgets: Budgets
    _draw: Callable[[], float]
    _rest_ms: Callable[[], int | None]
    _archive: Callable[[Piece], object] | None = None
    _undecoded: int | None = None
    _time: ExchangeTime = attrs.field(factory=ExchangeTime, init=False)
    _sure: SureTime = attrs.field(factory=SureTime, init=False)
    _demand: Demand = attrs.field(init=False)
    _trades: TradeDesk = attrs.field(init=False)
    _desks: dict[Line, Desk] = attrs.field(init=False)
    _keepers: dict[Line, Keeper] = attrs.field(init=False)
    _waiting: dict[Topic, float] = attrs.field(factory=dict, init=False)  # leased, nothing shown, and since when
    _absent: dict[Topic, Gap] = attrs.field(factory=dict, init=False)  # of these, those whose consumers were told
    _periods: Periods = attrs.field(init=False)
    _histories: Histories = attrs.field(init=False)
    _most_bars: int = attrs.field(default=0, init=False)
    _reports: list[Mapping[Topic, SubscriptionStatus]] = attrs.field(factory=list, init=False)  # as they were last
    _report: dict[Topic, SubscriptionStatus] = attrs.field(factory=dict, init=False)  # all of them

    def __attrs_post_init__(self) -> None:
        options = self._options
        self._demand = Demand(
            lambda line: self._keepers[line].changed(),
            heat_reads=options.heat_reads,
            heat_s=options.heat_s,
            idle_s=options.idle_s,
        )
        self._trades = TradeDesk(self._asker, self._hub, options.snapshot_s, options.repair_s)
        self._periods = Periods(self._asker, self._hub, self._tell_deduplicator, self.exchange_ms)
        candles = CandleDesk(self._asker, self._hub, self._tell_deduplicator, self.exchange_ms, self._archive)
        self._desks = {
            Line.TICKER: SnapshotDesk(Line.TICKER, self._cache, self._hub, self._periods.take, self._periods.gap),
            Line.ORDERBOOK: SnapshotDesk(Line.ORDERBOOK, self._cache, self._hub),
            Line.TRADE: self._trades,
            Line.CANDLE: candles,
        }
        self._keepers = {line: self._keeper(line, desk) for line, desk in self._desks.items()}
        self._histories = Histories(
            self._asker,
            self._hub,
            self._tell_deduplicator,
            self.exchange_ms,
            self._wait_shown,
            candles.distrust,
            self._open_gap,
            options,
        )

    def _keeper(self, line: Line, desk: Desk) -> Keeper:
        return Keeper(
            line,
            self._exchange,
            desk,
            self._demand,
            Probe(line, self._asker, self._options.pong_s, self._gone),
            self._time,
            self._exchange_ms_at,
            self._clock,
            self._options,
            self._budgets,
            self._draw,
            self._has_begun,
            self._undecoded,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every line, for ever."""
        with self._asker:
            await self._keep_every_line(task_status)

    async def _keep_every_line(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            for line, keeper in self._keepers.items():
                nursery.start_soon(keeper.run, name=f"stream {line}")
            await nursery.start(self._periods.run, name="stream periods")
            await nursery.start(self._histories.run, name="stream histories")
            task_status.started()
            while True:
                await trio.sleep(EXPIRE_EVERY_S)
                self._demand.expire(trio.current_time())
                self._tell_of_the_absent()

    def _tell_deduplicator(self, message: BarMessage) -> None:
        with suppress(trio.BrokenResourceError):  # the pipe is being left, and there are no bars any more
            self._deduplicator.send_nowait(message)
            self._most_bars = max(self._most_bars, self._deduplicator.statistics().current_buffer_used)

    # -- for the handle -----------------------------------------------------------------------------------------

    def read(self, line: Line, markets: Iterable[str], timeframe: Timeframe | None = None) -> None:
        """These have just been read; what is read often gets a subscription by itself."""
        if self._options.auto:
            now_s = trio.current_time()
            for market in markets:
                self._demand.read(Topic(line, market, timeframe), now_s)

    def newest_trades(self, market: str, count: int) -> tuple[Trade, ...] | None:
        """The newest ``count`` trades, newest first, if a live stream alone can vouch for them."""
        flows = self._keepers[Line.TRADE].is_active(Topic(Line.TRADE, market))
        return self._trades.newest(market, count) if flows else None

    def newest_bars(self, topic: Topic, count: int) -> tuple[Candle, ...] | None:
        """The newest ``count`` bars, oldest first, if a live stream vouches for all of them."""
        carrier = _carrier(topic)
        if not self._keepers[carrier.line].is_active(carrier):
            return None
        bars, whole_from_ms = self._bars.bars(topic), self._bars.whole_from_ms(topic)
        if whole_from_ms is None or len(bars) < count or bars[-count].open_ms < whole_from_ms:
            return None
        return bars[-count:]

    def whole_bars(self, topic: Topic) -> tuple[int, tuple[Candle, ...]] | None:
        """All bars that exist from a moment on, which comes first, if a live stream vouches for them."""
        carrier = _carrier(topic)
        whole_from_ms = self._bars.whole_from_ms(topic)
        if whole_from_ms is None or not self._keepers[carrier.line].is_active(carrier):
            return None
        return whole_from_ms, self._bars.bars(topic)

    def is_live(self, topic: Topic) -> bool:
        """Whether bars of ``topic`` flow at this moment, over a stream of their own."""
        return _carrier(topic) == topic and self._keepers[topic.line].is_active(topic)

    def page_read(self, topic: Topic, candles: tuple[Candle, ...], read_ms: int) -> None:
        """The newest bars, read from REST at ``read_ms`` or later, while ``topic`` was live: nothing lies between."""
        if self.is_live(topic):
            self._tell_deduplicator(BarPage(topic, candles, read_ms))

    @asynccontextmanager
    async def listen(
        self, topics: Sequence[Topic], *, policy: Policy, depth: int, history: int = 0
    ) -> AsyncGenerator[Subscription[Any]]:
        """Lease ``topics``, which must be listed, and listen to them. ``history`` bars come first."""
        lease = self._demand.lease(_carrier(topic) for topic in topics)
        try:
            first = () if history else self._current(topics)
            subscription = self._hub.attach(topics, policy=policy, depth=depth, first=first, silent=bool(history))
            if history:
                self._histories.want(subscription, topics, history)
            self._periods.want(topics)
            try:
                yield subscription
            finally:
                subscription.close()
                self._histories.cancel(subscription)
                self._periods.release(topics)
        finally:
            self._demand.release(lease)

    def _current(self, topics: Iterable[Topic]) -> list[Any]:
        # Whoever joins a stream starts with what the exchange has shown the others, who hear of it if that is not true
        # any more; and where there is a hole, with the hole that the others were told of.
        return [value for topic in topics if (value := self._current_value(topic)) is not None]

    def _current_value(self, topic: Topic) -> Any:
        gap = self._open_gap(topic)
        if gap is not None:
            return gap
        match topic.line:
            case Line.TICKER:
                return self._cache.live_tickers.newest(topic.market)
            case Line.ORDERBOOK:
                return self._cache.live_orderbooks.newest(topic.market)
            case Line.TRADE:
                return self._trades.last(topic.market)
            case Line.CANDLE:
                bars = self._bars.bars(topic)
                return bars[-1] if bars else None

    def _open_gap(self, topic: Topic) -> Gap | None:
        """The hole that the others who listen to ``topic`` were told of, and not its end yet."""
        carrier = _carrier(topic)
        return self._desks[carrier.line].open_gap(carrier) or self._absent.get(carrier)

    async def _wait_shown(self, topic: Topic) -> None:
        carrier = _carrier(topic)
        await self._keepers[carrier.line].wait_shown(carrier)

    def _gone(self, topic: Topic, error: UnknownMarket) -> None:
        self._keepers[topic.line].abandon(topic, str(error))
        # What was told to be open ends as it began; only then comes that nothing more will.
        self._desks[topic.line].gone(topic, str(error))
        absent = self._absent.pop(topic, None)
        if absent is not None:
            self._tell_listeners(topic, attrs.evolve(absent, proof=str(error)))
        self._hub.fail(topic, error, self.exchange_ms())
        if topic.line is Line.TICKER:
            self._periods.gone(topic.market, error)
        self._demand.drop([topic])

    def _tell_of_the_absent(self) -> None:
        """Consumers whose stream has not begun after the time that a healthy one needs are told so, and when it has."""
        now_s, now_ms, waiting = trio.current_time(), self.exchange_ms(), {}
        patience_s = self._options.handshake_s + self._options.snapshot_s
        for line, keeper in self._keepers.items():
            for topic in keeper.unshown():
                waiting[topic] = since_s = self._waiting.get(topic, now_s)
                if self._open_gap(topic) is None and now_s - since_s >= patience_s:
                    start_ms = now_ms - int((now_s - since_s) * 1000)
                    gap = self._absent[topic] = Gap(topic.market, start_ms, now_ms, f"the {line} stream has not begun")
                    self._tell_listeners(topic, gap)
        for topic in self._absent.keys() - waiting.keys():
            self._has_begun(topic)
        self._waiting = waiting

    def _has_begun(self, topic: Topic) -> None:
        gap = self._absent.pop(topic, None)
        if gap is not None:
            proof = "the stream has begun, and promises nothing about the time before"
            end_ms = max(gap.start_ms, self.exchange_ms())
            self._tell_listeners(topic, attrs.evolve(gap, end_ms=end_ms, repaired=True, proof=proof))

    def _tell_listeners(self, topic: Topic, gap: Gap) -> None:
        self._hub.tell(topic, [gap])
        if topic.line is Line.TICKER:
            self._periods.gap(gap)

    # -- the exchange's time ------------------------------------------------------------------------------------

    def exchange_ms(self) -> int:
        """What time it is at the exchange at the least (epoch ms)."""
        return self._exchange_ms_at(trio.current_time())

    def _exchange_ms_at(self, at_s: float) -> int:
        now_s = trio.current_time()
        believed_ms = [ms for ms in (self._rest_ms(), self._time.now_ms(now_s)) if ms is not None]
        if not believed_ms:  # nothing was ever heard of the exchange
            return self._clock.now_ms() - int((now_s - at_s) * 1000)
        # Both are lower bounds: the greater one is closer.
        self._sure.observe(max(believed_ms), now_s)
        return self._sure.now_ms(at_s)

    # -- what it says of itself ---------------------------------------------------------------------------------

    def connections(self) -> Mapping[Line, ConnectionStatus]:
        """Each line's connection."""
        return {line: keeper.status() for line, keeper in self._keepers.items()}

    def queues(self) -> Mapping[str, QueueStatus]:
        """What was read of each line and not decoded yet, and what waits for the deduplicator."""
        queues = {f"frames {line}": keeper.backlog() for line, keeper in self._keepers.items()}
        return {**queues, "bars": QueueStatus(self._deduplicator.statistics().current_buffer_used, self._most_bars)}

    def subscriptions(self) -> Mapping[Topic, SubscriptionStatus]:
        """Every topic that is or was wanted."""
        reports = [keeper.subscriptions() for keeper in self._keepers.values()]
        if any(one is not other for one, other in zip_longest(reports, self._reports)):
            self._reports, self._report = reports, {}
            for report in reports:
                self._report.update(report)
        return self._report.copy()


def _carrier(topic: Topic) -> Topic:
    # Bars of a day and more are not streamed; they are made from the day's tickers.
    if topic.timeframe is not None and topic.timeframe not in STREAMED:
        return Topic(Line.TICKER, topic.market)
    return topic
