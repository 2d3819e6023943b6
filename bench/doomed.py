"""A backfill that is going to be killed, as a process: ``python -m bench.doomed``, the task as JSON on stdin.

It prints a line when it is about to open the database. In its log stands what it asked of the exchange, before it asked
it, and what the database has acknowledged, right after it did: whatever stands there has happened, however this ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import attrs
import trio

from marketpipe import Collecting, Config, JobState, Limits, run_pipeline
from marketpipe.clock import SystemClock
from marketpipe.core.history import Piece
from marketpipe.core.requests import CandlesRequest, Reply, Request
from marketpipe.store.guard import Access
from marketpipe.store.sqlite import SqliteStore
from marketpipe.store.values import Written
from marketpipe.upbit.rest import UpbitRest

__all__ = ["ASKED", "DONE", "READY", "STORED", "Doom"]

READY, DONE = "ready", "done"
ASKED, STORED = "asked", "stored"


@attrs.frozen(kw_only=True)
class Doom:
    """Collect the minute bars of ``market`` in ``[start_ms, end_ms)`` into ``path``, and note it in ``log``."""

    base_url: str
    path: str
    log: str
    market: str
    start_ms: int
    end_ms: int
    per_second: int
    pages_at_once: int


@attrs.frozen
class _Log:
    """Lines that are the system's as soon as they are written: no death of this process takes them back."""

    _handle: int

    def note(self, *words: object) -> None:
        os.write(self._handle, f"{' '.join(map(str, words))}\n".encode())


@attrs.frozen
class _NotedExchange:
    _rest: UpbitRest
    _log: _Log

    async def fetch(self, request: Request) -> Reply:
        if isinstance(request, CandlesRequest):
            self._log.note(ASKED, request.to_ms, request.count)
        return await self._rest.fetch(request)


class _NotedStore(SqliteStore):
    def __init__(self, name: str, access: Access) -> None:
        super().__init__(name, access)
        self.log: _Log | None = None

    def write(self, pieces: Sequence[Piece], *, now_ms: int) -> Written:
        written = super().write(pieces, now_ms=now_ms)
        for piece in pieces:
            if self.log is not None:
                self.log.note(STORED, piece.start_ms, piece.end_ms, len(piece.bars))
        return written


def main() -> None:
    """Collect until killed, or until there is nothing more to collect."""
    trio.run(_collect, Doom(**json.loads(sys.stdin.readline())))


async def _collect(doom: Doom) -> None:
    config = Config(limits=Limits(per_second=doom.per_second), collecting=Collecting(pages_at_once=doom.pages_at_once))
    log, clock = _Log(os.open(doom.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)), SystemClock()
    print(READY, flush=True)
    with _NotedStore.open(doom.path, source=doom.base_url) as store:
        assert isinstance(store, _NotedStore)
        store.log = log
        async with (
            UpbitRest(doom.base_url, clock=clock, max_connections=doom.pages_at_once) as rest,
            run_pipeline(config, _NotedExchange(rest, log), clock=clock, store=store) as market,
        ):
            report = await (await market.start_backfill(doom.market, start=doom.start_ms, end=doom.end_ms)).wait()
    if report.state is not JobState.DONE:
        raise RuntimeError(f"the backfill ended as {report}")
    print(DONE, flush=True)


if __name__ == "__main__":
    main()
