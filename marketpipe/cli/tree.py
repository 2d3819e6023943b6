"""The tasks of a program as a tree, for people."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from marketpipe.metrics.tasks import NurseryNode, TaskNode

__all__ = ["task_tree"]


def task_tree(root: TaskNode) -> Tree:
    """One line a task: its name, and where it waits. Tasks of one nursery stand together."""
    tree = Tree(_line(root))
    _grow(tree, root)
    return tree


def _grow(branch: Tree, task: TaskNode) -> None:
    nurseries = [nursery for nursery in task.nurseries if nursery.tasks]
    for nursery in nurseries:
        # Only where there are several, or one that is ending, does the nursery itself say anything.
        node = branch.add(_title(nursery)) if len(nurseries) > 1 or nursery.cancelled else branch
        for child in nursery.tasks:
            _grow(node.add(_line(child)), child)


def _title(nursery: NurseryNode) -> Text:
    return Text("nursery, cancelled", style="red") if nursery.cancelled else Text("nursery", style="dim")


def _line(task: TaskNode) -> Text:
    line = Text(task.name, style="bold")
    if task.spot is not None:
        line.append(f"  {task.spot}", style="not bold dim")
    return line
