"""Market data from Upbit for Trio programs: batched, paced inside the exchange's limits, exact to the last decimal."""

import logging

from marketpipe.actors.hub import Subscription
from marketpipe.actors.job import Job
from marketpipe.blocking import BlockingClient, BlockingJob, BlockingSubscription, connect
from marketpipe.client import Client
from marketpipe.compat import BatchRequestResult, DataResponse, SmartDataProvider
from marketpipe.config import Buffers, CacheOptions, Collecting, Config, Limits, Retry, Subscriptions
from marketpipe.core.buffers import SubscriptionStatistics
from marketpipe.core.checkup import SeriesCheck, StoreCheck
from marketpipe.core.collection import CollectionState, CollectionSummary, Explanation
from marketpipe.core.freshness import Freshness
from marketpipe.core.progress import JobState, Outcome, Progress, Report
from marketpipe.core.topics import Line, Topic
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
    Gap,
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
from marketpipe.status import (
    CandleAnswers,
    ConnectionStatus,
    ConsumersStatus,
    LagStatus,
    QueueStatus,
    Status,
    StoreStatus,
    StreamStatus,
    SubscriptionState,
    SubscriptionStatus,
)

# fmt: off
__all__ = [
    "BadPayload", "Banned", "Batch", "BatchRequestResult", "BlockingClient", "BlockingJob", "BlockingSubscription",
    "Buffers", "CacheOptions", "Candle", "CandleAnswers", "CandleSeries", "CandleState", "Change", "Client",
    "Collecting", "CollectionState", "CollectionSummary", "Config", "ConnectionStatus", "ConsumersStatus",
    "DataResponse", "ExchangeError", "ExchangeUnavailable", "Explanation", "Freshness", "Gap", "Job", "JobState",
    "LagStatus", "Level", "Limits", "Line", "Market", "MarketPipeError", "Orderbook", "Outcome", "PipelineClosed",
    "PipelineCrashed", "Priority", "Progress", "QueueStatus", "RateLimited", "Report", "Retry", "SeriesCheck",
    "Side", "SmartDataProvider", "Source", "StaleData", "Status", "StoreCheck", "StoreError", "StoreStatus",
    "StreamStatus", "SubscriberLagged", "Subscription", "SubscriptionState", "SubscriptionStatistics",
    "SubscriptionStatus", "Subscriptions", "Ticker", "Timeframe", "Topic", "Trade", "UnknownMarket", "connect",
    "open_pipeline", "run_pipeline",
]
# fmt: on

# The host program decides where log lines go; without this, warnings would go to stderr unasked.
logging.getLogger("marketpipe").addHandler(logging.NullHandler())

__version__ = "0.1.0"
