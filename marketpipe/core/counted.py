"""The exchange's own count of what was traded, held against what consumers were told.

A stream can lose frames without a trace: no number is missing in it, and the connection goes on. But the exchange also
says, with every ticker, how much was traded since midnight UTC (reference/list-tickers, 2026-07-28). Over any time in
which nothing was lost, that count and the sum of what was told grow by the same; what they differ by, the *offset*,
stays what it was. Where it does not, something was not told, and REST is looked through.

Two things blur it. Of several trades of one millisecond, the ticker of which it is the last may count any but the
first: such a count is held against the offset, but none is learned from it. And a day begins with a count of zero.

The count is taken for what it is only as long as it proves right: alarms that no missing trade explains become rarer.
"""

from __future__ import annotations

from decimal import Decimal

import attrs

from marketpipe.core.timeframes import DAY_MS

__all__ = ["Counted", "Told"]

# After this many false alarms in a row only every 32nd count is looked at.
MISTRUST_AT_MOST = 5


@attrs.frozen
class Told:
    """How much of one market was told: before a trade for certain, up to it at most, in its millisecond at least."""

    before: Decimal
    until: Decimal
    least: Decimal


@attrs.frozen
class _Seen:
    """What the count is ahead by, at least and at most, on the UTC day ``day``."""

    day: int
    low: Decimal
    high: Decimal

    def allows(self, offset: Decimal | None) -> bool:
        return offset is not None and self.low <= offset <= self.high

    @property
    def certain(self) -> Decimal | None:
        return self.low if self.low == self.high else None


@attrs.define(eq=False)
class Counted:
    """One market's count. ``agreed_ms``: up to then nothing is missing, or was looked for (exchange time)."""

    agreed_ms: int = attrs.field(default=-1, init=False)
    _day: int = attrs.field(default=-1, init=False)
    _offset: Decimal | None = attrs.field(default=None, init=False)
    _other: Decimal | None = attrs.field(default=None, init=False)  # what it is if the last alarm was a false one
    _unexplained: int = attrs.field(default=0, init=False)  # alarms in a row
    _pass_over: int = attrs.field(default=0, init=False)

    def agrees(self, traded_ms: int, count: Decimal, told: Told, asked_ms: int) -> bool:
        """Whether nothing is missing, as far as can be told; if not, look through all since `agreed_ms`.

        ``traded_ms``, ``count``: the ticker's last trade, and the volume since that day's midnight UTC, both as of a
        moment after ``asked_ms``. ``told``: see `Told`, for the moment ``traded_ms``. While there is nothing to hold
        the count against, it agrees if nothing was traded since `agreed_ms`.
        """
        seen = _Seen(traded_ms // DAY_MS, count - told.until, count - told.before - told.least)
        if self._day != seen.day:
            self._day, self._offset, self._other = seen.day, None, None
        if self._offset is None and traded_ms <= self.agreed_ms:
            self._offset, self._other = seen.certain, None
            return self._agree(traded_ms, asked_ms)
        if seen.allows(self._offset):
            self._trust()
            # Where the offset may be more as well, something may be missing: the next that is certain looks for it.
            return seen.certain is None or self._agree(traded_ms, asked_ms)
        if seen.allows(self._other):  # nothing was missing then: the count had made a leap, or is the day's first
            self._offset, self._other = self._other, None
            return self._agree(traded_ms, asked_ms)
        if self._offset is None:
            self._other = seen.certain
            return False
        if self._pass_over > 0:
            self._pass_over -= 1
            return True
        self._pass_over = 2**self._unexplained - 1
        self._unexplained = min(self._unexplained + 1, MISTRUST_AT_MOST)
        self._other = seen.certain
        return False

    def explained(self, from_ms: int) -> None:
        """Trades made at ``from_ms`` or later were missing indeed, and are told now."""
        self._trust()
        if from_ms <= self.agreed_ms:  # they may have been counted before, as part of the offset
            self._offset = None

    def looked_through(self, start_ms: int, end_ms: int) -> None:
        """All between the two was looked through, and what was missing is told; it may join what is certain."""
        if start_ms <= self.agreed_ms:
            self.agreed_ms = max(self.agreed_ms, end_ms)

    def certain_to(self, ms: int) -> None:
        """All up to ``ms`` was told, or will not be: what is missing is looked for from there on."""
        self.agreed_ms, self._offset, self._other = max(self.agreed_ms, ms), None, None

    def _trust(self) -> None:
        self._unexplained, self._other = 0, None

    def _agree(self, traded_ms: int, asked_ms: int) -> bool:
        self.agreed_ms = max(self.agreed_ms, traded_ms, asked_ms)
        return True
