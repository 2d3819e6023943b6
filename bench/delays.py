"""How late values are, kept in a constant amount of memory: what is measured includes the memory of whoever measures.

Trades of a flood carry the moment at which the simulator made them as their id, in tenths of a microsecond
(`marketpipe.sim.ws_flood`). Simulator and reader must be on one machine.
"""

from __future__ import annotations

import math
import time
from array import array

__all__ = ["Delays"]

TICKS_PER_MS = 10_000
# Fifty microseconds are told apart, up to two seconds; whatever is later counts as that.
GRAIN = 500
GRAINS = 40_000


class Delays:
    """A histogram of the time from the simulator's send to now."""

    def __init__(self) -> None:
        self._counts = array("L", bytes(array("L").itemsize * (GRAINS + 1)))

    def note(self, trade_id: int) -> None:
        """A trade of a flood is received at this moment."""
        late = (time.time_ns() // 100 - trade_id) // GRAIN
        self._counts[late if 0 <= late < GRAINS else (GRAINS if late > 0 else 0)] += 1

    def forget(self) -> None:
        """Begin anew."""
        for grain, count in enumerate(self._counts):
            if count:
                self._counts[grain] = 0

    def ms(self, share: float) -> float:
        """Milliseconds within which so large a share of all trades was received; 0 of none."""
        needed = math.ceil(share * sum(self._counts))
        seen = 0
        for grain, count in enumerate(self._counts):
            seen += count
            if count and seen >= needed:
                return (grain + 1) * GRAIN / TICKS_PER_MS
        return 0.0
