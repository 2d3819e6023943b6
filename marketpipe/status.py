"""What the pipe says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import attrs

from marketpipe.core.expiring import CacheStatistics
from marketpipe.core.freshness import Kind
from marketpipe.core.meter import VerbStatistics
from marketpipe.core.pacing import SlotStatistics
from marketpipe.core.progress import Progress
from marketpipe.core.requests import Group
from marketpipe.core.topics import Line, Topic
from marketpipe.models import Priority

__all__ = [
    "CandleAnswers", "ConnectionStatus", "ConsumersStatus", "LagStatus", "QueueStatus", "Status", "StoreStatus",
    "StreamStatus", "SubscriptionState", "SubscriptionStatus",
]  # fmt: skip


class SubscriptionState(StrEnum):
    """How a live subscription is.

    PENDING: asked for, nothing shown yet. ACTIVE: it flows. STALE: silent for longer than it should be, being checked.
    RECONNECTING: its connection is lost. RELEASED: nobody wants it any more. ERROR: the exchange does not send it.
    """

    PENDING = "pending"
    ACTIVE = "active"
    STALE = "stale"
    RECONNECTING = "reconnecting"
    RELEASED = "released"
    ERROR = "error"


@attrs.frozen
class SubscriptionStatus:
    """One subscription: its state, why, and since when (epoch ms). ``leases``: consumers of it; ``hot``: read often."""

    state: SubscriptionState
    reason: str
    since_ms: int
    leases: int
    hot: bool


@attrs.frozen
class ConnectionStatus:
    """One connection of the stream. ``connected_since_ms`` is None while there is none.

    ``connects``, ``messages``, ``frames``, ``unreadable``: connections made, subscribe messages sent, frames received,
    and those of them that could not be read. ``losses``: how often a connection was lost; ``last_loss`` says why.
    ``gaps``, ``repaired``, ``trades_repaired``: holes announced, those mended, and trades fetched for it.
    ``last_frame_age_s``: seconds since the last frame, None before the first. ``reconnects``: connections made after
    one was lost; one that was closed because nobody wanted it any more, and opened anew, is none.
    """

    connected_since_ms: int | None
    connects: int
    messages: int
    frames: int
    unreadable: int
    losses: int
    last_loss: str
    gaps: int
    repaired: int
    trades_repaired: int
    last_frame_age_s: float | None
    reconnects: int = 0


@attrs.frozen
class StoreStatus:
    """The database. ``read_only``: nothing can be written, and ``why``, in words.

    ``rows_written``, ``rows_amended``, ``transactions``: since the start; amended are slots that had been stored
    otherwise. ``rows_kept``: bars on their way to it. ``rows_let_go``: bars that were read and not stored, because too
    many were kept. ``failures``: transactions that failed; ``trouble`` is what the last one said, "" when all is well.
    """

    path: str
    read_only: bool
    why: str
    rows_written: int
    rows_amended: int
    transactions: int
    rows_kept: int
    rows_let_go: int
    failures: int
    trouble: str


@attrs.frozen
class QueueStatus:
    """One queue inside the pipe: what waits in it now, the most that ever did, and how much may.

    ``capacity`` is None where nothing bounds the queue but those who fill it: they wait for their answers.
    """

    depth: int
    peak: int
    capacity: int | None = None


@attrs.frozen
class StreamStatus:
    """One kind of stream: ``values`` that were handed on to whoever listens, once for each value.

    Bars are counted as they change, and with them those made from tickers; trades and bars that REST told for a repair
    are counted too.

    ``p50_s``, ``p95_s``, ``p99_s``: from the moment a frame was read from its socket until its value lay in every
    subscriber's buffer, of the last one to two minutes, to 1 %; 0.0 if there was none. Frames that are decoded together
    count as the oldest of them. A trade that waited for the repair of a hole is measured with its wait; what REST told,
    and bars made from tickers, are not measured.
    """

    values: int
    p50_s: float
    p95_s: float
    p99_s: float


@attrs.frozen
class ConsumersStatus:
    """The subscriptions of the program. ``received = delivered + conflated + dropped + queued + unread``.

    ``subscribers``: how many there are now. ``conflated``: replaced by a newer value before they were read;
    ``dropped``: lost, and told so; ``unread``: what subscribers that left had not read. ``fullest``: the most that
    waits for one of them now. A value that three subscribers listen to counts three times.
    """

    subscribers: int = 0
    received: int = 0
    delivered: int = 0
    conflated: int = 0
    dropped: int = 0
    queued: int = 0
    unread: int = 0
    fullest: int = 0


@attrs.frozen
class LagStatus:
    """How late the event loop runs what is due: over the last one to two minutes, and ``max_s`` since the start.

    A lag is what some task did without letting others run, or what the machine was busy with otherwise.
    """

    p50_s: float
    p99_s: float
    max_s: float


@attrs.frozen
class CandleAnswers:
    """What `get_candle` answered, a market at a time, by where it came from; what failed is not counted.

    ``exchange``: something had to be asked. Otherwise ``store`` if the database told some of it, and else ``memory``:
    a live stream, or pages that are kept.
    """

    memory: int = 0
    store: int = 0
    exchange: int = 0

    @property
    def hit_rate(self) -> float:
        """The share for which nothing was asked of the exchange, 0..1; 0.0 before the first."""
        hits = self.memory + self.store
        return hits / (hits + self.exchange) if hits + self.exchange else 0.0


@attrs.frozen
class Status:
    """A snapshot; every number counts since the pipeline was opened.

    ``budgets``: the request slots of each rate-limit group. The exchange counts by address, so pipelines of a
    process to the same exchange share them: ``limit``, ``ceiling``, ``in_flight``, ``utilisation`` and
    ``blocked_s`` are of all of them together; ``sent`` and ``refused`` are this pipeline's own. So is all the rest, but
    ``banned_for_s``, ``memory_bytes`` and ``lag``. ``waiting``: distinct questions waiting for a slot.
    ``requests_in_flight``, ``requests``: now, and in all. ``questions``: asked of the batcher, which is every cache
    miss; ``joined``: of these, how often somebody was asking the same already. ``caches``: by kind.
    ``verbs``: calls, symbols and latencies by verb. ``late``: answers later than their priority's budget.
    ``given_up``: callers whose deadline or cancellation ended their wait for the exchange.
    ``banned_for_s``: seconds until the exchange's block (418) is expected to end, 0.0 if there is none.
    ``connections``, ``subscriptions``: the live streams, by line and by topic.
    ``store``: the database, None if the pipe has none. ``jobs``: collections in the background that have not ended.
    ``symbols_per_second``: symbols answered per second since the start. ``uptime_s``: how long that is.
    ``queues``: what waits inside, by name: ``questions <group>`` for a request slot, ``answers`` for the cache,
    ``bars`` for the deduplicator, ``frames <line>`` for the decoder, ``rows`` for the database.
    ``streams``, ``consumers``: what was received live, by line, and what became of it.
    ``bars_amended``: bars that were final and then told otherwise. ``memory_bytes``: of the whole process, resident.
    ``candles``: answers of `get_candle` by where they came from; ``caches`` count the pages behind them.
    ``lag``: of the event loop, None if it is not measured. ``at_ms``: when this was taken, by this machine's clock.
    """

    at_ms: int
    uptime_s: float
    budgets: Mapping[Group, SlotStatistics]
    waiting: Mapping[Group, int]
    requests_in_flight: int
    requests: int
    questions: int
    joined: int
    banned_for_s: float
    caches: Mapping[Kind, CacheStatistics]
    verbs: Mapping[str, VerbStatistics]
    late: Mapping[Priority, int]
    given_up: Mapping[Priority, int]
    connections: Mapping[Line, ConnectionStatus]
    subscriptions: Mapping[Topic, SubscriptionStatus]
    store: StoreStatus | None
    jobs: tuple[Progress, ...]
    symbols_per_second: float
    queues: Mapping[str, QueueStatus]
    streams: Mapping[Line, StreamStatus]
    consumers: ConsumersStatus
    bars_amended: int
    memory_bytes: int
    lag: LagStatus | None
    candles: CandleAnswers = CandleAnswers()

    @property
    def hit_rate(self) -> float:
        """The share of questions answered from memory, 0..1; 0.0 before the first."""
        hits = sum(each.hits for each in self.caches.values())
        asked = hits + sum(each.misses for each in self.caches.values())
        return hits / asked if asked else 0.0

    @property
    def reconnects(self) -> int:
        """Connections of the stream that were made after one was lost."""
        return sum(each.reconnects for each in self.connections.values())

    @property
    def gaps(self) -> int:
        """Holes in the live trades that were announced."""
        return sum(each.gaps for each in self.connections.values())

    @property
    def gaps_repaired(self) -> int:
        """Those of them that were mended."""
        return sum(each.repaired for each in self.connections.values())

    @property
    def rows_written(self) -> int:
        """Bars written to the database."""
        return 0 if self.store is None else self.store.rows_written
