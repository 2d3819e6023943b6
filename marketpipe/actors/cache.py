"""The cache: the single writer of what is kept in memory, and the gate through which answers reach their callers.

It holds each value before it lets the caller have it, so that whoever asks again at once is answered from memory: a
second request within the fast tier's 200 ms is impossible. Reading needs no channel: `view` is read in the caller's
own task, synchronously.

What a stream keeps current lies in `Cache.live`, where the connections write it in the task that reads the socket: one
hop less for thousands of values a second. When a stream is not certain any more, its values are demoted to the cache's
own tiers at once, with the time they were received, so that they age like any other.

How long a value stays fresh is the policy of `marketpipe.core.freshness`; what it needs to know of each market's pace
is learnt from the tickers that pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import attrs
import trio

from marketpipe.actors.messages import Answered
from marketpipe.config import CacheOptions
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.batching import Key, Wanted
from marketpipe.core.expiring import MISSING, CacheStatistics, ExpiringCache, Missing
from marketpipe.core.freshness import Activities, Kind
from marketpipe.core.listing import MarketList
from marketpipe.core.live import LiveEntry, LiveValues
from marketpipe.core.requests import CandlesRequest, Group, MarketsRequest, TradesRequest
from marketpipe.models import Candle, Orderbook, Ticker, Trade

__all__ = ["Cache", "CacheView", "Reader"]

# Passes of the scheduler in which callers go on before the cache does: one to wake, one for a nursery of theirs to
# end, and one more for whoever waits for that.
PASSES = 3

K = TypeVar("K", contravariant=True)
V = TypeVar("V", covariant=True)


class Reader(Protocol[K, V]):
    """Reads one tier: the fresh value, at most ``max_age_s`` old, or `MISSING`. Synchronous, costs a microsecond."""

    def __call__(self, key: K, max_age_s: float | None = None) -> V | Literal[Missing.MISSING]: ...


@attrs.frozen
class CacheView:
    """Read-only access to what is kept, never a stale value.

    ``trades`` holds a market's newest trades as they were last asked for, newest first.
    """

    ticker: Reader[str, Ticker]
    orderbook: Reader[str, Orderbook]
    trades: Reader[str, tuple[Trade, ...]]
    candles: Reader[CandlesRequest, tuple[Candle, ...]]
    markets: Reader[MarketsRequest, MarketList]


@attrs.define(eq=False)
class Cache:
    """State of the actor; `run` is the actor. ``keeps_history``: whether closed bars are kept, or have a database."""

    _answered: trio.MemoryReceiveChannel[Answered]
    _options: CacheOptions
    _keeps_history: bool = True
    _tiers: dict[Kind, ExpiringCache[Any, Any]] = attrs.field(init=False)
    _activities: Activities = attrs.field(init=False)
    live_tickers: LiveValues[Ticker] = attrs.field(factory=LiveValues, init=False)
    live_orderbooks: LiveValues[Orderbook] = attrs.field(factory=LiveValues, init=False)

    def __attrs_post_init__(self) -> None:
        entries = dict.fromkeys(Kind, self._options.entries) | {Kind.CANDLES: self._options.candle_pages}
        fast_s = self._options.freshness.fast_s
        self._tiers = {
            kind: ExpiringCache(trio.current_time, maxsize=maxsize, fast_s=fast_s) for kind, maxsize in entries.items()
        }
        self._activities = Activities(self._options.freshness)

    @property
    def view(self) -> CacheView:
        """What readers may touch."""
        tiers = self._tiers
        return CacheView(
            ticker=_live_first(self.live_tickers, tiers[Kind.TICKER]),
            orderbook=_live_first(self.live_orderbooks, tiers[Kind.ORDERBOOK]),
            trades=tiers[Kind.TRADES].get,
            candles=tiers[Kind.CANDLES].get,
            markets=tiers[Kind.MARKETS].get,
        )

    def statistics(self) -> Mapping[Kind, CacheStatistics]:
        """Hits, misses and entries by kind."""
        statistics = {kind: tier.statistics() for kind, tier in self._tiers.items()}
        for kind, live in ((Kind.TICKER, self.live_tickers), (Kind.ORDERBOOK, self.live_orderbooks)):
            statistics[kind] = attrs.evolve(statistics[kind], live_hits=live.hits, live=len(live))
        return statistics

    def demote(
        self, kind: Literal[Kind.TICKER, Kind.ORDERBOOK], gone: Iterable[tuple[str, LiveEntry[Any]]], now_ms: int
    ) -> None:
        """Their streams are not certain any more: these age from their receipt, by the TTL policy."""
        now_s, tier = trio.current_time(), self._tiers[kind]
        for market, entry in gone:
            held = tier.peek(market)
            if held is MISSING or entry.value.exchange_ms >= held.exchange_ms:
                ttl_s = self._activities.ttl_s(kind, market, now_s, now_ms)
                tier.put(market, entry.value, ttl_s, entry.received_s)

    def learn_from_live(self, now_ms: int) -> None:
        """Look at the live tickers' pace; once a second is often enough."""
        now_s = trio.current_time()
        for ticker in self.live_tickers.values():
            self._activities.observe(ticker, now_s, now_ms)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep and deliver answers until the batcher closes its end."""
        task_status.started()
        with self._answered:
            try:
                async for answered in self._answered:
                    self._keep(answered.values, answered.exchange_ms)
                    for delivery in answered.deliveries:
                        delivery.reply.send(delivery.answers)
                    await self._let_the_callers_go_on()
                    self._learn(answered.values, answered.exchange_ms)
                    self._keep(answered.extras, answered.exchange_ms)
                    self._learn(answered.extras, answered.exchange_ms)
            finally:
                self._close_undelivered()

    async def _let_the_callers_go_on(self) -> None:
        # What comes now is wanted by nobody at this moment, and takes milliseconds for a whole currency.
        for _ in range(PASSES):
            await trio.lowlevel.checkpoint()

    def _close_undelivered(self) -> None:
        while True:
            try:
                self._answered.receive_nowait().close()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def _keep(self, values: Iterable[tuple[Key, Any]], now_ms: int) -> None:
        now_s = trio.current_time()
        for key, value in values:
            self._keep_one(key, value, now_s, now_ms)

    def _keep_one(self, key: Key, value: Any, now_s: float, now_ms: int) -> None:
        match key:
            case Wanted(Group.TICKER, market):
                self.live_tickers.fetched(market, value, now_s)
                self._put_newer(Kind.TICKER, market, value, _stamped, now_s, now_ms)
            case Wanted(_, market):
                self.live_orderbooks.fetched(market, value, now_s)
                self._put_newer(Kind.ORDERBOOK, market, value, _stamped, now_s, now_ms)
            case TradesRequest(market=market, cursor=None, days_ago=0):
                self._put_newer(Kind.TRADES, market, value, _last_traded, now_s, now_ms)
            case CandlesRequest():
                self._keep_page(key, value, now_s, now_ms)
            case MarketsRequest():
                self._put(Kind.MARKETS, key, value, None, now_s, now_ms)

    def _learn(self, values: Iterable[tuple[Key, Any]], now_ms: int) -> None:
        now_s = trio.current_time()
        for key, value in values:
            match key:
                case Wanted(Group.TICKER, _):
                    self._activities.observe(value, now_s, now_ms)
                case TradesRequest(market=market, cursor=None, days_ago=0):
                    self._activities.observe_trades(market, value, now_s)
                case _:
                    pass  # books and bars say nothing of a market's pace that tickers and trades do not

    def _keep_page(self, key: CandlesRequest, page: tuple[Candle, ...], now_s: float, now_ms: int) -> None:
        # Closed bars rest; a page that holds the running bar, or may still be joined by a late one, is old within a
        # moment and stays in the fast tier only.
        if key.to_ms is not None and key.to_ms + GRACE_MS <= now_ms:
            if not self._keeps_history:
                return
            self._put(Kind.CANDLES, key, page, key.market, now_s, now_ms)
        else:
            self._tiers[Kind.CANDLES].put(key, page, 0.0)

    def _put_newer(
        self, kind: Kind, market: str, value: Any, dated: Callable[[Any], int], now_s: float, now_ms: int
    ) -> None:
        # Answers may overtake each other: a slow one must not take memory back to before what was already shown.
        held = self._tiers[kind].peek(market)
        if held is MISSING or dated(value) >= dated(held):
            self._put(kind, market, value, market, now_s, now_ms)

    def _put(self, kind: Kind, key: Any, value: Any, market: str | None, now_s: float, now_ms: int) -> None:
        self._tiers[kind].put(key, value, self._activities.ttl_s(kind, market, now_s, now_ms))


def _live_first(live: LiveValues[Any], tier: ExpiringCache[str, Any]) -> Reader[str, Any]:
    def read(key: str, max_age_s: float | None = None) -> Any:
        value = live.get(key) if max_age_s is None else live.get(key, trio.current_time() - max_age_s)
        return tier.get(key, max_age_s) if value is None else value

    return read


def _stamped(value: Ticker | Orderbook) -> int:
    return value.exchange_ms


def _last_traded(trades: tuple[Trade, ...]) -> int:
    return max((trade.trade_ms for trade in trades), default=0)
