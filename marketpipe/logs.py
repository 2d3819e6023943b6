"""Log lines for people, with fields beside them for programs, and nothing in them that came over the wire as data.

One logger for each component, below ``marketpipe``, mute until the program sets `logging` up::

    marketpipe.batcher    requests that failed, blocks                         the REST side
    marketpipe.stream     connections lost, frames that cannot be read, mending  the WebSocket side
    marketpipe.store      the database: trouble, amended bars
    marketpipe.backfill   pages that a collection could not get
    marketpipe.wire       rows that nobody had asked for
    marketpipe.metrics    what kept the endpoint of `Config.metrics_port` from answering
    marketpipe.compat     callbacks that failed, streams that ended
    marketpipe.cli        tracebacks, with --verbose

A record carries ``event``, a fixed name for what happened; ``error``, the name of the error's type, if there is one;
and what it is about: ``market``, ``timeframe``, ``line`` and the like. What happens thousands of times a second is
told once in a while, by a `Sparing`.
"""

from __future__ import annotations

import math

import attrs

from marketpipe.errors import BadPayload

__all__ = ["Sparing", "fields", "told"]


def fields(event: str, error: BaseException | None = None, **about: object) -> dict[str, object]:
    """The ``extra`` of a log call."""
    named = {} if error is None else {"error": type(error).__name__}
    return {"event": event, **named, **{name: _plain(value) for name, value in about.items()}}


def told(error: BaseException) -> str:
    """What ``error`` says, without the excerpt of the answer that a `BadPayload` quotes, as itself or as a cause."""
    if isinstance(error.__cause__, BadPayload):
        return str(error).replace(str(error.__cause__), told(error.__cause__))
    if not isinstance(error, BadPayload):
        return str(error)
    place = " ".join(part for part in (error.market, error.field and f"field {error.field!r}") if part)
    return f"{place}: not what the exchange documents" if place else "not what the exchange documents"


@attrs.define(eq=False)
class Sparing:
    """Lets one thing be said every ``every_s`` seconds."""

    every_s: float = 10.0
    _until_s: float = attrs.field(default=-math.inf, init=False)
    _unsaid: int = attrs.field(default=0, init=False)

    def unsaid(self, now_s: float) -> int | None:
        """How many were left unsaid since the last that was said; None if this one is to be left unsaid as well."""
        if now_s < self._until_s:
            self._unsaid += 1
            return None
        unsaid, self._unsaid, self._until_s = self._unsaid, 0, now_s + self.every_s
        return unsaid


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | None) else str(value)
