"""What the doctor finds in a database that somebody else has had in his hands."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from store.paper_store import EVER, M1, MARKET, bar, covered, full, opened, opens, piece, volumes

from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.store.values import Finding, Flaw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Forty bars in two proven spans: slots 0 to 29 and 50 to 59; and three months."""
    path = tmp_path / "history.db"
    with opened(path) as store:
        months = piece(0, 3, range(3), timeframe=Timeframe.MONTH)
        store.write([full(0, 30), piece(30, 35), full(50, 60), months], now_ms=1)
        store.write([piece(30, 35, [34])], now_ms=2)
        assert store.integrity() == ()
    return path


def edited(path: Path, *statements: str) -> None:
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()


def found(path: Path) -> list[tuple[Flaw, str | None, int | None, int | None]]:
    with opened(path) as store:
        return [(each.kind, each.timeframe, each.start_ms, each.end_ms) for each in store.integrity()]


ONE = f"WHERE timeframe = '1m' AND open_ms = {opens(3)}"
THREE = f"WHERE timeframe = '1m' AND open_ms BETWEEN {opens(3)} AND {opens(5)}"


@pytest.mark.parametrize(
    "change",
    [
        "low = '116539000.1'",
        "high = '116538999.9999999999999999999999999999'",
        "open = '116539001'",
        "open = '116538999'",
        "close = '1'",
        "close = '900000000'",
        "volume = '-1'",
        "quote_volume = '-0.00000001'",
        "open = '-1', high = '-1', low = '-1', close = '-1'",
    ],
)
def test_bars_that_no_market_makes(path: Path, change: str):
    edited(path, f"UPDATE candles SET {change} {THREE}")
    assert found(path) == [(Flaw.IMPOSSIBLE, "1m", opens(3), opens(6))]


@pytest.mark.parametrize("text", ["", "abc", "NaN", "Infinity", "1.0", "1E+2", "-0", " 1", "01"])
def test_text_that_is_no_number_or_not_in_its_one_spelling(path: Path, text: str):
    edited(path, f"UPDATE candles SET volume = '{text}' {ONE}")
    assert found(path) == [(Flaw.UNREADABLE, "1m", opens(3), opens(4))]


def test_flaws_that_follow_each_other_are_told_as_one(path: Path):
    edited(path, f"UPDATE candles SET volume = '-1' {THREE}", f"UPDATE candles SET volume = 'x' {ONE}")
    with opened(path) as store:
        assert store.integrity() == (
            Finding(Flaw.UNREADABLE, "1 bar: what is stored is no bar", MARKET, "1m", opens(3), opens(4)),
            Finding(
                Flaw.IMPOSSIBLE,
                "2 bars: the low is not the lowest, or the high not the highest, or a number is below 0",
                MARKET,
                "1m",
                opens(4),
                opens(6),
            ),
        )


def test_a_row_that_cannot_be_read_is_told_when_it_is_asked_for_and_mended_by_writing(path: Path):
    edited(path, f"UPDATE candles SET volume = 'abc' {ONE}")
    with opened(path) as store:
        with pytest.raises(StoreError, match="cannot read: a row says what nothing can mean"):
            store.bars(MARKET, M1, *EVER)
        (amendment,) = store.write([full(0, 30)], now_ms=1).amended
        assert (amendment.open_ms, amendment.was) == (opens(3), None)
        assert store.integrity() == ()
        assert (3, "1", 1) in volumes(store)


@pytest.mark.parametrize(
    ("timeframe", "to_ms"),
    [("1m", opens(3) + 1), ("1m", -opens(3)), ("1M", opens(1, Timeframe.MONTH) + 60_000), ("1M", 1 << 61)],
)
def test_bars_where_no_slot_begins(path: Path, timeframe: str, to_ms: int):
    of = opens(3) if timeframe == "1m" else opens(1, Timeframe.MONTH)
    edited(path, f"UPDATE candles SET open_ms = {to_ms} WHERE timeframe = '{timeframe}' AND open_ms = {of}")
    assert (Flaw.MISALIGNED, timeframe, to_ms) in [each[:3] for each in found(path)]


def test_bars_that_are_not_proven(path: Path):
    edited(path, f"UPDATE coverage SET start_ms = {opens(2)} WHERE timeframe = '1m' AND start_ms = {opens(0)}")
    assert found(path) == [(Flaw.UNCOVERED, "1m", opens(0), opens(2))]
    edited(path, "DELETE FROM coverage WHERE timeframe = '1M'", "DELETE FROM series WHERE timeframe = '1M'")
    months = (opens(0, Timeframe.MONTH), opens(3, Timeframe.MONTH))
    assert found(path) == [
        (Flaw.UNCOVERED, "1M", *months),
        (Flaw.MISCOUNTED, "1M", None, None),
        (Flaw.UNCOVERED, "1m", opens(0), opens(2)),
    ]


def test_what_somebody_deleted_to_have_it_fetched_again_is_taken_in_again(path: Path):
    edited(path, "DELETE FROM coverage", "DELETE FROM candles WHERE timeframe = '1m'", "DELETE FROM series")
    with opened(path) as store:
        for volume in (1, 2):
            store.write([piece(30, 35, [bar(34, volume)])], now_ms=3)
        assert [each.revision for each in store.amendments(MARKET, M1)] == [0, 1]
        assert covered(store) == [(30, 35)]


def test_spans_that_touch_or_overlap(path: Path):
    edited(path, f"INSERT INTO coverage VALUES ('{MARKET}', '1m', {opens(35)}, {opens(40)})")
    edited(path, f"INSERT INTO coverage VALUES ('{MARKET}', '1m', {opens(52)}, {opens(60)})")
    assert found(path) == [
        (Flaw.COVERAGE, "1m", opens(35), opens(35)),
        (Flaw.COVERAGE, "1m", opens(52), opens(60)),
    ]


def test_spans_that_do_not_lie_on_slots(path: Path):
    edited(path, f"UPDATE coverage SET end_ms = end_ms + 1 WHERE timeframe = '1m' AND start_ms = {opens(50)}")
    assert found(path) == [(Flaw.MISALIGNED, "1m", opens(50), opens(60) + 1)]


def test_rows_that_were_not_counted(path: Path):
    edited(path, f"DELETE FROM candles {THREE}", "DELETE FROM amendments")
    with opened(path) as store:
        words = "38 bars and 0 amendments, 41 and 1 were counted"
        assert store.integrity() == (Finding(Flaw.MISCOUNTED, words, MARKET, "1m"),)


def test_a_timeframe_that_there_is_not(path: Path):
    edited(
        path,
        "UPDATE candles SET timeframe = '7m' WHERE timeframe = '1M'",
        "UPDATE series SET timeframe = '7m' WHERE timeframe = '1M'",
    )
    with opened(path) as store:
        assert [each for each in store.integrity() if each.timeframe == "7m"] == [
            Finding(Flaw.UNREADABLE, "there is no timeframe '7m'", MARKET, "7m")
        ]
        with pytest.raises(StoreError, match="a row says what nothing can mean"):
            store.series()


@pytest.mark.parametrize("byte", [b"\x00", b"\x5a"])
def test_pages_of_the_file_that_are_overwritten(tmp_path: Path, byte: bytes):
    path = tmp_path / "history.db"
    with opened(path) as store:
        store.write([full(0, 2_000)], now_ms=1)
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek((pages - 4) * 4096)
        file.write(byte * 3 * 4096)
    with opened(path) as store:
        assert {each.kind for each in store.integrity()} == {Flaw.DAMAGED}
        with pytest.raises(StoreError, match="cannot read: the file is damaged"):
            store.bars(MARKET, M1, *EVER)


def test_what_sqlite_counts_wrong_in_its_own_file(path: Path):
    with path.open("r+b") as file:
        # How many bytes are lost in the gaps of the second page, which is of `candles`
        # (https://www.sqlite.org/fileformat2.html#b_tree_pages).
        file.seek(4096 + 7)
        file.write(b"\x03")
    with opened(path) as store:
        words = "Fragmentation of 0 bytes reported as 3 on page 2"
        assert store.integrity() == (Finding(Flaw.DAMAGED, words),)
        assert len(volumes(store)) == 41
