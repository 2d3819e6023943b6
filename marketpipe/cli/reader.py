"""Reads a stream for somebody who will have seen enough at some point."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Protocol

import attrs
import trio

from marketpipe.errors import MarketPipeError

__all__ = ["Reader", "Stream"]

# Events that are handed on together, to be written or drawn in one go.
TOGETHER = 1_000


class Stream(Protocol):
    """A subscription, as far as it is read here."""

    async def __anext__(self) -> Any:
        """The next event, when there is one."""
        ...

    def receive_nowait(self) -> Any:
        """The next event, or `trio.WouldBlock`."""
        ...


@attrs.define(eq=False)
class Reader:
    """Reads up to ``count`` events, and until ``until_s`` (Trio's time)."""

    _stream: Stream
    _count: float = math.inf
    _until_s: float = math.inf

    async def some(self) -> list[Any]:
        """What waits, at least one event; none once it has been enough. Raises as the stream does."""
        events: list[Any] = []
        if self._count > 0:
            with trio.move_on_at(self._until_s):
                events.append(await self._stream.__anext__())
        if events:
            # The end of the stream is told again to the next who reads, so nothing read before it is lost.
            with suppress(trio.WouldBlock, MarketPipeError):
                while len(events) < min(self._count, TOGETHER):
                    events.append(self._stream.receive_nowait())
        self._count -= len(events)
        return events
