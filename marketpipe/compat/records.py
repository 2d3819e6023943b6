"""The records and enumerations of the original interface.

Where the pipe has the same under another name, they are made of that and decide nothing: `BatchProgress` of a
`Progress`, `CollectionStatusRecord` of a `CollectionSummary`, `CacheMetrics` of a `Status`. Percentages are from 0 to
100, durations in milliseconds where the name ends in ``_ms``; moments are aware datetimes in UTC.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

import attrs

from marketpipe.clock import monotonic_s
from marketpipe.compat.responses import moment
from marketpipe.core.collection import CollectionState as CollectionStatus
from marketpipe.core.collection import CollectionSummary
from marketpipe.core.freshness import HOUR_MS, KST_HOURS, Freshness, MarketCondition
from marketpipe.core.progress import JobState, Progress
from marketpipe.models import Priority
from marketpipe.status import SubscriptionState

__all__ = [
    "BatchProgress",
    "CacheItem",
    "CacheMetrics",
    "CollectionStatus",
    "CollectionStatusRecord",
    "MarketCondition",
    "PerformanceMetrics",
    "Priority",
    "SubscriptionStatus",
    "TaskStatus",
    "TimeZoneActivity",
]


class TimeZoneActivity(StrEnum):
    """Which part of the world trades most at an hour of the day in Korea."""

    ASIA_PRIME = "ASIA_PRIME"
    EUROPE_PRIME = "EUROPE_PRIME"
    US_PRIME = "US_PRIME"
    OFF_HOURS = "OFF_HOURS"

    @classmethod
    def at(cls, epoch_ms: int) -> TimeZoneActivity:
        """That of a moment: where the default zones of `Freshness` overlap, the liveliest, as in the TTL policy."""
        hour = (epoch_ms // HOUR_MS + KST_HOURS) % 24
        named = zip((cls.ASIA_PRIME, cls.EUROPE_PRIME, cls.US_PRIME), Freshness().zones, strict=True)
        holding = [(zone.factor, name) for name, zone in named if zone.holds(hour)]
        return min(holding)[1] if holding else cls.OFF_HOURS


class TaskStatus(StrEnum):
    """How a background collection is."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def of(cls, state: JobState) -> TaskStatus:
        """What a `JobState` was called."""
        return _TASKS[state]


_TASKS = {
    JobState.PLANNING: TaskStatus.PENDING,
    JobState.RUNNING: TaskStatus.RUNNING,
    JobState.PAUSED: TaskStatus.PAUSED,
    JobState.DONE: TaskStatus.COMPLETED,
    JobState.FAILED: TaskStatus.FAILED,
    JobState.CANCELLED: TaskStatus.CANCELLED,
}


class SubscriptionStatus(StrEnum):
    """How a live subscription is. One that is silent and being checked is called reconnecting: it may not be active."""

    PENDING = "pending"
    ACTIVE = "active"
    RECONNECTING = "reconnecting"
    RELEASED = "released"
    ERROR = "error"

    @classmethod
    def of(cls, state: SubscriptionState) -> SubscriptionStatus:
        """What a `SubscriptionState` was called."""
        return cls.RECONNECTING if state is SubscriptionState.STALE else cls(state.value)


@attrs.frozen
class CacheMetrics:
    """``fast_cache_hits``: within the 200 ms in which nothing is asked twice. ``memory_cache_hits``: later, or live.

    ``store_hits``: answers that came from the database alone. ``exchange_calls``: requests. ``hit_rate`` in percent.
    """

    total_requests: int
    cache_hits: int
    cache_misses: int
    fast_cache_hits: int
    memory_cache_hits: int
    store_hits: int
    exchange_calls: int
    hit_rate: float


@attrs.frozen
class PerformanceMetrics:
    """What this provider answered since it was opened, or since ``reset_stats()``.

    A request is a call of a verb, failed if nothing of it was answered. ``symbols_per_second``: symbols that had to be
    fetched, per second that somebody waited for an answer: what was in memory makes it no larger. ``data_volume_mb`` is
    None: the pipe does not count bytes. Times are those of the last thousand calls; ``success_rate`` in percent.
    """

    total_requests: int
    successful_requests: int
    failed_requests: int
    avg_response_time_ms: float
    min_response_time_ms: float
    max_response_time_ms: float
    p95_response_time_ms: float
    cache_metrics: CacheMetrics
    symbols_per_second: float
    data_volume_mb: float | None
    success_rate: float


@attrs.frozen
class CacheItem:
    """One value of ``provider.cache_system``."""

    key: str
    data: Any
    cached_at: datetime
    ttl_seconds: float
    source: str = "user"
    _stored_s: float = attrs.field(factory=monotonic_s, repr=False, eq=False)

    @property
    def age_seconds(self) -> float:
        """How long it has been kept."""
        return monotonic_s() - self._stored_s

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.age_seconds >= self.ttl_seconds


@attrs.frozen
class CollectionStatusRecord:
    """What is known of one bar's time. The last three tell of attempts that failed; otherwise there is nothing to tell.

    ``target_time``: when the bar opens.
    """

    symbol: str
    timeframe: str
    target_time: datetime
    collection_status: CollectionStatus
    last_attempt_at: datetime | None
    attempt_count: int
    api_response_code: str | None

    @classmethod
    def of(cls, summary: CollectionSummary, open_ms: int) -> Self:
        """The bar that opens then, read off `marketpipe.BlockingClient.collection_summary`."""
        state = summary.state_at(open_ms)
        failures = [each for each in summary.failures if each.start_ms <= open_ms < each.end_ms]
        failure = failures[-1] if failures and state is CollectionStatus.FAILED else None
        return cls(
            symbol=summary.market,
            timeframe=str(summary.timeframe),
            target_time=moment(open_ms),
            collection_status=state,
            last_attempt_at=None if failure is None else moment(failure.last_ms),
            attempt_count=0 if failure is None else failure.attempts,
            api_response_code=None if failure is None else failure.code,
        )


@attrs.frozen
class BatchProgress:
    """How far a background collection is; items are bars' times, traded or not."""

    task_id: str
    total_items: int
    completed_items: int
    failed_items: int
    percentage: float
    items_per_second: float
    eta_seconds: float | None
    current_item: str
    status: TaskStatus

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """A `Progress`. ``failed_items``: what a job that has failed is still without."""
        names = [f"{part.market} {part.timeframe}" for part in progress.parts]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return cls(
            task_id=f"{names[0]}{more}" if names else "",
            total_items=progress.total,
            completed_items=progress.done,
            failed_items=progress.total - progress.done if progress.state is JobState.FAILED else 0,
            percentage=0.0 if progress.state is JobState.PLANNING else 100 * progress.share,
            items_per_second=progress.bars_per_s,
            eta_seconds=progress.eta_s,
            current_item=progress.current,
            status=TaskStatus.of(progress.state),
        )
