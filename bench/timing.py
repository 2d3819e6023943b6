"""Measuring in turns: what is compared is run by turns in the same process, in an order that changes.

What never waits is measured in CPU time of this process, so that others on the machine count as little as they can;
where the system counts that too coarsely, in real time.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from time import get_clock_info, perf_counter, process_time

__all__ = ["MICRO", "MILLI", "AsyncSpin", "Spin", "quiet", "seconds_per_call", "seconds_per_call_async"]

MILLI = 1e3
MICRO = 1e6
FINE_S = 1e-5

Spin = Callable[[int], object]
AsyncSpin = Callable[[int], Awaitable[object]]


_now_s = process_time if get_clock_info("process_time").resolution <= FINE_S else perf_counter


def quiet() -> None:
    """Keep what exists by now out of the garbage collector's way: the truth to compare with is no part of a client."""
    gc.collect()
    gc.freeze()


def seconds_per_call(turns: int, loops: int, *spins: Spin) -> list[tuple[float, ...]]:
    """For each of ``spins``, called with a number of ``loops``, the seconds that one loop took, once a turn."""
    samples: list[list[float]] = [[] for _ in spins]
    for turn in range(turns + 1):
        for index in _order(len(spins), turn):
            began = _now_s()
            spins[index](loops)
            samples[index].append((_now_s() - began) / loops)
    return _without_warm_up(samples)


async def seconds_per_call_async(turns: int, loops: int, *spins: AsyncSpin) -> list[tuple[float, ...]]:
    """`seconds_per_call` of what has to be awaited."""
    samples: list[list[float]] = [[] for _ in spins]
    for turn in range(turns + 1):
        for index in _order(len(spins), turn):
            began = _now_s()
            await spins[index](loops)
            samples[index].append((_now_s() - began) / loops)
    return _without_warm_up(samples)


def _order(count: int, turn: int) -> Sequence[int]:
    return range(count) if turn % 2 else range(count - 1, -1, -1)


def _without_warm_up(samples: list[list[float]]) -> list[tuple[float, ...]]:
    return [tuple(taken[1:]) for taken in samples]
