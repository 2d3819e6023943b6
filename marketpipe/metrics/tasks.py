"""The tasks of a Trio program as a tree: who runs, in whose nursery, and where each of them waits.

Names of modules and functions, and numbers of lines; what the tasks work on is not looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FrameType

import attrs
import trio

__all__ = ["NurseryNode", "Spot", "TaskNode", "everybody", "running_tasks"]

# Whose lines say how something is waited for, and not what for.
_BELOW = sys.stdlib_module_names | {
    "anyio", "h11", "httpcore", "httpx", "outcome", "sniffio", "trio", "trio_websocket", "wsproto",
}  # fmt: skip


@attrs.frozen
class Spot:
    """A line of a program. ``call``: what it waits in, if that is not a line of the program itself."""

    module: str
    function: str
    line: int
    call: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}" + (f" ({self.call})" if self.call else "")


@attrs.frozen
class NurseryNode:
    """A nursery and the tasks in it, by name. ``cancelled``: they have been asked to end."""

    tasks: tuple[TaskNode, ...]
    cancelled: bool = False


@attrs.frozen
class TaskNode:
    """One task. ``spot``: the innermost line of the program that it waits in; None if it has not begun or is done.

    ``nurseries``: those that are open in it, the outermost first.
    """

    name: str
    spot: Spot | None
    nurseries: tuple[NurseryNode, ...] = ()

    @property
    def count(self) -> int:
        """How many tasks there are in this branch, this one included."""
        return 1 + sum(task.count for nursery in self.nurseries for task in nursery.tasks)


def everybody() -> tuple[trio.lowlevel.Task, ...]:
    """All the tasks of this ``trio.run``, each before those in its nurseries; to be called from one of them."""
    root = trio.lowlevel.current_root_task()
    assert root is not None, "a task is running"
    found, left = list[trio.lowlevel.Task](), [root]
    while left:
        found.append(task := left.pop())
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return tuple(found)


def running_tasks() -> TaskNode:
    """The same as a tree, from the root."""
    nodes: dict[trio.lowlevel.Task, TaskNode] = {}
    tasks = everybody()
    for task in reversed(tasks):  # from the leaves, which are there when their parents are made
        nurseries = tuple(_nursery(nursery, nodes) for nursery in task.child_nurseries)
        nodes[task] = TaskNode(task.name, _spot(task), nurseries)
    return nodes[tasks[0]]


def _nursery(nursery: trio.Nursery, nodes: Mapping[trio.lowlevel.Task, TaskNode]) -> NurseryNode:
    # Trio keeps them in a set: without an order of our own, two looks at the same tasks would differ.
    tasks = sorted((nodes[task] for task in nursery.child_tasks), key=lambda each: (each.name, str(each.spot)))
    return NurseryNode(tuple(tasks), nursery.cancel_scope.cancel_called)


def _spot(task: trio.lowlevel.Task) -> Spot | None:
    frames = list(task.iter_await_frames())
    ours = [index for index, (frame, _) in enumerate(frames) if _is_program(frame)]
    if not frames:
        return None
    index = ours[-1] if ours else 0
    frame, line = frames[index]
    calls = (each.f_code.co_qualname for each, _ in frames[index + 1 :])
    return Spot(_module(frame), frame.f_code.co_qualname, line, next(_told(calls), ""))


def _told(calls: Iterator[str]) -> Iterator[str]:
    return (call for call in calls if not call.startswith("_"))


def _is_program(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] not in _BELOW


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
