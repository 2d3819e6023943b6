"""The only module that reads the system's time.

Durations and deadlines are ``trio.current_time()``; what is needed here is the other clock, the one on the wall.
Actors are handed a `Clock` and never ask the system, so that under Trio's mock clock an hour of market takes
milliseconds and both clocks move together.
"""

from __future__ import annotations

import time
from typing import Protocol

import attrs
import trio

__all__ = ["Clock", "SystemClock", "TrioClock", "monotonic_s"]


class Clock(Protocol):
    """What time it is, as the world counts it."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00Z."""
        ...


class SystemClock:
    """The machine's clock. It may step (NTP); nothing but timestamps is computed from it."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


@attrs.frozen
class TrioClock:
    """Epoch time derived from Trio's clock: ``epoch_ms`` when Trio's clock reads 0. For tests and the simulator."""

    epoch_ms: int

    def now_ms(self) -> int:
        return self.epoch_ms + int(trio.current_time() * 1000)


def monotonic_s() -> float:
    """Seconds that pass for the whole process; Trio's own clock begins anew, somewhere, with every ``trio.run``.

    What Trio's own clock reads too: on Windows, ``time.monotonic`` is as coarse as 16 ms.
    """
    return time.perf_counter()
