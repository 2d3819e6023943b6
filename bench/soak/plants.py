"""Defects that are planted on purpose, to be seen found: ``--plant leak:100000000``. A harness that finds none of them
would find no real one either.

Each is ``name`` or ``name:number``; what the number is, stands beside it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import attrs
import trio

from bench.soak.letters import BAR, TRADE
from bench.soak.load import Load

__all__ = ["PLANTS", "Planted", "planted"]

HOUR_S = 3_600.0
TICK_S = 0.5

# By name, what its number means and its default. Of letters, each so many are struck.
PLANTS: dict[str, tuple[str, float]] = {
    "leak": ("bytes an hour that are never given back", 1e6),
    "task": ("a task that never ends, once for so many reconnects of a stream", 1),
    "handle": ("seconds from one file that is never closed to the next", 5),
    "thread": ("seconds from one thread that never ends to the next", 5),
    "lose": ("of so many trades one is lost between the hub and the consumer", 5_000),
    "double": ("of so many trades one is told twice", 5_000),
    "wrong": ("of so many trades one has another price", 5_000),
    "bar": ("of so many bars one has another close", 500),
    "row": ("seconds until a stored row is altered", 20),
    "escape": ("seconds until something raises what nothing catches", 10),
    "refuse": ("seconds until the exchange is asked too often at once, beside the pipe", 10),
}


@attrs.frozen
class Planted:
    """A defect and its number."""

    name: str
    number: float

    @classmethod
    def parse(cls, word: str) -> Planted:
        """``name`` or ``name:number``. Raises ``ValueError`` for a defect there is not."""
        name, _, number = word.partition(":")
        if name not in PLANTS:
            raise ValueError(f"a defect must be one of {', '.join(PLANTS)}, was {name!r}")
        return cls(name, float(number) if number else PLANTS[name][1])


@attrs.define(eq=False)
class _Spoiler:
    """Strikes one letter of so many."""

    about: str
    each: float
    change: Callable[[list[Any]], list[list[Any]]]
    before: Callable[[list[Any]], list[list[Any]]]
    _seen: int = 0

    def __call__(self, letter: list[Any]) -> list[list[Any]]:
        return [each for passed in self.before(letter) for each in self._struck(passed)]

    def _struck(self, letter: list[Any]) -> list[list[Any]]:
        if letter[0] != self.about:
            return [letter]
        self._seen += 1
        return [letter] if self._seen % int(self.each) else self.change(list(letter))


def _altered(place: int, letter: list[Any]) -> list[list[Any]]:
    letter[place] += Decimal("0.00000001")
    return [letter]


_SPOILED: dict[str, tuple[str, Callable[[list[Any]], list[list[Any]]]]] = {
    "lose": (TRADE, lambda letter: []),
    "double": (TRADE, lambda letter: [letter, letter]),
    "wrong": (TRADE, partial(_altered, 5)),
    "bar": (BAR, partial(_altered, 7)),
}


@asynccontextmanager
async def planted(plants: list[Planted], load: Load, base_url: str, path: Path) -> AsyncIterator[None]:
    """Let all of ``plants`` grow for the length of the block."""
    steps: dict[str, Callable[[float], Awaitable[None]]] = {
        "leak": _leak,
        "task": partial(_never_ending_tasks, load),
        "handle": partial(_open_files, path),
        "thread": _never_ending_threads,
        "row": partial(_alter_a_row, path),
        "escape": partial(_escape, load),
        "refuse": partial(_ask_too_often, base_url),
    }
    async with trio.open_nursery() as nursery:
        for plant in plants:
            if plant.name in _SPOILED:
                about, change = _SPOILED[plant.name]
                load.spoil = _Spoiler(about, plant.number, change, load.spoil)
            else:
                nursery.start_soon(steps[plant.name], plant.number, name=f"planted {plant.name}")
        yield
        nursery.cancel_scope.cancel(reason="enough has grown")


async def _leak(per_hour: float) -> None:
    kept = []
    while True:
        # Many small blocks, as a leak in Python is, and not one that the system maps by itself.
        kept.append([bytes(100) for _ in range(max(1, round(per_hour * TICK_S / HOUR_S / 141)))])
        await trio.sleep(TICK_S)


async def _never_ending_tasks(load: Load, each: float) -> None:
    seen = load.market.status().reconnects
    async with trio.open_nursery() as nursery:
        while True:
            while seen + each <= load.market.status().reconnects:
                seen += int(each)
                nursery.start_soon(trio.sleep_forever, name="a watchdog that was forgotten")
            await trio.sleep(TICK_S)


async def _open_files(path: Path, every_s: float) -> None:
    kept = []
    while True:
        await trio.sleep(every_s)
        kept.append(path.open("rb"))


async def _never_ending_threads(every_s: float) -> None:
    while True:
        await trio.sleep(every_s)
        threading.Thread(target=threading.Event().wait, daemon=True, name="forgotten").start()


async def _alter_a_row(path: Path, after_s: float) -> None:
    await trio.sleep(after_s)
    await trio.to_thread.run_sync(_update, path)


def _update(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as conn, conn:
        conn.execute(
            "UPDATE candles SET close = '0.5' WHERE (market, timeframe, open_ms) IN "
            "(SELECT market, timeframe, open_ms FROM candles WHERE timeframe = '1m' LIMIT 1)"
        )


async def _escape(load: Load, after_s: float) -> None:
    await trio.sleep(after_s)

    async def fail() -> None:
        raise RuntimeError("a defect that was planted")

    with trio.move_on_after(1.0):
        await load._guarded("planted", fail)


async def _ask_too_often(base_url: str, after_s: float) -> None:
    await trio.sleep(after_s)
    async with trio.open_nursery() as nursery:
        for _ in range(15):
            nursery.start_soon(trio.to_thread.run_sync, _ask, f"{base_url}/v1/ticker?markets=KRW-BTC")


def _ask(url: str) -> None:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=10) as reply:
            reply.read()
    except HTTPError:
        pass  # a refusal is what it is about
