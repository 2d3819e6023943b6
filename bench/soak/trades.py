"""Conservation of trades: each once, as it was, or in a gap that says it is gone; checked while the market goes on.

Memory is bounded: what happened before a market's frontier is accounted for and forgotten, except for what is still
missing. Numbers are those of the simulated market (1e-8 of a unit), times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from marketpipe.sim.day import Deal

__all__ = ["Told", "TradeBook"]

# A check sees what is older: by then it has been told, unless something is the matter.
SETTLED_MS = 20_000
# What is missing for so long is lost: repairs are given up after 300 s, and then it is told that they are.
LOST_MS = 420_000

# The trades of a market in [start_ms, end_ms), oldest first.
Truth = Callable[[str, int, int], Sequence[Deal]]


@attrs.frozen
class Told:
    """One trade as a consumer was told it."""

    sequential_id: int
    at_ms: int
    buy: bool
    price: int
    volume: int

    def is_true(self, deal: Deal) -> bool:
        """Whether it was so."""
        return (self.at_ms, self.buy, self.price, self.volume) == (deal.at_ms, deal.buy, deal.price, deal.volume)


@attrs.define
class TradeBook:
    """What one consumer was told of the trades of ``market``. Every method returns a line for each broken promise.

    ``since_ms``: from when on it has listened: nothing since then may be missing.
    """

    market: str
    truth: Truth
    since_ms: int
    checked: int = 0
    gaps: int = 0
    repaired: int = 0
    unrepairable: int = 0
    _frontier_ms: int = attrs.field(init=False)
    _waiting: dict[int, Told] = attrs.field(factory=dict, init=False)
    _missing: dict[int, int] = attrs.field(factory=dict, init=False)
    _hole_ms: int | None = attrs.field(default=None, init=False)
    _gone: list[tuple[int, int]] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._frontier_ms = self.since_ms

    def trade(self, told: Told) -> Iterator[str]:
        """A trade came."""
        number = told.sequential_id
        if self._hole_ms is not None:
            yield f"{self.market}: trade {number} came within the open gap since {self._hole_ms}"
        if told.at_ms >= self._frontier_ms:
            if number in self._waiting:
                yield f"{self.market}: trade {number} was told twice"
            self._waiting[number] = told
            return
        if told.at_ms < self.since_ms:
            return  # what was last before we listened
        deal = next((deal for deal in self.truth(self.market, told.at_ms, told.at_ms + 1)
                     if deal.sequential_id == number), None)  # fmt: skip
        if deal is None:
            yield f"{self.market}: trade {number} never was: {told}"
        elif self._missing.pop(number, None) is None:
            yield f"{self.market}: trade {number} was told twice"
        else:
            yield from self._compared(told, deal)

    def gap(self, start_ms: int, end_ms: int, *, is_open: bool, repaired: bool) -> Iterator[str]:
        """A gap came."""
        if is_open:
            if self._hole_ms is not None:
                yield f"{self.market}: a gap since {start_ms} opens while that since {self._hole_ms} is open"
            self._hole_ms = start_ms
            self.gaps += 1
            return
        if self._hole_ms is not None and self._hole_ms != start_ms:
            yield f"{self.market}: a gap since {start_ms} closes, and that since {self._hole_ms} was open"
        if self._hole_ms is None:
            self.gaps += 1
        self._hole_ms = None
        if repaired:
            self.repaired += 1
        else:
            self.unrepairable += 1
            self._gone.append((start_ms, end_ms))
            self._missing = {number: at_ms for number, at_ms in self._missing.items() if not self._is_gone(at_ms)}

    def check(self, now_ms: int) -> Iterator[str]:
        """Hold what came against the market, up to some seconds ago."""
        yield from self._account(now_ms - SETTLED_MS)
        lost = [number for number, at_ms in self._missing.items() if at_ms < now_ms - LOST_MS]
        yield from self._lost(lost)

    def close(self, end_ms: int) -> Iterator[str]:
        """Nothing more comes, and everything before ``end_ms`` must have come."""
        yield from self._account(end_ms)
        yield from self._lost([number for number, at_ms in self._missing.items() if at_ms < end_ms])
        if self._hole_ms is not None and self._hole_ms < end_ms:
            yield f"{self.market}: the gap since {self._hole_ms} was never closed"

    @property
    def behind(self) -> int:
        """How many trades are missing at the moment, and whether a gap is open."""
        return len(self._missing) + (self._hole_ms is not None)

    def _account(self, until_ms: int) -> Iterator[str]:
        if until_ms <= self._frontier_ms:
            return
        for deal in self.truth(self.market, self._frontier_ms, until_ms):
            told = self._waiting.pop(deal.sequential_id, None)
            if told is not None:
                yield from self._compared(told, deal)
            elif not self._is_gone(deal.at_ms):
                self._missing[deal.sequential_id] = deal.at_ms
        self._frontier_ms = until_ms
        invented = [told for told in self._waiting.values() if told.at_ms < until_ms]
        for told in invented:
            del self._waiting[told.sequential_id]
            yield f"{self.market}: trade {told.sequential_id} never was: {told}"

    def _compared(self, told: Told, deal: Deal) -> Iterator[str]:
        self.checked += 1
        if not told.is_true(deal):
            yield f"{self.market}: trade {told.sequential_id} was {deal}, told was {told}"

    def _lost(self, numbers: Sequence[int]) -> Iterator[str]:
        if numbers:
            yield f"{self.market}: {len(numbers)} trades were never told: {sorted(numbers)[:3]}"
        for number in numbers:
            del self._missing[number]

    def _is_gone(self, at_ms: int) -> bool:
        return any(start_ms <= at_ms <= end_ms for start_ms, end_ms in self._gone)
