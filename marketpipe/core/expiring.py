"""The two tiers of the cache, in one structure.

*Fast tier*: for ``fast_s`` after a value was put it is served without question, so that whatever comes in bursts is
fetched once. *Memory tier*: after that it is served while its own time to live lasts, as the policy in
`marketpipe.core.freshness` set it. An entry is therefore fresh for ``max(fast_s, ttl_s)``, and the tier is told by its
age alone: one cachetools ``LRUCache`` holds both, and evicts the least recently used. Its ``TLRUCache`` would drop what
has expired of its own accord, but keeps a heap for it; putting a value takes four times as long, and 500 are put at a
time while their askers wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Final, Generic, Literal, NamedTuple, TypeVar

import attrs
from cachetools import Cache, LRUCache

__all__ = ["MISSING", "CacheStatistics", "ExpiringCache", "Missing"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "MISSING"


MISSING: Final[Literal[Missing.MISSING]] = Missing.MISSING
"""What `ExpiringCache.get` answers when it has nothing fresh; every other answer, 0 and None too, is a value."""


@attrs.frozen
class CacheStatistics:
    """Counts since the start; ``entries`` is how many fresh values there are now.

    ``evictions``: values that had to make room while they were still fresh. ``live_hits``: answered with a value that
    a stream keeps current; ``live``: how many of those there are now. They are no entries.
    """

    fast_hits: int
    memory_hits: int
    misses: int
    entries: int
    evictions: int
    live_hits: int = 0
    live: int = 0

    @property
    def hits(self) -> int:
        """Questions answered from memory, by any tier."""
        return self.fast_hits + self.memory_hits + self.live_hits

    @property
    def hit_rate(self) -> float:
        """The share of questions answered from memory, 0..1; 0.0 before the first."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


class _Entry(NamedTuple):
    value: object
    stored_s: float
    expires_s: float


class _Entries(LRUCache[K, _Entry]):
    """Counts what is pushed out while it is still fresh."""

    def __init__(self, maxsize: int, timer: Callable[[], float]) -> None:
        super().__init__(maxsize)
        self._timer = timer
        self._expire_s: dict[K, float] = {}  # a look at thousands of entries goes over this, and marks none as used
        self.evictions = 0

    def __setitem__(self, key: K, value: _Entry) -> None:
        super().__setitem__(key, value)
        self._expire_s[key] = value.expires_s

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        del self._expire_s[key]

    def clear(self) -> None:
        super().clear()
        self._expire_s.clear()

    def fresh(self) -> int:
        """How many there are that have not expired."""
        now_s = self._timer()
        return sum(now_s < expires_s for expires_s in self._expire_s.values())

    def popitem(self) -> tuple[K, _Entry]:
        key, entry = super().popitem()
        self.evictions += self._timer() < entry.expires_s
        return key, entry


class ExpiringCache(Generic[K, V]):
    """Values with a time to live each, at most ``maxsize`` of them. An expired value is never served.

    ``timer`` is a monotonic clock in seconds, such as ``trio.current_time``.
    """

    def __init__(self, timer: Callable[[], float], *, maxsize: int = 1000, fast_s: float = 0.2) -> None:
        if maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, was {maxsize!r}")
        if not fast_s > 0:
            raise ValueError(f"fast_s must be above 0, was {fast_s!r}")
        self._timer = timer
        self._fast_s = fast_s
        self._entries: _Entries[K] = _Entries(maxsize, timer)
        self._fast_hits = self._memory_hits = self._misses = 0

    def put(self, key: K, value: V, ttl_s: float, stored_s: float | None = None) -> None:
        """Keep ``value`` for ``ttl_s`` (``math.inf``: until replaced), at least for ``fast_s``.

        ``stored_s`` is when it was received, by the cache's timer; now, if nothing is said.
        """
        if stored_s is None:
            stored_s = self._timer()
        self._entries[key] = _Entry(value, stored_s, stored_s + max(self._fast_s, ttl_s))

    def get(self, key: K, max_age_s: float | None = None) -> V | Literal[Missing.MISSING]:
        """The fresh value of ``key``, or `MISSING`.

        ``max_age_s`` only tightens: the value must also be younger than that, so that 0 always misses.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._misses += 1
            return MISSING
        value, stored_s, expires_s = entry
        now_s = self._timer()
        age_s = now_s - stored_s
        if now_s >= expires_s or (max_age_s is not None and age_s >= max_age_s):
            self._misses += 1
            return MISSING
        if age_s <= self._fast_s:
            self._fast_hits += 1
        else:
            self._memory_hits += 1
        return value  # type: ignore[return-value]  # put() stored a V

    def peek(self, key: K) -> V | Literal[Missing.MISSING]:
        """As `get`, but no use of the value: neither counted, nor does it save it from eviction."""
        entry = self._entry(key)
        return MISSING if entry is None else entry.value  # type: ignore[return-value]  # put() stored a V

    def age_s(self, key: K) -> float | None:
        """Seconds since the fresh value of ``key`` was put, or None.

        This is no use of the value: it is neither counted, nor does it save it from eviction.
        """
        entry = self._entry(key)
        return None if entry is None else self._timer() - entry.stored_s

    def _entry(self, key: K) -> _Entry | None:
        if key not in self._entries:
            return None
        entry: _Entry = Cache.__getitem__(self._entries, key)  # past the subclass, which would mark it as used
        return entry if self._timer() < entry.expires_s else None

    def invalidate(self, key: K) -> None:
        """Forget ``key``, if it is there."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything but the statistics."""
        self._entries.clear()

    def statistics(self) -> CacheStatistics:
        """What was asked and answered so far."""
        return CacheStatistics(
            fast_hits=self._fast_hits,
            memory_hits=self._memory_hits,
            misses=self._misses,
            entries=self._entries.fresh(),
            evictions=self._entries.evictions,
        )
