"""A line on stderr for whoever waits longer than a second."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

__all__ = ["patience"]

ERASE = "\r\x1b[K"


@asynccontextmanager
async def patience(doing: str) -> AsyncGenerator[None]:
    """Say what is going on, once the block takes longer than a second; on a terminal, with the seconds counted."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, doing, sys.stderr.isatty())
        yield
        nursery.cancel_scope.cancel(reason="the wait is over")


async def _tell(doing: str, terminal: bool) -> None:
    began_s = trio.current_time()
    await trio.sleep(1)
    if not terminal:
        print(f"... {doing}", file=sys.stderr, flush=True)
        return
    try:
        while True:
            print(f"{ERASE}... {doing} ({trio.current_time() - began_s:.0f} s)", end="", file=sys.stderr, flush=True)
            await trio.sleep(1)
    finally:
        print(ERASE, end="", file=sys.stderr, flush=True)
