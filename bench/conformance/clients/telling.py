"""What every client's script needs: where the simulator is, and one line of JSON for each thing it saw.

These scripts run in environments of their own, without marketpipe. Names of fields are the exchange's; numbers are told
as the client gives them: a float as a number, a decimal as a string.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

__all__ = ["BASE_URL", "CODES", "LISTEN_S", "WS_URL", "Asking", "iso", "now_ms", "open_ms", "refused", "tell", "units"]

BASE_URL, WS_URL, CODES = sys.argv[1], sys.argv[2], sys.argv[3:]
# How long a script listens to each of what it can listen to.
LISTEN_S = 6.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def tell(what: str, market: str, asked_ms: int, saw: Any, *, got_ms: int | None = None, **more: Any) -> None:
    """``saw`` was the answer at some moment from ``asked_ms`` to ``got_ms``, which is now if it is not given."""
    line = {"what": what, "market": market, "asked_ms": asked_ms, "got_ms": got_ms or now_ms(), "saw": saw, **more}
    print(json.dumps(line, default=_plain), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "item"):  # numpy
        return value.item()
    raise TypeError(f"{value!r} cannot be told")


class Asking:
    """Tells how long a question took: the answer is that of a moment in between."""

    def __enter__(self) -> Asking:
        self.asked_ms = now_ms()
        return self

    def __exit__(self, *exc: object) -> None:
        self.got_ms = now_ms()

    def tell(self, what: str, market: str, saw: Any, **more: Any) -> None:
        tell(what, market, self.asked_ms, saw, got_ms=self.got_ms, **more)


def refused(expected: str, error: BaseException | None, message: str = "") -> None:
    """``expected`` is what the client's documentation calls this refusal."""
    saw = "nothing" if error is None else type(error).__name__
    tell("refusal", expected, now_ms(), {"expected": expected, "saw": saw, "message": message or str(error)[:200]})


def iso(at_ms: int, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime(form)


def open_ms(text: str) -> int:
    """``candle_date_time_utc`` as epoch milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def units(levels: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The levels of one side that hold anything."""
    return [[price, size] for price, size in levels if float(size)]
