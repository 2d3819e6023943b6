"""What the original interface said of itself: the pipe's `Status` under its old names, and a count of the answers.

The answers are counted here because the old counters can be reset, and the pipe's cannot.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import attrs

from marketpipe.clock import SystemClock
from marketpipe.compat.records import (
    BatchProgress,
    CacheMetrics,
    PerformanceMetrics,
    SubscriptionStatus,
    TimeZoneActivity,
)
from marketpipe.compat.responses import BatchRequestResult, DataResponse, moment
from marketpipe.config import Config
from marketpipe.core.expiring import CacheStatistics
from marketpipe.core.freshness import Kind
from marketpipe.core.requests import BATCH_LIMIT
from marketpipe.core.topics import Line
from marketpipe.status import Status

__all__ = ["Tally", "cache_status", "comprehensive_status"]

# What the original promised.
TARGET_SYMBOLS_PER_SECOND = 500
# From so many symbols on they share requests.
BATCH_FROM = 2
# Times kept, to sort at a look.
KEPT = 1000


@attrs.define(eq=False)
class Tally:
    """Answers since the start, or since `reset`. For many threads."""

    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _since: Status | None = attrs.field(default=None, init=False)
    _successful: int = attrs.field(default=0, init=False)
    _failed: int = attrs.field(default=0, init=False)
    _fetched: int = attrs.field(default=0, init=False)
    _waited_ms: float = attrs.field(default=0.0, init=False)
    _times_ms: deque[float] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    _sources: Counter[str] = attrs.field(factory=Counter, init=False)

    def record(self, answer: DataResponse | BatchRequestResult) -> None:
        """One call has been answered."""
        if isinstance(answer, DataResponse):
            answers, time_ms = [answer], answer.response_time_ms
            # A list of rows of several symbols counts them all.
            sizes = [answer.metadata.records_count if answer.symbol is None else 1]
        else:
            answers, time_ms = list(answer.individual_responses.values()), answer.total_response_time_ms
            sizes = [1] * len(answers)
        with self._lock:
            self._successful += answer.success
            self._failed += not answer.success
            self._waited_ms += time_ms
            if time_ms > 0:  # otherwise it was refused before anything was asked
                self._times_ms.append(time_ms)
            self._sources.update(each.data_source for each in answers)
            pairs = zip(answers, sizes, strict=True)
            self._fetched += sum(size for each, size in pairs if each.success and not each.cache_hit)

    def reset(self, status: Status) -> None:
        """Count from here on."""
        with self._lock:
            self._since = status
            self._successful = self._failed = self._fetched = 0
            self._waited_ms = 0.0
            self._times_ms.clear()
            self._sources.clear()

    def metrics(self, status: Status) -> PerformanceMetrics:
        """What was counted, and what the pipe counted meanwhile."""
        with self._lock:
            times_ms = sorted(self._times_ms)
            total = self._successful + self._failed
            return PerformanceMetrics(
                total_requests=total,
                successful_requests=self._successful,
                failed_requests=self._failed,
                avg_response_time_ms=sum(times_ms) / len(times_ms) if times_ms else 0.0,
                min_response_time_ms=times_ms[0] if times_ms else 0.0,
                max_response_time_ms=times_ms[-1] if times_ms else 0.0,
                p95_response_time_ms=times_ms[min(len(times_ms) - 1, int(len(times_ms) * 0.95))] if times_ms else 0.0,
                cache_metrics=_cache_metrics(status, self._since, self._sources["database"]),
                symbols_per_second=1000 * self._fetched / self._waited_ms if self._waited_ms else 0.0,
                data_volume_mb=None,
                success_rate=100 * self._successful / total if total else 0.0,
            )


def cache_status(status: Status) -> dict[str, Any]:
    """The caches: of each kind, and together."""
    kinds = {str(kind): _cache(counts) for kind, counts in status.caches.items()}
    return {**kinds, "total": attrs.asdict(_cache_metrics(status, None, None))}


def comprehensive_status(
    status: Status,
    metrics: PerformanceMetrics,
    *,
    version: str,
    max_workers: int,
    config: Config,
    callbacks: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything, in the old layers. ``callbacks``: the subscriptions with a callback, by id."""
    return {
        "system_info": {
            "version": version,
            "uptime_seconds": status.uptime_s,
            "max_workers": max_workers,
            "batch_threshold": BATCH_FROM,
            "max_batch_size": BATCH_LIMIT,
        },
        "performance": {
            "total_requests": metrics.total_requests,
            "symbols_per_second": metrics.symbols_per_second,
            "target_symbols_per_second": TARGET_SYMBOLS_PER_SECOND,
        },
        "layer_1_api": _api(status),
        "layer_2_cache": _caches(status, metrics, config),
        "layer_2_realtime": {
            "subscriptions": _subscriptions(status, callbacks),
            "candle_deduplication": _candles(status),
        },
        "layer_3_data": _data(status),
        "timestamp": moment().isoformat(),
    }


def _api(status: Status) -> dict[str, Any]:
    groups = {
        str(group): {**attrs.asdict(slots), "waiting": status.waiting.get(group, 0)}
        for group, slots in status.budgets.items()
    }
    return {
        "requests": status.requests,
        "requests_in_flight": status.requests_in_flight,
        "banned_for_seconds": status.banned_for_s,
        "late_by_priority": {priority.name: count for priority, count in status.late.items()},
        "groups": groups,
    }


def _caches(status: Status, metrics: PerformanceMetrics, config: Config) -> dict[str, Any]:
    freshness, now_ms = config.cache.freshness, SystemClock().now_ms()
    counts = status.caches.values()
    return {
        "fast_cache": {"hits": sum(each.fast_hits for each in counts), "ttl_seconds": freshness.fast_s},
        "memory_cache": {
            "hits": sum(each.memory_hits + each.live_hits for each in counts),
            "entries": sum(each.entries for each in counts),
            "live": sum(each.live for each in counts),
            "evictions": sum(each.evictions for each in counts),
            "max_entries": config.cache.entries,
        },
        "adaptive_ttl": {
            "time_zone_activity": str(TimeZoneActivity.at(now_ms)),
            "hour_factor": freshness.hour_factor(now_ms),
            "base_seconds": {str(kind): freshness.base_s(kind) for kind in Kind},
        },
        "performance": attrs.asdict(metrics.cache_metrics),
    }


def _subscriptions(status: Status, callbacks: Mapping[str, Any]) -> dict[str, Any]:
    topics = {
        str(topic): {"status": str(SubscriptionStatus.of(each.state)), "reason": each.reason, "leases": each.leases}
        for topic, each in status.subscriptions.items()
    }
    return {"active": topics, "callbacks": dict(callbacks)}


def _candles(status: Status) -> dict[str, Any]:
    return {
        "topics": sum(topic.line is Line.CANDLE for topic in status.subscriptions),
        "bars_amended": status.bars_amended,
    }


def _data(status: Status) -> dict[str, Any]:
    store = status.store
    return {
        "batch_stats": {} if store is None else attrs.asdict(store),
        "overlap_stats": {"questions": status.questions, "joined": status.joined, "requests": status.requests},
        "active_tasks": [attrs.asdict(BatchProgress.of(job)) for job in status.jobs],
        "db_path": None if store is None else store.path,
    }


def _cache(counts: CacheStatistics) -> dict[str, Any]:
    return {**attrs.asdict(counts), "hit_rate": 100 * counts.hit_rate}


def _cache_metrics(status: Status, since: Status | None, store_hits: int | None) -> CacheMetrics:
    def counted(name: str) -> int:
        earlier: int = 0 if since is None else sum(getattr(each, name) for each in since.caches.values())
        now: int = sum(getattr(each, name) for each in status.caches.values())
        return now - earlier

    fast, misses = counted("fast_hits"), counted("misses")
    memory = counted("memory_hits") + counted("live_hits")
    total = fast + memory + misses
    return CacheMetrics(
        total_requests=total,
        cache_hits=fast + memory,
        cache_misses=misses,
        fast_cache_hits=fast,
        memory_cache_hits=memory,
        store_hits=store_hits or 0,
        exchange_calls=status.requests - (0 if since is None else since.requests),
        hit_rate=100 * (fast + memory) / total if total else 0.0,
    )
