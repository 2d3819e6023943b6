"""What can be listened to: a topic is one stream of one market, and travels on one of four lines.

A line is a connection. A subscribe message replaces the whole subscription of its connection
(docs.upbit.com/kr reference/websocket-guide, 2026-10-06), so each stream type has a connection of its own, and whoever
changes one disturbs no other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

__all__ = ["STREAMED", "Frame", "Line", "Topic"]

# Timeframes the exchange streams, with its own names for them (reference/websocket-candle, 2025-05-19). Longer bars
# are not streamed.
STREAMED = {
    Timeframe.S1: "1s",
    Timeframe.M1: "1m",
    Timeframe.M3: "3m",
    Timeframe.M5: "5m",
    Timeframe.M10: "10m",
    Timeframe.M15: "15m",
    Timeframe.M30: "30m",
    Timeframe.H1: "60m",
    Timeframe.H4: "240m",
}


class Line(StrEnum):
    """A connection by what it carries."""

    TICKER = "ticker"
    TRADE = "trade"
    ORDERBOOK = "orderbook"
    CANDLE = "candle"


class Topic(NamedTuple):
    """One stream of one market. ``timeframe`` belongs to candles, which all share a line, and to nothing else."""

    line: Line
    market: str
    timeframe: Timeframe | None = None

    @property
    def stream(self) -> str:
        """The exchange's name of the stream: ``ticker``, ``candle.60m``; it has none of bars of a day and more."""
        if self.timeframe is None:
            return self.line.value
        return f"candle.{STREAMED.get(self.timeframe, self.timeframe)}"

    @classmethod
    def of_candle(cls, candle: Candle) -> Topic:
        """The topic whose bar ``candle`` is."""
        return cls(Line.CANDLE, candle.market, candle.timeframe)

    def __str__(self) -> str:
        return f"{self.stream} {self.market}"


class Frame(NamedTuple):
    """One message of a line: a `Ticker`, `Trade`, `Orderbook` or `Candle`, or the `BadPayload` it is instead.

    ``snapshot``: the exchange shows the state at the time of the subscription, where nothing new may have happened.
    """

    value: Any
    snapshot: bool
