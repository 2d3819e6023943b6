"""What is told on one connection, and when: snapshots, what happens, signs of life, and the templates of a flood.

The snapshot of a market comes first: ccxt's order books, which work with the exchange, rely on it. All trades since the
request come after it; of books and tickers the snapshot is the newest there is. Candles do not wait for theirs, which
may already be that of the next bar. Times are monotonic seconds; nothing here waits but `Program.prepare`, which lets
others have a turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from marketpipe.sim.streams import Message, Subscription, Wanted
from marketpipe.sim.ws_damage import Outgoing, Trouble
from marketpipe.sim.ws_frames import Template, template
from marketpipe.sim.ws_hub import Sockets
from marketpipe.sim.ws_requests import FORMATS, Subscribe

__all__ = ["Program"]

# The exchange says that it is up at times of its own (websocket-guide, 2026-08-31).
TICK_S = 10.0
# The second burst of snapshots comes so many times later than the first.
SECOND_BURST = 1.9
# Streams that are silent about a market until its snapshot is out.
_AFTER_SNAPSHOT = ("ticker", "trade", "orderbook")
UP = b'{"status":"UP"}'
# So many templates are made before others have a turn.
_AT_ONCE = 20


class Program:
    """What one connection has asked for. A new request replaces the old one entirely."""

    def __init__(self, sockets: Sockets, *, framed: bool) -> None:
        self.wanted: tuple[Wanted, ...] = ()
        self.types: frozenset[str] = frozenset()
        self.format = FORMATS[0]
        self._sockets = sockets
        self._framed = framed
        self._subscription: Subscription | None = None
        self._first_burst_s = self._second_burst_s = self._tick_s = math.inf
        self._shown = 0
        # Those whose snapshot has yet to come, and what happened to them in the meantime.
        self._owed: set[tuple[str, str]] = set()
        self._waiting: list[Message] = []
        self._templates: list[Template] | None = None

    def replace(self, request: Subscribe, now_s: float) -> None:
        """Listen to something else from now on; the snapshots come later."""
        self.wanted, self.format = request.wanted, request.format
        self.types = frozenset(wanted.type for wanted in request.wanted)
        snapshot_s = self._sockets.config.snapshot_s
        self._first_burst_s, self._second_burst_s = now_s + snapshot_s, now_s + snapshot_s * SECOND_BURST
        waiting = self._waiting
        self._subscription = self._listen()
        self._owed = {
            (wanted.type, code.partition(".")[0])
            for wanted in request.wanted
            if not wanted.only_realtime and wanted.type in _AFTER_SNAPSHOT
            for code in wanted.codes
        }
        self._waiting = [message for message in waiting if (message.type, message.code) in self._owed]

    def reformat(self, format: str) -> None:
        """Tell everything in another format from now on."""
        self.format = format
        self._templates = None

    def keep_alive(self, now_s: float) -> None:
        """Say that the exchange is up, at each of its ticks."""
        self._tick_s = min(self._tick_s, (now_s // TICK_S + 1) * TICK_S)

    def due_s(self, now_s: float) -> float:
        """When there is something to tell; perhaps early, never late."""
        return min(self._first_burst_s, self._second_burst_s, self._tick_s, self._natural_s(now_s))

    def take(self, now_s: float, trouble: Trouble) -> list[Outgoing]:
        """What is due and was not taken yet. What ``trouble`` silences is taken too, and lost."""
        told = [self._outgoing(message, trouble) for message in self._due(now_s)
                if not trouble.silences(message.type, message.code)]  # fmt: skip
        if now_s >= self._tick_s:
            self._tick_s = (now_s // TICK_S + 1) * TICK_S
            told.append(Outgoing("status", "", UP))
        return told

    def _due(self, now_s: float) -> list[Message]:
        if self._subscription is None:
            return []
        now_ms = self._sockets.clock.now_ms()
        due = self._snapshots(self._subscription, now_s, now_ms)
        if self._sockets.flood.running:
            return due
        if self._templates is not None:
            self._subscription = self._listen()  # what happened during the flood is not told afterwards
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            if (message.type, message.code) in self._owed:
                self._waiting.append(message)
            elif message.type == "trade":
                due.append(message)
        for message in self._subscription.take(now_ms):
            (self._waiting if (message.type, message.code) in self._owed else due).append(message)
        return due

    def _snapshots(self, subscription: Subscription, now_s: float, now_ms: int) -> list[Message]:
        shown: list[Message] = []
        if now_s >= self._first_burst_s:
            snapshots = subscription.snapshots(now_ms)
            self._shown = (len(snapshots) + 1) // 2 if now_s < self._second_burst_s else len(snapshots)
            shown = snapshots[: self._shown]
            self._owed.difference_update((message.type, message.code) for message in shown)
            self._first_burst_s = math.inf
        if now_s >= self._second_burst_s:
            # What was left, as it is now: the market has gone on since the first burst.
            shown += subscription.snapshots(now_ms)[self._shown :]
            self._owed.clear()
            self._second_burst_s = math.inf
        return shown

    def _natural_s(self, now_s: float) -> float:
        if self._subscription is None or self._sockets.flood.running:
            return math.inf
        due_ms = self._subscription.due_ms()
        return math.inf if due_ms is None else now_s + (due_ms - self._sockets.clock.now_ms()) / 1000

    def _listen(self) -> Subscription:
        self._templates = None
        self._waiting = []
        return self._sockets.streams.open(self.wanted, self._sockets.clock.now_ms())

    def _outgoing(self, message: Message, trouble: Trouble) -> Outgoing:
        return Outgoing(message.type, message.code, trouble.stamped(message.type, message.encode(self.format)))

    # For a flood

    @property
    def templates(self) -> Sequence[Template]:
        """What can be told over and over; nothing before `prepare`."""
        return self._templates or ()

    @property
    def prepared(self) -> bool:
        """Whether `templates` are complete."""
        return self._subscription is None or self._templates is not None

    async def prepare(self) -> None:
        """Make the templates, if a flood needs them and they are not there."""
        if self.prepared or not self._sockets.flood.running:
            return
        wanted, format = self.wanted, self.format
        everything = [_whole(each) for each in wanted]
        state = self._sockets.streams.open(everything, self._sockets.clock.now_ms())
        templates: list[Template] = []
        for index, message in enumerate(state.snapshots(self._sockets.clock.now_ms())):
            if index % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            templates.append(template(message.type, message.code, message.encode(format), framed=self._framed))
        if (wanted, format) == (self.wanted, self.format):
            self._templates = templates


def _whole(wanted: Wanted) -> Wanted:
    return Wanted(wanted.type, wanted.codes, wanted.level)
