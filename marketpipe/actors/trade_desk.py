"""Trades: each once, in order around a hole, and holes mended from REST.

Every market has a `marketpipe.core.trades.TradeFlow`; here its questions are asked. Mending belongs to the connection:
it begins when the new connection has shown its snapshot, and if that connection is lost too, it begins anew with the
next.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.desks import Tally
from marketpipe.actors.hub import Hub
from marketpipe.core.mending import SLACK_MS
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.core.trades import Need, TradeFlow
from marketpipe.errors import ExchangeError, UnknownMarket
from marketpipe.logs import fields, told
from marketpipe.models import Gap, Priority, Source, Ticker, Trade

__all__ = ["TradeDesk"]

logger = logging.getLogger("marketpipe.stream")

# REST may be some 100 ms behind the stream; and after a failure the batcher has backed off already.
AGAIN_S = 0.5
LONGEST_PAUSE_S = 10.0
# What REST counts, the stream may tell a moment later.
COUNT_S = SLACK_MS / 1000


@attrs.define(eq=False)
class TradeDesk:
    """The trades of every market that somebody wants.

    ``snapshot_s``: how long a snapshot may take. ``repair_s``: how long REST is asked for the trades of a hole.
    """

    _asker: Asker
    _hub: Hub
    _snapshot_s: float
    _repair_s: float
    tally: Tally = attrs.field(factory=Tally, init=False)
    _flows: dict[str, TradeFlow] = attrs.field(factory=dict, init=False)
    _shown: dict[str, int] = attrs.field(factory=dict, init=False)
    _needy: dict[str, None] = attrs.field(factory=dict, init=False)  # in the order in which they fell into need
    _owed: set[str] = attrs.field(factory=set, init=False)  # markets whose snapshot has not come yet
    _late: dict[str, float] = attrs.field(factory=dict, init=False)  # of these, those that flow; until when it may
    _mending: set[str] = attrs.field(factory=set, init=False)
    _open: dict[str, Gap] = attrs.field(factory=dict, init=False)
    _need: trio.Event = attrs.field(factory=trio.Event, init=False)
    _held_s: dict[str, dict[int, float]] = attrs.field(factory=dict, init=False)  # when what waits was read, by id
    _counts: Mapping[Topic, object] = attrs.field(factory=dict, init=False)  # the last audit's
    _counted_ms: int = attrs.field(default=0, init=False)
    _audit: trio.Event = attrs.field(factory=trio.Event, init=False)

    def subscribing(self, new: Collection[Topic], kept: Collection[Topic], now_ms: int) -> None:
        self._owed.update(topic.market for topic in (*new, *kept))
        for topic in new:
            flow = self._flows.get(topic.market)
            if flow is None:
                flow = self._flows[topic.market] = TradeFlow(topic.market)
            flow.subscribed(now_ms)
        for topic in kept:
            self._flows[topic.market].resubscribed(now_ms)

    def take(self, frames: Sequence[Frame], now_s: float, read_s: float | None = None) -> None:
        flows, ready = self._flows, []
        for trade, snapshot in frames:
            market: str = trade.market
            flow = flows[market]
            if market in self._owed:
                self._settle(market, snapshot=snapshot)
            events = flow.live(trade, snapshot=snapshot)
            self._shown[market] = max(trade.trade_ms, self._shown.get(market, 0))
            if len(events) == 1 and events[0] is trade:
                ready.append(trade)
            else:
                if read_s is not None and (events or flow.waiting):
                    self._held_s.setdefault(market, {}).setdefault(trade.sequential_id, read_s)
                if events:
                    self._hub.publish(Line.TRADE, ready, read_s)
                    ready = []
                    self._tell(market, events)
            if flow.needs is not None:
                self._require(market)
        self._hub.publish(Line.TRADE, ready, read_s)

    def spoiled(self, topic: Topic, start_ms: int, now_ms: int, cause: str) -> None:
        self.lost((topic,), start_ms, now_ms, cause)
        self.silent((topic,))  # the connection goes on, so no other snapshot will come

    def silent(self, topics: Collection[Topic]) -> None:
        for topic in topics:
            self._without_snapshot(topic.market)

    def suspend(self, topics: Collection[Topic], now_ms: int) -> None:
        """Trades do not age: what was shown is true, whatever comes."""

    def resume(self, topics: Collection[Topic]) -> None:
        """See `suspend`."""

    def lost(self, topics: Collection[Topic], start_ms: int, now_ms: int, cause: str) -> None:
        for topic in topics:
            self._late.pop(topic.market, None)
            self._tell(topic.market, self._flows[topic.market].lost(start_ms, max(start_ms, now_ms), cause))

    def gone(self, topic: Topic, reason: str) -> None:
        flow = self._flows.get(topic.market)
        if flow is not None:
            self._tell(topic.market, flow.unrepairable(reason))

    def release(self, topics: Collection[Topic], now_ms: int) -> None:
        for topic in topics:
            self._flows.pop(topic.market, None)
            self._owed.discard(topic.market)
            self._late.pop(topic.market, None)
            self._shown.pop(topic.market, None)
            self._open.pop(topic.market, None)
            self._held_s.pop(topic.market, None)

    def proven(self, exchange_ms: int) -> None:
        """Trades wait for nothing."""

    def audited(self, values: Mapping[Topic, object], asked_ms: int) -> None:
        self._counts, self._counted_ms = values, asked_ms
        self._audit.set()

    def shown_ms(self, topic: Topic) -> int | None:
        return self._shown.get(topic.market)

    def newest(self, market: str, count: int) -> tuple[Trade, ...] | None:
        """The newest ``count`` trades, newest first, if the stream alone can vouch for them."""
        flow = self._flows.get(market)
        return None if flow is None else flow.newest(count)

    def last(self, market: str) -> Trade | None:
        """The last trade that whoever listens to ``market`` was told."""
        flow = self._flows.get(market)
        return None if flow is None else flow.last

    def _settle(self, market: str, *, snapshot: bool) -> None:
        # Trades without the snapshot that should have come before: it may be late, or lost.
        if snapshot:
            self._owed.discard(market)
            self._late.pop(market, None)
        else:
            self._late.setdefault(market, trio.current_time() + self._snapshot_s)

    async def _give_up_on_snapshots(self) -> None:
        while True:
            await trio.sleep(self._snapshot_s / 2)
            for market in [market for market, due_s in self._late.items() if due_s <= trio.current_time()]:
                self._without_snapshot(market)

    def _without_snapshot(self, market: str) -> None:
        self._owed.discard(market)
        self._late.pop(market, None)
        flow = self._flows[market]
        flow.no_snapshot()
        if flow.needs is not None:
            self._require(market)

    async def _count_again(self) -> None:
        while True:
            await self._audit.wait()
            self._audit = trio.Event()
            counts, asked_ms = self._counts, self._counted_ms
            await trio.sleep(COUNT_S)
            for topic, ticker in counts.items():
                flow = self._flows.get(topic.market)
                if flow is None:
                    continue
                assert isinstance(ticker, Ticker)
                flow.counted(ticker.trade_ms, ticker.volume, asked_ms)
                if flow.needs is not None:
                    self._require(topic.market)

    # -- mending ------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        self._mending.clear()
        self._needy = {market: None for market, flow in self._flows.items() if flow.needs is not None}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up_on_snapshots, name="snapshots that did not come")
            nursery.start_soon(self._count_again, name="what the exchange counts")
            while True:
                needy, self._needy, self._need = self._needy, {}, trio.Event()
                for market in needy:
                    self._mending.add(market)
                    nursery.start_soon(self._mend, market, name=f"mending {market}")
                await self._need.wait()

    def _require(self, market: str) -> None:
        if market not in self._mending:
            self._needy[market] = None
            self._need.set()

    async def _mend(self, market: str) -> None:
        # Whoever comes back while REST is slow has another flow, with needs of its own.
        pause_s, failures, until_s = AGAIN_S, 0, trio.current_time() + self._repair_s
        while (flow := self._flows.get(market)) is not None and flow.needs is not None:
            # REST may be behind the stream; what it does not show yet would be taken for never traded.
            await trio.sleep(pause_s)
            pause_s = AGAIN_S
            try:
                events = await self._asker.walk(flow.repair(), _urgency(flow))
            except UnknownMarket as error:
                events = flow.unrepairable(str(error))
            except ExchangeError as error:
                about = fields("not-mended", error, market=market)
                logger.info("mending the trades of %s: %s", market, told(error), extra=about)
                failures += 1
                pause_s = min(AGAIN_S * 2.0**failures, LONGEST_PAUSE_S)
                if trio.current_time() < until_s:
                    continue
                # Consumers have waited long enough for what is live.
                events = flow.unrepairable(f"REST did not tell for {self._repair_s:g} s: {error}")
            if events is not None and self._flows.get(market) is flow:
                self._tell(market, events)
        self._mending.discard(market)

    def _tell(self, market: str, events: Sequence[Trade | Gap]) -> None:
        if not events:
            return
        for event in events:
            if isinstance(event, Gap):
                self._count(event)
        self.tally.trades_repaired += sum(
            isinstance(event, Trade) and event.source is not Source.STREAM for event in events
        )
        self._hub.tell(Topic(Line.TRADE, market), events)
        if market in self._held_s and not self._flows[market].waiting:
            self._time(events, self._held_s.pop(market))

    def _time(self, events: Sequence[Trade | Gap], held_s: Mapping[int, float]) -> None:
        # Of what a repair brings, the stream's own trades are late by their wait for it; REST's were never read there.
        for event in events:
            if isinstance(event, Trade) and event.sequential_id in held_s:
                self._hub.timed(Line.TRADE, 1, held_s[event.sequential_id])

    def _count(self, gap: Gap) -> None:
        # A hole that was found and mended in one go is told once, closed.
        self.tally.gaps += gap.is_open or gap.market not in self._open
        self.tally.repaired += gap.repaired
        if gap.is_open:
            self._open[gap.market] = gap
        else:
            self._open.pop(gap.market, None)

    def open_gap(self, topic: Topic) -> Gap | None:
        return self._open.get(topic.market)


def _urgency(flow: TradeFlow) -> Priority:
    # Nobody waits for a check.
    return Priority.LOW if flow.needs is Need.CHECK else Priority.NORMAL
