"""What the pipe says about itself."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marketpipe.core.expiring import CacheStatistics
from marketpipe.core.freshness import Kind
from marketpipe.core.meter import VerbStatistics
from marketpipe.core.pacing import SlotStatistics
from marketpipe.core.requests import Group
from marketpipe.models import Priority

__all__ = ["Status"]


@attrs.frozen
class Status:
    """A snapshot; every number counts since the pipeline was opened.

    ``budgets``: the request slots of each rate-limit group. ``waiting``: distinct questions waiting for a slot.
    ``requests_in_flight``, ``requests``: now, and in all. ``questions``: asked of the batcher, which is every cache
    miss; ``joined``: of these, how often somebody was asking the same already. ``caches``: by kind.
    ``verbs``: calls, symbols and latencies by verb. ``late``: answers later than their priority's budget.
    ``given_up``: callers whose deadline or cancellation ended their wait for the exchange.
    ``banned_for_s``: seconds until the exchange's block (418) is expected to end, 0.0 if there is none.
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
    symbols_per_second: float
