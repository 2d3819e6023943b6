"""The pipe, put together: every channel and every nursery is opened here, and nowhere else.

::

      callers ── get_ticker() ... ──> Client ──reads──> CacheView
                                        │                   ^
                                        │ miss: ask         │ writes
                                        v                   │
      exchange <──requests── Batcher ──answered──> Cache ───┴──replies──> callers
        (upbit.rest)          owns slots,          owns the values
                              queues, retries        ^
                                ^                    │ newest values
                                │ checks, repairs    │
      exchange ───frames───> Subscriptions ──────────┴─────────> Hub ──> stream_ticker() ...
        (upbit.ws)            owns connections,                   ^
                              watches, mends                      │ bars, each FINAL once
                                │ └─bars──> Deduplicator ─────────┘
                                │ bars that are proven
                                v
      callers ── get_candle() ──> Archive ──reads──> Store        (store.sqlite)
                 start_backfill()   │ pieces            ^
                                    └──> Writer ────────┘
                                         owns what is not stored yet

Data flows one way, from the exchange through the cache and the hub to the callers, and through the writer to the
database; only questions go the other way.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from marketpipe.actors.archive import Archive, ReadableStore
from marketpipe.actors.asker import Asker
from marketpipe.actors.backfill import Backfill
from marketpipe.actors.batcher import Batcher, Exchange
from marketpipe.actors.cache import Cache
from marketpipe.actors.connection import StreamExchange
from marketpipe.actors.deduplicator import BarMessage, Deduplicator
from marketpipe.actors.hub import Hub
from marketpipe.actors.mailbox import Ask
from marketpipe.actors.messages import Answered, Answers, Question
from marketpipe.actors.pages import Pages
from marketpipe.actors.pulse import Pulse
from marketpipe.actors.subscriptions import Subscriptions
from marketpipe.actors.writer import Runner, Writer, in_threads
from marketpipe.client import Client
from marketpipe.clock import Clock, SystemClock
from marketpipe.collected import Collected
from marketpipe.config import Config
from marketpipe.core.budgets import Budgets
from marketpipe.core.requests import CandlesRequest, Group
from marketpipe.core.topics import Line
from marketpipe.errors import PipelineCrashed
from marketpipe.models import Candle
from marketpipe.reporting import Reporter
from marketpipe.sharing import new_budgets, shared_budgets

if TYPE_CHECKING:
    from marketpipe.metrics.server import Endpoint
    from marketpipe.store.sqlite import SqliteStore

__all__ = ["open_pipeline", "run_pipeline"]


@asynccontextmanager
async def open_pipeline(config: Config | None = None, **options: Any) -> AsyncGenerator[Client]:
    """Open a pipeline to the exchange and yield its `Client`; leaving the block ends everything in it.

    ``options`` are fields of `Config`, and replace those of ``config``. Nothing is asked of the exchange on behalf of
    the caller yet, except its market list, in the background. If an actor fails in the background, the block is
    cancelled and `PipelineCrashed` raised from the group of failures; an exception of the block itself comes out bare.
    Where ``metrics_port`` is taken already, nothing begins: ``OSError``.
    """
    # Importing httpx takes longer than the rest of the package together: paid here, not by `import marketpipe`.
    from marketpipe.upbit.rest import UpbitRest, tls_context
    from marketpipe.upbit.ws import UpbitWebSocket

    chosen = attrs.evolve(config or Config(), **options)
    clock = SystemClock()
    limits, subscriptions, buffers = chosen.limits, chosen.subscriptions, chosen.buffers
    stream = UpbitWebSocket(
        chosen.stream_url,
        clock=clock,
        handshake_s=subscriptions.handshake_s,
        ping_s=subscriptions.ping_s,
        pong_s=subscriptions.pong_s,
        frames=buffers.frames,
        frame_bytes=buffers.frame_bytes,
        tls=tls_context,
    )
    async with AsyncExitStack() as stack:
        endpoint = await _endpoint(chosen, stack)
        store = stack.enter_context(await trio.to_thread.run_sync(_open_store, chosen))
        budgets = stack.enter_context(shared_budgets(chosen))
        async with (
            UpbitRest(
                chosen.rest_url,
                clock=clock,
                connect_s=limits.connect_s,
                read_s=limits.read_s,
                deadline_s=limits.deadline_s,
                max_connections=limits.per_second * len(Group),  # one for every request slot there is
            ) as exchange,
            run_pipeline(
                chosen,
                exchange,
                clock=clock,
                stream=stream,
                budgets=budgets,
                store=store,
                pulse=True,
                endpoint=endpoint,
            ) as client,
        ):
            yield client


@asynccontextmanager
async def run_pipeline(
    config: Config,
    exchange: Exchange,
    *,
    clock: Clock,
    stream: StreamExchange | None = None,
    draw: Callable[[], float] | None = None,
    budgets: Budgets | None = None,
    store: ReadableStore | None = None,
    runner: Callable[[], Runner] = in_threads,
    pulse: bool = False,
    endpoint: Endpoint | None = None,
) -> AsyncGenerator[Client]:
    """The pipeline over any `Exchange` and `Clock`: for tests, benches and simulators. See `open_pipeline`.

    ``stream`` is the exchange's WebSocket side; without it, everything is asked and nothing can be listened to.
    ``draw`` gives uniform numbers in [0, 1) for the back-off's jitter. ``budgets`` are shared with other pipelines to
    the same exchange; without them, this one is alone there. ``store`` is the database of candles; without it nothing
    is kept, and nothing can be collected. ``runner`` makes what runs its synchronous calls: threads, or `in_line`.
    ``pulse``: measure how late the event loop is, by waking every half second; not under a mock clock.
    ``endpoint`` tells others about the pipe while it runs.
    """
    pipe = _assembled(config, exchange, clock, stream, draw or random.Random().random, budgets, store, runner, pulse)
    body_error: BaseException | None = None
    crash: BaseExceptionGroup[BaseException] | None = None
    try:
        async with trio.open_nursery() as nursery:
            for actor in pipe.actors:
                await nursery.start(actor.run, name=type(actor).__name__.lower())
            if endpoint is not None:
                await nursery.start(endpoint.run, pipe.client.status, name="metrics")
            try:
                yield pipe.client
            except BaseException as error:
                body_error = error  # raised again below, outside the nursery, which would wrap it into a group
            finally:
                pipe.client.close()
                pipe.hub.close()
                nursery.cancel_scope.cancel(reason="the pipeline was left")
    except BaseExceptionGroup as group:
        crash = group
    finally:
        if pipe.archive is not None:
            # Callers read in threads, and the database is about to be closed.
            with trio.CancelScope(shield=True):
                await pipe.archive.close()
    outcome = body_error if crash is None else _at_the_border(crash, body_error)
    if outcome is not None:
        raise outcome


class _Actor(Protocol):
    async def run(self, *, task_status: trio.TaskStatus[None] = ...) -> None: ...


@attrs.frozen
class _Pipe:
    """All the parts, joined; ``actors`` in the order in which they begin."""

    client: Client
    hub: Hub
    archive: Archive | None
    actors: tuple[_Actor, ...]


def _assembled(
    config: Config,
    exchange: Exchange,
    clock: Clock,
    stream: StreamExchange | None,
    jitter: Callable[[], float],
    budgets: Budgets | None,
    store: ReadableStore | None,
    runner: Callable[[], Runner],
    pulse: bool,
) -> _Pipe:
    # 0: a rendezvous, so that a question is never left in the buffer of an actor that has died.
    questions, inbox = trio.open_memory_channel[Ask[Question, Answers]](0)
    # Unbounded, since the batcher must never wait for the cache: it holds at most one message per request in flight
    # and one per question that failed at once, and those are bounded by the slots and by the callers who wait.
    answered, answers = trio.open_memory_channel[Answered](math.inf)
    # Unbounded, since the connections must never wait: the deduplicator empties it whenever it runs, and waits for
    # nobody either.
    bars, bars_inbox = trio.open_memory_channel[BarMessage](math.inf)
    shared = budgets or new_budgets(config)
    batcher = Batcher(exchange, inbox, answered, clock, config.limits, config.retry, jitter, shared)
    cache = Cache(answers, config.cache, store is None)
    hub = Hub()
    timed = partial(hub.timed, Line.CANDLE)
    deduplicator = Deduplicator(bars_inbox, partial(_publish_bars, hub), config.buffers.candles, hub.tell, timed)
    keeping = None
    if store is not None:
        keeping = _keeping(config, store, runner, clock, batcher, Asker(questions.clone()), jitter)
    subscriptions = None
    if stream is not None:
        subscriptions = Subscriptions(
            stream,
            Asker(questions.clone()),
            cache,
            hub,
            bars,
            deduplicator.view,
            clock,
            config.subscriptions,
            shared,
            jitter,
            lambda: batcher.exchange_now_ms() if batcher.knows_the_time else None,
            None if keeping is None else keeping.pages.archive.add,
            config.buffers.frames,
        )
    actors: list[_Actor] = [cache, deduplicator, batcher]
    collected = writer = backfill = None
    if keeping is not None:
        writer, backfill, per_second = keeping.writer, keeping.backfill, config.limits.per_second
        cached = partial(_from_memory, cache)
        collected = Collected(keeping.pages, batcher.exchange_now_ms, cached, per_second, subscriptions)
        actors += [writer, backfill]
    if subscriptions is not None:
        actors.append(subscriptions)
    beat = Pulse() if pulse else None
    if beat is not None:
        actors.append(beat)
    parts = batcher, cache, hub, deduplicator, subscriptions, backfill, writer, beat
    client = Client(
        questions, cache.view, batcher, Reporter(clock, _resident_bytes(), *parts), subscriptions, collected, backfill
    )
    return _Pipe(client, hub, None if keeping is None else keeping.pages.archive, tuple(actors))


@attrs.frozen
class _Keeping:
    """What keeps bars, and collects them."""

    pages: Pages
    writer: Writer
    backfill: Backfill


def _keeping(
    config: Config,
    store: ReadableStore,
    runner: Callable[[], Runner],
    clock: Clock,
    batcher: Batcher,
    asker: Asker,
    jitter: Callable[[], float],
) -> _Keeping:
    def waiting() -> int:
        return batcher.statistics().waiting[Group.CANDLE]

    writer = Writer(store, runner(), clock, config.collecting, jitter)
    pages = Pages(asker, Archive(store, runner(), writer, runner()), config.collecting.pages_at_once)
    backfill = Backfill(pages, config.collecting, batcher.exchange_now_ms, jitter, waiting)
    return _Keeping(pages, writer, backfill)


def _open_store(config: Config) -> SqliteStore:
    # sqlite-utils takes as long to import as all the rest: in the thread that opens the file.
    from marketpipe.store.sqlite import SqliteStore

    return SqliteStore.open(config.store_path, source=config.rest_url)


async def _endpoint(config: Config, stack: AsyncExitStack) -> Endpoint | None:
    """The port that ``config`` names, ours until ``stack`` is left."""
    if config.metrics_port is None:
        return None
    from marketpipe.metrics.server import Endpoint  # nobody else pays for what it imports

    return await stack.enter_async_context(await Endpoint.listen(config.metrics_port))


def _from_memory(cache: Cache, request: CandlesRequest) -> Any:
    return cache.view.candles(request, None)


def _resident_bytes() -> Callable[[], int]:
    # Imported where a pipe is opened, not by `import marketpipe`. The handle is this process's: a fork has its own.
    import psutil  # type: ignore[import-untyped]  # it has no types

    process = psutil.Process()
    return lambda: int(process.memory_info().rss)


def _publish_bars(hub: Hub, candles: Sequence[Candle]) -> None:
    hub.publish(Line.CANDLE, candles)


def _at_the_border(group: BaseExceptionGroup[BaseException], body_error: BaseException | None) -> BaseException:
    """What a group that left the nursery is for the caller, who has not asked for a nursery.

    Cancellation and KeyboardInterrupt keep their route, an exception of the block comes out bare. Anything else is a
    crash of an actor; nothing of the group is discarded.
    """
    failures = group.split(trio.Cancelled)[1]
    if failures is None:
        return body_error or group
    interrupts = failures.subgroup((KeyboardInterrupt, SystemExit))
    if interrupts is not None:
        return _first_leaf(interrupts)
    crashed = PipelineCrashed("an actor of the pipeline failed; the cause names it")
    if body_error is not None and not _is_cancellation(body_error):
        group = BaseExceptionGroup("the block failed while the pipeline crashed", [body_error, group])
    crashed.__cause__ = group
    return crashed


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):  # the block had a nursery of its own
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
