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

__all__ = ["ConnectionStatus", "Status", "StoreStatus", "SubscriptionState", "SubscriptionStatus"]


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
    ``last_frame_age_s``: seconds since the last frame, None before the first.
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
class Status:
    """A snapshot; every number counts since the pipeline was opened.

    ``budgets``: the request slots of each rate-limit group. ``waiting``: distinct questions waiting for a slot.
    ``requests_in_flight``, ``requests``: now, and in all. ``questions``: asked of the batcher, which is every cache
    miss; ``joined``: of these, how often somebody was asking the same already. ``caches``: by kind.
    ``verbs``: calls, symbols and latencies by verb. ``late``: answers later than their priority's budget.
    ``given_up``: callers whose deadline or cancellation ended their wait for the exchange.
    ``banned_for_s``: seconds until the exchange's block (418) is expected to end, 0.0 if there is none.
    ``connections``, ``subscriptions``: the live streams, by line and by topic.
    ``store``: the database, None if the pipe has none. ``jobs``: collections in the background that have not ended.
    ``symbols_per_second``: symbols answered per second since the start. ``uptime_s``: how long that is.
    """

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
