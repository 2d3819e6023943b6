"""What consumers of one market's trades already have: enough of it to tell a trade that comes twice."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from marketpipe.models import Trade

__all__ = ["KEEP", "KEEP_AT_MOST", "KEEP_MS", "Delivered", "rank"]

# Trades remembered: at least so many, and at least those of the last 10 s; of a flood, the newest.
KEEP = 100
KEEP_MS = 10_000
KEEP_AT_MOST = 20_000


def rank(trade: Trade) -> tuple[int, int]:
    """Trades in the order of this are in order: by time, and by id within a millisecond."""
    return trade.trade_ms, trade.sequential_id


@attrs.define(eq=False)
class Delivered:
    """The newest trades that were delivered, by id, in the order of delivery.

    ``floor``: of a trade at or below this rank nobody can or need say whether it was delivered: it was forgotten, given
    up, or made before the stream began. Above it, ids tell. ``forgotten_ms``: nothing made before it is remembered.
    """

    by_id: dict[int, Trade] = attrs.field(factory=dict, init=False)
    floor: tuple[int, int] = attrs.field(default=(-1, -1), init=False)
    forgotten_ms: int = attrs.field(default=-1, init=False)
    _trim_at: int = attrs.field(factory=lambda: 2 * KEEP, init=False)

    def add(self, trade: Trade) -> bool:
        """Note it; False if it was known. This is the hot path."""
        sequential_id = trade.sequential_id
        by_id = self.by_id
        if sequential_id in by_id:
            return False
        by_id[sequential_id] = trade
        if len(by_id) > self._trim_at:
            self.trim()
        return True

    def extend(self, trades: Iterable[Trade]) -> None:
        """Note them and forget nothing: while something is in doubt, all since then may be needed."""
        self.by_id.update((trade.sequential_id, trade) for trade in trades)

    def knows(self, trade: Trade) -> bool:
        """Whether it was delivered, or that cannot be told."""
        return trade.sequential_id in self.by_id or rank(trade) <= self.floor

    def is_newest(self, trade: Trade) -> bool:
        """Whether it was delivered and no newer one was."""
        return trade.sequential_id in self.by_id and rank(trade) == max(map(rank, self.by_id.values()))

    def newest(self, count: int, *, clear_ms: int) -> tuple[Trade, ...] | None:
        """The newest ``count`` trades, newest first, if so many were made more than ``clear_ms`` after the floor."""
        whole = [trade for trade in self.by_id.values() if trade.trade_ms > self.floor[0] + clear_ms]
        return tuple(sorted(whole, key=rank, reverse=True)[:count]) if len(whole) >= count else None

    def raise_floor(self, floor: tuple[int, int]) -> None:
        """From now on nobody need say whether a trade at or below this rank was delivered."""
        self.floor = max(self.floor, floor)

    def trim(self) -> None:
        """Forget what is too old, a whole millisecond at a time."""
        times = sorted([trade.trade_ms for trade in self.by_id.values()])
        if times:
            kept_ms = min(times[max(0, len(times) - KEEP)], times[-1] - KEEP_MS)
            self._forget(max(kept_ms, times[max(0, len(times) - KEEP_AT_MOST)]))
        self._trim_at = len(self.by_id) + KEEP

    def _forget(self, before_ms: int) -> None:
        old = [trade.sequential_id for trade in self.by_id.values() if trade.trade_ms < before_ms]
        for sequential_id in old:
            del self.by_id[sequential_id]
        if old:
            self.forgotten_ms = max(self.forgotten_ms, before_ms)
            self.raise_floor((before_ms, -1))
