"""What a process can say about itself: memory, handles, threads, tasks, and how late its event loop is."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio

from marketpipe.metrics.tasks import everybody

__all__ = ["Lateness", "TraceOfMemory", "census", "handles", "look", "percentiles", "task_names"]

TICK_S = 0.025
TOP = 10
FRAMES = 8
RARE = 20
_MARKET = re.compile(r"\b[A-Z]{3,}-[A-Z0-9]+\b")
_NUMBER = re.compile(r"\b\d+\b|0x[0-9a-f]+")


class _Mallinfo2(ctypes.Structure):
    # malloc.h of glibc 2.33 and later; bytes in use are `uordblks`, those of mappings `hblkhd`.
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]  # fmt: skip


def look(process: psutil.Process) -> dict[str, Any]:
    """What costs next to nothing to look at."""
    return {
        "rss": process.memory_info().rss,
        "blocks": sys.getallocatedblocks(),
        "malloc": _malloc_bytes(),
        "handles": handles(process),
        "threads": threading.active_count(),
        "tasks": dict(Counter(task_names())),
        "garbage": len(gc.garbage),
    }


def census() -> dict[str, int]:
    """How many objects there are of each type, as far as Python's collector knows of them; rare types are left out.

    It takes as long as one round of the collector, some tenths of a second for a million objects.
    """
    kinds = Counter(map(type, gc.get_objects()))
    return {f"{kind.__module__}.{kind.__qualname__}": count for kind, count in kinds.items() if count >= RARE}


def handles(process: psutil.Process) -> int:
    """Files and sockets that are open."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # one of them is that of the folder
    except OSError:
        return process.num_handles() if sys.platform == "win32" else process.num_fds()


def task_names() -> Iterator[str]:
    """The name of each task there is, without what differs between tasks of a kind."""
    return (_NUMBER.sub("#", _MARKET.sub("*", task.name)) for task in everybody())


def percentiles(seconds: list[float]) -> dict[str, float]:
    """How many there were, and how long they took."""
    ordered = sorted(seconds)
    if not ordered:
        return {"count": 0}
    last = len(ordered) - 1
    shares = {name: ordered[min(last, int(share * len(ordered)))] for name, share in
              (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))}  # fmt: skip
    return {"count": len(ordered), **shares, "max": ordered[last]}


@attrs.define
class Lateness:
    """How late the event loop runs a task that is due every few milliseconds."""

    _late_s: list[float] = attrs.field(factory=list, init=False)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due_s = trio.current_time() + TICK_S
            await trio.sleep_until(due_s)
            self._late_s.append(trio.current_time() - due_s)

    def told(self) -> dict[str, float]:
        """Since the last time it was asked."""
        late_s, self._late_s = self._late_s, []
        return percentiles(late_s)


@attrs.define
class TraceOfMemory:
    """Which lines of code hold more memory than when it was asked first; it costs much CPU."""

    _first: tracemalloc.Snapshot | None = attrs.field(default=None, init=False)

    def begin(self) -> None:
        """Trace from now on."""
        tracemalloc.start(FRAMES)

    def told(self) -> list[str]:
        """The greatest growths since the first call, which tells none."""
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
        if self._first is None:
            self._first = snapshot
            return []
        grown = snapshot.compare_to(self._first, "lineno")
        grown.sort(key=lambda growth: -growth.size_diff)
        return [f"{_place(growth)} {growth.size_diff / 1024:+,.0f} KiB in {growth.count_diff:+,} blocks"
                for growth in grown[:TOP]]  # fmt: skip


def _place(growth: tracemalloc.StatisticDiff) -> str:
    frame = growth.traceback[0]
    return f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"


def _glibc() -> Any:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):
        return None
    function.restype = _Mallinfo2
    return function


_mallinfo2 = _glibc()


def _malloc_bytes() -> int | None:
    """Bytes that malloc has given out, in all arenas that it tells of; None where it is not glibc."""
    if _mallinfo2 is None:
        return None
    info = _mallinfo2()
    return int(info.uordblks + info.hblkhd)
