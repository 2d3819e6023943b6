"""A `Status` as the text that Prometheus reads.

Names follow https://prometheus.io/docs/practices/naming/ (2026-10-06): base units in the name, ``_total`` for what only
grows, ``_ratio`` for shares. Labels have few values each, whatever is listened to: markets are counted, never named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import attrs
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

import marketpipe
from marketpipe.core.meter import VerbStatistics
from marketpipe.core.progress import JobState
from marketpipe.core.topics import Line
from marketpipe.status import CandleAnswers, Status, SubscriptionState

# Metric is re-exported by nobody but this module of theirs.
from prometheus_client.metrics_core import Metric  # isort: skip

__all__ = ["CONTENT_TYPE", "LEFT_OUT", "exposition"]

# Every Prometheus reads this one, and no name here needs a later one.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "marketpipe_"

LEFT_OUT: Mapping[str, str] = {
    "connections.last_loss": "words: each would be a series for ever",
    "subscriptions.reason": "words",
    "subscriptions.since_ms": "belongs to one market, and markets are not named",
    "store.path": "words",
    "store.why": "words",
    "jobs.elapsed_s": "adds up to nothing for several jobs",
    "jobs.current": "a market",
    "jobs.parts": "markets",
}
"""Fields of a `Status` that Prometheus is not told, and why; ``/status`` tells them."""


def exposition(status: Status) -> bytes:
    """All of ``status`` but `LEFT_OUT`, to be sent as `CONTENT_TYPE`."""
    registry = CollectorRegistry()
    registry.register(_Told(status))
    return generate_latest(registry)


@attrs.frozen(eq=False)
class _Told(Collector):
    _status: Status

    def describe(self) -> list[Metric]:
        return []  # without this, the registry would collect once more to learn the names

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield from _process(status)
        yield from _requests(status)
        yield from _of_each(_BUDGET, status.budgets, "group")
        yield _gauge("questions_waiting", "Distinct questions that wait for a request slot.",
                     status.waiting.items(), "group")  # fmt: skip
        yield from _caches(status)
        yield _candles(status.candles)
        yield from _verbs(status.verbs)
        yield from _patience(status)
        yield from _of_each(_CONNECTION, status.connections, "line")
        yield from _subscriptions(status)
        yield from _of_each(_STREAM, status.streams, "line")
        yield _quantiles("stream_delivery_seconds", "From a frame's arrival until its value lay in the last"
                         " subscriber's buffer, of the last one to two minutes.", status.streams, "line")  # fmt: skip
        yield from _of_one(_CONSUMERS, status.consumers)
        yield from _of_each(_QUEUE, status.queues, "queue")
        if status.store is not None:
            yield from _of_one(_STORE, status.store)
        yield from _jobs(status)


class _Row(NamedTuple):
    """A family of which there is one value in each part of a status. None is no value."""

    family: type[GaugeMetricFamily | CounterMetricFamily]
    name: str
    field: str
    words: str

    def of(self, part: object) -> Any:
        value = attrgetter(self.field)(part)
        return bool(value) if isinstance(value, str) else value


GAUGE, COUNTER = GaugeMetricFamily, CounterMetricFamily

_BUDGET = (
    _Row(GAUGE, "budget_limit", "limit", "Requests per second that the exchange allows."),
    _Row(GAUGE, "budget_ceiling", "ceiling", "Requests per second that are made use of, after refusals."),
    _Row(
        GAUGE,
        "budget_used_ratio",
        "utilisation",
        "Share of the limit that was sent within the last second, by all pipelines that share it.",
    ),
    _Row(GAUGE, "budget_in_flight", "in_flight", "Requests under way, of all pipelines that share the limit."),
    _Row(COUNTER, "budget_sent_total", "sent", "Requests that this pipeline has sent."),
    _Row(COUNTER, "budget_refused_total", "refused", "Those of them that were refused with 429."),
    _Row(GAUGE, "budget_blocked_seconds", "blocked_s", "Until the group is asked again after a refusal."),
)
_CONNECTION = (
    _Row(COUNTER, "connection_connects_total", "connects", "Connections of the stream that were made."),
    _Row(COUNTER, "connection_reconnects_total", "reconnects", "Those of them that were made after one was lost."),
    _Row(COUNTER, "connection_losses_total", "losses", "Connections of the stream that were lost."),
    _Row(COUNTER, "connection_subscribe_messages_total", "messages", "Subscribe messages that were sent."),
    _Row(COUNTER, "connection_frames_total", "frames", "Frames that were received."),
    _Row(COUNTER, "connection_unreadable_frames_total", "unreadable", "Frames that could not be read."),
    _Row(COUNTER, "connection_gaps_total", "gaps", "Holes in the live trades that were announced."),
    _Row(COUNTER, "connection_gaps_repaired_total", "repaired", "Holes in the live trades that were mended."),
    _Row(COUNTER, "connection_trades_repaired_total", "trades_repaired", "Trades that were fetched to mend holes."),
    _Row(GAUGE, "connection_last_frame_age_seconds", "last_frame_age_s", "Since the last frame came."),
)
_STREAM = (_Row(COUNTER, "stream_values_total", "values", "Values that were handed to subscribers, each once."),)
_CONSUMERS = (
    _Row(GAUGE, "consumer_subscribers", "subscribers", "Subscriptions that the program holds."),
    _Row(COUNTER, "consumer_received_total", "received", "Values for subscribers, once for each of them."),
    _Row(COUNTER, "consumer_delivered_total", "delivered", "Values that subscribers have read."),
    _Row(COUNTER, "consumer_conflated_total", "conflated", "Values replaced by newer ones before they were read."),
    _Row(COUNTER, "consumer_dropped_total", "dropped", "Values lost by subscribers that fell behind."),
    _Row(COUNTER, "consumer_unread_total", "unread", "Values that subscribers had not read when they left."),
    _Row(GAUGE, "consumer_queued", "queued", "Values that wait to be read."),
    _Row(GAUGE, "consumer_fullest", "fullest", "Values that wait for the subscriber with the most."),
)
_QUEUE = (
    _Row(GAUGE, "queue_depth", "depth", "What waits in a queue of the pipe."),
    _Row(GAUGE, "queue_peak", "peak", "The most that has ever waited in it."),
    _Row(GAUGE, "queue_capacity", "capacity", "How much may wait in it, where that is bounded."),
)
_STORE = (
    _Row(GAUGE, "store_read_only", "read_only", "1 if nothing can be written to the database."),
    _Row(GAUGE, "store_in_trouble", "trouble", "1 if the last transaction failed."),
    _Row(COUNTER, "store_rows_written_total", "rows_written", "Bars that were written to the database."),
    _Row(COUNTER, "store_rows_amended_total", "rows_amended", "Bars that had been stored otherwise."),
    _Row(COUNTER, "store_transactions_total", "transactions", "Transactions that were committed."),
    _Row(COUNTER, "store_failures_total", "failures", "Transactions that failed."),
    _Row(GAUGE, "store_rows_kept", "rows_kept", "Bars that are on their way to the database."),
    _Row(COUNTER, "store_rows_let_go_total", "rows_let_go", "Bars that were read and not stored, for want of room."),
)
_WHOLE = (
    _Row(GAUGE, "uptime_seconds", "uptime_s", "Since the pipeline was opened."),
    _Row(GAUGE, "symbols_per_second", "symbols_per_second", "Symbols answered per second since the start."),
    _Row(GAUGE, "requests_in_flight", "requests_in_flight", "Requests that are under way, of all groups."),
    _Row(COUNTER, "requests_total", "requests", "Requests that were made of the exchange."),
    _Row(COUNTER, "questions_total", "questions", "Questions that the cache could not answer."),
    _Row(COUNTER, "questions_joined_total", "joined", "Questions that somebody was asking already."),
    _Row(GAUGE, "banned_seconds", "banned_for_s", "Until the exchange's block (418) is expected to end."),
    _Row(COUNTER, "bars_amended_total", "bars_amended", "Bars that were final and then told otherwise."),
)
_JOBS: tuple[tuple[str, str, str], ...] = (
    ("jobs_slots", "total", "Slots that the jobs have to prove, all together."),
    ("jobs_slots_done", "done", "Slots of the jobs that are proven."),
    ("jobs_bars", "bars", "Bars that the jobs have received."),
    ("jobs_pages", "pages", "Requests of the jobs that were answered."),
    ("jobs_bars_per_second", "bars_per_s", "Bars that the jobs receive per second, of late."),
    ("jobs_requests_per_second", "requests_per_s", "Requests of the jobs per second, of late."),
)
_QUANTILES = {"0.5": "p50_s", "0.95": "p95_s", "0.99": "p99_s"}


def _process(status: Status) -> Iterator[Metric]:
    build = InfoMetricFamily(f"{PREFIX}build", "The version of marketpipe.")
    build.add_metric((), {"version": marketpipe.__version__})
    yield build
    memory = GaugeMetricFamily("process_resident_memory_bytes", "What the whole process has resident.")
    memory.add_metric((), status.memory_bytes)
    yield memory
    yield _gauge("snapshot_timestamp_seconds", "When this was taken.", _one(status.at_ms / 1000))
    if status.lag is not None:
        yield _quantiles("event_loop_lag_seconds", "How late the event loop runs what is due, of the last one to two"
                         " minutes.", {(): status.lag})  # fmt: skip
        yield _gauge("event_loop_lag_max_seconds", "The latest it ever was.", _one(status.lag.max_s))


def _requests(status: Status) -> Iterator[Metric]:
    yield from _of_one(_WHOLE, status)


def _caches(status: Status) -> Iterator[Metric]:
    caches = status.caches.items()
    hits = [
        ((kind, tier), count)
        for kind, each in caches
        for tier, count in (("fast", each.fast_hits), ("memory", each.memory_hits), ("live", each.live_hits))
    ]
    yield _counter("cache_hits_total", "Questions answered from memory.", hits, "kind", "tier")
    yield _counter("cache_misses_total", "Questions that memory could not answer.",
                   ((kind, each.misses) for kind, each in caches), "kind")  # fmt: skip
    yield _counter("cache_evictions_total", "Values that made room while they were still fresh.",
                   ((kind, each.evictions) for kind, each in caches), "kind")  # fmt: skip
    yield _gauge("cache_entries", "Fresh values in memory.", ((kind, each.entries) for kind, each in caches), "kind")
    yield _gauge("cache_live", "Values that a stream keeps current.",
                 ((kind, each.live) for kind, each in caches), "kind")  # fmt: skip


def _candles(candles: CandleAnswers) -> Metric:
    sources = ("memory", candles.memory), ("store", candles.store), ("exchange", candles.exchange)
    return _counter("candle_answers_total", "Markets of which candles were answered, by where they came from.",
                    sources, "source")  # fmt: skip


def _verbs(verbs: Mapping[str, VerbStatistics]) -> Iterator[Metric]:
    family = HistogramMetricFamily(
        f"{PREFIX}verb_duration_seconds", "How long calls of a verb took that were answered.", labels=("verb",)
    )
    for verb, each in verbs.items():
        family.add_metric((verb,), _buckets(each), each.total_s)
    yield family
    yield _quantiles("verb_recent_seconds", "The same, of the last one to two minutes.", verbs, "verb")
    yield _counter("verb_symbols_total", "Distinct symbols answered, call by call.",
                   ((verb, each.symbols) for verb, each in verbs.items()), "verb")  # fmt: skip
    yield _counter("verb_failed_total", "Symbols that could not be answered.",
                   ((verb, each.failed) for verb, each in verbs.items()), "verb")  # fmt: skip


def _buckets(verb: VerbStatistics) -> list[tuple[str, float]]:
    """What Prometheus wants: of each bound, how many calls did not take longer, and all of them at last."""
    bounded = [(str(bound), float(count)) for bound, count in verb.buckets if bound < math.inf]
    return [*bounded, ("+Inf", float(verb.calls))]


def _patience(status: Status) -> Iterator[Metric]:
    yield _counter("late_answers_total", "Answers later than their priority's budget.",
                   ((each.name.lower(), count) for each, count in status.late.items()), "priority")  # fmt: skip
    yield _counter("given_up_total", "Callers who did not wait for the answer any longer.",
                   ((each.name.lower(), count) for each, count in status.given_up.items()), "priority")  # fmt: skip


def _subscriptions(status: Status) -> Iterator[Metric]:
    since = ((line, each.connected_since_ms) for line, each in status.connections.items())
    since_s = [(line, since_ms and since_ms / 1000) for line, since_ms in since]
    yield _gauge("connection_up", "1 if there is a connection.",
                 ((line, since is not None) for line, since in since_s), "line")  # fmt: skip
    yield _gauge("connection_start_timestamp_seconds", "Since when there is one.", since_s, "line")
    subscriptions = status.subscriptions.items()
    states = Counter((topic.line, each.state) for topic, each in subscriptions)
    yield _gauge("subscriptions", "Live subscriptions by how they are.",
                 (((line, state), states[line, state]) for line in Line for state in SubscriptionState),
                 "line", "state")  # fmt: skip
    leases, hot = Counter[Line](), Counter[Line]()
    for topic, each in subscriptions:
        leases[topic.line] += each.leases
        hot[topic.line] += each.hot
    yield _gauge("subscription_leases", "Consumers of live subscriptions.",
                 ((line, leases[line]) for line in Line), "line")  # fmt: skip
    yield _gauge("subscription_hot", "Live subscriptions of what is read often.",
                 ((line, hot[line]) for line in Line), "line")  # fmt: skip


def _jobs(status: Status) -> Iterator[Metric]:
    states = Counter(job.state for job in status.jobs)
    yield _gauge("jobs", "Collections in the background by how they are.",
                 ((state, states[state]) for state in JobState), "state")  # fmt: skip
    yield _gauge("jobs_in_trouble", "Those that something keeps waiting.",
                 _one(sum(bool(job.trouble) for job in status.jobs)))  # fmt: skip
    for name, field, words in _JOBS:
        yield _gauge(name, words, _one(sum(getattr(job, field) for job in status.jobs)))
    left_s = [job.eta_s for job in status.jobs if job.eta_s is not None]
    yield _gauge("jobs_remaining_seconds", "Until the last of them is done, where that can be said.",
                 _one(max(left_s)) if left_s else ())  # fmt: skip


def _of_one(rows: Iterable[_Row], part: object) -> Iterator[Metric]:
    for row in rows:
        yield _filled(row.family, row.name, row.words, _one(row.of(part)))


def _of_each(rows: Iterable[_Row], parts: Mapping[Any, object], label: str) -> Iterator[Metric]:
    for row in rows:
        yield _filled(row.family, row.name, row.words, ((key, row.of(part)) for key, part in parts.items()), label)


def _quantiles(name: str, words: str, parts: Mapping[Any, object], *labels: str) -> Metric:
    # A summary without its sum and count: of a moving stretch of time there is none that only grows.
    family = Metric(PREFIX + name, words, "summary")
    for key, part in parts.items():
        named = dict(zip(labels, (key,), strict=False))
        for quantile, field in _QUANTILES.items():
            if hasattr(part, field):
                family.add_sample(family.name, {**named, "quantile": quantile}, getattr(part, field))
    return family


def _gauge(name: str, words: str, values: Iterable[tuple[Any, float | None]], *labels: str) -> Metric:
    return _filled(GAUGE, name, words, values, *labels)


def _counter(name: str, words: str, values: Iterable[tuple[Any, float | None]], *labels: str) -> Metric:
    return _filled(COUNTER, name, words, values, *labels)


def _one(value: float | None) -> tuple[tuple[tuple[()], float | None]]:
    return (((), value),)


def _filled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    words: str,
    values: Iterable[tuple[Any, float | None]],
    *labels: str,
) -> Metric:
    family = kind(PREFIX + name, words, labels=labels)
    for key, value in values:
        if value is not None:
            family.add_metric(key if isinstance(key, tuple) else (str(key),), float(value))
    return family
