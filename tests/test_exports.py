"""The public names are written by hand, and importing them costs and starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import marketpipe
import marketpipe.status

PUBLIC = [
    "BadPayload",
    "Banned",
    "Batch",
    "BatchRequestResult",
    "BlockingClient",
    "BlockingJob",
    "BlockingSubscription",
    "Buffers",
    "CacheOptions",
    "Candle",
    "CandleAnswers",
    "CandleSeries",
    "CandleState",
    "Change",
    "Client",
    "Collecting",
    "CollectionState",
    "CollectionSummary",
    "Config",
    "ConnectionStatus",
    "ConsumersStatus",
    "DataResponse",
    "ExchangeError",
    "ExchangeUnavailable",
    "Explanation",
    "Freshness",
    "Gap",
    "Job",
    "JobState",
    "LagStatus",
    "Level",
    "Limits",
    "Line",
    "Market",
    "MarketPipeError",
    "Orderbook",
    "Outcome",
    "PipelineClosed",
    "PipelineCrashed",
    "Priority",
    "Progress",
    "QueueStatus",
    "RateLimited",
    "Report",
    "Retry",
    "SeriesCheck",
    "Side",
    "SmartDataProvider",
    "Source",
    "StaleData",
    "Status",
    "StoreCheck",
    "StoreError",
    "StoreStatus",
    "StreamStatus",
    "SubscriberLagged",
    "Subscription",
    "SubscriptionState",
    "SubscriptionStatistics",
    "SubscriptionStatus",
    "Subscriptions",
    "Ticker",
    "Timeframe",
    "Topic",
    "Trade",
    "UnknownMarket",
    "connect",
    "open_pipeline",
    "run_pipeline",
]

# Slow to import, heavy, or no business of a program that only asks.
NOT_LOADED = ["click", "filelock", "h11", "httpcore", "httpx", "marketpipe.cli", "marketpipe.sim", "marketpipe.store"]
NOT_LOADED += [
    "marketpipe.metrics",
    "marketpipe.upbit",
    "numpy",
    "pandas",
    "platformdirs",
    "polars",
    "prometheus_client",
    "psutil",
    "rich",
    "sqlite3",
    "sqlite_utils",
    "trio_websocket",
]


def test_the_public_names_are_these():
    assert sorted(PUBLIC) == PUBLIC
    assert marketpipe.__all__ == PUBLIC


def test_every_public_name_is_there_and_nothing_else_is_visible():
    modules = {name for name, value in vars(marketpipe).items() if isinstance(value, type(sys))}
    visible = {name for name in vars(marketpipe) if not name.startswith("_")}
    assert visible - modules == set(PUBLIC)


def test_what_a_status_is_made_of_is_public():
    assert set(marketpipe.status.__all__) <= set(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name[0].isupper()])
def test_every_public_type_says_what_it_is(name: str):
    assert getattr(marketpipe, name).__doc__


def in_a_new_interpreter(program: str) -> object:
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_importing_loads_no_heavy_module_and_starts_no_thread():
    loaded, threads, tasks = in_a_new_interpreter(
        "import json, sys, threading, os\n"
        "import marketpipe\n"
        "print(json.dumps([sorted(sys.modules), threading.active_count(), len(os.listdir('/proc/self/task'))\n"
        "                  if os.path.isdir('/proc/self/task') else 1]))"
    )
    assert [name for name in NOT_LOADED if name in loaded] == []
    assert (threads, tasks) == (1, 1)
    assert "marketpipe.client" in loaded
