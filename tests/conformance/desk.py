"""The simulator asked in memory, by a URL as a client would send it; numbers come back exact, or as they were spelt."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from marketpipe.sim import SimRequest, World
from marketpipe.sim.quotation import Options, answer

__all__ = ["NOW_MS", "WORLD", "refusal", "rows", "spelt", "utc_ms"]

# In the middle of a second, a minute, an hour, a day, a week, a month and a year.
NOW_MS = int(datetime(2026, 10, 7, 13, 21, 34, 567_000, tzinfo=UTC).timestamp() * 1000)
WORLD = World(7, 60)
ABROAD = Options(region="sg")


@lru_cache(maxsize=512)
def _answer(target: str, now_ms: int, abroad: bool) -> tuple[int, bytes]:
    request = SimRequest("GET", f"/v1/{target}")
    told = answer(WORLD, request.path, request.query, now_ms, ABROAD if abroad else None)
    return told.status, told.body


def _read(target: str, now_ms: int, abroad: bool, number: Callable[[str], Any]) -> list[dict[str, Any]]:
    status, body = _answer(target, now_ms, abroad)
    assert status == 200, (target, body)
    told: list[dict[str, Any]] = json.loads(body, parse_float=number, parse_int=number if number is str else int)
    return told


def rows(target: str, now_ms: int = NOW_MS, *, abroad: bool = False) -> list[dict[str, Any]]:
    """What ``/v1/{target}`` answers: integers as int, other numbers as Decimal."""
    return _read(target, now_ms, abroad, Decimal)


def spelt(target: str, now_ms: int = NOW_MS) -> list[dict[str, Any]]:
    """The same with every number as the text that stands in the answer."""
    return _read(target, now_ms, False, str)


def refusal(target: str, now_ms: int = NOW_MS) -> tuple[int, str]:
    """Status and message of an answer that refuses."""
    status, body = _answer(target, now_ms, False)
    error = json.loads(body)["error"]
    assert status != 200
    return status, error["message"]


def utc_ms(text: str) -> int:
    """``2026-10-07T13:21:34`` as epoch milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
