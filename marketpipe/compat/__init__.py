"""The interface of the original data provider, as it was promised, over the pipe.

::

    provider = SmartDataProvider(max_workers=10)
    response = provider.get_ticker("KRW-BTC", Priority.HIGH)
    if response.success: print(response.data["trade_price"])
    result = provider.get_multiple_tickers(["KRW-BTC", "KRW-ETH"])

One symbol (a ``str``) gives a `DataResponse`, several give a `BatchRequestResult`. The verbs do not raise: what the
exchange refused, and what was asked wrongly, is an answer without success, whose ``error`` says why. Rows are dicts
with Upbit's field names, see `marketpipe.compat.rows`; candles and trades come newest first. Times without a zone are
UTC.

A thin translation of `marketpipe.BlockingClient`: nothing is cached, decided or kept here but the user's own values and
a count of the answers. New programs are better off with `marketpipe.connect`, or `marketpipe.open_pipeline` on Trio.
"""

from __future__ import annotations

from marketpipe.compat.awaited import AsyncSmartDataProvider
from marketpipe.compat.pipe import CacheSystem
from marketpipe.compat.provider import SmartDataProvider
from marketpipe.compat.records import (
    BatchProgress,
    CacheItem,
    CacheMetrics,
    CollectionStatus,
    CollectionStatusRecord,
    MarketCondition,
    PerformanceMetrics,
    Priority,
    SubscriptionStatus,
    TaskStatus,
    TimeZoneActivity,
)
from marketpipe.compat.responses import BatchRequestResult, DataResponse, ResponseMetadata

__all__ = [
    "AsyncSmartDataProvider",
    "BatchProgress",
    "BatchRequestResult",
    "CacheItem",
    "CacheMetrics",
    "CacheSystem",
    "CollectionStatus",
    "CollectionStatusRecord",
    "DataResponse",
    "MarketCondition",
    "PerformanceMetrics",
    "Priority",
    "ResponseMetadata",
    "SmartDataProvider",
    "SubscriptionStatus",
    "TaskStatus",
    "TimeZoneActivity",
]
