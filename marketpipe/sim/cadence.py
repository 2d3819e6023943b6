"""When a market's streams speak: the clock grids of tickers and candles, the lags and accidents of trades.

Every market has its place on every grid, so that not all speak at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from marketpipe.sim.day import Deal
from marketpipe.sim.draw import draw, words

__all__ = [
    "LONGEST_LAG_MS",
    "LONGEST_WAIT_MS",
    "SHORTEST_LAG_MS",
    "Grid",
    "TradeTimes",
    "candle_grid",
    "ticker_grid",
]

# Tickers are sent on change but not with every trade: 39 to 93 frames in 30 to 40 s of KRW-BTC (seen 2026-09-23).
TICKER_MS = 100
# Candles are evaluated every second (reference/websocket-candle, 2026-09-22).
CANDLE_MS = 1_000
# What happened in a bar is stored up to 54 ms after its end. A market that is never evaluated sooner after a full
# second than that has sent every bar's last frame before the next full second.
SETTLED_MS = 54
# A trade's frame is 50 to 130 ms behind the trade (seen 2026-07-30 to 2026-08-26).
SHORTEST_LAG_MS, LONGEST_LAG_MS = 50, 130
# Frames out of order were within 300 ms of their place (seen 2021-04-17, 6 of 299).
SHORTEST_DELAY_MS, LONGEST_DELAY_MS = 150, 300
LONGEST_ECHO_MS = 200
# The longest from a trade to the last of its frames.
LONGEST_WAIT_MS = LONGEST_LAG_MS + LONGEST_DELAY_MS + LONGEST_ECHO_MS
PARTS = 1 << 32


@attrs.frozen
class Grid:
    """The moments ``phase_ms``, ``phase_ms + period_ms``, ..., in epoch milliseconds."""

    period_ms: int
    phase_ms: int

    def before(self, at_ms: int) -> int:
        """The last moment at or before ``at_ms``."""
        return at_ms - (at_ms - self.phase_ms) % self.period_ms

    def after(self, at_ms: int) -> int:
        """The first moment at or after ``at_ms``."""
        return at_ms + (self.phase_ms - at_ms) % self.period_ms


def ticker_grid(phase_ms: int) -> Grid:
    """When a market's ticker may be sent."""
    return Grid(TICKER_MS, phase_ms % TICKER_MS)


def candle_grid(phase_ms: int) -> Grid:
    """When a market's candles are evaluated."""
    return Grid(CANDLE_MS, SETTLED_MS + phase_ms % (CANDLE_MS - SETTLED_MS))


@attrs.frozen
class TradeTimes:
    """When the trades of market ``code`` are sent.

    ``reordered`` is the share of trades that come too late, so that later ones can overtake them, ``duplicated`` the
    share that comes twice. All others come in order, once.
    """

    seed: int
    code: str
    reordered: float
    duplicated: float

    def sent(self, deals: Iterable[Deal]) -> Iterator[tuple[Deal, int]]:
        """When each of ``deals`` (oldest first) is sent for the first time.

        It depends on the deals of the `LONGEST_LAG_MS` before it too, for whoever has less lag does not overtake.
        """
        latest_ms = 0
        for deal in deals:
            latest_ms = max(latest_ms, deal.at_ms + self._lag_ms(deal))
            yield deal, latest_ms + self._delay_ms(deal)

    def repeated_after_ms(self, deal: Deal) -> int | None:
        """How long after the first time ``deal`` is sent again; None: it is not."""
        wait, share = self._words(deal, "twice")
        return 1 + wait % LONGEST_ECHO_MS if share < self.duplicated * PARTS else None

    def _lag_ms(self, deal: Deal) -> int:
        spread = LONGEST_LAG_MS - SHORTEST_LAG_MS + 1
        return SHORTEST_LAG_MS + draw(spread, self.seed, self.code, deal.sequential_id, "lag")

    def _delay_ms(self, deal: Deal) -> int:
        wait, share = self._words(deal, "late")
        spread = LONGEST_DELAY_MS - SHORTEST_DELAY_MS + 1
        return SHORTEST_DELAY_MS + wait % spread if share < self.reordered * PARTS else 0

    def _words(self, deal: Deal, what: str) -> tuple[int, ...]:
        return words(2, self.seed, self.code, deal.sequential_id, what)
