"""The exchange's side of the rate limit: who is let in, what is left, who is blocked, and how close it came.

Pure: the time is a parameter. ``now_s`` is monotonic, ``wall_s`` is the exchange's own clock in epoch seconds; only
the fixed window looks at the latter. Every request that arrives is counted, refused or not: the greatest count in any
second is what tells whether a client kept its promise.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import attrs

from marketpipe.sim.config import SimConfig
from marketpipe.sim.config import Window as Mode

__all__ = [
    "CONNECT",
    "GROUPS",
    "MESSAGE",
    "ORIGIN",
    "GroupStatistics",
    "Limiter",
    "MessageCount",
    "MessageLimiter",
    "Verdict",
]

# The names on the wire, which differ from the documentation's for trades and candles.
GROUPS = ("market", "ticker", "orderbook", "crix-trades", "candles")
ORIGIN = "origin"
# Upgrades to WebSocket, per address, and what clients say over them, per connection. On the wire the first has another
# name (upgrade reply, 2026-09-23) and the second none.
CONNECT = "websocket-connect"
MESSAGE = "websocket-message"
CONNECT_WIRE = "websocket"
# One request per 10 s for whoever sends an Origin header (reference/rate-limits, 2026-10-07).
ORIGIN_PERIOD_S = 10.0
MINUTE_S = 60.0


@attrs.frozen
class Verdict:
    """What becomes of one request: ``status`` 200, 429 or 418; ``left`` requests remain in the current window.

    ``per_minute`` is the frozen ``min`` of the header; ``blocked_s`` is how long a block still lasts.
    """

    group: str
    status: int
    left: int
    per_minute: int
    blocked_s: float = 0.0

    @property
    def remaining_req(self) -> str:
        """The ``Remaining-Req`` header, spelled as on the wire."""
        return f"group={self.group}; min={self.per_minute}; sec={self.left}"


@attrs.frozen
class GroupStatistics:
    """What one group has seen. ``refused`` counts 429 and 418 together, ``banned`` the 418 alone.

    ``greatest_per_second`` is the greatest number of arrivals in any half-open rolling second, whatever the counting
    mode; ``greatest_accepted_per_second`` the same of those that were let in.
    """

    requests: int
    accepted: int
    refused: int
    banned: int
    greatest_per_second: int
    greatest_accepted_per_second: int


class Limiter:
    """Counts the requests of one client address, per group; groups do not touch each other, a block touches all."""

    def __init__(self, config: SimConfig) -> None:
        self._config = config
        self._groups = {name: _Group(name, config.window, config.limit, 1.0) for name in GROUPS}
        self._groups[ORIGIN] = _Group(ORIGIN, config.window, 1, ORIGIN_PERIOD_S)
        self._groups[CONNECT] = _Group(CONNECT_WIRE, config.window, config.connect_limit, 1.0)
        self._ban = _Ban(config.ban_after, config.ban_window_s, config.ban_s)

    def arrive(self, group: str, now_s: float, wall_s: float) -> Verdict:
        """Count one request to ``group``. ``now_s`` must not go backwards. Raises ``KeyError`` for no such group."""
        return self._groups[group].arrive(now_s, wall_s, self._ban)

    def statistics(self) -> dict[str, GroupStatistics]:
        """What every group has seen since the start, also those that saw nothing."""
        return {name: group.statistics() for name, group in self._groups.items()}


@attrs.frozen
class MessageCount:
    """What one connection has said: messages, how many of them were refused, and how close it came to its limits.

    The greatest numbers are those of any half-open rolling second or minute.
    """

    messages: int
    refused: int
    greatest_per_second: int
    greatest_accepted_per_second: int
    greatest_per_minute: int


class MessageLimiter:
    """Counts the messages of one connection."""

    def __init__(self, config: SimConfig) -> None:
        self._second = _open_window(config.window, config.message_limit, 1.0)
        self._minute = _open_window(config.window, config.minute_limit, MINUTE_S)
        self._arrivals = _RollingCount()
        self._accepted = _RollingCount()
        self._minutes = _RollingCount(MINUTE_S)

    def arrive(self, now_s: float, wall_s: float) -> bool:
        """Count one message; whether it is let in. ``now_s`` must not go backwards."""
        self._arrivals.add(now_s)
        self._minutes.add(now_s)
        accepted = self._second.admit(now_s, wall_s) is not None and self._minute.admit(now_s, wall_s) is not None
        if accepted:
            self._accepted.add(now_s)
        return accepted

    def count(self) -> MessageCount:
        return MessageCount(
            messages=self._arrivals.total,
            refused=self._arrivals.total - self._accepted.total,
            greatest_per_second=self._arrivals.greatest,
            greatest_accepted_per_second=self._accepted.greatest,
            greatest_per_minute=self._minutes.greatest,
        )


class _Group:
    def __init__(self, name: str, mode: Mode, limit: int, period_s: float) -> None:
        self._name = name
        self._window = _open_window(mode, limit, period_s)
        # No limit per minute exists any more; the header still prints it (reference/rate-limits, 2026-10-07).
        self._per_minute = int(limit * 60 / period_s)
        self._arrivals = _RollingCount()
        self._accepted = _RollingCount()
        self._banned = 0

    def arrive(self, now_s: float, wall_s: float, ban: _Ban) -> Verdict:
        self._arrivals.add(now_s)
        blocked_s = ban.left_s(now_s)
        if blocked_s > 0:
            self._banned += 1
            return self._verdict(418, 0, blocked_s)
        left = self._window.admit(now_s, wall_s)
        if left is None:
            ban.strike(now_s)
            return self._verdict(429, 0)
        self._accepted.add(now_s)
        return self._verdict(200, left)

    def _verdict(self, status: int, left: int, blocked_s: float = 0.0) -> Verdict:
        return Verdict(self._name, status, left, self._per_minute, blocked_s)

    def statistics(self) -> GroupStatistics:
        return GroupStatistics(
            requests=self._arrivals.total,
            accepted=self._accepted.total,
            refused=self._arrivals.total - self._accepted.total,
            banned=self._banned,
            greatest_per_second=self._arrivals.greatest,
            greatest_accepted_per_second=self._accepted.greatest,
        )


class _RollingCount:
    """The greatest number of events in any ``[t, t + period_s)``; the densest always ends at one of the events."""

    def __init__(self, period_s: float = 1.0) -> None:
        self._period_s = period_s
        self.total = 0
        self.greatest = 0
        self._recent: deque[float] = deque()

    def add(self, now_s: float) -> None:
        self.total += 1
        self._recent.append(now_s)
        _forget(self._recent, now_s, self._period_s)
        self.greatest = max(self.greatest, len(self._recent))


def _forget(times: deque[float], now_s: float, period_s: float) -> None:
    # Written as a sum, like the deadline of whoever waits a period from then: both round alike.
    while times and times[0] + period_s <= now_s:
        times.popleft()


class _Window(Protocol):
    def admit(self, now_s: float, wall_s: float) -> int | None:
        """Requests left after this one, or None if this one is one too many."""
        ...


def _open_window(mode: Mode, limit: int, period_s: float) -> _Window:
    match mode:
        case "fixed":
            return _FixedWindow(limit, period_s)
        case "first":
            return _FirstWindow(limit, period_s)
        case "rolling":
            return _RollingWindow(limit, period_s)


@attrs.define
class _FixedWindow:
    limit: int
    period_s: float
    _number: int = -1
    _used: int = 0

    def admit(self, now_s: float, wall_s: float) -> int | None:
        number = math.floor(wall_s / self.period_s)
        if number != self._number:
            self._number, self._used = number, 0
        self._used += 1
        return self.limit - self._used if self._used <= self.limit else None


@attrs.define
class _FirstWindow:
    limit: int
    period_s: float
    _ends_s: float = -math.inf
    _used: int = 0

    def admit(self, now_s: float, wall_s: float) -> int | None:
        if now_s >= self._ends_s:
            self._ends_s, self._used = now_s + self.period_s, 0
        self._used += 1
        return self.limit - self._used if self._used <= self.limit else None


@attrs.define
class _RollingWindow:
    limit: int
    period_s: float
    _accepted: deque[float] = attrs.field(factory=deque)

    def admit(self, now_s: float, wall_s: float) -> int | None:
        _forget(self._accepted, now_s, self.period_s)
        if len(self._accepted) >= self.limit:
            return None
        self._accepted.append(now_s)
        return self.limit - len(self._accepted)


class _Ban:
    """Refusals add up to a block of everything, longer each time (reference/rate-limits, 2026-10-07)."""

    def __init__(self, after: int | None, window_s: float, first_s: float) -> None:
        self._after = after
        self._window_s = window_s
        self._next_s = first_s
        self._until_s = -math.inf
        self._strikes: deque[float] = deque()

    def left_s(self, now_s: float) -> float:
        return max(0.0, self._until_s - now_s)

    def strike(self, now_s: float) -> None:
        if self._after is None:
            return
        self._strikes.append(now_s)
        _forget(self._strikes, now_s, self._window_s)
        if len(self._strikes) >= self._after:
            self._strikes.clear()
            self._until_s = now_s + self._next_s
            self._next_s *= 2
