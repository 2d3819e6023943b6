"""Stdout for programs: written from a thread, so that a slow reader holds up nothing but their own lines."""

from __future__ import annotations

import os
import sys
from functools import partial

import trio

__all__ = ["write"]


async def write(text: str) -> None:
    """Write ``text``, and return when it is out. Cancelled, it leaves at once, and the rest is written or not."""
    # The descriptor itself: a thread that is left behind in the middle of a write would keep `sys.stdout` locked.
    sys.stdout.flush()
    await trio.to_thread.run_sync(partial(_write, sys.stdout.fileno(), text.encode()), abandon_on_cancel=True)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
