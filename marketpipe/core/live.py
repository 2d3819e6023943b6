"""Values that a stream keeps current: fresh for as long as their stream is.

Where streams flow, the newest value of each market lies here and needs no time to live: had it changed, the stream
would have said so. The moment a stream is not certain any more, its values are *suspended*: they leave at once, to be
kept like any other value, by their age. When a check has found the stream well, they come back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Dated", "LiveEntry", "LiveValues", "is_overtaken"]


class Dated(Protocol):
    """A value with the exchange's stamp."""

    @property
    def exchange_ms(self) -> int:
        """Epoch milliseconds."""
        ...


V = TypeVar("V", bound=Dated)

NEVER = float("-inf")
# Frames overtake each other by some 300 ms (recording of 2021). What is further behind comes from a clock that was set
# back, and waiting for that clock to catch up would keep a value for as long as it had been wrong.
DISORDER_MS = 5_000


def is_overtaken(stamp_ms: int, held_ms: int) -> bool:
    """Whether a frame of ``stamp_ms`` that comes after one of ``held_ms`` is the older of the two."""
    return 0 < held_ms - stamp_ms <= DISORDER_MS


class LiveEntry(NamedTuple, Generic[V]):
    """A value and when it was received, in monotonic seconds; ``streamed``: as a frame."""

    value: V
    received_s: float
    streamed: bool = True

    def gives_way(self, value: V) -> bool:
        """Whether ``value``, a frame, takes its place."""
        if self.streamed:
            return not is_overtaken(value.exchange_ms, self.value.exchange_ms)
        return value.exchange_ms >= self.value.exchange_ms  # REST may be ahead of a slow stream by any time


class LiveValues(Generic[V]):
    """The newest value of each market whose stream flows."""

    def __init__(self) -> None:
        self._live: dict[str, LiveEntry[V]] = {}
        self._suspended: dict[str, LiveEntry[V]] = {}
        self.hits = 0

    def get(self, market: str, since_s: float = NEVER) -> V | None:
        """The value of ``market`` if its stream flows, and if it was received after ``since_s``."""
        entry = self._live.get(market)
        if entry is None or entry.received_s <= since_s:
            return None
        self.hits += 1
        return entry.value

    def newest(self, market: str) -> V | None:
        """What the stream of ``market`` has shown last, also while it is being checked."""
        entry = self._live.get(market) or self._suspended.get(market)
        return None if entry is None else entry.value

    def streamed(self, market: str, value: V, now_s: float) -> None:
        """The stream of ``market`` shows ``value``, and thereby that it flows."""
        held = self._live.get(market)
        if held is None:
            held = self._suspended.pop(market, None)
        self._live[market] = LiveEntry(value, now_s) if held is None or held.gives_way(value) else held

    def fetched(self, market: str, value: V, now_s: float) -> None:
        """The exchange's REST side shows ``value``: memory must not go back behind what a caller has seen of it."""
        for entries in (self._live, self._suspended):
            held = entries.get(market)
            if held is not None and value.exchange_ms > held.value.exchange_ms:
                entries[market] = LiveEntry(value, now_s, streamed=False)

    def suspend(self, markets: Iterable[str]) -> list[tuple[str, LiveEntry[V]]]:
        """The streams of ``markets`` are not certain: their values, which are not fresh by themselves any more."""
        gone = [(market, entry) for market in markets if (entry := self._live.pop(market, None)) is not None]
        self._suspended.update(gone)
        return gone

    def resume(self, markets: Iterable[str]) -> None:
        """The streams of ``markets`` have been checked: what was suspended is current."""
        for market in markets:
            entry = self._suspended.pop(market, None)
            if entry is not None:
                self._live[market] = entry

    def forget(self, markets: Collection[str]) -> list[tuple[str, LiveEntry[V]]]:
        """The streams of ``markets`` have ended: the values that were live until now."""
        gone = self.suspend(markets)
        for market in markets:
            self._suspended.pop(market, None)
        return gone

    def values(self) -> list[V]:
        """Every live value, in no particular order."""
        return [entry.value for entry in self._live.values()]

    def __len__(self) -> int:
        return len(self._live)
