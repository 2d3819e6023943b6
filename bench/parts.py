"""The pure parts that every question passes: a slot taken and given back, a value read from memory."""

from __future__ import annotations

from collections import deque
from itertools import count

from bench.figures import Figure, Outcome
from bench.scale import Scale
from bench.timing import MICRO, Spin, quiet, seconds_per_call
from marketpipe.core.expiring import ExpiringCache
from marketpipe.core.pacing import Slots

__all__ = ["cache", "pacing"]

LIMIT = 10
# A request every 110 ms: always in time, never refused.
APART_S = 0.11
ROUND_TRIP_S = 0.02


async def pacing(scale: Scale) -> Outcome:
    """A request slot taken and given back."""
    quiet()
    ours, theirs = seconds_per_call(scale.turns, scale.loops, _slots(), _send_times())
    figure = Figure(
        what="Slots.acquire and answered",
        unit="us",
        samples=[taken * MICRO for taken in ours],
        baseline="a deque of send times (which breaks the limit when answers are late)",
        baseline_samples=[taken * MICRO for taken in theirs],
    )
    return Outcome([figure])


async def cache(scale: Scale) -> Outcome:
    """A fresh value read from the expiring cache."""
    now_s = count(1)
    held: ExpiringCache[str, int] = ExpiringCache(lambda: next(now_s) * 1e-9, maxsize=1_000)
    names = [f"KRW-X{number}" for number in range(1_000)]
    for name in names:
        held.put(name, 1, 1e9)
    plain = dict.fromkeys(names, (1, 1000000000.0))
    quiet()
    ours, theirs = seconds_per_call(scale.turns, scale.loops, _reading(held), _plain_reading(plain))
    figure = Figure(
        what="ExpiringCache.get, a hit",
        unit="us",
        samples=[taken * MICRO for taken in ours],
        baseline="a dict and a comparison of times, without eviction or counts",
        baseline_samples=[taken * MICRO for taken in theirs],
    )
    return Outcome([figure])


def _slots() -> Spin:
    slots, moments = Slots(LIMIT), count(1)

    def spin(loops: int) -> None:
        for _ in range(loops):
            now_s = next(moments) * APART_S
            ticket = slots.acquire(now_s)
            if ticket is None:
                raise RuntimeError("a slot was refused although the limit is not reached")
            slots.answered(ticket, now_s + ROUND_TRIP_S, remaining=LIMIT - 1)

    return spin


def _send_times() -> Spin:
    sent: deque[float] = deque()
    moments = count(1)

    def spin(loops: int) -> None:
        for _ in range(loops):
            now_s = next(moments) * APART_S
            while sent and sent[0] + 1.0 <= now_s:
                sent.popleft()
            if len(sent) < LIMIT:
                sent.append(now_s)

    return spin


def _reading(held: ExpiringCache[str, int]) -> Spin:
    def spin(loops: int) -> None:
        for _ in range(loops):
            held.get("KRW-X500")

    return spin


def _plain_reading(plain: dict[str, tuple[int, float]]) -> Spin:
    now_s = count(1)

    def spin(loops: int) -> None:
        for _ in range(loops):
            value, expires_s = plain["KRW-X500"]
            assert next(now_s) * 1e-9 < expires_s, value

    return spin
