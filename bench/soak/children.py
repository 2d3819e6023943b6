"""Processes that a run is made of: they are talked to in lines, and never outlive this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from bench.collecting import child_environment

__all__ = ["Child", "open_child"]

LEAVE_S = 10.0
CHUNK = 65_536


@attrs.define(eq=False)
class Child:
    """A running process."""

    process: trio.Process

    async def say(self, line: bytes) -> None:
        """One line to its stdin; nothing happens if it has gone."""
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(line + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says, until it ends; some lines at a time, each of them whole."""
        assert self.process.stdout is not None
        unread = b""
        while data := await self.process.stdout.receive_some(CHUNK):
            whole, newline, unread = (unread + bytes(data)).rpartition(b"\n")
            if newline:
                yield whole


@asynccontextmanager
async def open_child(module: str, *words: str) -> AsyncIterator[Child]:
    """``python -m module words`` for the length of the block. Ctrl-C in a terminal is not for it."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(),
    )
    try:
        yield Child(process)
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _end(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with trio.move_on_after(LEAVE_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.stdout.aclose()
