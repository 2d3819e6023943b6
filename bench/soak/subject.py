"""The pipeline of a long run and its load, as a process: ``python -m bench.soak.subject``, the task as JSON on stdin.

It tells the judge on stdout what it was told by the pipe (`bench.soak.letters`), and how it is. The next line on stdin
asks it to be quiet: only what is watched goes on, so that it can become whole. The one after it asks it to leave, as
does the end of stdin.
"""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio

from bench.soak.letters import BEGUN, ERROR, LEFT, LOOK, SAMPLE, Post
from bench.soak.load import Load
from bench.soak.plan import Plan
from bench.soak.plants import Planted, planted
from bench.soak.probes import Lateness, TraceOfMemory, census, look
from marketpipe import open_pipeline
from marketpipe.clock import SystemClock
from marketpipe.status import Status

__all__ = ["Task"]

STDIN, STDOUT = 0, 1


@attrs.frozen(kw_only=True)
class Task:
    """Where the exchange is, where the database shall be, and which markets there are (see `Load`)."""

    base_url: str
    path: str
    names: list[str]
    lively: list[str]
    minutes: list[str]
    seconds: list[str]
    plan: Plan


def main() -> None:
    """Until the judge has had enough."""
    # Unbuffered: what the judge says next is for the event loop.
    with open(STDIN, "rb", buffering=0, closefd=False) as stdin:
        words = json.loads(stdin.readline())
    options = words.pop("plan")
    plan = Plan(**{**options, "plants": tuple(options["plants"])})
    # What the library warns of is told by what it does.
    logging.getLogger("marketpipe").addHandler(logging.NullHandler())
    logging.getLogger("marketpipe").propagate = False
    trio.run(_run, Task(plan=plan, **words))


async def _run(task: Task) -> None:
    async with trio.lowlevel.FdStream(STDOUT) as out, trio.lowlevel.FdStream(STDIN) as commands:
        post = Post(out.send_all)
        try:
            await _live(task, post, commands)
            post.put([LEFT, _own_look()])
        except Exception as error:
            post.put([ERROR, "the pipeline", repr(error), "".join(traceback.format_exception(error))])
        await post.flush()


async def _live(task: Task, post: Post, commands: trio.abc.ReceiveStream) -> None:
    trace, clock, path = TraceOfMemory(), SystemClock(), Path(task.path)
    if task.plan.tracing:
        trace.begin()
    async with open_pipeline(base_url=task.base_url, store=path) as market, trio.open_nursery() as nursery:
        lateness = Lateness()
        load = Load(market, task.plan, task.names, task.lively, task.minutes, task.seconds, post, clock.now_ms)
        nursery.start_soon(post.run, name="soak post")
        nursery.start_soon(lateness.run, name="soak lateness")
        await nursery.start(load.run, name="soak load")
        post.put([BEGUN, clock.now_ms()])
        nursery.start_soon(_look, task.plan, post, name="soak look")
        nursery.start_soon(_sample, task.plan, post, load, lateness, trace, name="soak sample")
        plants = [Planted.parse(word) for word in task.plan.plants]
        async with planted(plants, load, task.base_url, path):
            lines = _Lines(commands)
            await lines.receive()
            load.hush()
            await lines.receive()
        post.put([SAMPLE, _sampled(load, lateness, trace if task.plan.tracing else None)])
        nursery.cancel_scope.cancel(reason="the judge has had enough")


@attrs.define
class _Lines:
    """What the judge says, line by line: two of them may come at once."""

    commands: trio.abc.ReceiveStream
    unread: bytes = b""

    async def receive(self) -> None:
        """Wait for the next line, or the end."""
        while b"\n" not in self.unread:
            data = await self.commands.receive_some()
            if not data:
                return
            self.unread += bytes(data)
        self.unread = self.unread.partition(b"\n")[2]


async def _look(plan: Plan, post: Post) -> None:
    while True:
        post.put([LOOK, _own_look()])
        await trio.sleep(plan.look_s)


def _own_look() -> dict[str, Any]:
    return look(psutil.Process())


async def _sample(plan: Plan, post: Post, load: Load, lateness: Lateness, trace: TraceOfMemory) -> None:
    while True:
        await trio.sleep(plan.sample_s)
        post.put([SAMPLE, _sampled(load, lateness, trace if plan.tracing else None)])


def _sampled(load: Load, lateness: Lateness, trace: TraceOfMemory | None) -> dict[str, Any]:
    return {
        **load.told(),
        "lag": lateness.told(),
        "objects": census(),
        "grown": [] if trace is None else trace.told(),
        "cpu_s": sum(psutil.Process().cpu_times()[:2]),
        "pipe": _pipe(load.market.status()),
    }


def _pipe(status: Status) -> dict[str, Any]:
    connections, consumers = status.connections.values(), status.consumers
    return {
        "queues": {name: [queue.depth, queue.peak, queue.capacity] for name, queue in status.queues.items()},
        "frames": sum(each.frames for each in connections),
        "unreadable": sum(each.unreadable for each in connections),
        "losses": sum(each.losses for each in connections),
        "last_losses": {line: each.last_loss for line, each in status.connections.items() if each.losses},
        "reconnects": status.reconnects,
        "gaps": status.gaps,
        "repaired": status.gaps_repaired,
        "trades_repaired": sum(each.trades_repaired for each in connections),
        "requests": status.requests,
        "subscriptions": len(status.subscriptions),
        "subscribers": consumers.subscribers,
        "unaccounted": consumers.received - consumers.delivered - consumers.conflated - consumers.dropped
        - consumers.queued - consumers.unread,
        "rows": status.rows_written,
        "rows_kept": 0 if status.store is None else status.store.rows_kept,
        "rows_let_go": 0 if status.store is None else status.store.rows_let_go,
        "store_failures": 0 if status.store is None else status.store.failures,
        "jobs": len(status.jobs),
        "bars_amended": status.bars_amended,
        "verbs": {verb: [each.p50_s, each.p95_s] for verb, each in status.verbs.items()},
        "lag": None if status.lag is None else [status.lag.p50_s, status.lag.p99_s, status.lag.max_s],
    }  # fmt: skip


if __name__ == "__main__":
    main()
