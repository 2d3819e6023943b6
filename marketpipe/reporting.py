"""What the pipe says about itself, gathered from its parts into one frozen `Status`.

Every part counts what it does where it does it; here is only asked. A program may ask every second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import trio

from marketpipe.actors.backfill import Backfill
from marketpipe.actors.batcher import Batcher
from marketpipe.actors.cache import Cache
from marketpipe.actors.deduplicator import Deduplicator
from marketpipe.actors.hub import Hub
from marketpipe.actors.pulse import Pulse
from marketpipe.actors.subscriptions import Subscriptions
from marketpipe.actors.writer import Writer
from marketpipe.clock import Clock
from marketpipe.core.meter import Meter
from marketpipe.status import CandleAnswers, QueueStatus, Status

__all__ = ["Reporter"]


@attrs.define(eq=False)
class Reporter:
    """Asks the parts there are. ``resident_bytes``: what the process has resident, as the system knows it."""

    _clock: Clock
    _resident_bytes: Callable[[], int]
    _batcher: Batcher
    _cache: Cache
    _hub: Hub
    _deduplicator: Deduplicator
    _subscriptions: Subscriptions | None = None
    _backfill: Backfill | None = None
    _writer: Writer | None = None
    _pulse: Pulse | None = None
    _opened_s: float = attrs.field(factory=trio.current_time, init=False)

    def status(self, meter: Meter, candles: CandleAnswers) -> Status:
        """A snapshot of this moment. ``meter`` counts the verbs, ``candles`` what one of them answered."""
        now_s, streams = trio.current_time(), self._subscriptions
        batcher = self._batcher.statistics()
        uptime_s = now_s - self._opened_s
        return Status(
            at_ms=self._clock.now_ms(),
            uptime_s=uptime_s,
            budgets=batcher.groups,
            waiting=batcher.waiting,
            requests_in_flight=batcher.in_flight,
            requests=batcher.requests,
            questions=batcher.questions,
            joined=batcher.joined,
            banned_for_s=batcher.banned_for_s,
            caches=self._cache.statistics(),
            verbs=meter.statistics(now_s),
            late=meter.late(),
            given_up=meter.given_up(),
            connections={} if streams is None else streams.connections(),
            subscriptions={} if streams is None else streams.subscriptions(),
            store=None if self._writer is None else self._writer.status(),
            jobs=() if self._backfill is None else self._backfill.snapshots(),
            symbols_per_second=meter.symbols / uptime_s if uptime_s > 0 else 0.0,
            queues=self._queues(),
            streams={} if streams is None else self._hub.streams(now_s),
            consumers=self._hub.statistics(),
            bars_amended=self._deduplicator.amended,
            memory_bytes=self._resident_bytes(),
            lag=None if self._pulse is None else self._pulse.status(now_s),
            candles=candles,
        )

    def _queues(self) -> Mapping[str, QueueStatus]:
        queues = self._batcher.queues()
        if self._subscriptions is not None:
            queues |= self._subscriptions.queues()
        if self._writer is not None:
            queues["rows"] = self._writer.queue()
        return queues
