"""When the archive is closed, reading ends: nobody reads a database that is closed, and whoever wants to is told."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from store.paper_store import EVER, M1, MARKET, full, opened, opens

from marketpipe.actors.archive import Archive
from marketpipe.actors.writer import Runner, Writer, in_line, in_threads
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.errors import PipelineClosed, StoreError
from marketpipe.store.sqlite import SqliteStore

HANG_S = 20.0
# Some hours.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n LIMIT 1"

READS: dict[str, Callable[[Archive], Awaitable[Any]]] = {
    "coverage": lambda archive: archive.coverage(MARKET, M1, *EVER),
    "shelf": lambda archive: archive.shelf(MARKET, M1, *EVER),
    "newest": lambda archive: archive.newest(MARKET, M1, 10, opens(8)),
    "oldest": lambda archive: archive.oldest(MARKET, M1, 10, opens(0), opens(8)),
    "newest_proven": lambda archive: archive.newest_proven(MARKET, M1, opens(8)),
    "failures": lambda archive: archive.failures(MARKET, M1, *EVER),
    "check": lambda archive: archive.check(),
    "tidy": lambda archive: archive.tidy(),
}


def writer_of(store: SqliteStore) -> Writer:
    return Writer(store, in_line, TrioClock(1_790_166_896_000), Collecting(), lambda: 0.5)


def archive_of(store: SqliteStore, run: Runner = in_line) -> Archive:
    return Archive(store, run, writer_of(store), run)


@pytest.mark.parametrize("read", READS)
async def test_whoever_comes_later_is_told(read, autojump_clock):
    with opened(":memory:") as store:
        archive = archive_of(store)
        await READS[read](archive)
        await archive.close()
        with pytest.raises(PipelineClosed):
            await READS[read](archive)


@pytest.mark.slow
@pytest.mark.parametrize("read", ["coverage", "check"])
async def test_what_would_be_read_for_hours_is_ended_and_was_read_in_vain(read, tmp_path, monkeypatch):
    begun = threading.Event()

    def endlessly(reader: Any, *_: Any) -> Any:
        begun.set()
        return reader._read(lambda conn: conn.execute(ENDLESS).fetchall())

    monkeypatch.setattr("marketpipe.store.reading.Reader.coverage", endlessly)
    monkeypatch.setattr("marketpipe.store.reading.Reader.integrity", endlessly)
    ends: list[BaseException] = []
    with opened(tmp_path / "bars.db") as store:
        archive = archive_of(store, in_threads())

        async def ask() -> None:
            try:
                await READS[read](archive)
            except PipelineClosed as error:
                ends.append(error)

        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.to_thread.run_sync(begun.wait)
                await archive.close()
    assert len(ends) == 1


async def test_a_check_that_is_cancelled_before_it_has_begun_leaves_no_connection(autojump_clock):
    with opened(":memory:") as store:
        readers = []

        async def run(call: Callable[..., Any], *args: Any) -> Any:
            await trio.lowlevel.checkpoint()
            found = call(*args)
            readers.append(found)
            scope.cancel()
            return found

        archive = archive_of(store, run)
        with trio.CancelScope() as scope:
            await archive.check()
    (reader,) = readers
    with pytest.raises(StoreError, match="has been closed"):
        reader.series()


async def test_who_waits_for_what_can_no_longer_be_stored_is_told(autojump_clock):
    class Refusing(SqliteStore):
        def write(self, *args: Any, **options: Any) -> Any:
            raise StoreError("the disk is full")

    with Refusing.open(":memory:", source="http://sim") as store:
        writer = writer_of(store)
        with pytest.RaisesGroup(PipelineClosed):
            async with trio.open_nursery() as outside, trio.open_nursery() as nursery:
                await nursery.start(writer.run)
                assert writer.offer(full(0, 4))
                outside.start_soon(writer.stored)
                await trio.sleep(0.1)
                nursery.cancel_scope.cancel()


async def test_the_writer_does_not_end_before_those_who_still_have_something_in_hand(autojump_clock):
    with opened(":memory:") as store:
        writer = writer_of(store)

        async def feed(*, task_status: trio.TaskStatus[None]) -> None:
            with writer.feeding(), trio.CancelScope(shield=True):
                task_status.started()
                await trio.sleep(0.2)
                await writer.put(full(0, 4))

        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            await nursery.start(feed)
            nursery.cancel_scope.cancel()
        assert trio.current_time() == pytest.approx(0.2)
        assert store.coverage(MARKET, M1, *EVER).covers(opens(0), opens(4))


async def test_it_does_not_wait_for_them_for_ever(autojump_clock):
    with opened(":memory:") as store:
        writer = writer_of(store)

        async def never(*, task_status: trio.TaskStatus[None]) -> None:
            with writer.feeding(), trio.CancelScope(shield=True):
                task_status.started()
                await trio.sleep(60)

        async with trio.open_nursery() as outside:
            await outside.start(never)
            async with trio.open_nursery() as nursery:
                await nursery.start(writer.run)
                nursery.cancel_scope.cancel()
            assert trio.current_time() == pytest.approx(Collecting().leave_s)
