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

# Lighter messages than this are counted, and heavier ones weighed too: a thousand of the longest would be gigabytes.
HEAVY = 2**16


@attrs.define(eq=False)
class Inbox:
    """Holds up to ``at_most`` messages; then the reader waits. Whoever receives takes them off ``messages``.

    It waits too, while there are any, with a heavy message that would bring all of them above ``at_most_bytes``.

    Whoever reads the socket tells in ``read_s`` when (monotonic) it did: what is put in from then on was read then.
    """

    at_most: int
    at_most_bytes: int = 2**26
    read_s: float = attrs.field(default=0.0, init=False)
    messages: deque[str | bytes] = attrs.field(factory=deque, init=False)
    _put: int = attrs.field(default=0, init=False)  # messages so far
    _reads: deque[tuple[int, float]] = attrs.field(init=False)  # how many there were before each read, and its time
    _peak: int = attrs.field(default=0, init=False)  # when messages were last waited for
    _is_open: bool = attrs.field(default=True, init=False)
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _senders: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._reads = deque([(0, self.read_s)])

    async def arrived(self) -> bool:
        """Wait for ``messages``; False when there are none and there will be none. Always a checkpoint."""
        if self.messages or not self._is_open:
            self._senders.unpark_all()
            await trio.lowlevel.checkpoint()
        while not self.messages and self._is_open:
            self._senders.unpark_all()
            await self._readers.park()
        self._peak = self.peak  # before any of them is taken
        return bool(self.messages)

    @property
    def oldest_s(self) -> float:
        """When the next message to be taken was read."""
        reads, gone = self._reads, self._put - len(self.messages)
        while len(reads) > 1 and reads[1][0] <= gone:
            reads.popleft()
        return reads[0][1]

    @property
    def peak(self) -> int:
        """The most messages that ever waited."""
        return max(self._peak, len(self.messages))

    def abandon(self) -> None:
        """Nobody will receive: what has come and what comes is thrown away, and holds nobody up."""
        self._peak = self.peak
        self.messages.clear()
        self._end()

    # -- what the reader of trio-websocket does with its channel --------------------------------------------------

    async def __aenter__(self) -> Inbox:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._end()

    async def send(self, message: str | bytes) -> None:
        """Put it in. A checkpoint only where it has to wait: between two messages of one read the reader goes on."""
        while self._is_open and self._is_full_for(message):
            await self._senders.park()
        if self._is_open:
            if self._reads[-1][1] != self.read_s:
                self._reads.append((self._put, self.read_s))
            self._put += 1
            self.messages.append(message)
            self._readers.unpark_all()

    async def aclose(self) -> None:
        """No more will come."""
        self._end()

    def _is_full_for(self, message: str | bytes) -> bool:
        if len(self.messages) >= self.at_most:
            return True
        if len(message) <= HEAVY or not self.messages:
            return False
        return sum(map(len, self.messages)) + len(message) > self.at_most_bytes

    def _end(self) -> None:
        self._is_open = False
        self._readers.unpark_all()
        self._senders.unpark_all()
