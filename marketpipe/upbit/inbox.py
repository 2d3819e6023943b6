"""Messages between trio-websocket's reader and whoever decodes them, in the batches in which they arrive.

trio-websocket (0.12.2) puts each message into a memory channel of Trio's, which costs the reader and the receiver a
turn of the scheduler each. An `Inbox` takes the place of that channel's sending half: the reader goes on until it
waits for the socket, and the receiver is woken once for all that was read.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio

__all__ = ["Inbox"]


@attrs.define(eq=False)
class Inbox:
    """Holds up to ``at_most`` messages; then the reader waits. Whoever receives takes them off ``messages``."""

    at_most: int
    messages: deque[str | bytes] = attrs.field(factory=deque, init=False)
    _is_open: bool = attrs.field(default=True, init=False)
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _senders: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def arrived(self) -> bool:
        """Wait for ``messages``; False when there are none and there will be none. Always a checkpoint."""
        if self.messages or not self._is_open:
            self._senders.unpark_all()
            await trio.lowlevel.checkpoint()
        while not self.messages and self._is_open:
            self._senders.unpark_all()
            await self._readers.park()
        return bool(self.messages)

    def abandon(self) -> None:
        """Nobody will receive: what has come and what comes is thrown away, and holds nobody up."""
        self.messages.clear()
        self._end()

    # -- what the reader of trio-websocket does with its channel --------------------------------------------------

    async def __aenter__(self) -> Inbox:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._end()

    async def send(self, message: str | bytes) -> None:
        """Put it in. A checkpoint only where it has to wait: between two messages of one read the reader goes on."""
        while self._is_open and len(self.messages) >= self.at_most:
            await self._senders.park()
        if self._is_open:
            self.messages.append(message)
            self._readers.unpark_all()

    async def aclose(self) -> None:
        """No more will come."""
        self._end()

    def _end(self) -> None:
        self._is_open = False
        self._readers.unpark_all()
        self._senders.unpark_all()
