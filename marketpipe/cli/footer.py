"""A line about the pipe, under what moves: which streams are connected, how much comes, what was missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs
import trio
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from marketpipe import Status
from marketpipe.cli.waiting import waiting_for
from marketpipe.core.topics import Line
from marketpipe.status import SubscriptionState

__all__ = ["Footer", "lasting", "packed"]

# Messages are counted over so many seconds.
RATE_S = 3.0
CONNECTED = "connected"
BETWEEN = Text("   ")


def lasting(since_ms: int, now_ms: int) -> str:
    """How long something has lasted, in whole seconds: ``7 s``."""
    return f"{max(0, now_ms - since_ms) // 1000} s"


def packed(parts: Iterable[Text], console: Console, width: int) -> list[Text]:
    """``parts`` beside each other, in as many lines of ``width`` as it takes; each stays in one if it can."""
    lines: list[list[Text]] = []
    for part in parts:
        if lines and sum(map(len, lines[-1])) + len(lines[-1]) * len(BETWEEN) + len(part) <= width:
            lines[-1].append(part)
        else:
            lines.append([part])
    return [line for each in lines for line in BETWEEN.join(each).wrap(console, width)]


@attrs.define(eq=False)
class Footer:
    """To be drawn often: how much comes is counted from one drawing to the next."""

    status: Callable[[], Status]
    now_ms: Callable[[], int]
    _counted: deque[tuple[float, int]] = attrs.field(factory=deque, init=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(console, options.max_width)

    def lines(self, console: Console, width: int) -> list[Text]:
        """As of now, see `packed`."""
        status = self.status()
        parts = [*self._connections(status), Text(f"{self._rate(status):,.0f} messages/s"), *_gaps(status)]
        if status.banned_for_s > 0:
            parts.append(Text(waiting_for(status), style="red"))
        return packed(parts, console, width)

    def _connections(self, status: Status) -> Sequence[Text]:
        # Lines that fare alike are told together.
        alike: dict[str, list[Line]] = {}
        for line in _lines_of(status):
            alike.setdefault(self._fate(status, line), []).append(line)
        return [
            Text(f"{', '.join(lines)}: {fate}", style="green" if fate == CONNECTED else "red")
            for fate, lines in alike.items()
        ]

    def _fate(self, status: Status, line: Line) -> str:
        connection = status.connections[line]
        if connection.connected_since_ms is not None:
            return CONNECTED
        since_ms = [
            subscription.since_ms
            for topic, subscription in status.subscriptions.items()
            if topic.line is line and subscription.state is SubscriptionState.RECONNECTING
        ]
        if not since_ms:
            return "connecting"
        return f"reconnecting {lasting(min(since_ms), self.now_ms())}, {connection.last_loss}"

    def _rate(self, status: Status) -> float:
        now_s, now = trio.current_time(), sum(each.frames for each in status.connections.values())
        self._counted.append((now_s, now))
        while len(self._counted) > 2 and now_s - self._counted[1][0] >= RATE_S:
            self._counted.popleft()
        since_s, then = self._counted[0]
        return (now - then) / (now_s - since_s) if now_s > since_s else 0.0


def _lines_of(status: Status) -> list[Line]:
    wanted = {topic.line for topic, subscription in status.subscriptions.items() if subscription.leases}
    return [line for line in status.connections if line in wanted]


def _gaps(status: Status) -> list[Text]:
    connections = status.connections.values()
    told, mended = sum(each.gaps for each in connections), sum(each.repaired for each in connections)
    unreadable = sum(each.unreadable for each in connections)
    parts = [Text(f"gaps: {told} told, {mended} mended", style="yellow" if mended < told else "")]
    return parts + ([Text(f"{unreadable} unreadable", style="red")] if unreadable else [])
