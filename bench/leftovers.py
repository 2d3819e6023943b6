"""What a process holds: tasks, threads and open files; and what of it has come since an earlier look.

Trio keeps a thread that has done its work for ten seconds, in case there is more. Such a thread is no leftover, and yet
nothing tells it from one that hangs: so here they are kept for a moment only, and whoever is still there after it, is.
"""

from __future__ import annotations

import os
import stat
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import attrs
import trio
import trio._core._thread_cache as trio_threads

from marketpipe.metrics.tasks import everybody

__all__ = ["Inventory", "forgotten", "short_idling", "take_inventory"]

IDLE_S = 0.02
PATIENCE_S = 2.0
DESCRIPTORS = "/dev/fd"
KINDS = {stat.S_IFSOCK: "socket", stat.S_IFREG: "file", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device"}


@attrs.frozen
class Inventory:
    """Tasks of this run, threads, and open files: what they are, by their number."""

    tasks: frozenset[trio.lowlevel.Task]
    threads: frozenset[threading.Thread]
    files: Mapping[int, tuple[str, int, int]]

    def since(self) -> list[str]:
        """What there is now and was not then, in words. Waits for threads of Trio that have nothing to do."""
        # First, before anything can be collected as garbage meanwhile.
        files = _files()
        new = [found[0] for number, found in files.items() if self.files.get(number) != found]
        new += [f"the task {task.name} runs" for task in everybody() if task not in self.tasks]
        deadline_s = time.monotonic() + PATIENCE_S
        while (threads := frozenset(threading.enumerate()) - self.threads) and time.monotonic() < deadline_s:
            next(iter(threads)).join(IDLE_S)
        return new + [f"the thread {thread.name} runs" for thread in threads]


def take_inventory() -> Inventory:
    """What there is, in a Trio task."""
    return Inventory(frozenset(everybody()), frozenset(threading.enumerate()), _files())


@contextmanager
def short_idling() -> Iterator[None]:
    """Let Trio keep its threads for a moment only, for the length of the block. What was idle before, stays so."""
    kept_s = trio_threads.IDLE_TIMEOUT
    trio_threads.IDLE_TIMEOUT = IDLE_S  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        trio_threads.IDLE_TIMEOUT = kept_s  # type: ignore[misc]


@contextmanager
def forgotten() -> Iterator[list[str]]:
    """What was open and nobody closed, in words: Python closes it by itself, and complains then."""
    words: list[str] = []
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", ResourceWarning)
        yield words
    words += [str(each.message) for each in complaints if issubclass(each.category, ResourceWarning)]


def _files() -> dict[int, tuple[str, int, int]]:
    found: dict[int, tuple[str, int, int]] = {}
    for name in os.listdir(DESCRIPTORS):
        try:
            told = os.fstat(int(name))
        except OSError:  # that of the listing itself
            continue
        kind, where = KINDS.get(stat.S_IFMT(told.st_mode), "thing"), ""
        with suppress(OSError):  # where the system tells
            where = f" ({os.readlink(f'{DESCRIPTORS}/{name}')})"
        found[int(name)] = (f"a {kind} is open{where}", told.st_dev, told.st_ino)
    return found
