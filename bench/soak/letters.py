"""What the subject tells the judge: lines of JSON, each a list that begins with what it is about.

It is told at once and forgotten: a subject that kept it would look like one that leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import trio

from marketpipe import Candle, Gap, Side, Trade

__all__ = ["BAR", "BEGUN", "ERROR", "GAP", "LEFT", "LOOK", "READ", "SAMPLE", "TRADE", "Post", "bar_letter",
           "gap_letter", "read_letter", "trade_letter"]  # fmt: skip

TRADE, BAR, GAP, READ = "trade", "bar", "gap", "read"
LOOK, SAMPLE, ERROR, BEGUN, LEFT = "look", "sample", "error", "begun", "left"
FLUSH_S = 0.2

_encode = msgspec.json.Encoder().encode


def trade_letter(trade: Trade) -> list[Any]:
    """A trade that was delivered."""
    return [TRADE, trade.market, trade.sequential_id, trade.trade_ms, trade.side is Side.BUY, trade.price, trade.volume]


def bar_letter(bar: Candle) -> list[Any]:
    """A bar that was delivered."""
    return [BAR, bar.market, bar.timeframe, *_numbers(bar), bar.state == "FINAL", bar.revision]


def read_letter(bar: Candle) -> list[Any]:
    """A bar that a reader of charts was given, as FINAL."""
    return [READ, bar.market, bar.timeframe, *_numbers(bar)]


def gap_letter(stream: str, gap: Gap) -> list[Any]:
    """A gap that was told on ``stream``."""
    return [GAP, stream, gap.market, gap.start_ms, gap.end_ms, gap.is_open, gap.repaired, gap.cause]


def _numbers(bar: Candle) -> tuple[Any, ...]:
    return bar.open_ms, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume


@attrs.define(eq=False)
class Post:
    """Letters on their way out, some at a time."""

    send: Callable[[bytes], Any]
    _lines: list[bytes] = attrs.field(factory=list, init=False)

    def put(self, letter: list[Any]) -> None:
        """Send this soon."""
        self._lines.append(_encode(letter))

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await trio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Send what is there."""
        if self._lines:
            lines, self._lines = self._lines, []
            with trio.CancelScope(shield=True):  # half a line would spoil the next
                await self.send(b"\n".join(lines) + b"\n")
