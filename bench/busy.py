"""A busy pipeline that is left at one instant: streams, a collection into a file, and callers who wait for something.

Whoever asks is outside of the block that is left: they are not cancelled with it, they have to be told. In what is left
behind everything is held against what was there before, and the file against what was said to be in it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import attrs
import trio

from bench.collecting import DAY_MS, SYMBOL
from bench.ledger import MINUTE_MS, proven_spans, rows_in
from bench.leftovers import forgotten, take_inventory
from marketpipe import (
    BlockingClient,
    Client,
    Config,
    Limits,
    MarketPipeError,
    PipelineClosed,
    Progress,
    Subscriptions,
    connect,
    open_pipeline,
)
from marketpipe.core.spans import SpanSet
from marketpipe.store.sqlite import SqliteStore

__all__ = ["FORMS", "NAMES", "Form", "Instant", "Left", "deaf", "keep_busy", "leave"]

Form = Literal["left", "raised", "cancelled", "closed"]
# The body ends, or raises, or is cancelled from outside; and a blocking client is closed while threads call.
FORMS: tuple[Form, ...] = ("left", "raised", "cancelled", "closed")

NAMES = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL", "KRW-DOGE")
DAYS = 400
EACH = 2
THREADS = 8
FUTURES = 16
# Between two questions of one asker.
PAUSE_S = 0.005
# How long whoever waits is waited for: it is looked at afterwards how long it has taken.
PATIENCE_S = 10.0


@attrs.frozen(kw_only=True)
class Instant:
    """When and how it is left: ``after_s`` at the exchange at ``base_url``, asked ``per_second`` times.

    ``meanwhile`` happens first, such as that the exchange falls silent, and then ``silence_s`` pass.
    """

    form: Form
    base_url: str
    now_ms: int
    after_s: float
    per_second: int
    meanwhile: Callable[[], Awaitable[object]] | None = None
    silence_s: float = 0.0

    @property
    def span(self) -> tuple[int, int]:
        """What is collected: more than there is time for."""
        end_ms = self.now_ms // DAY_MS * DAY_MS
        return end_ms - DAYS * DAY_MS, end_ms

    def config(self, path: Path) -> Config:
        """Nothing waits for a turn to connect: the one before it, a moment ago, had the same address."""
        return Config(
            base_url=self.base_url,
            store=path,
            limits=Limits(per_second=self.per_second),
            subscriptions=Subscriptions(connects_per_second=1_000, messages_per_second=1_000, settle_s=0.01),
        )


@attrs.define
class Left:
    """How it was left. ``left_s``: until the block was over; ``told_s``: until everybody was told.

    ``told``: bars that were said to be collected, ``stored``: those that were there afterwards, ``answers``: how often
    any of the callers got one. ``flaws``: in words.
    """

    left_s: float = 0.0
    told_s: float = 0.0
    told: int = 0
    stored: int = 0
    answers: int = 0
    flaws: list[str] = attrs.field(factory=list)

    def hear(self, progress: Progress) -> None:
        """What a collection has told."""
        self.told = progress.done

    def fail(self, who: str, error: BaseException) -> None:
        """Something other than an answer, or than that the pipeline has ended."""
        self.flaws.append(f"{who} was told {error!r}")


class _Mine(Exception):
    """The block's own."""


async def leave(instant: Instant, path: Path) -> Left:
    """Open a pipeline, keep it busy, and leave it at the instant; what it kept is in ``path``, which is new."""
    left = Left()
    before = take_inventory()
    with forgotten() as words:
        if instant.form == "closed":
            await _closed(instant, path, left)
        else:
            async with trio.open_nursery() as outside:
                await _in_trio(instant, path, left, outside)
        left.flaws += before.since()
    left.flaws += words
    await trio.to_thread.run_sync(_look, instant, path, left)
    return left


# -- in Trio ----------------------------------------------------------------------------------------------------------


async def _in_trio(instant: Instant, path: Path, left: Left, outside: trio.Nursery) -> None:
    began_s = perf_counter()
    alarm = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        if instant.form == "cancelled":
            nursery.start_soon(_cancel, instant, alarm, left)
        with alarm:
            try:
                async with open_pipeline(instant.config(path)) as market:
                    keep_busy(market, instant.span, left, outside)
                    if instant.form == "cancelled":
                        await trio.sleep_forever()
                    await _until(instant)
                    began_s = perf_counter()
                    if instant.form == "raised":
                        raise _Mine
            except _Mine:
                pass
        over_s = perf_counter()
    left.left_s = over_s - (left.left_s if instant.form == "cancelled" else began_s)
    # Whoever asks gets to know it at their next turn; this is one of many.
    with trio.move_on_after(PATIENCE_S) as patience:
        while outside.child_tasks:
            await trio.lowlevel.checkpoint()
    left.told_s = left.left_s + perf_counter() - over_s
    if patience.cancelled_caught:
        left.flaws += [f"{task.name} waits for ever" for task in outside.child_tasks]
        outside.cancel_scope.cancel(reason="it waits for ever")


async def _cancel(instant: Instant, alarm: trio.CancelScope, left: Left) -> None:
    # Also before it is open.
    await _until(instant)
    left.left_s = perf_counter()
    alarm.cancel(reason="the instant has come")


async def _until(instant: Instant) -> None:
    await trio.sleep(instant.after_s)
    if instant.meanwhile is not None:
        await instant.meanwhile()
        await trio.sleep(instant.silence_s)


def keep_busy(market: Client, span: tuple[int, int], left: Left, outside: trio.Nursery) -> None:
    """Ask ``market`` for everything, again and again, and collect ``span``, in tasks of ``outside``."""
    start_ms, end_ms = span

    async def collect() -> None:
        job = await market.start_backfill(SYMBOL, start=start_ms, end=end_ms)
        try:
            async with aclosing(job.progress(every_s=0.01)) as told:
                async for progress in told:
                    left.hear(progress)
            await job.wait()
        finally:
            left.hear(job.snapshot())

    async def listen(stream: Callable[[], Any]) -> None:
        async with stream() as events:
            async for _ in events:
                left.answers += 1

    async def read() -> None:
        async with aclosing(market.iterate_candle(SYMBOL, start=end_ms - DAY_MS)) as pages:
            async for _ in pages:
                left.answers += 1

    asks: dict[str, Callable[[], Awaitable[object]]] = {
        "a ticker": lambda: market.get_ticker(NAMES[0], max_age_s=0),
        "tickers": lambda: market.get_ticker(NAMES, max_age_s=0),
        "books": lambda: market.get_orderbook(NAMES, max_age_s=0),
        "trades": lambda: market.get_trade(NAMES[1], count=700, max_age_s=0),
        "candles": lambda: market.get_candle(NAMES[2], "5m", count=700),
        "markets": lambda: market.get_market(max_age_s=0),
        "an explanation": lambda: market.explain_candle(SYMBOL, count=2_000),
        "a summary": lambda: market.collection_summary(SYMBOL, start=start_ms),
        "the store's check": market.check_store,
        "pages": read,
    }
    streams: dict[str, Callable[[], Any]] = {
        "a stream of tickers": lambda: market.stream_ticker(NAMES),
        "a stream of trades": lambda: market.stream_trade(NAMES),
        "a stream of books": lambda: market.stream_orderbook(NAMES),
        "a stream of bars": lambda: market.stream_candle(NAMES, "1s", history=20),
    }
    for who, ask in [*asks.items()] * EACH:
        outside.start_soon(_again, who, ask, left, name=who)
    for who, stream in streams.items():
        outside.start_soon(_again, who, partial(listen, stream), left, name=who)
    outside.start_soon(_again, "a collection", collect, left, name="a collection")


async def _again(who: str, ask: Callable[[], Awaitable[object]], left: Left) -> None:
    """Again and again, until the pipeline has ended."""
    while True:
        try:
            await ask()
            left.answers += 1
        except PipelineClosed:
            return
        except MarketPipeError:  # of an exchange that is silent
            pass
        except Exception as error:
            return left.fail(who, error)
        await trio.sleep(PAUSE_S)


# -- in threads -------------------------------------------------------------------------------------------------------


async def _closed(instant: Instant, path: Path, left: Left) -> None:
    ready, go = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def close() -> None:
        with connect(instant.config(path)) as market:
            threads, futures = _call(market, instant, left)
            token.run_sync_soon(ready.set)
            go.wait()
            began_s = perf_counter()
        left.left_s = perf_counter() - began_s
        for thread in threads:
            thread.join(PATIENCE_S)
        left.flaws += [f"{thread.name} waits for ever" for thread in threads if thread.is_alive()]
        done, undone = wait(futures, PATIENCE_S)
        left.told_s = perf_counter() - began_s
        left.flaws += ["a future waits for ever"] * len(undone)
        for future in done:
            error = future.exception()
            if error is not None and not isinstance(error, MarketPipeError):
                left.fail("a future", error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, close)
        await ready.wait()
        await _until(instant)
        go.set()


def _call(market: BlockingClient, instant: Instant, left: Left) -> tuple[list[threading.Thread], list[Future[Any]]]:
    def collect() -> None:
        start_ms, end_ms = instant.span
        job = market.start_backfill(SYMBOL, start=start_ms, end=end_ms)
        for progress in job.progress(every_s=0.01):
            left.hear(progress)
        job.wait()

    def listen(stream: Callable[[], Any]) -> None:
        with stream() as events:
            for _ in events:
                left.answers += 1

    def read() -> Iterator[object]:
        return market.iterate_candle(SYMBOL, start=instant.span[1] - DAY_MS)

    asks: dict[str, Callable[[], object]] = {
        "a thread for a ticker": lambda: market.get_ticker(NAMES[0], max_age_s=0),
        "a thread for books": lambda: market.get_orderbook(NAMES, max_age_s=0),
        "a thread for trades": lambda: market.get_trade(NAMES[1], count=700, max_age_s=0),
        "a thread for candles": lambda: market.get_candle(NAMES[2], "5m", count=700),
        "a thread for pages": lambda: list(read()),
        "a thread with a time limit": lambda: market.get_ticker(NAMES, max_age_s=0, timeout=60),
        "a thread for a status": market.status,
        "a thread for the store's check": market.check_store,
        "a thread with a stream of trades": lambda: listen(lambda: market.stream_trade(NAMES)),
        "a thread with a stream of bars": lambda: listen(lambda: market.stream_candle(NAMES, "1s", history=20)),
        "a thread with a collection": collect,
    }
    threads = [threading.Thread(target=_again_in_thread, args=(who, ask, left), name=who) for who, ask in asks.items()]
    for thread in threads:
        thread.start()
    return threads, [market.submit.get_ticker(NAMES, max_age_s=0) for _ in range(FUTURES)]


def _again_in_thread(who: str, ask: Callable[[], object], left: Left) -> None:
    pause = threading.Event()
    while True:
        try:
            ask()
            left.answers += 1
        except PipelineClosed:
            return
        except MarketPipeError:
            pass
        except BaseException as error:
            return left.fail(who, error)
        pause.wait(PAUSE_S)


# -- what is left of it -----------------------------------------------------------------------------------------------


def _look(instant: Instant, path: Path, left: Left) -> None:
    if not path.exists():  # cancelled before there was one
        if left.told:
            left.flaws.append(f"{left.told} bars were told of, and there is no file")
        return
    beside = {path.name + ending for ending in ("-wal", "-shm", "-journal", ".new")}
    left.flaws += [f"{found.name} lies beside the file" for found in path.parent.iterdir() if found.name in beside]
    with closing(sqlite3.connect(path)) as conn:
        found = [word for (word,) in conn.execute("PRAGMA quick_check")]
        if found != ["ok"]:
            left.flaws.append(f"the file is damaged: {found}")
    spans = list(SpanSet.of(*proven_spans(path, SYMBOL)).clip(*instant.span))
    left.stored = sum(rows_in(path, SYMBOL, spans))
    proven = sum(end_ms - start_ms for start_ms, end_ms in spans) // MINUTE_MS
    if left.stored != proven:  # each of its minutes was traded
        left.flaws.append(f"{proven} bars are proven, {left.stored} are there")
    if proven < left.told:
        left.flaws.append(f"{left.told} bars were told of, {proven} are proven")
    with SqliteStore.open(path, source=instant.base_url) as store:
        if store.read_only:
            left.flaws.append(f"the file cannot be written any more: {store.why}")
        left.flaws += [finding.words for finding in store.integrity()]


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """Where connections are made, and nobody ever says a word; and soon none is made any more."""
    listener = trio.socket.socket()
    try:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
