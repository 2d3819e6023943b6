"""Bars and pieces by their slot, and other processes at the same file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from marketpipe.core import timeframes
from marketpipe.core.history import Piece
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Source
from marketpipe.store.guard import open_database
from marketpipe.store.sqlite import SqliteStore

MARKET = "KRW-BTC"
M1 = Timeframe.M1
SOURCE = "https://api.upbit.com"
EVER = (0, 1 << 50)
BASE_MS = {timeframe: timeframes.floor(timeframe, 1_790_166_900_000) for timeframe in Timeframe}


def opens(slot: int, timeframe: Timeframe = M1) -> int:
    return timeframes.shift(timeframe, BASE_MS[timeframe], slot)


def bar(slot: int, volume: Any = 1, *, timeframe: Timeframe = M1, market: str = MARKET, **changes: Any) -> Candle:
    """A bar of a page; two bars of a slot differ by their ``volume``."""
    values: dict[str, Any] = {
        **dict.fromkeys(("open", "high", "low", "close", "quote_volume"), Decimal("116539000.00000000")),
        "volume": Decimal(volume),
        "exchange_ms": opens(slot, timeframe) + 500,
        "received_ms": 1,
        "source": Source.REST,
        "state": CandleState.FINAL,
        **changes,
    }
    return Candle(market, timeframe, opens(slot, timeframe), **values)


def piece(first: int, end: int, bars: Iterable[Candle | int] = (), *, timeframe: Timeframe = M1) -> Piece:
    """All there is in the slots from ``first`` to before ``end``; a number stands for the plain bar of that slot."""
    made = tuple(bar(each, timeframe=timeframe) if isinstance(each, int) else each for each in bars)
    return Piece(MARKET, timeframe, opens(first, timeframe), opens(end, timeframe), made)


def full(first: int, end: int) -> Piece:
    """A piece with a bar in every slot."""
    return piece(first, end, range(first, end))


def opened(path: Path | str, source: str = SOURCE) -> SqliteStore:
    return SqliteStore.open(path, source=source)


def volumes(store: Any, timeframe: Timeframe = M1) -> list[tuple[int, str, int]]:
    """Slot, volume and revision of every stored bar."""
    slots = {opens(slot, timeframe): slot for slot in range(-50, 3_000)} if timeframe is M1 else {}
    return [(slots[c.open_ms], str(c.volume), c.revision) for c in store.bars(MARKET, timeframe, *EVER)]


def covered(store: Any, timeframe: Timeframe = M1) -> list[tuple[int, int]]:
    """The proven spans, in slots."""
    spans = store.coverage(MARKET, timeframe, *EVER)
    return [tuple((moment - BASE_MS[timeframe]) // 60_000 for moment in span) for span in spans]


def another(program: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """Another process that runs ``program``; it talks over its pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        **options,
    )


__all__ = [
    "BASE_MS",
    "EVER",
    "M1",
    "MARKET",
    "SOURCE",
    "another",
    "bar",
    "covered",
    "full",
    "open_database",
    "opened",
    "opens",
    "piece",
    "volumes",
]
