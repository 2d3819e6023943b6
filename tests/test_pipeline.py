"""Opening and leaving: what comes out of the block, and that nothing stays behind."""

from __future__ import annotations

import math
from functools import partial

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from rig import EPOCH_MS, open_rig

import marketpipe as mp
from marketpipe.actors.cache import Cache
from marketpipe.actors.mailbox import Ask, ask
from marketpipe.actors.messages import Answered, Answers, Delivery, Question
from marketpipe.clock import TrioClock
from marketpipe.core.requests import Reply
from marketpipe.sim import open_simulator


class Quiet:
    """An exchange that never answers."""

    async def fetch(self, request):
        await trio.sleep_forever()


class Broken:
    """An exchange with a bug: it raises what no exchange may raise."""

    async def fetch(self, request):
        await trio.sleep(1)
        raise ZeroDivisionError("a bug in the edge")


@attrs.frozen
class Failing:
    """An exchange that fails after a while, or when it is given up."""

    error: BaseException

    async def fetch(self, request):
        try:
            await trio.sleep(1)
        finally:
            raise self.error


class Lingering:
    """An exchange whose connections take a moment to close and cannot be hurried, as httpcore's do."""

    async def fetch(self, request):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return Reply(rows=(), failed={}, received_ms=EPOCH_MS)


class Empty:
    """An exchange whose every answer is an empty list."""

    async def fetch(self, request):
        await trio.lowlevel.checkpoint()
        return Reply(rows=(), failed={}, received_ms=EPOCH_MS)


def pipe(exchange):
    return mp.run_pipeline(mp.Config(), exchange, clock=TrioClock(EPOCH_MS))


async def test_a_clean_block_leaves_nothing_behind(autojump_clock):
    """Leaving takes no time and ends every task, even with questions in flight."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with pipe(Quiet()):
        await trio.sleep(1)
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert trio.current_time() == 1.0


async def test_the_blocks_own_exception_comes_out_bare(autojump_clock):
    """The same object, in no group, with its own context."""
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with pipe(Quiet()):
            raise mine
    assert caught.value is mine
    assert caught.value.__context__ is None


async def test_a_group_raised_by_the_block_comes_out_as_it_was(autojump_clock):
    """A nursery in the block raises its group; it is not confused with a crash of the pipe."""
    with pytest.raises(ExceptionGroup) as caught:
        async with pipe(Quiet()), trio.open_nursery():
            raise ValueError("mine")
    assert caught.group_contains(ValueError, match="mine", depth=1)


async def test_a_crash_in_the_background_is_a_crash(autojump_clock):
    """A bug in an actor cancels the block and leaves as PipelineCrashed from the group."""
    with pytest.raises(mp.PipelineCrashed) as caught:
        async with pipe(Broken()):
            await trio.sleep(10)
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)
    assert caught.value.__cause__.subgroup(ZeroDivisionError) is not None
    assert trio.current_time() == 1.0


async def test_a_nursery_in_the_block_that_a_crash_cancels_has_not_failed(autojump_clock):
    with pytest.raises(mp.PipelineCrashed) as caught:
        async with pipe(Broken()), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(10)
    assert caught.value.__cause__.subgroup(ZeroDivisionError) is not None
    assert caught.value.__cause__.subgroup(trio.Cancelled) is None


async def test_a_block_that_fails_while_the_pipe_crashes_loses_neither(autojump_clock):
    """Both failures are in the cause."""
    with pytest.raises(mp.PipelineCrashed) as caught:
        async with pipe(Broken()):
            try:
                await trio.sleep(10)
            finally:
                raise ValueError("while cleaning up")
    assert caught.value.__cause__.subgroup(ZeroDivisionError) is not None
    assert caught.value.__cause__.subgroup(ValueError) is not None


async def test_cancellation_passes_through(autojump_clock):
    """An outer deadline ends the block like any other code."""
    with trio.move_on_after(3) as scope:
        async with pipe(Quiet()) as market:
            await market.get_ticker("KRW-BTC")
    assert scope.cancelled_caught
    assert trio.current_time() == 3.0


async def test_an_error_in_the_blocks_cleanup_is_not_swallowed_by_cancellation(autojump_clock):
    """Cancelled from outside and failing inside: the failure comes out."""
    with pytest.raises(ValueError, match="cleanup"), trio.move_on_after(3):
        async with pipe(Quiet()):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup")


async def test_keyboard_interrupt_keeps_its_route(autojump_clock):
    """Ctrl-C in the block comes out as itself."""
    with pytest.raises(KeyboardInterrupt):
        async with pipe(Quiet()):
            raise KeyboardInterrupt


async def test_ctrl_c_that_strikes_an_actor_keeps_its_route(autojump_clock):
    """It is raised wherever the program happens to be, and that may be in one of ours."""
    with pytest.raises(KeyboardInterrupt):
        async with pipe(Failing(KeyboardInterrupt())):
            await trio.sleep(10)


async def test_a_crash_on_the_way_out_of_what_was_cancelled_is_told(autojump_clock):
    """Cancelled from outside, and an actor fails over it: that is not lost with the cancellation."""
    with pytest.raises(mp.PipelineCrashed) as caught, trio.move_on_after(0.5):
        async with pipe(Failing(ZeroDivisionError())):
            await trio.sleep(10)
    assert caught.value.__cause__.subgroup(ZeroDivisionError) is not None
    assert trio.current_time() == 0.5


async def test_every_verb_says_that_the_pipe_is_closed(autojump_clock):
    """After the block, asking is PipelineClosed, whether the value is in memory or not."""
    async with open_rig() as rig:
        await rig.market.get_ticker("KRW-BTC")
    market = rig.market
    for verb in (
        lambda: market.get_ticker("KRW-BTC"),
        lambda: market.get_ticker(["KRW-BTC"]),
        lambda: market.get_orderbook("KRW-BTC"),
        lambda: market.get_trade("KRW-BTC"),
        lambda: market.get_candle("KRW-BTC"),
        lambda: market.get_market(),
    ):
        with pytest.raises(mp.PipelineClosed):
            await verb()
    with pytest.raises(mp.PipelineClosed):
        market.get_ticker_nowait("KRW-BTC")


async def test_a_question_in_flight_is_told_that_the_pipe_is_left(autojump_clock):
    """A task outside the block that still waits gets PipelineClosed; it is neither hung nor cancelled."""
    outcome = []

    async def outsider(market):
        try:
            await market.get_ticker("KRW-BTC")
        except mp.PipelineClosed as error:
            outcome.append(error)

    async with trio.open_nursery() as nursery, pipe(Quiet()) as market:
        nursery.start_soon(outsider, market)
        await trio.sleep(1)
    assert len(outcome) == 1


async def test_an_answer_that_arrives_while_leaving_is_no_crash(autojump_clock):
    """The cache has gone, the last request comes back all the same: its asker is told, nothing else happens."""
    outcome = []

    async def outsider(market):
        try:
            await market.get_market()
        except mp.PipelineClosed as error:
            outcome.append(error)

    async with trio.open_nursery() as nursery, pipe(Lingering()) as market:
        nursery.start_soon(outsider, market)
        await trio.sleep(0.5)
    assert len(outcome) == 1


async def test_an_answer_on_its_way_through_the_cache_is_closed(autojump_clock):
    """What lies between batcher and cache when the pipe is left has askers too."""
    answered, answers = trio.open_memory_channel[Answered](math.inf)
    questions, inbox = trio.open_memory_channel[Ask[Question, Answers]](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, questions)
        question = await inbox.receive()
        answered.send_nowait(Answered(EPOCH_MS, deliveries=(Delivery(question.reply, {}),)))
        with trio.CancelScope() as scope:
            scope.cancel()
            await Cache(answers, mp.CacheOptions()).run()


async def expect_closed(questions):
    with pytest.raises(mp.PipelineClosed):
        await ask(questions, Question((), mp.Priority.HIGH))


@pytest.mark.slow
@given(
    after=st.sampled_from([0, 0.5, 1, 2]),  # latencies, so that leaving and arriving fall together
    passes=st.integers(0, 12),  # of the scheduler
    latency_s=st.sampled_from([0.0, 0.02, 0.1]),
    symbols=st.lists(st.sampled_from(["KRW-BTC", "KRW-ETH", "KRW-NOPE"]), max_size=3),
    how=st.sampled_from(["leave", "raise", "cancel"]),
)
def test_leaving_at_any_moment_is_clean(after, passes, latency_s, symbols, how):
    """Whatever is in flight or just arriving: no crash, nobody left waiting, the block's own end is what is seen."""
    outcomes = []

    async def outsider(market, symbol):
        try:
            outcomes.append(await market.get_ticker(symbol, max_age_s=0))
        except (mp.PipelineClosed, mp.UnknownMarket) as error:
            outcomes.append(error)

    async def main():
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_rig(markets=5, latency_s=latency_s) as rig:
                    for symbol in symbols:
                        nursery.start_soon(outsider, rig.market, symbol)
                    await trio.sleep(after * latency_s)
                    for _ in range(passes):
                        await trio.lowlevel.checkpoint()
                    if how == "raise":
                        raise LookupError("mine")
                    if how == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()

    if how == "raise":
        with pytest.RaisesGroup(LookupError):
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    else:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        assert len(outcomes) == len(symbols)


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("runs", [1, 2])
def test_pipelines_one_after_another_stay_within_the_limit_together(runs):
    """The exchange counts by address: what one pipeline has used, the next one respects, in the same run or another."""

    async def use(base_url):
        for _ in range(3):
            async with mp.open_pipeline(base_url=base_url) as market, trio.open_nursery() as nursery:
                for count in range(1, 11):
                    nursery.start_soon(partial(market.get_trade, "KRW-BTC", count=count))

    async def serve_and_use():
        async with open_simulator(markets=5, window="rolling") as sim:
            await use(sim.base_url)
            if runs == 2:
                await trio.to_thread.run_sync(trio.run, use, sim.base_url)
            return sim.exchange.statistics().groups["crix-trades"]

    seen = trio.run(serve_and_use)
    assert seen.accepted == 30 * runs
    assert seen.refused == 0
    assert seen.greatest_per_second <= 10


@pytest.mark.slow
@pytest.mark.socket
async def test_two_pipelines_at_once_share_the_limit():
    """Ten requests a second for both together, and both get on."""
    async with (
        open_simulator(markets=5, window="rolling") as sim,
        mp.open_pipeline(base_url=sim.base_url) as one,
        mp.open_pipeline(base_url=sim.base_url) as other,
    ):
        async with trio.open_nursery() as nursery:
            for count in range(1, 16):
                nursery.start_soon(partial(one.get_trade, "KRW-BTC", count=count))
                nursery.start_soon(partial(other.get_trade, "KRW-ETH", count=count))
        seen = sim.exchange.statistics().groups["crix-trades"]
        assert (seen.accepted, seen.refused) == (30, 0)
        assert seen.greatest_per_second <= 10


async def test_an_unknown_option_is_refused():
    """A misspelt option is an error at the call."""
    with pytest.raises(TypeError, match="regoin"):
        async with mp.open_pipeline(regoin="kr"):
            pass


async def test_an_exchange_that_lists_nothing_is_not_believed(autojump_clock):
    """An empty list would make every market unknown; it is a BadPayload, and markets are asked by name."""
    async with pipe(Empty()) as market:
        with pytest.raises(mp.BadPayload, match="no market at all"):
            await market.get_market()
        with pytest.raises(mp.BadPayload, match="no row"):
            await market.get_ticker("KRW-BTC")
