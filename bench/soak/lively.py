"""A market in which much happens: the simulator's own, with some markets as busy as its busiest and all others still.

The simulated exchange is as calm as the real one at night: 855 markets trade five times a second together. For the load
of a busy day, the first markets of each quote trade 60,000 times a day. The others trade a few times a day: what the
pipe remembers of each market (its last hundred trades) is full within minutes, or stays as good as empty. Markets in
between would fill up all day, by design, and nobody could tell that from a leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marketpipe.sim import World, universe
from marketpipe.sim.tape import DEEP, DUST, Activity, drawn_tape
from marketpipe.sim.universe import SHARES

__all__ = ["enliven", "lively_world", "warm_up"]


def lively_world(seed: int, markets: int, lively: int) -> World:
    """The market that `enliven` makes a simulator show."""
    with _enlivened(lively):
        return World(seed, markets)


def enliven(lively: int) -> None:
    """From now on about ``lively`` of 855 markets in each new world of this process are busy ones."""
    universe._activity = _activity_of(lively)  # type: ignore[attr-defined]


def warm_up(world: World) -> None:
    """Draw every tape of its busy markets now: it takes seconds, in which an exchange would answer nobody."""
    amplitudes = {world.market(name).amplitude for name in world.markets if world.market(name).activity == DEEP}
    for amplitude in sorted(amplitudes):
        for index in range(len(DEEP.trades)):
            drawn_tape(world.seed, DEEP, index, amplitude)


@contextmanager
def _enlivened(lively: int) -> Iterator[None]:
    before = universe._activity  # type: ignore[attr-defined]
    enliven(lively)
    try:
        yield
    finally:
        universe._activity = before  # type: ignore[attr-defined]


class _activity_of:
    """A market's activity by its rank among those of its quote."""

    def __init__(self, lively: int) -> None:
        whole = sum(SHARES.values())
        self._ranks = {quote: -(-lively * share // whole) for quote, share in SHARES.items()}

    def __call__(self, quote: str, rank: int) -> Activity:
        return DEEP if rank < self._ranks[quote] else DUST
