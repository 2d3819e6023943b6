"""A line on stderr for whoever waits longer than a second."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["patience"]

ERASE = "\r\x1b[K"
SOON_S = 1.0
# Nobody watches a file grow: what is written there is for whoever wonders afterwards where the time went.
LONG_S = 10.0


@asynccontextmanager
async def patience(doing: str | Callable[[], str]) -> AsyncGenerator[None]:
    """Say what is going on, once the block takes longer than a second; on a terminal, with the seconds counted.

    ``doing`` is asked anew each second, if it can be called. Elsewhere than on a terminal, one line after ten seconds.
    """
    async with trio.open_nursery() as nursery:
        say = _count if sys.stderr.isatty() else _tell
        nursery.start_soon(say, doing if callable(doing) else lambda: doing, name="patience")
        yield
        nursery.cancel_scope.cancel(reason="the wait is over")


async def _tell(doing: Callable[[], str]) -> None:
    await trio.sleep(LONG_S)
    print(f"... {doing()}", file=sys.stderr, flush=True)


async def _count(doing: Callable[[], str]) -> None:
    began_s = trio.current_time()
    await trio.sleep(SOON_S)
    try:
        while True:
            line = _fitting(doing(), f" ({trio.current_time() - began_s:.0f} s)", _columns())
            print(ERASE + line, end="", file=sys.stderr, flush=True)
            await trio.sleep(1)
    finally:
        print(ERASE, end="", file=sys.stderr, flush=True)


def _fitting(doing: str, seconds: str, columns: int) -> str:
    # A line that wraps cannot be erased: only its last part would be.
    return f"... {doing}"[: max(0, columns - 1 - len(seconds))] + seconds


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that does not know its size, or says it is one and is not
        return 80
