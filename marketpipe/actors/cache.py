"""The cache: the single writer of what is kept in memory, and the gate through which answers reach their callers.

It holds each value before it lets the caller have it, so that whoever asks again at once is answered from memory: a
second request within the fast tier's 200 ms is impossible. Reading needs no channel: `view` is read in the caller's
own task, synchronously.

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
    """State of the actor; `run` is the actor."""

    _answered: trio.MemoryReceiveChannel[Answered]
    _options: CacheOptions
    _tiers: dict[Kind, ExpiringCache[Any, Any]] = attrs.field(init=False)
    _activities: Activities = attrs.field(init=False)

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
            ticker=tiers[Kind.TICKER].get,
            orderbook=tiers[Kind.ORDERBOOK].get,
            trades=tiers[Kind.TRADES].get,
            candles=tiers[Kind.CANDLES].get,
            markets=tiers[Kind.MARKETS].get,
        )

    def statistics(self) -> Mapping[Kind, CacheStatistics]:
        """Hits, misses and entries by kind."""
        return {kind: tier.statistics() for kind, tier in self._tiers.items()}

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
                self._put_newer(Kind.TICKER, market, value, _stamped, now_s, now_ms)
            case Wanted(_, market):
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


def _stamped(value: Ticker | Orderbook) -> int:
    return value.exchange_ms


def _last_traded(trades: tuple[Trade, ...]) -> int:
    return max((trade.trade_ms for trade in trades), default=0)
