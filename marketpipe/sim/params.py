"""Reading the parameters of a quotation request, and refusing the wrong ones in the exchange's words.

An empty optional parameter is one that is not there (``to=`` is commonly sent so). Parameters nobody asked for are
ignored. reference/rest-api-guide, 2026-10-06; messages as seen 2026-09-23.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

__all__ = ["INVALID", "MISSING", "MISTYPED", "NOT_FOUND", "Parameters", "RefusedRequest"]

MISSING = "Missing request parameter error. Check the required parameters!"
MISTYPED = "Type mismatch error. Check the parameters type!"
INVALID = "Invalid parameter. Check the given value!"
NOT_FOUND = "Code not found"

# `…T10:40:00Z`, without a zone (UTC), with a space, with an offset; a fraction as ccxt sends it.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_TIME_OF_DAY = re.compile(r"(\d\d):?(\d\d):?(\d\d)", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_DECIMAL = re.compile(r"(-?\d{1,18})(\.\d*)?", re.ASCII)
_TRUE, _FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")


class RefusedRequest(Exception):
    """The request is answered with an error: an HTTP status and the exchange's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Parameters:
    """A query's pairs, already percent-decoded. Wrong values raise `RefusedRequest`."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = list(pairs)

    def text(self, *names: str) -> str | None:
        """The first of the parameters called so that is not empty."""
        return next((value for name, value in self._pairs if name in names and value), None)

    def required(self, name: str) -> str:
        """A parameter that must be there; it may be empty."""
        value = next((value for key, value in self._pairs if key == name), None)
        if value is None:
            raise RefusedRequest(400, MISSING)
        return value

    def listed(self, name: str) -> list[str]:
        """A required comma list; the parameter may be repeated instead."""
        self.required(name)
        return [part for key, value in self._pairs if key == name for part in value.split(",")]

    def whole(self, *names: str, bits: int = 32) -> int | None:
        """An integer that fits ``bits``."""
        text = self.text(*names)
        if text is None:
            return None
        if not _WHOLE.fullmatch(text) or not -(1 << bits - 1) <= int(text) < 1 << bits - 1:
            raise RefusedRequest(400, MISTYPED)
        return int(text)

    def truth(self, *names: str) -> bool:
        """A boolean, False if it is not there."""
        text = (self.text(*names) or "false").lower()
        if text not in _TRUE and text not in _FALSE:
            raise RefusedRequest(400, MISTYPED)
        return text in _TRUE

    def units(self, name: str) -> int:
        """A decimal number as an integer of 1e-8, what is finer cut off; 0 if it is not there."""
        text = self.text(name)
        if text is None:
            return 0
        parts = _DECIMAL.fullmatch(text)
        if parts is None:
            raise RefusedRequest(400, MISTYPED)
        return int(parts[1] + ((parts[2] or ".")[1:9]).ljust(8, "0"))

    def moment_ms(self, name: str) -> int | None:
        """A date and time as epoch milliseconds, rounded up, so that ``open < to`` stays true or false."""
        text = self.text(name)
        if text is None:
            return None
        parts = _MOMENT.fullmatch(text)
        if parts is None:
            raise RefusedRequest(400, INVALID)
        day, clock, fraction, zone = parts.groups()
        try:
            when = datetime.fromisoformat(f"{day}T{clock}{zone or 'Z'}").astimezone(UTC)
        except (ValueError, OverflowError):
            raise RefusedRequest(400, INVALID) from None
        micros = int((fraction or ".0")[1:].ljust(6, "0"))
        return int(when.timestamp()) * 1000 - -micros // 1000

    def time_of_day_ms(self, name: str) -> int | None:
        """``HHmmss`` or ``HH:mm:ss`` as milliseconds since midnight."""
        text = self.text(name)
        if text is None:
            return None
        parts = _TIME_OF_DAY.fullmatch(text)
        if parts is None:
            raise RefusedRequest(400, INVALID)
        hour, minute, second = map(int, parts.groups())
        if hour > 23 or minute > 59 or second > 59:
            raise RefusedRequest(400, INVALID)
        return ((hour * 60 + minute) * 60 + second) * 1000
