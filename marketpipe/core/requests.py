"""What can be asked of the exchange in one request, and what comes back; the words batcher and edge share.

A request is a frozen value: equal requests are the same question. `Group` is the exchange's rate-limit group
(https://docs.upbit.com/kr/reference/rate-limits, 2026-10-07): each has its own ten requests per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload

__all__ = [
    "BATCH_LIMIT",
    "CANDLES_LIMIT",
    "TRADES_LIMIT",
    "CandlesRequest",
    "Group",
    "MarketsRequest",
    "OrderbooksRequest",
    "QuoteTickersRequest",
    "RemainingReq",
    "Reply",
    "Request",
    "TickersRequest",
    "TradesRequest",
]

# Markets in one ticker or order-book request. No cap is documented; longer lists have failed on the URL's length
# (ccxt PR #28522, pyupbit #125).
BATCH_LIMIT = 200
# Rows in one page: more is silently clamped (reference/list-candles-minutes and list-pair-trades, 2026-07-28).
CANDLES_LIMIT = 200
TRADES_LIMIT = 500


class Group(StrEnum):
    """A rate-limit group."""

    MARKET = "market"
    TICKER = "ticker"
    ORDERBOOK = "orderbook"
    TRADE = "trade"
    CANDLE = "candle"


@attrs.frozen
class MarketsRequest:
    """Every listed market, with warnings and cautions. Rows: `Market`."""

    group: ClassVar[Group] = Group.MARKET


@attrs.frozen
class TickersRequest:
    """The tickers of up to `BATCH_LIMIT` markets. Rows: `Ticker`."""

    group: ClassVar[Group] = Group.TICKER
    markets: tuple[str, ...]


@attrs.frozen
class QuoteTickersRequest:
    """The tickers of every market of some quote currencies. Rows: `Ticker`."""

    group: ClassVar[Group] = Group.TICKER
    quotes: tuple[str, ...]


@attrs.frozen
class OrderbooksRequest:
    """The books of up to `BATCH_LIMIT` markets, 30 levels deep. Rows: `Orderbook`."""

    group: ClassVar[Group] = Group.ORDERBOOK
    markets: tuple[str, ...]


@attrs.frozen
class TradesRequest:
    """One page of trades of one UTC day, newest first. Rows: `Trade`.

    ``cursor`` continues with the trades before that ``sequential_id``; ``days_ago`` is 0 (today, UTC) to 7.
    """

    group: ClassVar[Group] = Group.TRADE
    market: str
    count: int
    cursor: int | None = None
    days_ago: int = 0


@attrs.frozen
class CandlesRequest:
    """The newest ``count`` bars that open before ``to_ms`` (None: now), newest first. Rows: `Candle`."""

    group: ClassVar[Group] = Group.CANDLE
    market: str
    timeframe: Timeframe
    count: int
    to_ms: int | None = None


Request = MarketsRequest | TickersRequest | QuoteTickersRequest | OrderbooksRequest | TradesRequest | CandlesRequest


@attrs.frozen
class RemainingReq:
    """The header of that name: requests left in the exchange's current second after the one it answers."""

    group: str
    left: int


@attrs.frozen
class Reply:
    """A decoded answer: the rows in the order they came, and the rows that could not be read, by market.

    ``exchange_ms`` is the reply's ``Date`` header, rounded down to the second by the exchange; None if it had none.
    """

    rows: tuple[Any, ...]
    failed: Mapping[str, BadPayload]
    received_ms: int
    exchange_ms: int | None = None
    remaining: RemainingReq | None = None
