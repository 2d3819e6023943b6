"""A `Status` in which every number differs from every other, and everything that may be there is."""

from __future__ import annotations

from itertools import count

from marketpipe.core.expiring import CacheStatistics
from marketpipe.core.freshness import Kind
from marketpipe.core.meter import VerbStatistics
from marketpipe.core.pacing import SlotStatistics
from marketpipe.core.progress import JobState, Outcome, Progress
from marketpipe.core.requests import Group
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import BadPayload, ExchangeUnavailable
from marketpipe.models import Priority
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

__all__ = ["quiet_status", "status_of_everything"]

MOMENT_MS = 1_790_166_896_000


def status_of_everything() -> Status:
    number = count(1_000)
    whole = number.__next__

    def fraction() -> float:
        return next(number) / 8_192  # exact in binary, and in every text

    def verb() -> VerbStatistics:
        calls, more = whole(), whole()
        buckets = ((0.001, calls - 900), (0.5, calls - 500), (5.0, calls - 3))
        return VerbStatistics(calls, more, whole(), fraction(), fraction(), fraction(), fraction(), buckets)

    def job(state: JobState, eta_s: float | None, trouble: str) -> Progress:
        done = whole()
        down, wrong = ExchangeUnavailable("502", status=502), BadPayload("no number", field="low", market="BTC-ETH")
        parts = (
            Outcome("KRW-BTC", Timeframe.M1, whole(), whole(), whole(), whole(), whole()),
            Outcome("KRW-ETH", Timeframe.D1, whole(), whole(), 0, whole(), whole(), down),
            Outcome("BTC-ETH", Timeframe.H1, whole(), 0, 0, 0, 0, wrong),
        )
        return Progress(state, whole() + done, done, whole(), whole(), fraction(), fraction(), eta_s, fraction(),
                        "KRW-BTC", parts, trouble)  # fmt: skip

    return Status(
        at_ms=MOMENT_MS,
        uptime_s=fraction(),
        budgets={group: SlotStatistics(whole(), whole(), whole(), whole(), whole(), fraction(), fraction())
                 for group in Group},
        waiting={group: whole() for group in Group},
        requests_in_flight=whole(),
        requests=whole(),
        questions=whole(),
        joined=whole(),
        banned_for_s=fraction(),
        caches={kind: CacheStatistics(*(whole() for _ in range(7))) for kind in Kind},
        verbs={"get_ticker": verb(), "get_candle": verb()},
        late={priority: whole() for priority in Priority},
        given_up={priority: whole() for priority in Priority},
        connections={
            line: ConnectionStatus(MOMENT_MS - whole(), whole(), whole(), whole(), whole(), whole(), "closed 1006",
                                   whole(), whole(), whole(), fraction(), whole())
            for line in Line
        },
        subscriptions={
            Topic(Line.TICKER, "KRW-BTC"): SubscriptionStatus(SubscriptionState.ACTIVE, "it flows", whole(), 3, True),
            Topic(Line.TICKER, "KRW-ETH"): SubscriptionStatus(SubscriptionState.ACTIVE, "", whole(), 4, True),
            Topic(Line.TICKER, "KRW-XRP"): SubscriptionStatus(SubscriptionState.STALE, "silent", whole(), 1, False),
            Topic(Line.CANDLE, "KRW-BTC", Timeframe.M1):
                SubscriptionStatus(SubscriptionState.ERROR, "not sent", whole(), 2, False),
        },
        store=StoreStatus("/data/upbit.db", True, "no room", whole(), whole(), whole(), whole(), whole(), whole(),
                          "the disk is full"),
        jobs=(job(JobState.RUNNING, 90.5, "502"), job(JobState.RUNNING, 17.25, ""), job(JobState.PAUSED, None, "")),
        symbols_per_second=fraction(),
        queues={"questions ticker": QueueStatus(whole(), whole()),
                "frames trade": QueueStatus(whole(), whole(), whole())},
        streams={line: StreamStatus(whole(), fraction(), fraction(), fraction()) for line in Line},
        consumers=ConsumersStatus(*(whole() for _ in range(8))),
        bars_amended=whole(),
        memory_bytes=whole() * 2**20,
        lag=LagStatus(fraction(), fraction(), fraction()),
        candles=CandleAnswers(whole(), whole(), whole()),
    )  # fmt: skip


def quiet_status() -> Status:
    """Of a pipe that was opened at this moment, without streams, database or clock to measure its lag."""
    return Status(
        at_ms=MOMENT_MS,
        uptime_s=0.0,
        budgets={group: SlotStatistics(10, 10, 0, 0, 0, 0.0, 0.0) for group in Group},
        waiting=dict.fromkeys(Group, 0),
        requests_in_flight=0,
        requests=0,
        questions=0,
        joined=0,
        banned_for_s=0.0,
        caches={kind: CacheStatistics(0, 0, 0, 0, 0) for kind in Kind},
        verbs={},
        late=dict.fromkeys(Priority, 0),
        given_up=dict.fromkeys(Priority, 0),
        connections={},
        subscriptions={},
        store=None,
        jobs=(),
        symbols_per_second=0.0,
        queues={},
        streams={},
        consumers=ConsumersStatus(),
        bars_amended=0,
        memory_bytes=2**20,
        lag=None,
    )
