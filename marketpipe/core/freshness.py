"""How long an answer stays fresh: the kind of value, the pace of its market and the hour in Korea.

``ttl = base x condition x hour zone``, within bounds. The condition is detected from what passes through, per market:
the last minute's volume, number of executions and price range against those of the hour before it. That the whole
exchange rests (maintenance) shows in every market at once: many were refreshed, and none of them has traded.

These are estimates about pace, not market data: floats are good enough here, and nothing of them is ever published.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

import attrs

from marketpipe.models import Ticker, Trade

__all__ = ["Activities", "Activity", "Freshness", "HourZone", "Kind", "MarketCondition"]

MINUTE_S = 60.0
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
KST_HOURS = 9  # UTC+9 all year round


class Kind(StrEnum):
    """What is kept."""

    TICKER = "ticker"
    ORDERBOOK = "orderbook"
    TRADES = "trades"
    CANDLES = "candles"
    MARKETS = "markets"


class MarketCondition(StrEnum):
    """The pace of a market. CLOSED: the exchange is in maintenance. UNKNOWN: not watched for long enough."""

    ACTIVE = "ACTIVE"
    NORMAL = "NORMAL"
    QUIET = "QUIET"
    CLOSED = "CLOSED"
    UNKNOWN = "UNKNOWN"


@attrs.frozen
class HourZone:
    """The hours ``[first, last)`` in Korea, past midnight if ``last`` is smaller, and their factor."""

    first: int
    last: int
    factor: float

    def holds(self, hour: int) -> bool:
        """Whether ``hour`` (0..23) belongs to it."""
        return (hour - self.first) % 24 < (self.last - self.first) % 24


ASIA = HourZone(9, 18, 0.8)
EUROPE = HourZone(15, 24, 0.9)
US = HourZone(22, 7, 0.7)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"Freshness.{attribute.name} must be above 0, was {value!r}")


def _above_zero(default: float) -> float:
    field: float = attrs.field(default=default, validator=_positive)
    return field


def _factors_by_hour(policy: Freshness) -> tuple[float, ...]:
    matching = ([zone.factor for zone in policy.zones if zone.holds(hour)] for hour in range(24))
    return tuple(min(factors, default=policy.other_hours) for factors in matching)


@attrs.frozen(kw_only=True)
class Freshness:
    """The numbers of the policy. Seconds end in ``_s``; the others are factors, shares and counts.

    ``ticker_s`` to ``markets_s``: the base of each kind. ``fast_s``: within it nothing is ever fetched again; it is the
    cache's floor and not part of ``ttl_s``. ``min_s``, ``max_s``: bounds of the result.
    ``active``, ``quiet``, ``closed``: factors of the conditions; NORMAL and UNKNOWN are 1.
    ``zones``: by hour in Korea, the smallest factor where they overlap; ``other_hours`` where there is none.
    ``active_from``, ``quiet_to``: a market is ACTIVE if one of its measures was at least that many times its usual in
    the last minute, QUIET if none was above that share of it. ``history_minutes``: below that it is UNKNOWN.
    ``closed_after_s``: without a trade anywhere, while ``closed_markets`` were refreshed within a minute.
    """

    ticker_s: float = _above_zero(0.2)
    orderbook_s: float = _above_zero(0.3)
    trades_s: float = _above_zero(30.0)
    candles_s: float = _above_zero(60.0)
    markets_s: float = _above_zero(60.0)
    fast_s: float = _above_zero(0.2)
    min_s: float = _above_zero(0.1)
    max_s: float = _above_zero(300.0)
    active: float = _above_zero(0.5)
    quiet: float = _above_zero(2.0)
    closed: float = _above_zero(5.0)
    zones: tuple[HourZone, ...] = (ASIA, EUROPE, US)
    other_hours: float = _above_zero(1.5)
    active_from: float = _above_zero(2.0)
    quiet_to: float = _above_zero(0.5)
    history_minutes: int = attrs.field(default=10, validator=_positive)
    closed_after_s: float = _above_zero(180.0)
    closed_markets: int = attrs.field(default=20, validator=_positive)
    _by_hour: tuple[float, ...] = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_factors_by_hour, takes_self=True)
    )

    def ttl_s(self, kind: Kind, condition: MarketCondition, now_ms: int) -> float:
        """How long an answer of this kind stays fresh under this condition at this moment (epoch ms)."""
        ttl_s = self.base_s(kind) * self.condition_factor(condition) * self.hour_factor(now_ms)
        return min(self.max_s, max(self.min_s, ttl_s))

    def base_s(self, kind: Kind) -> float:
        """The time to live under normal conditions."""
        match kind:  # no dictionary: hashing an enum costs more than all of this
            case Kind.TICKER:
                return self.ticker_s
            case Kind.ORDERBOOK:
                return self.orderbook_s
            case Kind.TRADES:
                return self.trades_s
            case Kind.CANDLES:
                return self.candles_s
            case _:
                return self.markets_s

    def condition_factor(self, condition: MarketCondition) -> float:
        """Less than 1 where things move, more than 1 where they rest."""
        match condition:
            case MarketCondition.ACTIVE:
                return self.active
            case MarketCondition.QUIET:
                return self.quiet
            case MarketCondition.CLOSED:
                return self.closed
            case _:
                return 1.0

    def hour_factor(self, now_ms: int) -> float:
        """The factor of the hour that it is in Korea."""
        return self._by_hour[(now_ms // HOUR_MS + KST_HOURS) % 24]


@attrs.define(eq=False)
class _Rate:
    """An amount per minute: the running minute, and up to sixty whole ones before it."""

    _at_s: float | None = None
    _running: float = 0.0
    _past: deque[float] = attrs.field(factory=lambda: deque(maxlen=60))
    _total: float = 0.0  # of the past; summed once a minute, so that no rounding error can grow

    def add(self, amount: float, now_s: float) -> None:
        """``amount`` came in since the last call; the first call only starts the clock.

        What nobody watched is taken as even: after a pause it is spread over the minutes that have passed.
        """
        if self._at_s is None:
            self._at_s = now_s
            return
        passed = int(now_s // MINUTE_S) - int(self._at_s // MINUTE_S)
        if passed > 0:
            self._turn(amount / (now_s - self._at_s), passed, self._at_s % MINUTE_S, now_s % MINUTE_S)
        else:
            self._running += amount
        self._at_s = now_s

    def _turn(self, per_s: float, passed: int, since_s: float, into_s: float) -> None:
        self._past.append(self._running + per_s * (MINUTE_S - since_s))
        self._past.extend([per_s * MINUTE_S] * min(passed - 1, 60))
        self._total = sum(self._past)
        self._running = per_s * into_s

    def crossed(self, now_s: float) -> bool:
        """Whether a minute has ended since the last call of `add`."""
        return self._at_s is not None and now_s // MINUTE_S > self._at_s // MINUTE_S

    def ratio(self, now_s: float, history_minutes: int) -> float | None:
        """The last minute against the average of those before; None if it was not watched, or they were not.

        The minute ends with the last call of `add`: what came in after that is not known, which is not nothing.
        """
        if self._at_s is None or len(self._past) < history_minutes or now_s - self._at_s > MINUTE_S:
            return None
        # Of the minute before the running one, the part that lies within the last sixty seconds.
        recent = self._running + self._past[-1] * (1.0 - self._at_s % MINUTE_S / MINUTE_S)
        usual = self._total / len(self._past)
        if usual > 0:
            return recent / usual
        return float("inf") if recent > 0 else 0.0


@attrs.define(eq=False)
class Activity:
    """The pace of one market. Takes microseconds and keeps at most an hour, however much passes through."""

    _volume: _Rate = attrs.field(init=False, factory=_Rate)
    _executions: _Rate = attrs.field(init=False, factory=_Rate)
    _range: _Rate = attrs.field(init=False, factory=_Rate)
    _last_volume: Decimal = attrs.field(init=False, default=Decimal(0))
    _last_trade_ms: int = attrs.field(init=False, default=0)
    _newest_execution_ms: int | None = attrs.field(init=False, default=None)
    _low: float = attrs.field(init=False, default=0.0)
    _high: float = attrs.field(init=False, default=0.0)
    _price: float = attrs.field(init=False, default=0.0)

    def observe_ticker(self, now_s: float, price: Decimal, volume: Decimal, trade_ms: int) -> None:
        """A ticker came in. ``volume`` counts from 00:00 UTC (reference/list-tickers); an older ticker is ignored."""
        if trade_ms < self._last_trade_ms:
            return
        same_day = trade_ms // DAY_MS == self._last_trade_ms // DAY_MS and volume >= self._last_volume
        # On a new day at least what it has counted so far; the rest of the day before was seen by nobody.
        traded = volume - self._last_volume if same_day else volume
        self._last_volume, self._last_trade_ms = volume, trade_ms
        self._volume.add(float(traded), now_s)
        self._observe_prices((float(price),), now_s)

    def observe_trades(self, now_s: float, trades: Sequence[Trade]) -> None:
        """Trades came in, in any order; those that were seen before are ignored.

        Trades of one instant are one execution: an order that took several others.
        """
        first, newest_ms = self._newest_execution_ms is None, self._newest_execution_ms or 0
        news = sorted((trade for trade in trades if trade.trade_ms > newest_ms), key=lambda trade: trade.trade_ms)
        if news:
            self._newest_execution_ms = news[-1].trade_ms
        self._executions.add(len({trade.trade_ms for trade in news}), now_s)
        # The first page reaches back into a time that was not watched; only its last price is of now.
        self._observe_prices((float(trade.price) for trade in (news[-1:] if first else news)), now_s)

    def condition(self, now_s: float, policy: Freshness) -> MarketCondition:
        """ACTIVE, NORMAL or QUIET; UNKNOWN with too little history, or if nothing came in within the last minute."""
        rates = (self._volume, self._executions, self._range)
        known = [ratio for rate in rates if (ratio := rate.ratio(now_s, policy.history_minutes)) is not None]
        if not known:
            return MarketCondition.UNKNOWN
        if max(known) >= policy.active_from:
            return MarketCondition.ACTIVE
        return MarketCondition.QUIET if max(known) <= policy.quiet_to else MarketCondition.NORMAL

    def _observe_prices(self, prices: Iterable[float], now_s: float) -> None:
        if self._range.crossed(now_s):
            self._low = self._high = self._price
        before = self._high - self._low
        for price in prices:
            if not self._price:
                self._low = self._high = price
            self._low, self._high, self._price = min(self._low, price), max(self._high, price), price
        self._range.add(self._high - self._low - before, now_s)


@attrs.define(eq=False)
class Activities:
    """Every market's pace, and whether the exchange rests altogether."""

    _policy: Freshness = attrs.field(factory=Freshness)
    _markets: dict[str, Activity] = attrs.field(init=False, factory=dict)
    _refreshed: dict[str, float] = attrs.field(init=False, factory=dict)  # within the last minute, oldest first
    _newest_trade_ms: int = attrs.field(init=False, default=0)

    def observe(self, ticker: Ticker, now_s: float, now_ms: int) -> None:
        """A ticker came in. ``now_ms`` is the exchange's time, as well as it is known."""
        self._market(ticker.market).observe_ticker(now_s, ticker.price, ticker.volume, ticker.trade_ms)
        # A trade cannot be newer than now: a wrong stamp would otherwise keep the exchange open until that day.
        self._newest_trade_ms = max(self._newest_trade_ms, min(ticker.trade_ms, now_ms))
        self._refreshed.pop(ticker.market, None)
        self._refreshed[ticker.market] = now_s
        self._forget(now_s)

    def observe_trades(self, market: str, trades: Sequence[Trade], now_s: float) -> None:
        """A page of trades, or trades of a stream, came in."""
        self._market(market).observe_trades(now_s, trades)

    def condition(self, market: str, now_s: float, now_ms: int) -> MarketCondition:
        """The condition of one market; CLOSED for each of them while the exchange rests."""
        if self.closed(now_s, now_ms):
            return MarketCondition.CLOSED
        activity = self._markets.get(market)
        return activity.condition(now_s, self._policy) if activity else MarketCondition.UNKNOWN

    def closed(self, now_s: float, now_ms: int) -> bool:
        """Whether many markets were refreshed within the last minute and none of them has traded for minutes."""
        if now_ms - self._newest_trade_ms <= self._policy.closed_after_s * 1000:
            return False
        self._forget(now_s)
        return len(self._refreshed) >= self._policy.closed_markets

    def ttl_s(self, kind: Kind, market: str | None, now_s: float, now_ms: int) -> float:
        """How long an answer about ``market`` (None: about all of them) stays fresh."""
        return self._policy.ttl_s(kind, self.condition(market or "", now_s, now_ms), now_ms)

    def _market(self, market: str) -> Activity:
        activity = self._markets.get(market)
        if activity is None:
            activity = self._markets[market] = Activity()
        return activity

    def _forget(self, now_s: float) -> None:
        while self._refreshed:
            market = next(iter(self._refreshed))
            if now_s - self._refreshed[market] <= MINUTE_S:
                return
            del self._refreshed[market]
