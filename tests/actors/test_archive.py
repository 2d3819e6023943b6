"""The archive's promise: what is stored and what is on its way there is one, whenever it is read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from store.paper_store import EVER, M1, MARKET, bar, full, opened, opens, piece
from trio.testing import MockClock

from marketpipe.actors.archive import Archive
from marketpipe.actors.writer import Runner, Writer, in_line, in_threads
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.core.history import Piece
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.store import reading
from marketpipe.store.sqlite import SqliteStore
from marketpipe.store.values import Finding


def archive_of(store: SqliteStore, run: Runner = in_line, **options: Any) -> Archive:
    """One whose writer is not at work: nothing is stored unless `flush` does it."""
    writer = Writer(store, in_line, TrioClock(1_790_166_896_000), Collecting(**options), lambda: 0.5)
    return Archive(store, run, writer)


async def flush(archive: Archive) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(archive.writer.run)
        await archive.writer.stored()
        nursery.cancel_scope.cancel()


def spans(*slots: tuple[int, int]) -> SpanSet:
    return SpanSet.of(*((opens(first), opens(end)) for first, end in slots))


def told(shelf: Shelf) -> list[tuple[int, int]]:
    """Slot and volume of what is on ``shelf``."""
    return [((bar.open_ms - opens(0)) // 60_000, int(bar.volume)) for bar in shelf.bars(*EVER)]


async def test_what_is_on_its_way_is_read_as_if_it_were_stored():
    with opened(":memory:") as store:
        archive = archive_of(store)
        await archive.put(full(0, 3))
        await flush(archive)
        assert archive.add(piece(5, 8, [6]))
        assert store.coverage(MARKET, M1, *EVER) == spans((0, 3))
        assert await archive.coverage(MARKET, M1, *EVER) == spans((0, 3), (5, 8))
        assert await archive.coverage(MARKET, M1, opens(2), opens(6)) == spans((2, 3), (5, 6))
        shelf = await archive.shelf(MARKET, M1, opens(0), opens(8))
        assert (shelf.proven, told(shelf)) == (spans((0, 3), (5, 8)), [(0, 1), (1, 1), (2, 1), (6, 1)])
        newest = await archive.newest(MARKET, M1, 5, opens(8))
        assert (newest.proven, told(newest)) == (spans((5, 8)), [(6, 1)])
        oldest = await archive.oldest(MARKET, M1, 5, opens(5), opens(9))
        assert (oldest.proven, told(oldest)) == (spans((5, 8)), [(6, 1)])


async def test_the_newest_proven_bar_may_be_stored_or_on_its_way():
    with opened(":memory:") as store:
        archive = archive_of(store)
        assert await archive.newest_proven(MARKET, M1, opens(9)) is None
        await archive.put(full(0, 3))
        assert await archive.newest_proven(MARKET, M1, opens(9)) == opens(2)
        await flush(archive)
        assert await archive.newest_proven(MARKET, M1, opens(9)) == opens(2)
        await archive.put(piece(5, 8, [6]))
        found = [await archive.newest_proven(MARKET, M1, opens(slot)) for slot in (2, 6, 7)]
        assert found == [opens(1), opens(2), opens(6)]
        await archive.put(piece(-9, -3, [-8]))
        assert await archive.newest_proven(MARKET, M1, opens(2)) == opens(1)


async def test_series_are_read_each_by_itself():
    with opened(":memory:") as store:
        archive = archive_of(store)
        await archive.put(full(0, 3))
        for market, timeframe in (("KRW-ETH", M1), (MARKET, Timeframe.M3)):
            assert not await archive.coverage(market, timeframe, *EVER)
            assert not (await archive.shelf(market, timeframe, *EVER)).proven
            assert not (await archive.newest(market, timeframe, 5, opens(3))).proven


async def test_what_is_on_its_way_counts_where_it_contradicts_what_is_stored():
    with opened(":memory:") as store:
        archive = archive_of(store)
        await archive.put(full(0, 4))
        await flush(archive)
        await archive.put(piece(1, 4, [bar(1, 7), 3]))
        await archive.put(piece(2, 4, [bar(2, 9)]))
        expected = [(0, 1), (1, 7), (2, 9)]
        assert told(await archive.shelf(MARKET, M1, *EVER)) == expected
        assert told(await archive.newest(MARKET, M1, 5, opens(4))) == expected
        assert told(await archive.oldest(MARKET, M1, 5, opens(0), opens(4))) == expected
        await flush(archive)
        assert told(await archive.shelf(MARKET, M1, *EVER)) == expected


READS: dict[str, Callable[[Archive], Any]] = {
    "coverage": lambda archive: archive.coverage(MARKET, M1, *EVER),
    "shelf": lambda archive: archive.shelf(MARKET, M1, *EVER),
    "newest": lambda archive: archive.newest(MARKET, M1, 10, opens(8)),
    "oldest": lambda archive: archive.oldest(MARKET, M1, 10, opens(0), opens(8)),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
async def test_what_comes_and_is_stored_while_the_database_is_read_is_seen(read: str, early: bool, autojump_clock):
    """Whether the database was looked at before it was stored, or after."""

    async def slowly(call: Callable[..., Any], *args: Any) -> Any:
        if early:
            found = call(*args)
            await trio.sleep(1)
            return found
        await trio.sleep(1)
        return call(*args)

    with opened(":memory:") as store:
        archive = archive_of(store, slowly)
        await archive.put(full(0, 4))
        found: list[Any] = []

        async def ask() -> None:
            found.append(await READS[read](archive))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            await archive.put(full(4, 6))
            assert archive.add(full(6, 8))
            await flush(archive)
            assert archive.writer.kept(MARKET, M1) == ()
        proven = found[0] if read == "coverage" else found[0].proven
        assert proven == spans((0, 8))
        assert read == "coverage" or [slot for slot, _ in told(found[0])] == [*range(8)]


async def test_what_is_not_kept_is_not_read_as_if_it_were(autojump_clock):
    """A job that was planned by it would never ask for what is not stored."""

    async def slowly(call: Callable[..., Any], *args: Any) -> Any:
        await trio.sleep(1)
        return call(*args)

    with opened(":memory:") as store:
        archive = archive_of(store, slowly, kept_rows=3)
        assert archive.add(full(0, 2))
        found: list[SpanSet] = []

        async def ask() -> None:
            found.append(await archive.coverage(MARKET, M1, *EVER))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            assert archive.add(full(2, 4))
            assert not archive.add(full(4, 6))
        assert found == [spans((0, 4))]


PIECES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 12), st.sets(st.integers(0, 11)), st.sampled_from(["keep", "store"])),
    max_size=8,
)


@given(pieces=PIECES, count=st.integers(1, 8), edge=st.integers(0, 44))
def test_stored_or_on_its_way_makes_no_difference(pieces: list[Any], count: int, edge: int):
    async def main() -> None:
        with opened(":memory:") as store:
            archive, known = archive_of(store), dict[int, int | None]()
            for volume, (first, length, traded, then) in enumerate(pieces, 1):
                slots = [first + each for each in sorted(traded) if each < length]
                known |= dict.fromkeys(range(first, first + length)) | dict.fromkeys(slots, volume)
                await archive.put(piece(first, first + length, [bar(slot, volume) for slot in slots]))
                if then == "store":
                    await flush(archive)
            proven = spans(*((slot, slot + 1) for slot in known))
            bars = sorted((slot, volume) for slot, volume in known.items() if volume is not None)
            assert await archive.coverage(MARKET, M1, *EVER) == proven
            shelf = await archive.shelf(MARKET, M1, *EVER)
            assert (shelf.proven, told(shelf)) == (proven, bars)
            await check_newest(archive, shelf, count, edge)
            await check_oldest(archive, shelf, count, edge)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def check_newest(archive: Archive, shelf: Shelf, count: int, edge: int) -> None:
    """Read again and again, each time from below what was found: as `Collected` does it."""
    found, low_ms = Shelf(M1), opens(edge)
    while len(found.newest(count, opens(edge))) < count:
        more = await archive.newest(MARKET, M1, count, low_ms)
        found.lay_shelf(more)
        if found.proven_from(opens(edge)) == low_ms:
            break
        low_ms = found.proven_from(opens(edge))
    assert told_all(found.newest(count, opens(edge))) == told_all(shelf.newest(count, opens(edge)))
    assert not found.proven - shelf.proven
    assert all(told_all(found.bars(*span)) == told_all(shelf.bars(*span)) for span in found.proven)


async def check_oldest(archive: Archive, shelf: Shelf, count: int, edge: int) -> None:
    found = await archive.oldest(MARKET, M1, count, opens(edge), opens(60))
    if (span := found.proven.at(opens(edge))) is not None:
        assert told_all(found.bars(*span)) == told_all(shelf.bars(*span))
    assert (opens(edge) in found.proven) == (opens(edge) in shelf.proven)


def told_all(bars: tuple[Any, ...]) -> list[tuple[int, int]]:
    return [(bar.open_ms, int(bar.volume)) for bar in bars]


async def test_the_newest_reach_no_further_down_than_is_proven():
    with opened(":memory:") as store:
        archive = archive_of(store)
        for each in (full(0, 3), full(5, 9)):
            await archive.put(each)
        await flush(archive)
        found = await archive.newest(MARKET, M1, 6, opens(9))
        assert (found.proven, len(told(found))) == (spans((5, 9)), 4)
        found = await archive.newest(MARKET, M1, 2, opens(9))
        assert (found.proven, told(found)) == (spans((7, 9)), [(7, 1), (8, 1)])
        assert not (await archive.newest(MARKET, M1, 2, opens(10))).proven
        assert found.page(CandlesRequest(MARKET, M1, 2, opens(9))) is not None


# -- followers ----------------------------------------------------------------------------------------------------


async def test_whoever_follows_a_series_is_told_of_every_piece_of_it_at_once():
    with opened(":memory:") as store:
        archive = archive_of(store, kept_rows=6)
        heard: list[tuple[Piece, bool]] = []
        other: list[Piece] = []
        with (
            archive.follow(MARKET, M1, lambda *each: heard.append(each)),
            archive.follow(MARKET, M1, lambda each, _: other.append(each)),
            archive.follow("KRW-ETH", M1, lambda *each: pytest.fail("another market")),
            archive.follow(MARKET, Timeframe.M3, lambda *each: pytest.fail("another timeframe")),
        ):
            archive.add(full(0, 2))
            assert heard == [(full(0, 2), True)]
            await archive.put(full(2, 5))
            archive.add(full(5, 7))
            assert not archive.add(full(7, 9))  # too much is kept
        archive.add(full(9, 10))
        assert heard == [(full(0, 2), True), (full(2, 5), True), (full(5, 7), True), (full(7, 9), False)]
        assert other == [each for each, _ in heard]


async def test_a_follower_may_leave_and_another_come_while_they_are_told():
    with opened(":memory:") as store:
        archive, heard = archive_of(store), []

        def note(name: str) -> Callable[[Piece, bool], None]:
            return lambda each, _: heard.append((name, (each.start_ms - opens(0)) // 60_000))

        first = archive.follow(MARKET, M1, note("first"))
        second = archive.follow(MARKET, M1, lambda *each: first.__exit__(None, None, None))
        first.__enter__()
        with second, archive.follow(MARKET, M1, note("third")):
            archive.add(full(0, 1))
        archive.add(full(1, 2))
        with archive.follow(MARKET, M1, note("fourth")):
            archive.add(full(2, 3))
        assert heard == [("first", 0), ("third", 0), ("fourth", 2)]


# -- the database refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
async def test_a_database_that_cannot_be_read_says_so(read: str):
    store = opened(":memory:")
    archive = archive_of(store)
    store.close()
    with pytest.raises(StoreError, match="it has been closed"):
        await READS[read](archive)
    assert archive._followers == {}


async def test_failures_are_read_as_they_were_noted():
    with opened(":memory:") as store:
        archive = archive_of(store)
        archive.writer.failed(MARKET, M1, opens(0), opens(5), "Banned", "answered 418")
        await flush(archive)
        (failure,) = await archive.failures(MARKET, M1, opens(4), opens(9))
        assert (failure.start_ms, failure.end_ms, failure.code, failure.message) == (
            opens(0),
            opens(5),
            "Banned",
            "answered 418",
        )
        assert await archive.failures(MARKET, M1, opens(5), opens(9)) == ()


async def test_a_read_that_is_given_up_leaves_nothing_behind(autojump_clock):
    async def for_ever(call: Callable[..., Any], *args: Any) -> Any:
        await trio.sleep_forever()

    with opened(":memory:") as store:
        archive = archive_of(store, for_ever)
        for read in READS.values():
            with trio.move_on_after(1) as scope:
                await read(archive)
            assert scope.cancelled_caught
        assert archive._followers == {}


# -- looking through all of it ----------------------------------------------------------------------------------------


async def test_a_check_that_is_cancelled_ends_in_the_middle_of_a_statement(tmp_path: Path):
    """Without being stopped, it would look at nothing but numbers for ever."""
    with opened(tmp_path / "history.db") as store:
        store.write([full(0, 10)], now_ms=1)
        begun = threading.Event()

        def for_ever(conn: sqlite3.Connection) -> Iterator[Finding]:
            begun.set()
            conn.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
            ).fetchall()
            yield from ()

        archive = archive_of(store, in_threads())
        async with trio.open_nursery() as nursery:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(reading, "findings", for_ever)
                with trio.fail_after(30):
                    nursery.start_soon(archive.check)
                    await trio.to_thread.run_sync(begun.wait)
                    nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        assert (await archive.check()).bars == 10


async def test_a_check_that_is_refused_says_why():
    with opened(":memory:") as store:
        archive = archive_of(store)
        assert (await archive.check()).is_well
    with pytest.raises(StoreError, match="it has been closed"):
        await archive.check()


async def test_a_check_that_fails_in_the_middle_says_why_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch):
    def broken(conn: sqlite3.Connection) -> Iterator[Finding]:
        conn.execute("SELECT * FROM nowhere")
        yield from ()

    with opened(":memory:") as store:
        monkeypatch.setattr(reading, "findings", broken)
        with pytest.raises(StoreError, match="no such table: nowhere"):
            await archive_of(store).check()
