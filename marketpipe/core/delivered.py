"""What consumers of one market's trades already have: enough of it to tell a trade that comes twice."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import attrs

from marketpipe.core.counted import Told
from marketpipe.models import Trade

__all__ = ["KEEP", "KEEP_AT_MOST", "KEEP_IDS_MS", "KEEP_MORE", "KEEP_MS", "Delivered", "rank"]

# Trades remembered whole: at least so many, and at least those of the last 10 s; of a flood, the newest.
KEEP = 100
# So many more may come before they are looked through again.
KEEP_MORE = 25
KEEP_MS = 10_000
KEEP_AT_MOST = 20_000
# Remembered by their ids alone: those of the last half minute. What nobody noticed is looked for that far back, which
# is some counts of the exchange (every ten seconds).
KEEP_IDS_MS = 30_000

ZERO = Decimal(0)


def rank(trade: Trade) -> tuple[int, int]:
    """Trades in the order of this are in order: by time, and by id within a millisecond."""
    return trade.trade_ms, trade.sequential_id


@attrs.define(eq=False)
class Delivered:
    """The newest trades that were delivered, by id, in the order in which the exchange told them or would have.

    ``floor``: of a trade at or below this rank nobody can or need say whether it was delivered: it was forgotten, given
    up, or made before the stream began. Above it, ids tell. ``forgotten_ms``: nothing made before it is remembered.
    """

    by_id: dict[int, Trade] = attrs.field(factory=dict, init=False)
    floor: tuple[int, int] = attrs.field(default=(-1, -1), init=False)
    forgotten_ms: int = attrs.field(default=-1, init=False)
    _older_volume: Decimal = attrs.field(default=ZERO, init=False)  # of all that are not in `by_id` any more
    _older: dict[int, int] = attrs.field(factory=dict, init=False)  # when those made that are known by id alone
    _whole_ms: int = attrs.field(default=-1, init=False)  # none in `_older` was made at or after it
    _sorted_ms: int = attrs.field(default=-1, init=False)  # up to it, who was told before whom is not known
    _trim_at: int = attrs.field(factory=lambda: KEEP + KEEP_MORE, init=False)

    def add(self, trade: Trade) -> bool:
        """Note it; False if it was known. This is the hot path."""
        sequential_id = trade.sequential_id
        by_id = self.by_id
        if sequential_id in by_id or sequential_id in self._older:
            return False
        by_id[sequential_id] = trade
        if len(by_id) > self._trim_at:
            self.trim()
        return True

    def extend(self, trades: Iterable[Trade]) -> None:
        """Note them, which are new, and forget nothing: while something is in doubt, all since then may be needed."""
        self.by_id.update((trade.sequential_id, trade) for trade in trades)

    def insert(self, trades: Iterable[Trade]) -> None:
        """Note them, which are new and come late: as `extend`, in the order of time."""
        rows = sorted((*self.by_id.values(), *trades), key=rank)
        self.by_id = {trade.sequential_id: trade for trade in rows}
        self._sorted_ms = max(self._sorted_ms, rows[-1].trade_ms) if rows else self._sorted_ms

    def has(self, trade: Trade) -> bool:
        """Whether it is remembered to have been delivered."""
        return trade.sequential_id in self.by_id or trade.sequential_id in self._older

    def knows(self, trade: Trade) -> bool:
        """Whether it was delivered, or that cannot be told."""
        return self.has(trade) or rank(trade) <= self.floor

    def is_newest(self, trade: Trade) -> bool:
        """Whether it was delivered and no newer one was."""
        return trade.sequential_id in self.by_id and rank(trade) == max(map(rank, self.by_id.values()))

    def newest(self, count: int, *, clear_ms: int) -> tuple[Trade, ...] | None:
        """The newest ``count`` trades, newest first, if so many were made more than ``clear_ms`` after the floor."""
        certain_ms = max(self.floor[0] + clear_ms, self._whole_ms - 1)
        whole = [trade for trade in self.by_id.values() if trade.trade_ms > certain_ms]
        return tuple(sorted(whole, key=rank, reverse=True)[:count]) if len(whole) >= count else None

    def told(self, at_ms: int, *, near_ms: int) -> Told | None:
        """How much was told when a trade made at that moment was the last; None if what came since is not known.

        Streams tell trades a little out of order, and the exchange counts them in the order in which it tells them.
        Where that order is not known, a trade made within ``near_ms`` may have been told before or after. If nothing
        made at that moment was told, what was made before is summed up.
        """
        is_ordered = at_ms > self._sorted_ms + near_ms
        if at_ms - (0 if is_ordered else near_ms) < self._whole_ms:
            return None
        rows = list(self.by_id.values())
        ties = [place for place, trade in enumerate(rows) if trade.trade_ms == at_ms]
        if not is_ordered:
            first = [trade for trade in rows if trade.trade_ms < at_ms - near_ms]
            last = [trade for trade in rows if at_ms - near_ms <= trade.trade_ms <= at_ms + near_ms]
        elif ties:
            first, last = rows[: ties[0]], rows[ties[0] : ties[-1] + 1]
        else:
            first, last = [trade for trade in rows if trade.trade_ms < at_ms], []
        before = sum((trade.volume for trade in first), self._older_volume)
        until = sum((trade.volume for trade in last), before)
        return Told(before, until, min((rows[place].volume for place in ties), default=ZERO))

    def raise_floor(self, floor: tuple[int, int]) -> None:
        """From now on nobody need say whether a trade at or below this rank was delivered."""
        self.floor = max(self.floor, floor)

    def trim(self) -> None:
        """Forget what is too old, a whole millisecond at a time."""
        times = sorted([trade.trade_ms for trade in self.by_id.values()])
        if times:
            kept_ms = min(times[max(0, len(times) - KEEP)], times[-1] - KEEP_MS)
            self._shorten(max(kept_ms, times[max(0, len(times) - KEEP_AT_MOST)]))
            self._forget(times[-1] - KEEP_IDS_MS)
        self._trim_at = len(self.by_id) + KEEP_MORE

    def _shorten(self, before_ms: int) -> None:
        for trade in [trade for trade in self.by_id.values() if trade.trade_ms < before_ms]:
            del self.by_id[trade.sequential_id]
            self._older[trade.sequential_id] = trade.trade_ms
            self._older_volume += trade.volume
            self._whole_ms = max(self._whole_ms, trade.trade_ms + 1)

    def _forget(self, before_ms: int) -> None:
        times = sorted(self._older.values())
        if len(times) > KEEP_AT_MOST:
            before_ms = max(before_ms, times[-KEEP_AT_MOST])
        for sequential_id in [each for each, trade_ms in self._older.items() if trade_ms < before_ms]:
            gone_ms = self._older.pop(sequential_id) + 1
            if gone_ms > self.forgotten_ms:
                self.forgotten_ms = gone_ms
                self.raise_floor((gone_ms, -1))
