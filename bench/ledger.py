"""What a database of bars holds, read with ``sqlite3`` alone and held against what the market really was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from bench.truth import CANDLE_FIELDS
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import World
from marketpipe.sim.quotation import truth_candles

__all__ = ["MINUTE_MS", "Held", "held_against_truth", "proven_spans", "rows_in"]

MINUTE_MS = 60_000
DAY_MS = 86_400_000
NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume")
_ROWS = f"""
    SELECT open_ms, {", ".join(NUMBERS)}, exchange_ms FROM candles
    WHERE market = ? AND timeframe = '1m' AND open_ms >= ? AND open_ms < ? ORDER BY open_ms
"""


@attrs.frozen
class Held:
    """How a stretch of a database compares: bars that it lacks, has twice, or has otherwise than they were."""

    bars: int
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    words: tuple[str, ...] = ()

    def broken(self, what: str) -> list[str]:
        """One line if anything is not as it was, and which bar it is."""
        if not (self.lost or self.doubled or self.wrong):
            return []
        counts = f"{self.lost} lost, {self.doubled} doubled, {self.wrong} wrong"
        return [f"{what}: of {self.bars} bars {counts}: {'; '.join(self.words[:5])}"]


def held_against_truth(world: World, path: Path, market: str, start_ms: int, end_ms: int) -> Held:
    """Every minute bar of ``market`` that is stored of ``[start_ms, end_ms)``, which is past, and every one that was.

    Every number is compared; a bar where none was traded counts as doubled.
    """
    with closing(_connect(path)) as conn:
        days = [_day(conn, world, market, low_ms, min(low_ms + DAY_MS, end_ms))
                for low_ms in range(start_ms, end_ms, DAY_MS)]  # fmt: skip
    return Held(
        bars=sum(day.bars for day in days),
        lost=sum(day.lost for day in days),
        doubled=sum(day.doubled for day in days),
        wrong=sum(day.wrong for day in days),
        words=tuple(word for day in days for word in day.words),
    )


def proven_spans(path: Path, market: str) -> list[tuple[int, int]]:
    """What the ledger of the database says is proven of the minute bars."""
    with closing(_connect(path)) as conn:
        return conn.execute(
            "SELECT start_ms, end_ms FROM coverage WHERE market = ? AND timeframe = '1m' ORDER BY start_ms", (market,)
        ).fetchall()


def rows_in(path: Path, market: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """How many minute bars are stored in each of ``spans``."""
    counted = "SELECT count(*) FROM candles WHERE market = ? AND timeframe = '1m' AND open_ms >= ? AND open_ms < ?"
    with closing(_connect(path)) as conn:
        return [int(conn.execute(counted, (market, *span)).fetchone()[0]) for span in spans]


def _day(conn: sqlite3.Connection, world: World, market: str, start_ms: int, end_ms: int) -> Held:
    true = dict(_true_rows(world, market, start_ms, end_ms))
    rows = conn.execute(_ROWS, (market, start_ms, end_ms)).fetchall()
    stored = {open_ms: (*map(Decimal, numbers), exchange_ms) for open_ms, *numbers, exchange_ms in rows}
    lost = [open_ms for open_ms in true if open_ms not in stored]
    extra = [open_ms for open_ms in stored if open_ms not in true]
    wrong = [open_ms for open_ms, row in stored.items() if open_ms in true and true[open_ms] != row]
    words = [f"{market} at {open_ms} {how}"
             for how, moments in (("is missing", lost), ("never was", extra), ("is wrong", wrong))
             for open_ms in moments]  # fmt: skip
    return Held(len(true), len(lost), len(extra) + len(rows) - len(stored), len(wrong), tuple(words))


def _true_rows(world: World, market: str, start_ms: int, end_ms: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    body = truth_candles(world, market, Timeframe.M1, start_ms, end_ms, end_ms)
    names = [CANDLE_FIELDS[name] for name in (*NUMBERS, "exchange_ms")]
    bars = world.candles(market, Timeframe.M1, start_ms, end_ms, end_ms)
    for bar, row in zip(bars, json.loads(body, parse_float=Decimal), strict=True):
        yield bar.open_ms, tuple(row[name] for name in names)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
