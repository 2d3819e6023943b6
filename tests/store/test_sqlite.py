"""What is written and what is read: bars, coverage, amendments, failures, counts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.paper_store import (
    BASE_MS,
    EVER,
    M1,
    MARKET,
    bar,
    covered,
    full,
    opened,
    opens,
    piece,
    volumes,
)

from marketpipe.core.history import Piece
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.models import CandleState, Source
from marketpipe.store import sqlite
from marketpipe.store.sqlite import SqliteStore
from marketpipe.store.values import Amendment, Failure, StoredSeries, Written


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    with opened(":memory:" if request.param == "memory" else tmp_path / "history.db") as made:
        yield made
        assert made.integrity() == ()


def bars(store: Any, first: int = -50, end: int = 3_000, **options: Any) -> tuple[Any, ...]:
    return store.bars(MARKET, M1, opens(first), opens(end), **options)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_bar_comes_back_as_it_was_but_for_its_source(store: SqliteStore):
    given_bar = bar(3, "0.00000001", revision=2, received_ms=77)
    assert store.write([piece(0, 5, [given_bar])], now_ms=1) == Written(rows=1)
    (read,) = bars(store)
    assert read == attrs.evolve(given_bar, source=Source.STORE)
    assert read.timeframe is M1
    assert read.state is CandleState.FINAL
    assert read.filled is False


def test_traded_empty_and_unknown_slots_can_be_told_apart(store: SqliteStore):
    store.write([piece(0, 3, [1])], now_ms=1)
    assert [c.open_ms for c in bars(store)] == [opens(1)]
    assert store.coverage(MARKET, M1, *EVER) == SpanSet.of((opens(0), opens(3)))


def test_the_same_piece_again_changes_nothing(store: SqliteStore):
    store.write([full(0, 5)], now_ms=1)
    before = bars(store)
    again = piece(0, 5, [bar(slot, received_ms=999) for slot in range(5)])
    assert store._access.writer is not None
    changes = store._access.writer.conn.total_changes
    assert store.write([again, piece(1, 3, [1, 2])], now_ms=2) == Written(unchanged=7)
    assert bars(store) == before
    assert store._access.writer.conn.total_changes == changes


def test_one_number_in_two_spellings_is_the_same_bar(store: SqliteStore):
    store.write([piece(0, 1, [bar(0, "1.16539E8", low=Decimal("0.10"))])], now_ms=1)
    again = piece(0, 1, [bar(0, "116539000.000", low=Decimal("0.1"))])
    assert store.write([again], now_ms=2) == Written(unchanged=1)


def test_other_values_amend_the_bar_and_keep_the_old_one(store: SqliteStore):
    store.write([piece(0, 2, [0, 1])], now_ms=1)
    (old, _) = bars(store)
    written = store.write([piece(0, 2, [bar(0, 2), 1])], now_ms=50)
    assert written == Written(1, 1, (Amendment(MARKET, M1, opens(0), 0, 50, old),))
    assert volumes(store) == [(0, "2", 1), (1, "1", 0)]
    assert store.amendments(MARKET, M1) == written.amended


def test_another_stamp_of_the_exchange_is_another_bar(store: SqliteStore):
    store.write([piece(0, 1, [0])], now_ms=1)
    store.write([piece(0, 1, [bar(0, exchange_ms=opens(0) + 501)])], now_ms=2)
    assert volumes(store) == [(0, "1", 1)]


def test_a_bar_that_vanished_is_kept_as_evidence(store: SqliteStore):
    store.write([piece(0, 2, [0, 1])], now_ms=1)
    (old, _) = bars(store)
    assert store.write([piece(0, 2, [1])], now_ms=50) == Written(0, 1, (Amendment(MARKET, M1, opens(0), 0, 50, old),))
    assert volumes(store) == [(1, "1", 0)]


def test_a_bar_in_a_slot_that_was_proven_empty_is_an_amendment(store: SqliteStore):
    store.write([piece(0, 2)], now_ms=1)
    assert store.write([piece(0, 2, [1])], now_ms=50) == Written(1, 0, (Amendment(MARKET, M1, opens(1), 0, 50, None),))
    assert volumes(store) == [(1, "1", 1)]


def test_a_slot_keeps_every_state_it_had_under_its_own_revision(store: SqliteStore):
    for volume in (1, None, 2, 3, None, 4):
        store.write([piece(0, 1, [bar(0, volume)] if volume else [])], now_ms=1)
    assert volumes(store) == [(0, "4", 5)]
    kept = store.amendments(MARKET, M1)
    assert [(each.revision, each.was and int(each.was.volume)) for each in kept] == [
        (0, 1),
        (1, None),
        (2, 2),
        (3, 3),
        (4, None),
    ]


def test_a_bar_that_was_amended_before_it_was_stored_keeps_its_revision(store: SqliteStore):
    store.write([piece(0, 2, [bar(0, revision=3)])], now_ms=1)
    store.write([piece(0, 2, [bar(0, 2, revision=7), bar(1, revision=0)])], now_ms=1)
    assert volumes(store) == [(0, "2", 7), (1, "1", 1)]


def test_of_two_pieces_in_one_write_the_later_one_counts(store: SqliteStore):
    written = store.write([piece(0, 2, [0]), piece(0, 2, [bar(0, 2), 1])], now_ms=1)
    assert (written.rows, written.unchanged, len(written.amended)) == (3, 0, 2)
    assert volumes(store) == [(0, "2", 1), (1, "1", 1)]


def test_series_do_not_touch_each_other(store: SqliteStore):
    other = Piece("KRW-ETH", M1, opens(0), opens(2), (bar(0, 5, market="KRW-ETH"),))
    store.write([piece(0, 2, [0]), other, piece(0, 2, [], timeframe=Timeframe.M3)], now_ms=1)
    assert volumes(store) == [(0, "1", 0)]
    assert [str(c.volume) for c in store.bars("KRW-ETH", M1, *EVER)] == ["5"]
    assert store.coverage(MARKET, Timeframe.M3, *EVER).length == 2 * 180_000
    assert not store.coverage("KRW-ETH", Timeframe.M3, *EVER)


def test_nothing_to_write_is_written(store: SqliteStore):
    assert store.write([], now_ms=1) == Written()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (piece(2, 2), "must end after it starts"),
        (Piece(MARKET, M1, opens(0) + 1, opens(2), ()), "must begin and end where a slot does"),
        (Piece(MARKET, M1, opens(0), opens(2) + 1, ()), "must begin and end where a slot does"),
        (piece(0, 2, [2]), "out of place"),
        (piece(0, 2, [-1]), "out of place"),
        (piece(0, 2, [1, 0]), "out of place"),
        (piece(0, 2, [0, 0]), "out of place"),
        (piece(0, 2, [attrs.evolve(bar(0), open_ms=opens(0) + 1)]), "out of place"),
        (piece(0, 2, [bar(0, market="KRW-ETH")]), "of its own series, was KRW-ETH 1m"),
        (piece(0, 2, [attrs.evolve(bar(0), timeframe=Timeframe.M3)]), "of its own series, was KRW-BTC 3m"),
        (piece(0, 2, [bar(0, state=CandleState.RUNNING)]), "FINAL"),
        (piece(0, 2, [bar(0, filled=True)]), "FINAL"),
        (piece(0, 2, [bar(0, "NaN")]), "must be a number, was NaN"),
        (piece(0, 2, [bar(0, "-Infinity")]), "must be a number, was -Infinity"),
        (piece(0, 2, [bar(0, "sNaN")]), "must be a number, was sNaN"),
    ],
)
def test_a_piece_that_cannot_be_is_refused_before_anything_is_written(store: SqliteStore, made: Piece, words: str):
    with pytest.raises(ValueError, match=words):
        store.write([full(10, 12), made], now_ms=1)
    assert bars(store) == ()
    assert not store.coverage(MARKET, M1, *EVER)


@pytest.mark.parametrize("timeframe", [*Timeframe])
def test_the_beginning_of_all_history_is_a_boundary_of_every_timeframe(timeframe: Timeframe):
    with opened(":memory:") as store:
        store.write([Piece(MARKET, timeframe, 0, BASE_MS[timeframe], ())], now_ms=1)
        assert store.coverage(MARKET, timeframe, *EVER) == SpanSet.of((0, BASE_MS[timeframe]))
        assert store.integrity() == ()


# -- what is concluded ------------------------------------------------------------------------------------------------


def short(shown: int, end: int, slots: Iterable[int] = (), start: int = -40) -> Piece:
    """What a page shorter than asked tells: bars from slot ``shown`` on, and nothing before."""
    return attrs.evolve(piece(start, end, slots), shown_ms=opens(shown))


def test_a_history_that_begins_is_proven_as_far_back_as_there_is_none(store: SqliteStore):
    assert store.write([short(5, 8, [5, 7])], now_ms=1) == Written(rows=2)
    assert covered(store) == [(-40, 8)]
    assert store.write([short(5, 8, [5, 7])], now_ms=2) == Written(unchanged=2)


def test_a_beginning_of_history_removes_no_bar(store: SqliteStore):
    store.write([full(0, 3)], now_ms=1)
    before = bars(store)
    assert store.write([short(5, 8, [5, 7])], now_ms=2) == Written(rows=2)
    assert bars(store, end=4) == before
    assert covered(store) == [(0, 3), (5, 8)]
    assert store.write([short(20, 20)], now_ms=3) == Written()
    assert covered(store) == [(0, 3), (5, 8)]
    assert store.amendments(MARKET, M1) == ()


def test_what_is_older_than_all_that_is_concluded_is_in_nobodys_way(store: SqliteStore):
    store.write([full(0, 3)], now_ms=1)
    store.write([short(5, 8, [5], start=3)], now_ms=2)
    assert covered(store) == [(0, 8)]


def test_a_bar_that_nothing_proves_yields_to_a_beginning_of_history(store: SqliteStore):
    store.write([full(0, 3)], now_ms=1)
    assert store._access.writer is not None
    store._access.writer.execute("DELETE FROM coverage")
    assert len(store.write([short(5, 8, [5])], now_ms=2).amended) == 3
    assert [c.open_ms for c in bars(store)] == [opens(5)]


@pytest.mark.parametrize("shown", [-41, 9])
def test_nothing_is_shown_outside_of_its_piece(store: SqliteStore, shown: int):
    with pytest.raises(ValueError, match="must have been shown from a moment in it on"):
        store.write([short(shown, 8)], now_ms=1)


def test_no_bar_stands_in_what_was_not_shown(store: SqliteStore):
    with pytest.raises(ValueError, match="out of place"):
        store.write([short(5, 8, [4, 5])], now_ms=1)
    with pytest.raises(ValueError, match="must begin and end where a slot does"):
        store.write([attrs.evolve(piece(0, 8), shown_ms=opens(5) + 1)], now_ms=1)


def test_the_newest_proven_bar_before_a_moment(store: SqliteStore):
    assert store.newest_proven(MARKET, M1, opens(9)) is None
    store.write([full(0, 3), piece(5, 9, [6])], now_ms=1)
    found = [store.newest_proven(MARKET, M1, opens(slot)) for slot in (0, 1, 3, 6, 7, 100)]
    assert found == [None, *map(opens, (0, 2, 2, 6, 6))]
    assert store.newest_proven(MARKET, Timeframe.M3, opens(9)) is None
    assert store.newest_proven("KRW-ETH", M1, opens(9)) is None


# -- coverage ---------------------------------------------------------------------------------------------------------


def test_spans_that_touch_become_one(store: SqliteStore):
    store.write([piece(0, 2), piece(5, 7), piece(9, 10)], now_ms=1)
    assert covered(store) == [(0, 2), (5, 7), (9, 10)]
    store.write([piece(2, 4)], now_ms=1)
    assert covered(store) == [(0, 4), (5, 7), (9, 10)]
    store.write([piece(4, 8)], now_ms=1)
    assert covered(store) == [(0, 8), (9, 10)]
    store.write([piece(-1, 20)], now_ms=1)
    assert covered(store) == [(-1, 20)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=12), st.integers(0, 40), st.integers(0, 15))
def test_coverage_is_the_union_of_what_was_written(spans: list[tuple[int, int]], first: int, length: int):
    with opened(":memory:") as store:
        for start, size in spans:
            store.write([piece(start, start + size)], now_ms=1)
        proven = SpanSet.of(*((opens(start), opens(start + size)) for start, size in spans))
        assert store.coverage(MARKET, M1, *EVER) == proven
        cut = (opens(first), opens(first + length))
        assert store.coverage(MARKET, M1, *cut) == proven.clip(*cut)
        assert store.integrity() == ()


# -- reading ----------------------------------------------------------------------------------------------------------


def test_bars_are_those_that_open_in_the_range_oldest_first(store: SqliteStore):
    store.write([full(0, 10)], now_ms=1)
    assert [c.open_ms for c in bars(store, 3, 6)] == [opens(3), opens(4), opens(5)]
    assert [c.open_ms for c in bars(store, 3, 6, limit=2)] == [opens(3), opens(4)]
    assert bars(store, 6, 3) == ()
    assert bars(store, 10, 99) == ()


def test_the_newest_bars_come_oldest_first_and_open_before_the_moment(store: SqliteStore):
    store.write([full(0, 3), full(7, 10)], now_ms=1)
    assert [c.open_ms for c in store.newest(MARKET, M1, 4)] == [opens(2), opens(7), opens(8), opens(9)]
    assert [c.open_ms for c in store.newest(MARKET, M1, 2, opens(8))] == [opens(2), opens(7)]
    assert store.newest(MARKET, M1, 2, opens(0)) == ()


@pytest.mark.parametrize("size", [1, 3, 7, 8, 100])
def test_pages_hold_every_bar_once_and_no_more_than_asked(store: SqliteStore, size: int):
    store.write([full(0, 7), full(9, 16)], now_ms=1)
    pages = [*store.pages(MARKET, M1, opens(1), opens(15), size=size)]
    assert tuple(c for page in pages for c in page) == bars(store, 1, 15)
    assert {len(page) for page in pages[:-1]} <= {size}


def test_pages_go_on_while_others_write(store: SqliteStore):
    store.write([full(0, 6)], now_ms=1)
    pages = store.pages(MARKET, M1, *EVER, size=3)
    assert [c.open_ms for c in next(pages)] == [opens(0), opens(1), opens(2)]
    store.write([piece(0, 8, [bar(slot, 2) for slot in (0, 1, 4, 5, 7)])], now_ms=1)
    assert [(c.open_ms, int(c.volume)) for c in next(pages)] == [(opens(4), 2), (opens(5), 2), (opens(7), 2)]
    assert [*pages] == []


def test_series_are_counted(store: SqliteStore):
    assert store.series() == ()
    store.write([full(0, 5), piece(7, 9), piece(0, 2, [], timeframe=Timeframe.D1)], now_ms=1)
    store.write([piece(0, 5, [0, 1, bar(2, 9), 3]), piece(7, 9, [8])], now_ms=1)
    days = StoredSeries(MARKET, Timeframe.D1, 0, 0, None, None, 1, 2 * 86_400_000)
    assert store.series() == (days, StoredSeries(MARKET, M1, 5, 3, opens(0), opens(8), 2, 7 * 60_000))


# -- failures ---------------------------------------------------------------------------------------------------------


def fail(store: SqliteStore, first: int, end: int, code: str = "503", now_ms: int = 1) -> None:
    store.note_failure(MARKET, M1, opens(first), opens(end), code, f"answered {code}", now_ms)


def test_failures_of_a_span_are_counted(store: SqliteStore):
    fail(store, 0, 5, "503", 10)
    fail(store, 0, 5, "timeout", 20)
    fail(store, 5, 9, "418", 30)
    first = Failure(MARKET, M1, opens(0), opens(5), 2, "timeout", "answered timeout", 10, 20)
    second = Failure(MARKET, M1, opens(5), opens(9), 1, "418", "answered 418", 30, 30)
    assert store.failures(MARKET, M1) == (first, second)
    assert store.failures(MARKET, M1, opens(4), opens(5)) == (first,)
    assert store.failures(MARKET, M1, opens(9), opens(99)) == ()
    assert store.failures(MARKET, Timeframe.M3) == ()


def test_what_is_proven_has_not_failed(store: SqliteStore):
    fail(store, 0, 4)
    fail(store, 4, 8)
    store.write([piece(0, 2)], now_ms=1)
    assert [each.start_ms for each in store.failures(MARKET, M1)] == [opens(0), opens(4)]
    store.write([piece(2, 5)], now_ms=1)  # the first one is covered now, by two pieces together
    assert [each.start_ms for each in store.failures(MARKET, M1)] == [opens(4)]
    fail(store, 1, 3)
    assert [each.start_ms for each in store.failures(MARKET, M1)] == [opens(4)]


def test_a_failure_of_nothing_is_refused(store: SqliteStore):
    with pytest.raises(ValueError, match="must end after it starts"):
        fail(store, 3, 3)


# -- exact numbers ----------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.sampled_from([Decimal(text) for text in ("1E-8", "1.16539E8", "0", "0E+5", "1E+20", "12345.67890")]),
    st.decimals(min_value=0, allow_nan=False, allow_infinity=False, places=8),
    st.builds(
        lambda digits, exponent: Decimal((0, tuple(digits), exponent)),
        st.lists(st.integers(0, 9), min_size=1, max_size=40),
        st.integers(-40, 10),
    ),
)


@given(st.lists(numbers, min_size=6, max_size=6))
def test_every_number_comes_back_exactly(six: list[Decimal]):
    names = ("open", "high", "low", "close", "volume", "quote_volume")
    with opened(":memory:") as store:
        store.write([piece(0, 1, [attrs.evolve(bar(0), **dict(zip(names, six, strict=True)))])], now_ms=1)
        (read,) = bars(store)
        assert [getattr(read, name) for name in names] == six


# -- people's SQL -----------------------------------------------------------------------------------------------------


def test_the_view_has_times_to_read_and_numbers_to_calculate_with(tmp_path: Path):
    with opened(tmp_path / "history.db") as store:
        store.write([piece(0, 1, [bar(0, "0.5")])], now_ms=1)
    conn = sqlite3.connect(tmp_path / "history.db")
    (row,) = conn.execute("SELECT market, open_time, close, volume * 2 FROM bars").fetchall()
    conn.close()
    assert row == (MARKET, bar(0).open_time.strftime("%Y-%m-%dT%H:%M:%SZ"), 116539000.0, 1.0)


# -- two threads, and the end -----------------------------------------------------------------------------------------


def test_a_thread_reads_whole_writes_while_another_writes(store: SqliteStore):
    writes, size = 60, 20
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(writes):
                store.write([full(number * size, (number + 1) * size)], now_ms=1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    seen = [0]
    while thread.is_alive() or seen[-1] < writes * size:
        assert not failures
        seen.append(len(bars(store)))
    thread.join()
    assert {count % size for count in seen} == {0}
    assert sorted(seen) == seen


def test_a_reader_of_ones_own_sees_the_same_and_is_closed_by_oneself(store: SqliteStore):
    store.write([full(0, 3)], now_ms=1)
    with store.reader() as reader:
        assert volumes(reader) == volumes(store)
        store.write([full(3, 4)], now_ms=1)
        assert volumes(reader) == volumes(store)
    with pytest.raises(StoreError, match="it has been closed"):
        reader.newest(MARKET, M1, 1)
    assert len(volumes(store)) == 4


CALLS = {
    "write": lambda store: store.write([full(0, 1)], now_ms=1),
    "note_failure": lambda store: fail(store, 0, 1),
    "coverage": lambda store: store.coverage(MARKET, M1, *EVER),
    "bars": lambda store: store.bars(MARKET, M1, *EVER),
    "newest": lambda store: store.newest(MARKET, M1, 1),
    "newest_proven": lambda store: store.newest_proven(MARKET, M1, 1),
    "pages": lambda store: next(store.pages(MARKET, M1, *EVER)),
    "series": lambda store: store.series(),
    "failures": lambda store: store.failures(MARKET, M1),
    "amendments": lambda store: store.amendments(MARKET, M1),
    "integrity": lambda store: store.integrity(),
    "reader": lambda store: store.reader(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("path", ["file", ":memory:"])
def test_a_closed_store_says_so(path: str, name: str, tmp_path: Path):
    store = opened(tmp_path / "history.db" if path == "file" else path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="it has been closed"):
        CALLS[name](store)


def test_closing_leaves_no_handle_and_no_log(tmp_path: Path):
    process = psutil.Process()
    before = process.num_fds()
    store = opened(tmp_path / "history.db")
    store.write([full(0, 50)], now_ms=1)
    assert bars(store)
    store.close()
    assert process.num_fds() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.db", "history.db.lock"]


def test_what_was_written_is_there_after_opening_again(tmp_path: Path):
    with opened(tmp_path / "history.db") as store:
        store.write([full(0, 3), piece(5, 6)], now_ms=1)
        fail(store, 8, 9)
        before = volumes(store), covered(store), store.failures(MARKET, M1), store.series()
    with opened(tmp_path / "history.db") as store:
        assert (volumes(store), covered(store), store.failures(MARKET, M1), store.series()) == before


def test_two_stores_in_memory_are_two(tmp_path: Path):
    with opened(":memory:") as one, opened(":memory:") as other:
        one.write([full(0, 2)], now_ms=1)
        assert volumes(other) == []
        assert not one.read_only
        assert not other.read_only
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def unwritable_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log cannot be copied into the file when it is closed: as on a full disk."""

    class Refusing:
        def __init__(self, real: Any) -> None:
            self._real = real

        def execute(self, sql: str, *rest: Any) -> Any:
            if "wal_checkpoint" in sql:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
                raise error
            return self._real.execute(sql, *rest)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    opening = sqlite.open_database

    def full_disk(name: str, source: str) -> Any:
        access = opening(name, source)
        return attrs.evolve(access, writer=Refusing(access.writer))

    monkeypatch.setattr(sqlite, "open_database", full_disk)


@pytest.mark.usefixtures("unwritable_log")
def test_a_log_that_cannot_be_written_back_is_logged_and_nothing_is_lost(tmp_path: Path, caplog: Any):
    with opened(tmp_path / "history.db") as store:
        store.write([full(0, 3)], now_ms=1)
    assert "cannot write the log back: the disk is full (SQLITE_FULL" in caplog.text
    with opened(tmp_path / "history.db") as store:
        assert not store.read_only
        assert len(volumes(store)) == 3


@pytest.mark.usefixtures("unwritable_log")
def test_a_log_that_cannot_be_written_back_is_in_no_exceptions_way(tmp_path: Path):
    with pytest.raises(KeyError, match="mine"), opened(tmp_path / "history.db"):
        raise KeyError("mine")


def test_a_file_that_is_moved_or_deleted_is_lost_until_it_is_back(tmp_path: Path):
    path = tmp_path / "history.db"
    with opened(path) as store:
        assert not store.is_lost
        path.rename(tmp_path / "elsewhere.db")
        assert store.is_lost
        with pytest.raises(StoreError, match="cannot write: the file has been moved or deleted"):
            store.write([full(0, 3)], now_ms=1)
        (tmp_path / "elsewhere.db").rename(path)
        assert not store.is_lost
        with opened(path) as view:
            assert not view.is_lost
    with opened(":memory:") as store:
        assert not store.is_lost
