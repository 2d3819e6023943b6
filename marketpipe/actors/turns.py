"""Waiting for one's turn: request slots as something to be awaited."""

from __future__ import annotations

import math

import trio

from marketpipe.core.budgets import Budgets
from marketpipe.core.pacing import Slots, Ticket

__all__ = ["turn", "turn_to_connect"]


async def turn(*limits: Slots) -> tuple[Ticket, ...]:
    """Take a slot of each of ``limits``, as soon as all have one. What holds them is given back by time alone."""
    while True:
        now_s = trio.current_time()
        if all(slots.available(now_s) for slots in limits):
            return tuple(_taken(slots, now_s) for slots in limits)
        free_s = [slots.next_free_s(now_s) for slots in limits]
        await trio.sleep_until(max(at_s for at_s in free_s if at_s is not None))


async def turn_to_connect(budgets: Budgets) -> Ticket:
    """Take a slot of ``budgets.connects``, which other pipelines may hold and give back at any moment."""
    while True:
        now_s = trio.current_time()
        ticket = budgets.connects.acquire(now_s)
        if ticket is not None:
            return ticket
        free_s = budgets.connects.next_free_s(now_s)
        await _until_changed(budgets, math.inf if free_s is None else free_s)


async def _until_changed(budgets: Budgets, deadline_s: float) -> None:
    changed = trio.Event()
    budgets.listeners.append(changed.set)
    try:
        with trio.CancelScope(deadline=deadline_s):
            await changed.wait()
    finally:
        budgets.listeners.remove(changed.set)


def _taken(slots: Slots, now_s: float) -> Ticket:
    ticket = slots.acquire(now_s)
    assert ticket is not None, "a slot was free in this very step"
    return ticket
