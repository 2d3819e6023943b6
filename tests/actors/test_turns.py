"""Waiting for a turn: as soon as there is one, and no sooner."""

from __future__ import annotations

import trio
import trio.testing
from keeper_rig import budgets_of

from marketpipe.actors.turns import turn, turn_to_connect
from marketpipe.core.pacing import Slots


async def test_a_free_slot_of_each_limit_is_taken_at_once(autojump_clock):
    one, two = Slots(2), Slots(3)
    tickets = await turn(one, two)
    assert trio.current_time() == 0.0
    assert (one.available(0.0), two.available(0.0)) == (1, 2)
    for slots, ticket in zip((one, two), tickets, strict=True):
        slots.answered(ticket, 0.0)  # each is of its own limit


async def test_one_limit_without_a_slot_holds_up_all_and_costs_the_others_nothing(autojump_clock):
    """The moment comes when the last of them has one."""
    second, minute = Slots(1, guard_s=0.0), Slots(1, window_s=60.0, guard_s=0.0)
    for slots, ticket in zip((second, minute), await turn(second, minute), strict=True):
        slots.answered(ticket, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn, second, minute)
        await trio.sleep(30)
        assert second.available(30.0) == 1
    assert trio.current_time() == 60.0


async def test_connecting_waits_for_the_next_slot_that_time_gives(autojump_clock):
    budgets = budgets_of(1)
    budgets.connects.answered(await turn_to_connect(budgets), 0.0)
    await turn_to_connect(budgets)
    assert 1.0 < trio.current_time() < 1.01
    assert budgets.listeners == []


async def test_of_two_that_wait_to_connect_one_gets_the_slot_that_is_given_back(autojump_clock):
    budgets = budgets_of(1)
    held = await turn_to_connect(budgets)
    got: list[float] = []

    async def connect() -> None:
        await turn_to_connect(budgets)
        got.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        nursery.start_soon(connect)
        await trio.sleep(5)
        assert got == []
        budgets.changed()  # of something else: nothing is free
        await trio.sleep(5)
        assert got == []
        budgets.connects.unsent(held, 10.0)
        budgets.changed()
        await trio.sleep(5)
        assert got == [10.0]
        nursery.cancel_scope.cancel()
    assert budgets.listeners == []


async def test_a_refusal_makes_everybody_wait(autojump_clock):
    budgets = budgets_of(5)
    budgets.connects.refused(await turn_to_connect(budgets), 0.0, retry_after_s=7.0)
    await turn_to_connect(budgets)
    assert trio.current_time() == 7.0
