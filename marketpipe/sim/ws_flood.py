"""A flood of frames for load tests: as many a second as were asked for, whatever the market does.

It is no market truth: the last state of each subscription is told over and over with the current stamp, and trades with
ids of their own. An id is the time in tenths of a microsecond at which its frame was made, so that whoever receives it
can tell how long it took; the sum of all ids tells whether one is missing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import attrs

from marketpipe.clock import Clock, SystemClock
from marketpipe.sim.ws_frames import Template

__all__ = ["Flood", "FloodStatistics", "Flooded", "Poured"]

# Frames that fall into the same grain go out together.
GRAIN_S = 0.002
MODULUS = 2**63
# Of a frame: who wakes when one is due must find it due, however the times were rounded.
SLACK = 1e-3
# A flood begins when everybody is ready, but waits no longer than this for those who are not.
PATIENCE_S = 1.0


class Poured(NamedTuple):
    """What was sent: frames, trades among them, and the sum of the trades' ids."""

    frames: int
    trades: int
    trade_ids: int


class Flooded(Protocol):
    """A connection, as a flood sees it."""

    def ready(self) -> bool:
        """Whether `templates` are there for everything that is subscribed."""
        ...

    def templates(self) -> Sequence[Template]:
        """What can be told on it now."""
        ...

    def pour(self, templates: Sequence[Template], stamp: bytes, ids: Iterator[int]) -> Poured:
        """Send each of ``templates`` once, stamped, trades with the next of ``ids``; what was really sent."""
        ...


@attrs.frozen
class FloodStatistics:
    """What floods have sent since the start or the last reset: frames, trades, the sum of trade ids modulo 2**63.

    ``due`` frames were to be sent; those that found no subscriber, or a stalled one, were not.
    """

    running: bool
    due: int
    frames: int
    trades: int
    trade_ids: int


class Flood:
    """At most one flood at a time. ``listeners`` tells who is connected; times are monotonic seconds."""

    def __init__(self, clock: Clock, listeners: Callable[[], Sequence[Flooded]]) -> None:
        self._clock = clock
        self._listeners = listeners
        self._asked_s = 0.0
        self._began_s: float | None = None
        self._per_second = 0.0
        self._total = 0
        self._issued = 0
        self._last_id = 0
        self._turn = 0
        self._due = self._frames = self._trades = self._trade_ids = 0

    def start(self, per_second: float, for_s: float, now_s: float) -> None:
        """Send ``per_second`` frames a second for ``for_s`` seconds; a flood that is running ends.

        It begins as soon as there are templates of what is subscribed.
        """
        self._asked_s, self._began_s, self._per_second = now_s, None, per_second
        self._total, self._issued = round(per_second * for_s), 0

    def stop(self) -> None:
        """Nothing more."""
        self._total = self._issued

    @property
    def running(self) -> bool:
        return self._issued < self._total

    def due_s(self) -> float:
        """When the next frames are due."""
        if not self.running:
            return math.inf
        if self._began_s is None:
            return self._asked_s + PATIENCE_S
        next_s = (self._issued + 1) / self._per_second
        return self._began_s + math.ceil(next_s / GRAIN_S) * GRAIN_S

    def advance(self, now_s: float) -> None:
        """Send what is due by ``now_s``, evenly over everything that is subscribed."""
        if not self.running:
            return
        if self._began_s is None:
            if now_s < self._asked_s + PATIENCE_S and not all(listener.ready() for listener in self._listeners()):
                return
            self._began_s = now_s
        elapsed = (now_s - self._began_s) * self._per_second
        due = min(math.floor(elapsed + SLACK), self._total) - self._issued
        if due <= 0:
            return
        self._issued += due
        self._due += due
        shares = [(listener, listener.templates()) for listener in self._listeners()]
        places = sum(len(templates) for _, templates in shares)
        if places:
            self._pour(due, shares, places)

    def _pour(self, due: int, shares: Sequence[tuple[Flooded, Sequence[Template]]], places: int) -> None:
        now_ms = self._clock.now_ms()
        first = self._turn % places
        self._turn = (first + due) % places
        ids = self._ids(now_ms)
        begin = 0
        for listener, templates in shares:
            chosen = _share(templates, begin, places, first, first + due)
            begin += len(templates)
            if chosen:
                poured = listener.pour(chosen, b"%d" % now_ms, ids)
                self._frames += poured.frames
                self._trades += poured.trades
                self._trade_ids = (self._trade_ids + poured.trade_ids) % MODULUS

    def _ids(self, now_ms: int) -> Iterator[int]:
        tick = time.time_ns() // 100 if isinstance(self._clock, SystemClock) else now_ms * 10_000
        while True:
            self._last_id = max(self._last_id + 1, tick)
            yield self._last_id

    def statistics(self) -> FloodStatistics:
        return FloodStatistics(self.running, self._due, self._frames, self._trades, self._trade_ids)

    def forget(self) -> None:
        self._due = self._frames = self._trades = self._trade_ids = 0


def _share(templates: Sequence[Template], begin: int, places: int, first: int, end: int) -> list[Template]:
    """Those whose turn it is: turns ``[first, end)`` go around ``places``, of which ours begin at ``begin``."""
    chosen: list[Template] = []
    for round_begins in range(begin, end, places):
        low, high = max(first, round_begins), min(end, round_begins + len(templates))
        if low < high:
            chosen += templates[low - round_begins : high - round_begins]
    return chosen
