"""What Prometheus is told: every number of a `Status`, by the names of the field, and no market."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families
from statuses import MOMENT_MS, quiet_status, status_of_everything

import marketpipe
from marketpipe.core.progress import JobState
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.metrics.exposition import CONTENT_TYPE, LEFT_OUT, exposition
from marketpipe.status import Status, SubscriptionState, SubscriptionStatus

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(status: Status) -> list[Any]:
    return list(text_string_to_metric_families(exposition(status).decode()))


def samples(status: Status) -> Samples:
    found = [
        (each.name, frozenset(each.labels.items()), each.value)
        for family in families(status)
        for each in family.samples
    ]
    assert [key for key, times in Counter((name, labels) for name, labels, _ in found).items() if times > 1] == []
    return {(name, labels): value for name, labels, value in found}


def expected(status: Status) -> Samples:
    """Written down once more, by hand, with nothing of how it is made."""
    told: Samples = {}

    def tell(name: str, value: float, **labels: str) -> None:
        told[name, frozenset(labels.items())] = float(value)

    tell("marketpipe_build_info", 1, version=marketpipe.__version__)
    tell("process_resident_memory_bytes", status.memory_bytes)
    tell("marketpipe_snapshot_timestamp_seconds", MOMENT_MS / 1000)
    tell("marketpipe_uptime_seconds", status.uptime_s)
    tell("marketpipe_symbols_per_second", status.symbols_per_second)
    tell("marketpipe_requests_in_flight", status.requests_in_flight)
    tell("marketpipe_requests_total", status.requests)
    tell("marketpipe_questions_total", status.questions)
    tell("marketpipe_questions_joined_total", status.joined)
    tell("marketpipe_banned_seconds", status.banned_for_s)
    tell("marketpipe_bars_amended_total", status.bars_amended)
    tell("marketpipe_event_loop_lag_seconds", status.lag.p50_s, quantile="0.5")
    tell("marketpipe_event_loop_lag_seconds", status.lag.p99_s, quantile="0.99")
    tell("marketpipe_event_loop_lag_max_seconds", status.lag.max_s)
    tell("marketpipe_candle_answers_total", status.candles.memory, source="memory")
    tell("marketpipe_candle_answers_total", status.candles.store, source="store")
    tell("marketpipe_candle_answers_total", status.candles.exchange, source="exchange")
    for group, budget in status.budgets.items():
        tell("marketpipe_budget_limit", budget.limit, group=group.value)
        tell("marketpipe_budget_ceiling", budget.ceiling, group=group.value)
        tell("marketpipe_budget_used_ratio", budget.utilisation, group=group.value)
        tell("marketpipe_budget_in_flight", budget.in_flight, group=group.value)
        tell("marketpipe_budget_sent_total", budget.sent, group=group.value)
        tell("marketpipe_budget_refused_total", budget.refused, group=group.value)
        tell("marketpipe_budget_blocked_seconds", budget.blocked_s, group=group.value)
        tell("marketpipe_questions_waiting", status.waiting[group], group=group.value)
    for kind, cache in status.caches.items():
        tell("marketpipe_cache_hits_total", cache.fast_hits, kind=kind.value, tier="fast")
        tell("marketpipe_cache_hits_total", cache.memory_hits, kind=kind.value, tier="memory")
        tell("marketpipe_cache_hits_total", cache.live_hits, kind=kind.value, tier="live")
        tell("marketpipe_cache_misses_total", cache.misses, kind=kind.value)
        tell("marketpipe_cache_evictions_total", cache.evictions, kind=kind.value)
        tell("marketpipe_cache_entries", cache.entries, kind=kind.value)
        tell("marketpipe_cache_live", cache.live, kind=kind.value)
    for verb, each in status.verbs.items():
        tell("marketpipe_verb_duration_seconds_count", each.calls, verb=verb)
        tell("marketpipe_verb_duration_seconds_sum", each.total_s, verb=verb)
        for bound, calls in each.buckets:
            tell("marketpipe_verb_duration_seconds_bucket", calls, verb=verb, le=str(bound))
        tell("marketpipe_verb_duration_seconds_bucket", each.calls, verb=verb, le="+Inf")
        tell("marketpipe_verb_recent_seconds", each.p50_s, verb=verb, quantile="0.5")
        tell("marketpipe_verb_recent_seconds", each.p95_s, verb=verb, quantile="0.95")
        tell("marketpipe_verb_recent_seconds", each.p99_s, verb=verb, quantile="0.99")
        tell("marketpipe_verb_symbols_total", each.symbols, verb=verb)
        tell("marketpipe_verb_failed_total", each.failed, verb=verb)
    for priority, name in zip(status.late, ("critical", "high", "normal", "low"), strict=True):
        tell("marketpipe_late_answers_total", status.late[priority], priority=name)
        tell("marketpipe_given_up_total", status.given_up[priority], priority=name)
    for line, connection in status.connections.items():
        tell("marketpipe_connection_up", 1, line=line.value)
        tell("marketpipe_connection_start_timestamp_seconds", connection.connected_since_ms / 1000, line=line.value)
        tell("marketpipe_connection_connects_total", connection.connects, line=line.value)
        tell("marketpipe_connection_reconnects_total", connection.reconnects, line=line.value)
        tell("marketpipe_connection_losses_total", connection.losses, line=line.value)
        tell("marketpipe_connection_subscribe_messages_total", connection.messages, line=line.value)
        tell("marketpipe_connection_frames_total", connection.frames, line=line.value)
        tell("marketpipe_connection_unreadable_frames_total", connection.unreadable, line=line.value)
        tell("marketpipe_connection_gaps_total", connection.gaps, line=line.value)
        tell("marketpipe_connection_gaps_repaired_total", connection.repaired, line=line.value)
        tell("marketpipe_connection_trades_repaired_total", connection.trades_repaired, line=line.value)
        tell("marketpipe_connection_last_frame_age_seconds", connection.last_frame_age_s, line=line.value)
        tell("marketpipe_stream_values_total", status.streams[line].values, line=line.value)
        tell("marketpipe_stream_delivery_seconds", status.streams[line].p50_s, line=line.value, quantile="0.5")
        tell("marketpipe_stream_delivery_seconds", status.streams[line].p95_s, line=line.value, quantile="0.95")
        tell("marketpipe_stream_delivery_seconds", status.streams[line].p99_s, line=line.value, quantile="0.99")
        for state in SubscriptionState:
            tell("marketpipe_subscriptions", 0, line=line.value, state=state.value)
        tell("marketpipe_subscription_leases", 0, line=line.value)
        tell("marketpipe_subscription_hot", 0, line=line.value)
    tell("marketpipe_subscriptions", 2, line="ticker", state="active")
    tell("marketpipe_subscriptions", 1, line="ticker", state="stale")
    tell("marketpipe_subscriptions", 1, line="candle", state="error")
    tell("marketpipe_subscription_leases", 8, line="ticker")
    tell("marketpipe_subscription_leases", 2, line="candle")
    tell("marketpipe_subscription_hot", 2, line="ticker")
    consumers = status.consumers
    tell("marketpipe_consumer_subscribers", consumers.subscribers)
    tell("marketpipe_consumer_received_total", consumers.received)
    tell("marketpipe_consumer_delivered_total", consumers.delivered)
    tell("marketpipe_consumer_conflated_total", consumers.conflated)
    tell("marketpipe_consumer_dropped_total", consumers.dropped)
    tell("marketpipe_consumer_unread_total", consumers.unread)
    tell("marketpipe_consumer_queued", consumers.queued)
    tell("marketpipe_consumer_fullest", consumers.fullest)
    for name, queue in status.queues.items():
        tell("marketpipe_queue_depth", queue.depth, queue=name)
        tell("marketpipe_queue_peak", queue.peak, queue=name)
    tell("marketpipe_queue_capacity", status.queues["frames trade"].capacity, queue="frames trade")
    tell("marketpipe_store_read_only", 1)
    tell("marketpipe_store_in_trouble", 1)
    tell("marketpipe_store_rows_written_total", status.store.rows_written)
    tell("marketpipe_store_rows_amended_total", status.store.rows_amended)
    tell("marketpipe_store_transactions_total", status.store.transactions)
    tell("marketpipe_store_failures_total", status.store.failures)
    tell("marketpipe_store_rows_kept", status.store.rows_kept)
    tell("marketpipe_store_rows_let_go_total", status.store.rows_let_go)
    for state in JobState:
        tell("marketpipe_jobs", {JobState.RUNNING: 2, JobState.PAUSED: 1}.get(state, 0), state=state.value)
    tell("marketpipe_jobs_in_trouble", 1)
    first, second, third = status.jobs
    tell("marketpipe_jobs_slots", first.total + second.total + third.total)
    tell("marketpipe_jobs_slots_done", first.done + second.done + third.done)
    tell("marketpipe_jobs_bars", first.bars + second.bars + third.bars)
    tell("marketpipe_jobs_pages", first.pages + second.pages + third.pages)
    tell("marketpipe_jobs_bars_per_second", first.bars_per_s + second.bars_per_s + third.bars_per_s)
    tell("marketpipe_jobs_requests_per_second", first.requests_per_s + second.requests_per_s + third.requests_per_s)
    tell("marketpipe_jobs_remaining_seconds", 90.5)
    return told


def test_every_value_is_that_of_the_status():
    status = status_of_everything()
    assert samples(status) == expected(status)


def test_a_pipe_without_streams_and_database_says_nothing_of_them():
    told = samples(quiet_status())
    names = {name for name, _ in told}
    assert not [
        name for name in names if name.startswith(("marketpipe_store", "marketpipe_event_loop", "marketpipe_stream"))
    ]
    assert told["marketpipe_jobs_slots", frozenset()] == 0
    assert not {name for name in names if "remaining" in name}


# -- nothing is forgotten ------------------------------------------------------------------------------------------


def changes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field inside ``value``, by its path, with ``value`` where that one field is another."""
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            inner = getattr(value, field.name)
            for name, changed in changes(inner, f"{path}.{field.name}".removeprefix(".")):
                yield name, attrs.evolve(value, **{field.name: changed})
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            for name, changed in changes(inner, path):
                yield name, {**value, key: changed}
    elif path == "jobs":
        for name, changed in changes(value[0], path):
            yield name, (changed, *value[1:])
    else:
        yield path, another(value)


def another(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case Enum():
            return next(each for each in type(value) if each is not value)
        case int() | float():
            return value + 1
        case str():
            return "" if value else "something"
        case None:
            return 1000.0
        case tuple():
            return value[:-1]
    raise AssertionError(f"what is another {value!r}?")


CHANGES = list(changes(status_of_everything()))


def test_the_search_for_forgotten_fields_finds_all_of_them():
    paths = {path for path, _ in CHANGES}
    assert {field.name for field in attrs.fields(Status)} == {path.partition(".")[0] for path in paths}
    assert {"budgets.utilisation", "store.rows_let_go", "jobs.eta_s", "verbs.buckets", "lag.max_s", "late"} <= paths
    assert set(LEFT_OUT) <= paths, "what is left out is there to be told"
    assert len(paths) > 90


@pytest.mark.parametrize("path", sorted({path for path, _ in CHANGES}))
def test_each_field_is_told_or_is_left_out_for_a_reason(path: str):
    before = exposition(status_of_everything())
    after = [exposition(changed) for name, changed in CHANGES if name == path]
    is_told = [text != before for text in after]
    assert all(is_told) if path not in LEFT_OUT else not any(is_told)


# -- as Prometheus likes it (promtool check metrics) ----------------------------------------------------------------


def test_names_and_words_are_as_prometheus_wants_them():
    for family in families(status_of_everything()):
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert re.fullmatch(r"(marketpipe|process)_[a-z_]+[a-z]", sample.name)
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not re.search(r"_(ms|milliseconds|minutes|kb|percent)(_|$)", sample.name)
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels)
        if family.type in ("gauge", "counter"):
            assert not re.search(r"_(count|sum|bucket)$", family.name)
    names = [family.name for family in families(status_of_everything())]
    assert len(set(names)) == len(names)


def test_buckets_grow_and_end_with_all():
    (family,) = (each for each in families(status_of_everything()) if each.type == "histogram")
    for verb in ("get_ticker", "get_candle"):
        buckets = [each for each in family.samples if each.name.endswith("_bucket") and each.labels["verb"] == verb]
        bounds, counts = [float(each.labels["le"]) for each in buckets], [each.value for each in buckets]
        assert bounds == sorted(bounds)
        assert counts == sorted(counts)
        assert bounds[-1] == float("inf")


def test_a_thousand_markets_more_are_not_a_series_more():
    status = status_of_everything()
    more = {
        Topic(Line.CANDLE, f"KRW-{number}", Timeframe.M1): SubscriptionStatus(SubscriptionState.ACTIVE, "", 1, 1, False)
        for number in range(1_000)
    }
    grown = samples(attrs.evolve(status, subscriptions={**status.subscriptions, **more}))
    assert set(grown) == set(samples(status))
    assert b"KRW-" not in exposition(status)


def test_the_format_is_the_one_that_is_announced():
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert exposition(quiet_status()).endswith(b"\n")
