"""The writer's promise: what it takes is stored soon, in order and exactly once, whatever the database is like."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from store.paper_store import EVER, M1, MARKET, bar, covered, full, opened, opens, piece, volumes
from trio.testing import MockClock

from marketpipe.actors.writer import Runner, Writer, in_line, in_threads
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.core.history import Piece
from marketpipe.errors import StoreError
from marketpipe.store.sqlite import SqliteStore
from marketpipe.store.values import Written

EPOCH_MS = 1_790_166_896_000
FULL_DISK = "history.db: cannot write: the disk is full"


@attrs.define(eq=False)
class Paper:
    """A database in memory that refuses on command. It notes every attempt: when, and what of."""

    real: SqliteStore = attrs.field(factory=lambda: opened(":memory:"))
    trouble: str = ""
    refused_notes: frozenset[int] = frozenset()
    notes: int = 0
    attempts: list[tuple[float, tuple[Piece, ...]]] = attrs.field(factory=list)
    stored: list[Piece] = attrs.field(factory=list)

    def write(self, pieces: Sequence[Piece], *, now_ms: int) -> Written:
        self.attempts.append((trio.current_time(), tuple(pieces)))
        if self.trouble:
            raise StoreError(self.trouble)
        self.stored += pieces
        return self.real.write(pieces, now_ms=now_ms)

    def note_failure(self, *args: Any) -> None:
        self.notes += 1
        if self.trouble or self.notes - 1 in self.refused_notes:
            raise StoreError(self.trouble or FULL_DISK)
        self.real.note_failure(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    @property
    def sizes(self) -> list[int]:
        return [sum(len(each.bars) for each in pieces) for _, pieces in self.attempts]


def writer_of(store: Any, runner: Runner = in_line, **options: Any) -> Writer:
    return Writer(store, runner, TrioClock(EPOCH_MS), Collecting(**options), lambda: 0.5)


@asynccontextmanager
async def writing(store: Any, runner: Runner = in_line, **options: Any) -> AsyncIterator[Writer]:
    """A writer at work, which is left at the end of the block."""
    writer = writer_of(store, runner, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        yield writer
        nursery.cancel_scope.cancel()


def in_a_row(*sizes: int) -> list[Piece]:
    """Pieces one after the other, with so many bars."""
    made, slot = [], 0
    for size in sizes:
        made.append(full(slot, slot + size) if size else piece(slot, slot + 1))
        slot += max(1, size)
    return made


def fail(writer: Writer, first: int, end: int, code: str = "ExchangeUnavailable") -> None:
    writer.failed(MARKET, M1, opens(first), opens(end), code, "answered 503")


def in_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- batches ------------------------------------------------------------------------------------------------------


async def test_up_to_200_rows_travel_in_one_transaction(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        for each in in_a_row(*[50] * 10):
            assert writer.offer(each)
        await trio.sleep(2)
        assert store.sizes == [200, 200, 100]
        assert writer.status().transactions == 3
    assert store.real.integrity() == ()


async def test_a_piece_with_more_rows_than_a_transaction_travels_alone(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        for each in in_a_row(10, 500, 10):
            await writer.put(each)
        await trio.sleep(2)
        assert store.sizes == [10, 500, 10]


async def test_what_is_proven_to_be_empty_has_its_place_in_a_transaction_too(autojump_clock):
    """Pieces without bars are rows of the ledger: any number of them in one transaction would hold others up."""
    store = Paper()
    async with writing(store) as writer:
        for each in in_a_row(*[0] * 450):
            await writer.put(each)
        await trio.sleep(2)
        assert [len(pieces) for _, pieces in store.attempts] == [200, 200, 50]
    assert covered(store.real) == [(0, 450)]


@given(sizes=st.lists(st.integers(0, 230), max_size=12), refusals=st.sets(st.integers(0, 12), max_size=6))
def test_everything_is_stored_once_and_in_its_order(sizes: list[int], refusals: set[int]):
    """Whatever the pieces are like and whichever attempts fail."""

    async def main() -> None:
        store, pieces = Paper(), in_a_row(*sizes)

        async def run(call: Callable[..., Any], *args: Any) -> Any:
            store.trouble = FULL_DISK if len(store.attempts) in refusals else ""
            return await in_line(call, *args)

        async with writing(store, run) as writer:
            for each in pieces:
                await writer.put(each)
                await trio.sleep(0.1)
            await writer.stored()
            assert writer.status().rows_kept == 0
            assert writer.status().rows_written == sum(sizes)
        assert store.stored == pieces
        assert all(len(tried) == 1 or sum(map(weight, tried)) <= 200 for _, tried in store.attempts)
        assert store.real.series() == () or store.real.series()[0].bars == sum(sizes)

    in_virtual_time(main)


def weight(each: Piece) -> int:
    return max(1, len(each.bars))


# -- soon ---------------------------------------------------------------------------------------------------------


async def test_nothing_waits_for_company_for_longer_than_a_second(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        for second in range(3):
            await writer.put(full(10 * second, 10 * second + 3))
            await trio.sleep(0.999)
            assert len(store.stored) == second
            await trio.sleep(0.002)
            assert len(store.stored) == second + 1


@given(pauses=st.lists(st.tuples(st.floats(0, 1.2), st.integers(1, 230)), min_size=1, max_size=15))
def test_nothing_waits_for_company_for_longer_than_a_second_whenever_it_comes(pauses: list[tuple[float, int]]):
    async def main() -> None:
        store, came, slot = Paper(), [], 0
        async with writing(store) as writer:
            for pause_s, size in pauses:
                await trio.sleep(pause_s)
                came.append(trio.current_time())
                assert writer.offer(full(slot, slot + size))
                slot += size
            await trio.sleep(1.01)
            stored = [at_s for at_s, pieces in store.attempts for _ in pieces]
        assert len(stored) == len(came)
        assert all(after_s - before_s <= 1.001 for before_s, after_s in zip(came, stored, strict=True))

    in_virtual_time(main)


async def test_what_comes_while_another_transaction_is_written_waits_no_longer_for_company(autojump_clock):
    store = Paper()

    async def slowly(call: Callable[..., Any], *args: Any) -> Any:
        await trio.sleep(0.9)
        return await in_line(call, *args)

    async with writing(store, slowly) as writer:
        await writer.put(full(0, 10))
        await trio.sleep(1.05)
        await writer.put(full(10, 20))
        await trio.sleep(0.9)
        await writer.put(full(20, 30))
        await trio.sleep(1)
        assert len(store.stored) == 3
        assert store.sizes == [10, 20]  # nor is it written without it


# -- a database that refuses --------------------------------------------------------------------------------------


async def test_a_transaction_that_failed_is_tried_again_ever_more_rarely(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        await writer.put(full(0, 10))
        await trio.sleep(120)
        times = [at_s for at_s, _ in store.attempts]
        pauses = [round(after_s - before_s, 3) for before_s, after_s in pairwise(times)]
        assert pauses[:7] == [0.25, 0.5, 1, 2, 4, 8, 15]
        assert set(pauses[7:]) == {15}
        assert volumes(store.real) == []


async def test_a_transaction_that_failed_is_kept_and_said_to_be_in_trouble_until_it_is_stored(autojump_clock, caplog):
    store = Paper(trouble=FULL_DISK)
    caplog.set_level("INFO", "marketpipe.store")
    async with writing(store) as writer:
        first, second = in_a_row(10, 20)
        await writer.put(first)
        await trio.sleep(10)
        await writer.put(second)
        await trio.sleep(10)
        status = writer.status()
        assert (status.rows_kept, status.rows_written, status.transactions) == (30, 0, 0)
        assert status.trouble == FULL_DISK
        assert status.failures == len(store.attempts) > 3
        assert writer.kept(MARKET, M1) == (first, second)
        assert all(pieces[0] is first for _, pieces in store.attempts)
        store.trouble = ""
        await writer.stored()
        status = writer.status()
        assert (status.rows_kept, status.rows_written, status.transactions) == (0, 30, 1)
        assert status.trouble == ""
        assert writer.kept(MARKET, M1) == ()
        await trio.sleep(60)
    assert store.stored == [first, second]
    # One line when it begins and one when it ends, not one for each attempt.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_another_trouble_is_told_anew(autojump_clock, caplog):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        await writer.put(full(0, 10))
        await trio.sleep(20)
        store.trouble = "history.db: cannot write: another program keeps it locked"
        await trio.sleep(20)
        assert writer.status().trouble == store.trouble
        assert [record.getMessage().partition(";")[0] for record in caplog.records] == [FULL_DISK, store.trouble]
        store.trouble = ""


async def test_after_a_trouble_the_pauses_begin_anew(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        await writer.put(full(0, 10))
        await trio.sleep(60)
        store.trouble = ""
        await writer.stored()
        store.attempts.clear()
        store.trouble = FULL_DISK
        await writer.put(full(10, 20))
        await trio.sleep(1.3)
        assert len(store.attempts) == 2
        store.trouble = ""


async def test_a_full_disk_passes(autojump_clock, tmp_path: Path):
    """SQLite's own refusal: the file may not grow any more, and then may again."""
    with opened(tmp_path / "history.db") as store:
        conn = store._access.writer.conn
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {pages + 3}")
        async with writing(store) as writer:
            for each in in_a_row(*[100] * 20):
                assert writer.offer(each)
            await trio.sleep(30)
            status = writer.status()
            assert "the disk is full" in status.trouble
            assert status.rows_kept + status.rows_written == 2000
            assert status.rows_kept > 0
            conn.execute("PRAGMA max_page_count = 100000")
            await writer.stored()
            assert (writer.status().rows_kept, writer.status().trouble) == (0, "")
        assert covered(store) == [(0, 2000)]
        assert len(volumes(store)) == 2000
        assert store.integrity() == ()
        assert store.amendments(MARKET, M1) == ()


async def test_a_database_that_another_program_locks_is_written_later(autojump_clock, tmp_path: Path):
    with opened(tmp_path / "history.db") as store:
        store._access.writer.conn.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
        async with writing(store) as writer:
            other.execute("BEGIN IMMEDIATE")
            await writer.put(full(0, 10))
            await trio.sleep(5)
            assert "another program keeps it locked" in writer.status().trouble
            assert volumes(store) == []
            other.execute("COMMIT")
            await writer.stored()
            assert len(volumes(store)) == 10
        other.close()


async def test_two_pieces_that_contradict_each_other_are_counted_as_an_amendment(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        await writer.put(full(0, 10))
        await writer.put(piece(0, 10, [0, 1, bar(2, 9), *range(3, 10)]))
        await writer.stored()
        assert writer.status().rows_amended == 1
        assert writer.status().rows_written == 11
    assert volumes(store.real)[2] == (2, "9", 1)


# -- too much is kept ---------------------------------------------------------------------------------------------


async def test_a_backfill_waits_while_too_much_is_kept_and_others_are_told_no(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store, kept_rows=500) as writer, trio.open_nursery() as nursery:
        came: list[int] = []

        async def backfill() -> None:
            for number, each in enumerate(in_a_row(*[100] * 12)):
                await writer.put(each)
                came.append(number)

        nursery.start_soon(backfill)
        await trio.sleep(300)
        assert len(came) < 12
        held = len(came)
        assert writer.is_full
        assert 500 <= writer.status().rows_kept <= 500 + 100
        assert not writer.offer(full(2000, 2007))
        assert not writer.offer(full(2010, 2011))
        assert writer.status().rows_let_go == 8
        store.trouble = ""
        await trio.sleep(30)
        assert came == [*range(12)]
        assert held < 12
        assert writer.offer(full(2000, 2007))
    assert covered(store.real) == [(0, 1200), (2000, 2007)]


async def test_whoever_waits_for_room_may_give_up_and_what_it_had_is_stored_all_the_same(autojump_clock):
    """Others have been told that it is proven, and leave it out."""
    store = Paper(trouble=FULL_DISK)
    async with writing(store, kept_rows=100) as writer:
        await writer.put(full(0, 99))
        with trio.move_on_after(5) as scope:
            await writer.put(full(99, 300))
        assert scope.cancelled_caught
        store.trouble = ""
        await writer.stored()
        assert covered(store.real) == [(0, 300)]


# -- spans that failed --------------------------------------------------------------------------------------------


async def test_what_could_not_be_fetched_is_noted_within_a_second(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        await trio.sleep(10)
        fail(writer, 0, 5)
        fail(writer, 0, 5, "Banned")
        fail(writer, 7, 7)  # nothing
        await trio.sleep(1.001)
        (failure,) = store.real.failures(MARKET, M1)
        assert (failure.start_ms, failure.end_ms, failure.attempts, failure.code) == (opens(0), opens(5), 2, "Banned")
        assert failure.message == "answered 503"


async def test_each_failure_is_noted_once_though_the_database_refuses_in_between(autojump_clock):
    store = Paper(refused_notes=frozenset({1, 3, 4}))
    async with writing(store) as writer:
        await writer.put(full(100, 110))
        for slot in range(0, 40, 10):
            fail(writer, slot, slot + 5)
        await trio.sleep(30)
        assert store.notes == 4 + 3
        assert [failure.attempts for failure in store.real.failures(MARKET, M1)] == [1] * 4
        assert store.stored == [full(100, 110)]
        assert (writer.status().rows_written, writer.status().transactions) == (10, 1)
        assert (writer.status().failures, writer.status().trouble) == (3, "")


async def test_a_failure_survives_a_database_that_refuses_for_long(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        fail(writer, 0, 5)
        await writer.put(full(10, 12))
        await trio.sleep(100)
        assert store.real.failures(MARKET, M1) == ()
        store.trouble = ""
        await trio.sleep(30)
        assert [failure.attempts for failure in store.real.failures(MARKET, M1)] == [1]


async def test_what_was_proven_after_it_had_failed_has_not_failed(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        fail(writer, 0, 5)
        await writer.put(full(0, 10))
        await writer.stored()
        await trio.sleep(3)
        assert store.real.failures(MARKET, M1) == ()


async def test_failures_are_noted_on_leaving_too(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        fail(writer, 0, 5)
    assert len(store.real.failures(MARKET, M1)) == 1


# -- waiting for it -----------------------------------------------------------------------------------------------


async def test_whoever_waits_until_it_is_stored_does_not_wait_for_company(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        for slot in range(0, 30, 10):
            began_s = trio.current_time()
            await writer.put(full(slot, slot + 3))
            await writer.stored()
            assert trio.current_time() == began_s
            assert store.stored[-1] == full(slot, slot + 3)
            await trio.sleep(5)
        await writer.stored()  # nothing to wait for
        assert len(store.attempts) == 3


async def test_nor_if_it_comes_before_the_writer_has_looked_up(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        await trio.sleep(5)
        writer.offer(full(0, 3))
        await writer.stored()
        assert trio.current_time() == 5


async def test_nor_for_what_comes_behind_a_transaction_that_is_being_written(autojump_clock):
    store = Paper()

    async def slowly(call: Callable[..., Any], *args: Any) -> Any:
        await trio.sleep(0.1)
        return await in_line(call, *args)

    async with writing(store, slowly) as writer:
        for each in in_a_row(200, 150, 100, 10):
            await writer.put(each)
        await trio.sleep(0.05)
        await writer.stored()
        assert len(store.stored) == 4
        assert trio.current_time() == pytest.approx(0.1 * len(store.attempts))


async def test_others_do_not_gain_from_somebody_who_waited_before(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        await writer.put(full(0, 3))
        await writer.stored()
        await writer.put(full(3, 6))
        await trio.sleep(0.9)
        assert len(store.stored) == 1


async def test_what_is_kept_is_waited_for_however_long_the_database_refuses(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer, trio.open_nursery() as nursery:
        await writer.put(full(0, 3))
        stored_s: list[float] = []

        async def wait() -> None:
            await writer.stored()
            stored_s.append(trio.current_time())

        nursery.start_soon(wait)
        await trio.sleep(100)
        assert not stored_s
        store.trouble = ""
        await trio.sleep(20)
        assert stored_s
        assert len(store.stored) == 1


# -- leaving ------------------------------------------------------------------------------------------------------


async def test_leaving_stores_what_is_kept(autojump_clock):
    store = Paper()
    async with writing(store) as writer:
        for each in in_a_row(150, 150, 10):
            await writer.put(each)
    assert trio.current_time() == 0
    assert covered(store.real) == [(0, 310)]


async def test_leaving_a_database_that_refuses_tries_once_more_and_says_what_was_lost(autojump_clock, caplog):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        await writer.put(full(0, 10))
        await trio.sleep(20)
        before = len(store.attempts)
    assert trio.current_time() == 20
    assert len(store.attempts) == before + 1
    assert caplog.records[-1].getMessage() == f":memory:: 10 bars were not stored: {FULL_DISK}"


async def test_leaving_a_database_that_can_be_written_again_loses_nothing(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        for each in in_a_row(150, 150, 150):
            await writer.put(each)
        await trio.sleep(20)
        store.trouble = ""
    assert covered(store.real) == [(0, 450)]


async def test_leaving_a_database_that_hangs_takes_no_longer_than_was_set(autojump_clock, caplog):
    store = Paper()

    async def for_ever(call: Callable[..., Any], *args: Any) -> Any:
        await trio.sleep_forever()

    async with writing(store, for_ever, leave_s=0.7) as writer:
        await writer.put(full(0, 10))
        await trio.sleep(20)
    assert trio.current_time() == pytest.approx(20.7)
    assert caplog.records[-1].getMessage() == ":memory:: 10 bars were not stored: late"


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` the moment a task of this name waits for the ``step``-th time."""

    name: str
    step: int
    scope: trio.CancelScope
    steps: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self.name:
            self.steps += 1
            if self.steps == self.step:
                self.scope.cancel(reason=f"at step {self.step}")


@pytest.mark.parametrize("refusals", [frozenset(), frozenset({0}), frozenset({0, 1, 3})], ids=["well", "once", "often"])
def test_the_writer_may_be_left_wherever_it_waits(refusals: frozenset[int]):
    """What was taken is stored once, and so is what had failed."""

    async def main(step: int) -> bool:
        store = Paper()

        async def run(call: Callable[..., Any], *args: Any) -> Any:
            await trio.lowlevel.checkpoint()
            last = cancelled.steps >= cancelled.step
            store.trouble = FULL_DISK if len(store.attempts) in refusals and not last else ""
            return await in_line(call, *args)

        writer = writer_of(store, run)
        async with trio.open_nursery() as nursery:
            cancelled = CancelAt("the writer", step, nursery.cancel_scope)
            trio.lowlevel.add_instrument(cancelled)
            await nursery.start(writer.run, name="the writer")
            for each in in_a_row(10, 190, 30, 210, 5):
                assert writer.offer(each)
                fail(writer, 900, 905)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(cancelled)
        assert store.stored == in_a_row(10, 190, 30, 210, 5)
        assert [failure.attempts for failure in store.real.failures(MARKET, M1)] == [5]
        assert writer.status().rows_written == 445
        return cancelled.steps >= step and trio.current_time() < 5

    step = 2  # the first is that it begins
    while trio.run(main, step, clock=MockClock(autojump_threshold=0)):
        step += 1
    assert step >= 10


@pytest.mark.parametrize("verb", ["put", "stored"])
def test_whoever_hands_over_may_be_cancelled_wherever_it_waits(verb: str):
    """What it has handed over is stored once, and the others go on."""

    async def main(step: int) -> bool:
        store = Paper()
        async with writing(store, kept_rows=50) as writer:
            with trio.CancelScope() as scope:
                cancelled = CancelAt(trio.lowlevel.current_task().name, step, scope)
                trio.lowlevel.add_instrument(cancelled)
                for each in in_a_row(40, 40, 40, 40):
                    await writer.put(each)
                    if verb == "stored":
                        await writer.stored()
            trio.lowlevel.remove_instrument(cancelled)
            taken = len(store.stored) + len(writer.kept(MARKET, M1))
            await writer.put(full(1000, 1001))
            await writer.stored()
            assert store.stored == [*in_a_row(40, 40, 40, 40)[:taken], full(1000, 1001)]
        return scope.cancelled_caught

    step = 1
    while trio.run(main, step, clock=MockClock(autojump_threshold=0)):
        step += 1
    assert step >= 6


# -- a file, and threads ------------------------------------------------------------------------------------------


async def test_in_threads_one_call_runs_at_a_time_and_is_waited_for(tmp_path: Path):
    run, running, most = in_threads(), [0], [0]
    go = threading.Event()

    def call(number: int) -> int:
        running[0] += 1
        most[0] = max(most[0], running[0])
        go.wait(10)
        running[0] -= 1
        return number

    answers: list[int] = []

    async def ask(number: int) -> None:
        answers.append(await run(call, number))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert sorted(answers) == [*range(5)]
    assert most == [1]


async def test_a_call_that_has_begun_in_a_thread_is_finished_though_it_is_cancelled():
    """Whoever cut it off would not know whether it was stored."""
    run, began, go = in_threads(), threading.Event(), threading.Event()
    done: list[str] = []

    def call() -> str:
        began.set()
        go.wait(10)
        done.append("written")
        return "written"

    answers: list[str] = []

    async def ask() -> None:
        answers.append(await run(call))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.to_thread.run_sync(began.wait)
        nursery.cancel_scope.cancel()
        go.set()
    assert answers == done == ["written"]


@pytest.mark.slow
async def test_a_file_is_written_in_threads_and_left_with_all_of_it(tmp_path: Path):
    with opened(tmp_path / "history.db") as store:
        async with writing(store, in_threads()) as writer:
            for each in in_a_row(*[190] * 30):
                await writer.put(each)
    with opened(tmp_path / "history.db") as store:
        assert covered(store) == [(0, 5700)]
        assert len(store.bars(MARKET, M1, *EVER)) == 5700
        assert store.integrity() == ()


async def test_a_database_that_is_read_only_takes_nothing_and_says_so(autojump_clock, tmp_path: Path):
    with opened(tmp_path / "history.db"), opened(tmp_path / "history.db") as view:
        async with writing(view) as writer:
            assert not writer.can_write
            assert not writer.offer(full(0, 3))
            fail(writer, 0, 3)
            await writer.stored()
            await trio.sleep(5)
            status = writer.status()
            assert status.read_only
            assert "writes to it" in status.why
            assert (status.rows_kept, status.rows_let_go, status.failures, status.trouble) == (0, 0, 0, "")
        assert view.coverage(MARKET, M1, *EVER).length == 0
        assert view.failures(MARKET, M1) == ()


# -- a file that is moved or deleted ----------------------------------------------------------------------------------


async def test_nobody_waits_for_a_file_that_has_been_moved_and_its_return_is_seen(tmp_path: Path, autojump_clock):
    path, elsewhere = tmp_path / "history.db", tmp_path / "elsewhere.db"
    with opened(path) as store:
        async with writing(store, kept_rows=300) as writer:
            await writer.put(full(0, 10))
            await writer.stored()
            path.rename(elsewhere)
            for put in range(2):  # the second one when it is known already
                await writer.put(full(10 + put, 11 + put))
                with pytest.raises(StoreError, match="has been moved or deleted"):
                    await writer.stored()
            with pytest.raises(StoreError, match="has been moved or deleted"):
                await writer.put(full(20, 320))
            assert writer.status().rows_kept == 302
            assert "has been moved or deleted" in writer.status().trouble
            elsewhere.rename(path)
            await trio.sleep(60)
            await writer.stored()
            assert writer.status().trouble == ""
        assert covered(store) == [(0, 12), (20, 320)]


async def test_those_who_wait_already_are_told_that_the_file_has_gone(tmp_path: Path, autojump_clock):
    path = tmp_path / "history.db"
    with opened(path) as store:
        async with writing(store) as writer:
            path.unlink()
            refused: list[StoreError] = []

            async def wait(slot: int) -> None:
                await writer.put(full(slot, slot + 1))
                with pytest.raises(StoreError, match="has been moved or deleted") as caught:
                    await writer.stored()
                refused.append(caught.value)

            async with trio.open_nursery() as waiting:
                for slot in range(3):
                    waiting.start_soon(wait, slot)
            assert len({*map(id, refused)}) == 3


async def test_a_disk_that_is_full_is_waited_for(autojump_clock):
    store = Paper(trouble=FULL_DISK)
    async with writing(store) as writer:
        await writer.put(full(0, 3))
        with trio.move_on_after(600) as patience:
            await writer.stored()
        assert patience.cancelled_caught
        store.trouble = ""
        await writer.stored()


async def test_what_was_stored_otherwise_is_told(autojump_clock, caplog):
    async with writing(Paper()) as writer:
        await writer.put(full(0, 3))
        await writer.stored()
        assert "stored otherwise" not in caplog.text
        await writer.put(piece(0, 3, [bar(0, 7), 2]))
        await writer.stored()
        assert writer.status().rows_amended == 2
        assert "2 slots were stored otherwise; what was there is kept as evidence" in caplog.text
