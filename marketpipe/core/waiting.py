"""The questions that wait for a request slot: who waits, in which order, and how they travel.

Order is earliest deadline first, the deadline being the time asked plus the priority's latency budget. That is ageing
without a second rule: a LOW question is five seconds later than a CRITICAL one asked at the same moment, and earlier
than everything asked five seconds after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Generic, Protocol, TypeVar

import attrs

from marketpipe.core.batching import Key, Lot, merge

__all__ = ["Asker", "Pending", "WaitingRoom"]


CROWD = 64


class Asker(Protocol):
    """Somebody who waits for an answer, perhaps no longer."""

    def is_waiting(self) -> bool:
        """Whether the answer is still wanted."""
        ...


A = TypeVar("A", bound=Asker)


@attrs.define(eq=False)
class Pending(Generic[A]):
    """One key that is not answered yet, with everybody who waits for it.

    ``ready_s``: backing off until then. ``failures``, ``refusals``: attempts that ended so; whoever joins later has
    attempts of its own. ``lot``: keys of one number above 0 travel by themselves, as halves of a batch that failed.
    ``alone``: ticker/all had no row for it. ``for_us``: wanted by the pipe itself, whoever else has given up.
    """

    key: Key
    due_s: float
    _waits: list[tuple[A, int, int]] = attrs.field(factory=list, init=False)  # asker; failures, refusals before it came
    ready_s: float = -math.inf
    failures: int = 0
    refusals: int = 0
    lot: int = 0
    alone: bool = False
    for_us: bool = False
    _crowd: int = attrs.field(default=CROWD, init=False)

    def join(self, asker: A, due_s: float) -> None:
        """One more waits for it; the most urgent of them sets the pace."""
        if len(self._waits) >= self._crowd:  # of impatient callers in a long outage, most have left again
            self._waits = [wait for wait in self._waits if wait[0].is_waiting()]
            self._crowd = max(CROWD, 2 * len(self._waits))
        self._waits.append((asker, self.failures, self.refusals))
        self.due_s = min(self.due_s, due_s)

    def is_wanted(self) -> bool:
        """Whether anybody still waits."""
        return self.for_us or any(asker.is_waiting() for asker, _, _ in self._waits)

    @property
    def askers(self) -> list[A]:
        """Everybody who waits for it, or did."""
        return [asker for asker, _, _ in self._waits]

    def failed_again(self, refused: bool, attempts: int, refusals: int) -> list[A]:
        """One more attempt has failed, or was refused. Takes out, and returns, those whose own patience that ends."""
        self.refusals += refused
        self.failures += not refused
        spent = [
            self.failures - failures >= attempts or self.refusals - refused_before >= refusals
            for _, failures, refused_before in self._waits
        ]
        leaving = [asker for (asker, _, _), over in zip(self._waits, spent, strict=True) if over]
        self._waits = [wait for wait, over in zip(self._waits, spent, strict=True) if not over]
        if self.failures >= attempts or self.refusals >= refusals:
            self.for_us = False
        return leaving


@attrs.define(eq=False)
class WaitingRoom(Generic[A]):
    """The keys of one rate-limit group that wait for a slot."""

    _waiting: dict[Key, Pending[A]] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, pending: Pending[A]) -> None:
        """Wait for a slot, from now on or again."""
        self._waiting[pending.key] = pending

    def leave(self, lot: Lot) -> list[Pending[A]]:
        """Take out those that travel now."""
        return [self._waiting.pop(key) for key in lot.keys]

    def clear(self) -> list[Pending[A]]:
        """Take out everybody."""
        everybody = list(self._waiting.values())
        self._waiting.clear()
        return everybody

    def drop_unwanted(self) -> list[Key]:
        """Take out the keys nobody waits for any more, and name them."""
        unwanted = [key for key, pending in self._waiting.items() if not pending.is_wanted()]
        for key in unwanted:
            del self._waiting[key]
        return unwanted

    def lots(self, now_s: float, listed_by_quote: Mapping[str, Collection[str]]) -> list[Lot]:
        """The requests that would answer everybody who is ready, most urgent first."""
        ready = [pending for pending in self._waiting.values() if pending.ready_s <= now_s]
        by_lot: dict[int, list[Pending[A]]] = {}
        for pending in sorted(ready, key=lambda pending: pending.due_s):
            by_lot.setdefault(pending.lot, []).append(pending)
        lots: list[Lot] = []
        for number, members in by_lot.items():
            keys = [pending.key for pending in members]
            alone = {pending.key for pending in members if number or pending.alone}
            lots += merge(keys, listed_by_quote=listed_by_quote, alone=alone)
        return lots

    def next_ready_s(self, now_s: float) -> float:
        """When the next one stops backing off: ``now_s`` if one is ready, infinity if nobody waits."""
        return max(now_s, min((pending.ready_s for pending in self._waiting.values()), default=math.inf))
