"""The blocking client: the same answers in any thread, and no way to wait for ever."""

from __future__ import annotations

import asyncio
import gc
import inspect
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import attrs
import pytest
import trio
from from_threads import HANG_S, until
from rig import open_rig

import marketpipe as mp
from marketpipe import Client, Gap, Job, JobState, StoreError, UnknownMarket
from marketpipe.blocking import BlockingClient, BlockingJob, BlockingSubscription, Submit, _submitted_job
from marketpipe.errors import PipelineClosed, PipelineCrashed
from marketpipe.metrics.tasks import everybody

NAMES = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
MINUTE_MS = 60_000


@attrs.define(eq=False)
class Over:
    """A blocking client over a simulator in memory, in real time."""

    options: dict[str, Any]
    rig: Any = None

    @asynccontextmanager
    async def open(self):
        async with open_rig(**self.options) as self.rig:
            yield self.rig.market

    def connect(self) -> BlockingClient:
        return BlockingClient(self.open)


@pytest.fixture
def over() -> Over:
    return Over({"streams": True, "store": ":memory:", "latency_s": 0.001})


@pytest.fixture
def market(over: Over) -> Iterator[BlockingClient]:
    with over.connect() as market:
        yield market


def minute_ms(market: BlockingClient) -> int:
    """When the running minute began."""
    return market.get_candle("KRW-BTC", "1m", count=1, closed_only=True)[0].open_ms + MINUTE_MS


def calls_under_way(_: Client) -> int:
    """Tasks in the pipeline's thread that serve another one, this call's included."""
    return [task.name for task in everybody()].count("call from another thread")


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


class TestVerbs:
    def test_one_symbol_gives_a_value_and_many_a_batch(self, market):
        assert market.get_ticker("krw-btc").market == "KRW-BTC"
        assert list(market.get_ticker(NAMES)) == NAMES
        assert market.get_orderbook("KRW-BTC", depth=5).market == "KRW-BTC"
        assert len(market.get_trade("KRW-BTC", count=7)) == 7
        assert len(market.get_candle("KRW-BTC", "5m", count=3)) == 3
        assert len(market.get_market(quote="KRW")) > 3
        assert market.get_market("KRW-BTC").market == "KRW-BTC"
        assert market.explain_candle("KRW-BTC", count=10).market == "KRW-BTC"
        assert market.status().requests > 0

    def test_errors_are_those_of_the_verb(self, market):
        with pytest.raises(UnknownMarket, match=r"KRW-NOPE"):
            market.get_ticker("KRW-NOPE")
        with pytest.raises(ValueError, match="count must be"):
            market.get_trade("KRW-BTC", count=0)
        with pytest.raises(trio.WouldBlock):
            market.get_ticker_nowait("KRW-BTC")
        market.get_ticker("KRW-BTC")
        assert market.get_ticker_nowait("KRW-BTC").market == "KRW-BTC"

    def test_the_signatures_are_those_of_the_client_and_a_timeout(self):
        ours = {name for name in vars(BlockingClient) if not name.startswith("_")} - {"close"}
        theirs = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
        assert ours == theirs
        for name in sorted(theirs):
            wanted = dict(inspect.signature(getattr(Client, name)).parameters)
            found = dict(inspect.signature(getattr(BlockingClient, name)).parameters)
            found.pop("timeout", None)
            assert {key: (each.kind, each.default) for key, each in found.items()} == {
                key: (each.kind, each.default) for key, each in wanted.items()
            }, name

    def test_a_file_of_candles_is_read_page_after_page(self, market):
        market.get_candle("KRW-BTC", "1m", count=400)
        end_ms = minute_ms(market)
        pages = list(market.iterate_candle("KRW-BTC", "1m", start=end_ms - 300 * MINUTE_MS, end=end_ms))
        assert sum(map(len, pages)) == 300

    @pytest.mark.parametrize(("asked", "error", "text"), [
        ({"timeframe": "7m"}, ValueError, "7m"),
        ({"symbol": 5}, TypeError, "symbol must be a str"),
        ({"start": datetime(2026, 9, 1)}, ValueError, "start must be an aware datetime"),  # noqa: DTZ001
        ({"start": 200_000_000_000, "end": 100_000_000_000}, ValueError, "start must be before end"),
        ({"priority": 2}, TypeError, "CRITICAL, HIGH, NORMAL, LOW"),
    ])  # fmt: skip
    def test_misuse_of_what_is_read_page_after_page_is_told_by_the_call(self, market, asked, error, text):
        """Not by the first step of the loop."""
        with pytest.raises(error, match=text):
            market.iterate_candle(**{"symbol": "KRW-BTC", "start": 0, **asked})

    def test_what_is_read_page_after_page_needs_a_database_when_it_is_called(self, over):
        over.options["store"] = None
        with over.connect() as market, pytest.raises(RuntimeError, match="without a database"):
            market.iterate_candle("KRW-BTC", start=0)

    def test_misuse_comes_with_the_future(self, market):
        future = market.submit.get_candle("KRW-BTC", "7m")
        assert isinstance(future.exception(HANG_S), ValueError)

    @pytest.mark.filterwarnings("error")
    def test_what_is_read_page_after_page_is_not_begun_before_it_is_asked(self, market, over):
        """And one that is never begun leaves nothing behind, whether it is closed or forgotten."""
        start_ms = minute_ms(market) - 400 * MINUTE_MS
        before = len(over.rig.exchange.requests)
        closed, forgotten = (market.iterate_candle("KRW-BTC", start=start_ms) for _ in range(2))
        assert market._portal.call_sync(calls_under_way) == 1
        closed.close()
        del forgotten
        gc.collect()
        assert len(over.rig.exchange.requests) == before

    def test_what_is_read_page_after_page_may_be_left_in_between(self, market):
        pages = market.iterate_candle("KRW-BTC", "1m", start=0, stored_only=True)
        pages.close()
        pages = market.iterate_candle("KRW-BTC", "1m", start=minute_ms(market) - 400 * MINUTE_MS)
        assert next(pages)
        pages.close()
        with pytest.raises(StopIteration):
            next(pages)

    def test_a_collection_runs_in_the_background(self, market):
        end_ms = minute_ms(market) - 10 * MINUTE_MS
        job = market.start_backfill(["KRW-BTC"], "1m", start=end_ms - 500 * MINUTE_MS, end=end_ms)
        assert isinstance(job, BlockingJob)
        job.pause()
        assert job.snapshot().state == "paused"
        with pytest.raises(TimeoutError):
            job.wait(timeout=0.05)
        job.resume()
        seen = list(job.progress(every_s=0.01))
        assert seen[-1].state == "done"
        assert job.wait().parts[0].is_whole
        assert job.is_over
        summary = market.collection_summary("KRW-BTC", "1m", start=end_ms - 500 * MINUTE_MS, end=end_ms)
        assert summary.collected == 500
        assert market.check_store().is_well
        job = market.repair_store()
        job.cancel()
        assert job.wait().state in ("cancelled", "done")


class TestTimeout:
    def test_it_says_how_long_was_waited_and_disturbs_nobody(self, over):
        over.options["latency_s"] = 0.5
        with over.connect() as market:
            patient = market.submit.get_ticker("KRW-BTC")
            with pytest.raises(TimeoutError, match=r"not done within 0\.1 s"):
                market.get_ticker("KRW-BTC", timeout=0.1)
            assert patient.result(HANG_S).market == "KRW-BTC"

    @pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError)])
    def test_what_is_none_is_misuse(self, market, timeout, error):
        with pytest.raises(error, match=r"^timeout must be"):
            market.get_ticker("KRW-BTC", timeout=timeout)
        with pytest.raises(error, match=r"^timeout must be"):
            market.stream_ticker("KRW-BTC", timeout=timeout)

    def test_a_stream_that_does_not_open_in_time(self, over):
        over.options["latency_s"] = 5.0
        with over.connect() as market, pytest.raises(TimeoutError, match=r"not done within 0\.05 s"):
            market.stream_ticker("KRW-BTC", timeout=0.05)


class TestFutures:
    def test_each_verb_that_answers_has_one(self, market):
        futures = [market.submit.get_ticker(name) for name in NAMES]
        assert [future.result(HANG_S).market for future in futures] == NAMES
        assert len(market.submit.get_candle("KRW-BTC", "1m", count=5).result(HANG_S)) == 5
        assert isinstance(market.submit.get_ticker("KRW-NOPE").exception(HANG_S), UnknownMarket)

    def test_they_are_named_as_the_verbs_are(self):
        for name, submit in vars(Submit).items():
            if not name.startswith("_"):
                assert submit.__name__ == name
                assert inspect.signature(submit) == inspect.signature(getattr(Client, name))

    def test_a_collection_can_be_begun_without_waiting_too(self, market):
        job = market.submit.start_backfill("KRW-BTC", start=minute_ms(market) - 60 * MINUTE_MS).result(HANG_S)
        assert isinstance(job, BlockingJob)
        assert job.wait(HANG_S).state is JobState.DONE
        assert market.submit.repair_store().result(HANG_S).wait(HANG_S).state is JobState.DONE

    def test_a_collection_that_nobody_waited_for_is_cancelled(self, market, monkeypatch):
        taken: list[Job] = []
        waiting: list[Future[BlockingJob]] = []
        known = threading.Event()

        async def too_late(client: Client) -> Job:
            await trio.to_thread.run_sync(known.wait)
            taken.append(await client.start_backfill("KRW-BTC", start=0))
            assert waiting[0].cancel()
            return taken[0]

        monkeypatch.setattr(Submit, "start_backfill", _submitted_job(too_late))
        waiting.append(market.submit.start_backfill())
        known.set()
        until(lambda: taken and taken[0].is_over)

    def test_one_that_is_cancelled_gives_the_question_up(self, over):
        over.options["latency_s"] = 1.0
        with over.connect() as market:
            future = market.submit.get_ticker("KRW-BTC")
            assert future.cancel()
            with pytest.raises(CancelledError):
                future.result(HANG_S)
            assert wait_for([future], HANG_S).done

    def test_one_that_is_cancelled_when_its_value_is_there_gives_the_value_back(self, market):
        given: list[Future[str]] = []
        known = threading.Event()

        async def too_late(_: Client) -> str:
            await trio.to_thread.run_sync(known.wait)
            assert given[0].cancel()
            return "a value"

        back: list[str] = []
        given.append(market._portal.submit(too_late, undo=back.append))
        known.set()
        with pytest.raises(CancelledError):
            given[0].result(HANG_S)
        until(lambda: back)
        assert back == ["a value"]

    def test_asyncio_awaits_hundreds_of_them_at_once(self, market, over):
        names = list(market.get_market())

        async def main() -> list[Any]:
            asked = [market.submit.get_ticker(name) for name in names] * 10
            return await asyncio.gather(*map(asyncio.wrap_future, asked))

        before = len(over.rig.exchange.requests)
        answers = asyncio.run(main())
        assert [ticker.market for ticker in answers] == names * 10
        # One, and another for each time in which an answer may age meanwhile: this is real time, on a busy machine.
        assert len(over.rig.exchange.requests) - before <= 10

    def test_asyncio_gives_one_up_by_a_timeout(self, over):
        over.options["latency_s"] = 1.0

        async def main(market: BlockingClient) -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(market.submit.get_ticker("KRW-BTC")), 0.05)

        with over.connect() as market:
            asyncio.run(main(market))


class TestStreams:
    def test_a_loop_gets_what_the_market_does(self, market):
        names = list(market.get_market())
        with market.stream_trade(names) as trades:
            assert isinstance(trades, BlockingSubscription)
            seen = [event for event, _ in zip(trades, range(20), strict=False)]
        assert {event.market for event in seen} <= set(names)
        assert trades.markets == tuple(names)
        assert repr(trades).startswith("<BlockingSubscription ")
        assert list(trades) == []
        with pytest.raises(ValueError, match="was closed"):
            trades.receive()

    def test_bars_begin_with_their_history(self, market):
        with market.stream_candle("KRW-BTC", "1m", history=5) as bars:
            assert len({next(bars).open_ms for _ in range(5)}) == 5

    def test_a_book_and_a_ticker_and_what_became_of_them(self, market):
        with market.stream_orderbook(["KRW-BTC", "KRW-NOPE"]) as books, market.stream_ticker("KRW-ETH") as tickers:
            assert next(books).market == "KRW-BTC"
            assert next(tickers).market == "KRW-ETH"
            assert list(books.failed) == ["KRW-NOPE"]
            counts = books.statistics()
            assert counts.received == counts.delivered + counts.conflated + counts.dropped + counts.queued

    def test_no_market_of_that_name(self, market):
        with pytest.raises(UnknownMarket, match=r"KRW-NOPE"):
            market.stream_ticker("KRW-NOPE")
        with pytest.raises(ValueError, match="policy must be"):
            market.stream_ticker("KRW-BTC", policy="newest")

    def test_nothing_within_the_time_takes_nothing(self, market):
        with market.stream_candle("KRW-BTC", "1d") as bars:
            seen = 0
            with pytest.raises(TimeoutError):
                while True:
                    bars.receive(timeout=0.02)
                    seen += 1
            assert bars.statistics().delivered == seen

    def test_who_waits_is_told_when_another_thread_closes_it(self, market):
        trades = market.stream_candle("KRW-BTC", "1d")
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(list, trades)
            until(lambda: market.status().subscriptions)
            trades.close()
            assert rest.result(HANG_S) is not None
        trades.close()

    def test_each_value_goes_to_one_of_several_threads(self, market):
        names = list(market.get_market())
        with market.stream_trade(names) as trades, ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(lambda: [trades.receive() for _ in range(10)]) for _ in range(4)]
            seen = [event for reader in readers for event in reader.result(HANG_S)]
        keys = [(event.market, event.sequential_id) for event in seen if not isinstance(event, Gap)]
        assert len(keys) == len(set(keys))

    def test_a_value_that_was_taken_for_a_reader_who_left_is_the_next_ones(self, market):
        with market.stream_trade("KRW-BTC") as trades:
            first = trades.receive()
            trades._returned.append(first)
            assert trades.receive() is first

    def test_a_value_that_was_there_when_its_reader_was_interrupted_is_the_next_ones(self, market, monkeypatch):
        with market.stream_trade("KRW-BTC") as trades:
            taken = []
            portal, call = trades._portal, trades._portal.call

            def interrupted(verb: Any, timeout: float | None = None, *, undo: Callable[[Any], None]) -> Any:
                taken.append(call(verb, timeout))
                undo(taken[0])
                raise KeyboardInterrupt

            monkeypatch.setattr(portal, "call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                trades.receive()
            monkeypatch.undo()
            assert trades.receive() is taken[0]

    def test_a_loop_is_told_that_the_pipeline_was_left(self, over):
        market = over.connect()
        trades = market.stream_trade("KRW-BTC")
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(list, trades)
            market.close()
            assert isinstance(rest.exception(HANG_S), PipelineClosed)
        trades.close()


class TestEnd:
    def test_start_up_errors_reach_the_caller(self, tmp_path):
        file = tmp_path / "no.db"
        file.write_text("this is no database")
        with pytest.raises(StoreError, match=r"no\.db"):
            mp.connect(base_url="http://127.0.0.1:1", store=file)
        with pytest.raises(TypeError, match="stroe"):
            mp.connect(stroe=file)
        assert "marketpipe" not in threads()

    def test_no_thread_is_left(self, over):
        with over.connect() as market:
            assert "marketpipe" in threads()
            assert repr(market) == "<BlockingClient open>"
        assert "marketpipe" not in threads()
        assert repr(market) == "<BlockingClient closed>"
        market.close()

    @pytest.mark.parametrize("ask", [
        lambda market: market.get_ticker("KRW-BTC"),
        lambda market: market.submit.get_ticker("KRW-BTC"),
        lambda market: market.stream_ticker("KRW-BTC"),
        lambda market: market.status(),
        lambda market: market.iterate_candle("KRW-BTC", start=0),
    ])  # fmt: skip
    def test_afterwards_every_question_is_refused(self, over, ask):
        with over.connect() as market:
            pass
        with pytest.raises(PipelineClosed, match="connect"):
            ask(market)

    @pytest.mark.parametrize("steps", [0, 1])
    def test_afterwards_a_loop_takes_no_further_step(self, over, steps):
        with over.connect() as market:
            bars = market.iterate_candle("KRW-BTC", "1s", start=minute_ms(market) - 300 * MINUTE_MS)
            for _ in range(steps):
                next(bars)
        with pytest.raises(PipelineClosed, match="connect"):
            next(bars)

    def test_who_waits_is_told(self, over):
        over.options["latency_s"] = 30.0
        market = over.connect()
        futures = [market.submit.get_ticker(name) for name in NAMES]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(market.get_candle, "KRW-BTC")
            until(lambda: market.status().requests_in_flight)
            market.close()
            errors = [future.exception(HANG_S) for future in [*futures, waiting]]
        assert [type(error) for error in errors] == [PipelineClosed] * 4

    def test_a_crash_is_told_by_leaving(self, over, monkeypatch):
        async def fail(*_: object) -> None:
            raise KeyError("a bug")

        over.options["streams"] = False
        market = over.connect()
        monkeypatch.setattr(type(over.rig.exchange), "fetch", fail)
        with pytest.raises(PipelineClosed):
            market.get_trade("KRW-BTC")
        with pytest.raises(PipelineCrashed):
            market.close()
        market.close()
        with pytest.raises(PipelineClosed):
            market.get_trade("KRW-BTC")

    def test_an_exception_of_the_block_comes_out_bare(self, over):
        with pytest.raises(ZeroDivisionError), over.connect() as market:
            market.get_ticker("KRW-BTC")
            raise ZeroDivisionError

    def test_one_that_is_forgotten_ends_and_is_complained_of(self, over):
        market = over.connect()
        thread = market._portal._thread
        holder = [market]
        del market
        with pytest.warns(ResourceWarning, match="was not closed"):
            holder.clear()
        thread.join(HANG_S)
        assert not thread.is_alive()

    @pytest.mark.parametrize("ask", [
        lambda market: market.get_ticker("KRW-BTC"),
        lambda market: market.stream_ticker("KRW-BTC"),
        lambda market: market.iterate_candle("KRW-BTC", start=0),
        lambda market: market.status(),
    ])  # fmt: skip
    def test_its_own_thread_cannot_wait_for_itself(self, market, ask):
        """As in the callback of a future, which is called there."""
        with pytest.raises(RuntimeError, match="own thread"):
            market._portal.call_sync(lambda _: ask(market))

    def test_a_loop_takes_no_step_in_that_thread_either(self, market):
        bars = market.iterate_candle("KRW-BTC", start=minute_ms(market) - 60 * MINUTE_MS)
        with pytest.raises(RuntimeError, match="own thread"):
            market._portal.call_sync(lambda _: next(bars))

    def test_a_subscription_is_not_closed_in_that_thread_either(self, market):
        trades = market.stream_trade("KRW-BTC")
        with pytest.raises(RuntimeError, match="own thread"):
            market._portal.call_sync(lambda _: trades.close())
        trades.close()

    @pytest.mark.parametrize("begin", [
        lambda market: market.iterate_candle("KRW-BTC", start=minute_ms(market) - 60 * MINUTE_MS),
        lambda market: market.start_backfill("KRW-BTC", start=minute_ms(market) - 60 * MINUTE_MS).progress(),
    ])  # fmt: skip
    def test_a_loop_that_the_garbage_collector_collects_in_its_own_thread_does_not_hold_it_up(self, market, begin):
        """Whoever forgets a loop in a cycle, as every kept traceback is one, leaves its end to any thread."""
        forgotten = begin(market)
        next(forgotten)
        held = [forgotten]
        held.append(held)
        market._portal.call_sync(lambda _: forgotten.close())
        assert market.get_ticker("KRW-BTC", timeout=HANG_S).market == "KRW-BTC"

    def test_a_reader_that_was_woken_when_the_pipeline_ended_is_told_so(self, market):
        """A value has woken it already, and the end closes the subscription first."""
        with market.stream_trade("KRW-BTC") as trades:
            market._portal.call_sync(lambda _: trades._held.value.close())
            with pytest.raises(PipelineClosed):
                trades.receive()
        with pytest.raises(ValueError, match="was closed"):
            trades.receive()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_fork_leaves_what_it_was_in_the_middle_of(self, market):
        def child(report: Any) -> None:
            events.__exit__(None, None, None)
            bars.close()
            progress.close()
            market.close()
            report.send("left")

        job = market.start_backfill("KRW-BTC", start=minute_ms(market) - 600 * MINUTE_MS)
        with market.stream_trade("KRW-BTC") as events:
            bars = market.iterate_candle("KRW-BTC", start=minute_ms(market) - 60 * MINUTE_MS)
            next(bars)
            progress = job.progress()
            first = next(progress)
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
            process.start()
            assert ours.poll(HANG_S)
            assert ours.recv() == "left"
            process.join(HANG_S)
            assert process.exitcode == 0
            assert next(events).market == "KRW-BTC"
        assert [first, *progress][-1].state is JobState.DONE

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_fork_is_refused_in_words(self, market):
        def child(report: Any) -> None:
            try:
                market.get_ticker("KRW-BTC")
            except RuntimeError as error:
                report.send(str(error))
            market.close()

        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        process.start()
        assert ours.poll(HANG_S)
        assert "is a fork of it" in ours.recv()
        process.join(HANG_S)
        assert process.exitcode == 0
        assert market.get_ticker("KRW-BTC")


def test_many_threads_share_few_requests(over):
    """Thirty-two threads, each of which asks for every symbol: nothing lost, nothing mixed up, little asked."""
    with over.connect() as market:
        names = list(market.get_market())
        before = len(over.rig.exchange.requests)

        def ask(shift: int) -> list[str]:
            return [market.get_ticker(name).market for name in names[shift:] + names[:shift]]

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(32)))
        assert market._portal.call_sync(lambda _: over.rig.refused()) == 0
        assert answers == [names[shift:] + names[:shift] for shift in range(32)]
        assert len(over.rig.exchange.requests) - before < 32 * len(names) / 10
