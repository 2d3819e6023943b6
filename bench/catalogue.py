"""Every bench there is, by name. A further one is a further function here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bench.callers import callers
from bench.collecting import allowance, backfill
from bench.consumers import slow, subscriptions
from bench.decode import decode
from bench.demand import habits, recovery, utilisation
from bench.figures import Outcome
from bench.kills import kills
from bench.leaving import leaving
from bench.memory import hit, memory
from bench.pages import pages
from bench.parts import cache, pacing
from bench.reading import reading
from bench.rivals import rivals
from bench.scale import Scale
from bench.sparse import sparse
from bench.starting import importing
from bench.stored import stored
from bench.stream_faults import outages
from bench.streams import flatout, ingest, latency
from bench.symbols import symbols
from bench.threads import threads
from bench.watched import status, watched

__all__ = ["BENCHES", "RIVALS", "Bench", "about"]

Bench = Callable[[Scale], Awaitable[Outcome]]

# Asked for by name or with --rivals: they take a minute, and say little about marketpipe itself.
RIVALS = "rivals"
BENCHES: Mapping[str, Bench] = {
    # In this process alone.
    "decode": decode,
    "pacing": pacing,
    "cache": cache,
    "hit": hit,
    "memory": memory,
    "import": importing,
    "status": status,
    # Against a simulator in its own process, its limiter on.
    "symbols": symbols,
    "callers": callers,
    "pages": pages,
    "utilisation": utilisation,
    "reading": reading,
    "habits": habits,
    "recovery": recovery,
    "threads": threads,
    # Live streams: floods of frames, read by processes of their own; and what goes wrong.
    "ingest": ingest,
    "latency": latency,
    "flatout": flatout,
    "watched": watched,
    "subscriptions": subscriptions,
    "slow": slow,
    "outages": outages,
    # Collecting: from a simulator in its own process into a file; the thin market in memory and virtual time.
    "backfill": backfill,
    "allowance": allowance,
    "sparse": sparse,
    "stored": stored,
    "kills": kills,
    # Leaving while it is busy. By itself: it counts what this process holds.
    "leaving": leaving,
    RIVALS: rivals,
}


def about(bench: Bench) -> str:
    """What it measures, in one line."""
    return (bench.__doc__ or "").strip().partition("\n")[0]
