"""The tree of tasks: everybody who runs is in it, under whoever waits for them, with the line they wait in."""

from __future__ import annotations

import inspect

import trio
from rig import open_rig

from marketpipe.metrics.snapshot import encode_tasks
from marketpipe.metrics.tasks import TaskNode, running_tasks


def named(root: TaskNode, name: str) -> TaskNode:
    (found,) = [task for task in everybody(root) if task.name == name]
    return found


def everybody(root: TaskNode) -> list[TaskNode]:
    return [root, *(each for nursery in root.nurseries for task in nursery.tasks for each in everybody(task))]


async def rest(secret: str) -> None:
    await trio.sleep_forever()


async def parent(ready: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest, "swordfish", name="first child")
        nursery.start_soon(rest, "swordfish", name="second child")
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever, name="of the inner one")
            await trio.testing.wait_all_tasks_blocked()
            ready.set()


async def test_nurseries_are_nested_as_they_are_in_the_program():
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent, ready, name="parent")
        await ready.wait()
        await trio.testing.wait_all_tasks_blocked()
        root = running_tasks()
        nursery.cancel_scope.cancel()
    one, other = named(root, "parent").nurseries
    assert [task.name for task in one.tasks] == ["first child", "second child"]
    assert [task.name for task in other.tasks] == ["of the inner one"]
    assert root.count == len(everybody(root))


async def test_a_task_is_shown_at_the_line_of_the_program_that_it_waits_in():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest, "swordfish", name="resting")
        await trio.testing.wait_all_tasks_blocked()
        root = running_tasks()
        nursery.cancel_scope.cancel()
    spot = named(root, "resting").spot
    lines, first = inspect.getsourcelines(rest)
    assert (spot.module, spot.function, spot.line) == (__name__, "rest", first + len(lines) - 1)
    assert spot.call == "sleep_forever"
    assert str(spot) == f"{__name__}:{spot.line} rest (sleep_forever)"
    assert b"swordfish" not in encode_tasks(root)


async def test_a_nursery_that_is_ending_says_so():
    released = trio.Event()

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await released.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stubborn, name="stubborn")
        await trio.testing.wait_all_tasks_blocked()
        assert not owner_of("stubborn").cancelled
        nursery.cancel_scope.cancel()
        assert owner_of("stubborn").cancelled
        released.set()


def owner_of(name: str):
    for task in everybody(running_tasks()):
        for nursery in task.nurseries:
            if any(child.name == name for child in nursery.tasks):
                return nursery
    raise AssertionError(name)


async def test_every_part_of_a_pipe_has_a_name_and_a_line_of_its_own(autojump_clock):
    async with open_rig(streams=True, store=":memory:"):
        await trio.testing.wait_all_tasks_blocked()
        root = running_tasks()
    for name in ("cache", "batcher", "deduplicator", "subscriptions", "writer", "backfill"):
        assert named(root, name).spot.module.startswith(f"marketpipe.actors.{name}"), name
