"""Market data from Upbit for Trio programs: batched, paced inside the exchange's limits, exact to the last decimal."""

from marketpipe.client import Client
from marketpipe.config import CacheOptions, Config, Limits, Retry
from marketpipe.core.freshness import Freshness
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    MarketPipeError,
    PipelineClosed,
    PipelineCrashed,
    RateLimited,
    StaleData,
    StoreError,
    SubscriberLagged,
    UnknownMarket,
)
from marketpipe.models import (
    Batch,
    Candle,
    CandleSeries,
    CandleState,
    Change,
    Level,
    Market,
    Orderbook,
    Priority,
    Side,
    Source,
    Ticker,
    Timeframe,
    Trade,
)
from marketpipe.pipeline import open_pipeline, run_pipeline
from marketpipe.status import Status

__version__ = "0.1.0"
