"""What a run is like: how long, how much load, how often it is looked at, and what is allowed."""

from __future__ import annotations

import attrs

__all__ = ["Plan"]

MINUTE_S = 60.0
# Until then memory grows by design: the last trades of each market, the ids of half a minute, caches and pools.
WARM_S = 240.0
# A bar is over for certain 15 s after its end, and what was lost is asked for again after up to half a minute.
CALM_S = 120.0


@attrs.frozen(kw_only=True)
class Plan:
    """One run.

    ``seconds``: how long it lasts, from when everything flows. ``markets``, of which ``lively`` trade all the time.
    All trades and tickers are listened to, ``books`` order books, each of which changes ten times a second, and the
    bars of ``minutes`` and ``seconds_of`` markets. ``readers`` of charts, ``visitors`` (consumers that come and go) of
    ``visited`` markets, ``askers`` (readers of one symbol). ``faults``: whether anything goes wrong. ``tracing``:
    whether tracemalloc tells what grows, which takes CPU. ``plants``: defects to be found.

    After each reconnect the trades of every lively market and the bars of every series are asked for again, at ten
    requests a second: twice as many would still be asked for when the next fault comes, and the one after it.
    """

    seconds: float
    seed: int = 7
    markets: int = 855
    lively: int = 200
    books: int = 150
    minutes: int = 90
    seconds_of: int = 10
    readers: int = 50
    visitors: int = 12
    # What was once wanted keeps its standing. Of all 855 markets it would do so for the first half hour, like a leak.
    visited: int = 120
    askers: int = 10
    faults: bool = True
    tracing: bool = False
    plants: tuple[str, ...] = ()

    @property
    def look_s(self) -> float:
        """How often memory, handles and tasks are looked at."""
        return min(10.0, max(0.5, self.seconds / 360))

    @property
    def sample_s(self) -> float:
        """How often everything is looked at."""
        return MINUTE_S if self.seconds >= 10 * MINUTE_S else max(2.0, min(10.0, self.seconds / 12))

    @property
    def calm_s(self) -> float:
        """How long nothing goes wrong at the end, so that everything can be whole again."""
        return min(CALM_S, max(12.0, 0.4 * self.seconds))

    @property
    def first_fault_s(self) -> float:
        """When something goes wrong for the first time."""
        return min(30.0, 0.1 * self.seconds)

    @property
    def fault_every_s(self) -> tuple[float, float]:
        """The least and the longest time from one fault to the next."""
        return (20.0, 60.0) if self.seconds >= 10 * MINUTE_S else (7.0, 15.0)

    @property
    def warm_s(self) -> float:
        """From when on memory is judged: the second half, and not before it is full."""
        half_s = self.seconds / 2
        return WARM_S if half_s < WARM_S < 0.75 * self.seconds else half_s

    @property
    def is_short(self) -> bool:
        """Whether memory still fills up while it is judged, so that only a flood of it can be told from that."""
        return self.warm_s < WARM_S
