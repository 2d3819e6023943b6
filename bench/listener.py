"""One reader of a flood, as a process: ``python -m bench.listener SIDE BASE_URL``, what it listens to on stdin.

``marketpipe`` is a pipeline with one consumer for each line; ``watched`` is the same, with a metrics port that is read
every second, by a task of its own process, so that what reading costs is counted too.

``bare`` is trio-websocket and our decoder, one connection
for each line and nothing else: the least that a program on Trio pays for these frames. Both note the same of what they
receive. It prints a line when every market of every line has shown itself, and then answers each line of stdin with a
line of JSON: ``begin`` counts from 0, ``report`` tells the counts.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter, process_time
from typing import Any, Protocol

import attrs
import trio

from bench.delays import Delays
from bench.timing import quiet
from marketpipe import Client, Gap, open_pipeline
from marketpipe.actors.hub import Subscription
from marketpipe.clock import SystemClock
from marketpipe.core.buffers import SubscriptionStatistics
from marketpipe.core.topics import Line, Topic
from marketpipe.sim.server import ws_url

__all__ = ["BARE", "OURS", "WATCHED", "Wanted"]

OURS, BARE, WATCHED = "marketpipe", "bare", "watched"
# By line, the markets that are listened to.
Wanted = Mapping[str, Sequence[str]]
# As our own edge has it.
READ_BYTES = 65_536
FRAMES = 1_000


class Reader(Protocol):
    """Either side."""

    def begin(self) -> None:
        """Count from 0."""
        ...

    def told(self) -> dict[str, Any]:
        """Frames by line since `begin`, and each line for a promise that was broken."""
        ...


@attrs.define(eq=False)
class Notes:
    """What a consumer writes down of each trade, and what the process has cost."""

    delays: Delays = attrs.field(factory=Delays)
    trades: int = 0
    trade_ids: int = 0
    gaps: int = 0
    began_s: float = 0.0
    began_cpu_s: float = 0.0

    def begin(self) -> None:
        """Count from 0."""
        self.delays.forget()
        self.trades = self.trade_ids = self.gaps = 0
        quiet()
        self.began_s, self.began_cpu_s = perf_counter(), process_time()

    def trade(self, trade_id: int) -> None:
        """A trade is in the consumer's hands."""
        self.trades += 1
        self.trade_ids += trade_id
        self.delays.note(trade_id)

    def told(self) -> dict[str, Any]:
        """Everything since `begin`."""
        return {
            "cpu_s": process_time() - self.began_cpu_s,
            "elapsed_s": perf_counter() - self.began_s,
            "trades": self.trades,
            "trade_ids": self.trade_ids,
            "gaps": self.gaps,
            "p50_ms": self.delays.ms(0.50),
            "p99_ms": self.delays.ms(0.99),
        }


Start = Callable[..., Any]


@attrs.define(eq=False)
class Bare:
    """Frames are counted as they are decoded."""

    frames: dict[str, int]

    def begin(self) -> None:
        for line in self.frames:
            self.frames[line] = 0

    def told(self) -> dict[str, Any]:
        return {"frames": dict(self.frames), "broken": []}


@attrs.define(eq=False)
class Ours:
    """Frames are counted by the pipeline itself, and its counts are held against each other."""

    market: Client
    subscriptions: Mapping[str, Subscription[Any]]
    _frames: Mapping[str, int] = attrs.field(factory=dict, init=False)
    _received: Mapping[str, int] = attrs.field(factory=dict, init=False)

    def begin(self) -> None:
        self._frames, self._received = self._frames_so_far(), self._received_so_far()

    def told(self) -> dict[str, Any]:
        frames, received = self._frames_so_far(), self._received_so_far()
        told = {line: frames[line] - self._frames[line] for line in frames}
        handed = {line: received[line] - self._received[line] for line in received}
        broken = [f"{line}: {told[line]} frames, but {handed[line]} values for the consumer"
                  for line in told if told[line] != handed[line]]  # fmt: skip
        return {"frames": told, "broken": [*broken, *self._losses(), *self._unlawful()]}

    def _frames_so_far(self) -> dict[str, int]:
        connections = self.market.status().connections
        return {line: connections[Line(line)].frames for line in self.subscriptions}

    def _received_so_far(self) -> dict[str, int]:
        return {line: subscription.statistics().received for line, subscription in self.subscriptions.items()}

    def _losses(self) -> Iterable[str]:
        for line, connection in self.market.status().connections.items():
            if connection.losses:
                yield f"{line}: the connection was lost {connection.losses} times: {connection.last_loss}"

    def _unlawful(self) -> Iterable[str]:
        for line, subscription in self.subscriptions.items():
            counts = subscription.statistics()
            if counts.received != _accounted(counts):
                yield f"{line}: the hub's counts do not add up: {counts}"
            if counts.dropped:
                yield f"{line}: {counts.dropped} values were dropped"


def _accounted(counts: SubscriptionStatistics) -> int:
    return counts.delivered + counts.conflated + counts.dropped + counts.queued


async def _bare(base_url: str, wanted: Wanted, notes: Notes, *, task_status: trio.TaskStatus[Reader]) -> None:
    frames = dict.fromkeys(wanted, 0)
    async with trio.open_nursery() as nursery:
        for line, markets in wanted.items():
            await nursery.start(_read, ws_url(base_url), Line(line), markets, frames, notes)
        task_status.started(Bare(frames))


async def _read(
    url: str,
    line: Line,
    markets: Sequence[str],
    frames: dict[str, int],
    notes: Notes,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    from trio_websocket import open_websocket_url

    from marketpipe.upbit.wire import decode_frame, encode_subscription

    clock, missing, name, is_trade = SystemClock(), set(markets), line.value, line is Line.TRADE
    async with open_websocket_url(url, message_queue_size=FRAMES, receive_buffer_size=READ_BYTES) as socket:
        await socket.send_message(encode_subscription("bare", [Topic(line, market) for market in markets]))
        while True:
            for value, _ in decode_frame(await socket.get_message(), received_ms=clock.now_ms()):
                frames[name] += 1
                if is_trade:
                    notes.trade(value.sequential_id)
                if missing:
                    missing.discard(value.market)
                    if not missing:
                        task_status.started()


async def _watched(base_url: str, wanted: Wanted, notes: Notes, *, task_status: trio.TaskStatus[Reader]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look, port)
        await _ours(base_url, wanted, notes, metrics_port=port, task_status=task_status)


async def _look(port: int) -> None:
    while True:
        await trio.sleep(1.0)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            told = b"".join([part async for part in stream])
        if not told.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the metrics port said {told[:100]!r}")


async def _ours(
    base_url: str,
    wanted: Wanted,
    notes: Notes,
    *,
    metrics_port: int | None = None,
    task_status: trio.TaskStatus[Reader],
) -> None:
    async with (
        open_pipeline(base_url=base_url, metrics_port=metrics_port) as market,
        trio.open_nursery() as nursery,
    ):
        subscriptions = {
            line: await nursery.start(_consume, market, line, markets, notes) for line, markets in wanted.items()
        }
        task_status.started(Ours(market, subscriptions))


async def _consume(
    market: Client,
    line: str,
    markets: Sequence[str],
    notes: Notes,
    *,
    task_status: trio.TaskStatus[Subscription[Any]],
) -> None:
    missing, is_trade = set(markets), line == Line.TRADE
    async with getattr(market, f"stream_{line}")(markets) as subscription:
        async for value in subscription:
            if value.__class__ is Gap:
                notes.gaps += 1
            elif is_trade:
                notes.trade(value.sequential_id)
            if missing:
                missing.discard(value.market)
                if not missing:
                    task_status.started(subscription)


SIDES: Mapping[str, Start] = {OURS: _ours, BARE: _bare, WATCHED: _watched}


async def _serve(side: str, base_url: str) -> None:
    wanted = json.loads(await _line())
    notes = Notes()
    async with trio.open_nursery() as nursery:
        reader: Reader = await nursery.start(partial(SIDES[side], base_url, wanted, notes))
        print(flush=True)
        while command := await _line():
            if command == "begin":
                reader.begin()
                notes.begin()
                print(flush=True)
            else:
                print(json.dumps(notes.told() | reader.told()), flush=True)
        nursery.cancel_scope.cancel(reason="standard input has ended")


async def _line() -> str:
    return (await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)).strip()


if __name__ == "__main__":
    # What the library warns of is told by the report.
    logging.getLogger("marketpipe").addHandler(logging.NullHandler())
    trio.run(_serve, *sys.argv[1:3])
