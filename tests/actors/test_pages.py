"""Pages into the archive: what one answer does, what an error ends, and that nobody asks what others have proven."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from paper_pages import SETTLED, Market, bench_of, spans
from rig import EPOCH_MS, open_rig
from store.paper_store import EVER, M1, MARKET, bar, full, opens, piece
from trio.testing import MockClock

from marketpipe.actors.asker import Asker
from marketpipe.actors.pages import Pages
from marketpipe.core.history import Piece
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.errors import BadPayload, ExchangeError, ExchangeUnavailable, PipelineClosed, UnknownMarket
from marketpipe.models import Priority, Source

NORMAL = Priority.NORMAL


def page_at(to: int, error: ExchangeError) -> Callable[[CandlesRequest], ExchangeError | None]:
    """What is ill only of the page before slot ``to``."""
    return lambda request: error.copy() if request.to_ms == opens(to) else None


DOWN = ExchangeUnavailable("GET candles: answered 503", status=503)


# -- one page -----------------------------------------------------------------------------------------------------


async def test_a_page_is_asked_with_its_priority_and_given_as_it_came(autojump_clock):
    async with bench_of() as bench:
        page = await bench.pages.ask(CandlesRequest(MARKET, M1, 3, opens(10)), Priority.LOW)
        assert page == (bar(9), bar(8), bar(7))
        assert bench.rest.priorities == [Priority.LOW]
        assert not await bench.stored()


async def test_each_asker_of_a_page_gets_an_error_of_its_own(autojump_clock):
    async with bench_of(Market(ill=lambda request: DOWN)) as bench:
        for _ in range(2):
            with pytest.raises(ExchangeUnavailable) as caught:
                await bench.pages.ask(CandlesRequest(MARKET, M1, 3, opens(10)), NORMAL)
            assert caught.value is not DOWN


async def test_what_a_page_proves_is_told_to_its_planner(autojump_clock):
    async with bench_of() as bench:
        planner = bench.planner((0, 500))
        request = planner.next()
        taken = await bench.pages.take(planner, request, NORMAL)
        assert taken == full(300, 500)
        assert planner.missing == spans((0, 300))
        assert planner.in_flight == 0


async def test_a_page_that_fails_is_given_back_and_noted(autojump_clock):
    async with bench_of(Market(ill=lambda request: DOWN)) as bench:
        planner = bench.planner((0, 100), (200, 500))
        for attempt in range(1, 4):
            request = planner.next()
            with pytest.raises(ExchangeUnavailable):
                await bench.pages.take(planner, request, NORMAL)
            assert planner.in_flight == 0
            assert planner.missing == spans((0, 100), (200, 500))
            await trio.sleep(1.01)
            (failure,) = bench.store.failures(MARKET, M1)
            assert (failure.start_ms, failure.end_ms) == (opens(300), opens(500))
            assert (failure.attempts, failure.code, failure.message) == (attempt, "ExchangeUnavailable", str(DOWN))


async def test_a_page_that_cannot_be_the_answer_is_a_failure_too(autojump_clock):
    async with bench_of() as bench:
        bench.rest.answer = lambda request: (bar(7, market="KRW-ETH"),)
        planner = bench.planner((0, 10))
        with pytest.raises(BadPayload, match="bar of KRW-ETH came"):
            await bench.pages.take(planner, planner.next(), NORMAL)
        assert planner.in_flight == 0
        await trio.sleep(1.01)
        assert [failure.code for failure in bench.store.failures(MARKET, M1)] == ["BadPayload"]
        assert not await bench.stored()


async def test_a_page_that_is_given_up_is_no_failure(autojump_clock):
    async with bench_of() as bench:
        bench.rest.deaf = True
        planner = bench.planner((0, 10))
        with trio.move_on_after(5) as scope:
            await bench.pages.take(planner, planner.next(), NORMAL)
        assert scope.cancelled_caught
        assert planner.in_flight == 0
        await trio.sleep(2)
        assert bench.store.failures(MARKET, M1) == ()


async def test_pages_are_read_together(autojump_clock):
    async with bench_of() as bench:
        requests = tuple(CandlesRequest(MARKET, M1, 2, opens(to)) for to in (4, 8))
        pages = await bench.pages.read(requests, NORMAL, opens(SETTLED))
        assert pages == {requests[0]: (bar(3), bar(2)), requests[1]: (bar(7), bar(6))}
        assert trio.current_time() == pytest.approx(0.02)


async def test_a_page_that_is_read_in_vain_says_what_it_leaves_out(autojump_clock):
    async with bench_of(Market(ill=page_at(300, DOWN))) as bench:
        requests = tuple(CandlesRequest(MARKET, M1, 100, opens(to)) for to in (500, 300))
        with pytest.raises(ExchangeUnavailable) as caught:
            await bench.pages.read(requests, NORMAL, opens(250))
        assert str(caught.value) == f"{DOWN}; {words_of(200, 250)}"
        await trio.sleep(1.01)
        (failure,) = bench.store.failures(MARKET, M1)
        assert (failure.start_ms, failure.end_ms, failure.message) == (opens(200), opens(250), str(DOWN))


async def test_of_what_has_not_settled_nothing_is_said_to_have_failed(autojump_clock):
    async with bench_of(Market(ill=lambda request: DOWN)) as bench:
        with pytest.raises(ExchangeUnavailable) as caught:
            await bench.pages.read((CandlesRequest(MARKET, M1, 3, opens(300)),), NORMAL, opens(250))
        assert str(caught.value) == str(DOWN)
        await trio.sleep(1.01)
        assert bench.store.failures(MARKET, M1) == ()


def words_of(first: int, end: int) -> str:
    start, stop = (f"{datetime.fromtimestamp(opens(slot) / 1000, UTC):%Y-%m-%d %H:%M:%S}" for slot in (first, end))
    return f"1m bars from {start} to {stop} UTC are missing"


# -- all of a range -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 20])
async def test_all_that_is_missing_is_fetched_and_stored(at_once: int, autojump_clock):
    async with bench_of(at_once=at_once) as bench:
        pieces = await bench.pages.fetch(bench.planner((0, 450), (600, 601), (1000, 2950)), Priority.HIGH)
        proven = SpanSet.of(*((each.start_ms, each.end_ms) for each in pieces))
        assert not spans((0, 450), (600, 601), (1000, 2950)) - proven
        assert await bench.stored() == proven
        assert set(bench.rest.priorities) == {Priority.HIGH}
        assert len(bench.asked) == len(set(bench.asked)) == 3 + 1 + 10
        # So many at once: in as many rounds of 20 ms as that takes.
        moments = [at_s for at_s, _ in bench.rest.asked]
        assert max(moments.count(at_s) for at_s in moments) <= at_once
        assert (len(set(moments)) == len(moments)) == (at_once == 1)


async def test_nothing_missing_is_nothing_asked(autojump_clock):
    async with bench_of() as bench:
        assert await bench.pages.fetch(bench.planner(), NORMAL) == ()
        assert bench.asked == []


async def test_a_fetch_may_be_ended_after_some_pages(autojump_clock):
    async with bench_of(at_once=2) as bench:
        pieces = await bench.pages.fetch(bench.planner((0, 2000)), NORMAL, 3)
        assert 3 <= len(pieces) <= 4
        assert await bench.stored() == SpanSet.of(*((each.start_ms, each.end_ms) for each in pieces))


async def test_the_first_error_ends_it_and_says_what_is_missing(autojump_clock):
    async with bench_of(Market(ill=page_at(600, DOWN))) as bench:
        planner = bench.planner((0, 3000))
        with pytest.raises(ExchangeUnavailable) as caught:
            await bench.pages.fetch(planner, NORMAL)
        assert caught.value.status == 503
        first, end = (
            (edge - opens(0)) // 60_000 for edge in (next(iter(planner.missing))[0], [*planner.missing][-1][1])
        )
        assert str(caught.value) == f"{DOWN}; {words_of(first, end)}"
        assert end >= 600
        # What had come before is in the archive, and all that is missing is named.
        stored = await bench.stored()
        assert stored == spans((0, 3000)) - planner.missing
        assert stored
        asked = len(bench.asked)
        await trio.sleep(60)
        assert len(bench.asked) == asked
        assert [failure.end_ms for failure in bench.store.failures(MARKET, M1)] == [opens(600)]


async def test_an_error_is_not_kept_waiting_by_pages_that_take_long(autojump_clock):
    market = Market(ill=page_at(2800, DOWN), delay_s=lambda request: 100 if request.to_ms == opens(2600) else 0)
    async with bench_of(market) as bench:
        with trio.fail_after(1), pytest.raises(ExchangeUnavailable):
            await bench.pages.fetch(bench.planner((0, SETTLED)), NORMAL)


async def test_what_others_prove_in_the_moment_in_which_it_fails_is_no_error(autojump_clock):
    def prove(request: CandlesRequest) -> ExchangeError:
        assert bench.archive.add(full(0, 500))
        return DOWN.copy()

    async with bench_of(Market(ill=prove)) as bench:
        assert await bench.pages.fetch(bench.planner((0, 500)), NORMAL) == (full(0, 500),)


async def test_the_first_page_of_all_may_fail(autojump_clock):
    async with bench_of(Market(ill=lambda request: UnknownMarket(MARKET))) as bench:
        with pytest.raises(UnknownMarket) as caught:
            await bench.pages.fetch(bench.planner((0, 3000)), NORMAL)
        assert caught.value.market == MARKET
        assert str(caught.value).endswith(words_of(0, 3000))
        assert len(bench.asked) == 1
        assert not await bench.stored()


async def test_of_several_errors_one_is_raised_and_bare(autojump_clock):
    errors = [ExchangeUnavailable(f"number {number}", status=503) for number in range(30)]
    ill: list[bool] = []

    def sicken(request: CandlesRequest) -> ExchangeError | None:
        return errors.pop(0) if ill else None

    async with bench_of(Market(ill=sicken)) as bench:
        async with trio.open_nursery() as nursery:

            async def fetch() -> None:
                with pytest.raises(ExchangeUnavailable, match=r"^number \d+; 1m bars from"):
                    await bench.pages.fetch(bench.planner((0, 3000)), NORMAL)

            nursery.start_soon(fetch)
            await trio.sleep(0.03)
            ill.append(True)
        assert len(errors) < 30


async def test_the_pipeline_s_end_is_no_failure_of_a_page(autojump_clock):
    async with bench_of() as bench:
        questions, inbox = trio.open_memory_channel[Any](0)
        inbox.close()
        with Asker(questions) as asker, pytest.raises(PipelineClosed):
            await Pages(asker, bench.archive, 1).fetch(bench.planner((0, 3000)), NORMAL)
        await trio.sleep(2)
        assert bench.store.failures(MARKET, M1) == ()


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` the moment any task but the exchange's waits for the ``step``-th time."""

    step: int
    scope: trio.CancelScope
    names: tuple[str, ...]
    steps: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if any(name in task.name for name in self.names):
            self.steps += 1
            if self.steps == self.step:
                self.scope.cancel(reason=f"at step {self.step}")


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 3])
def test_a_fetch_may_be_given_up_wherever_it_waits(at_once: int):
    """What had come is stored, every request is given back, and the next one asks for the rest alone."""

    async def main(step: int) -> bool:
        async with bench_of(Market([*range(0, 900, 2), *range(900, 1800)]), at_once=at_once) as bench:
            planner = bench.planner((100, 700), (900, 1800))
            with trio.CancelScope() as scope:
                names = ("page of", trio.lowlevel.current_task().name)
                cancelled = CancelAt(step, scope, names)
                trio.lowlevel.add_instrument(cancelled)
                await bench.pages.fetch(planner, NORMAL)
            trio.lowlevel.remove_instrument(cancelled)
            await trio.sleep(1)
            assert planner.in_flight == 0
            assert bench.archive._followers == {}
            assert bench.store.failures(MARKET, M1) == ()
            stored = await bench.stored()
            assert spans((100, 700), (900, 1800)) - stored == planner.missing
            assert bench.store.integrity() == ()
            again = bench.planner()
            again._missing = planner.missing
            before = len(bench.asked)
            await bench.pages.fetch(again, NORMAL)
            assert all(not stored.covers(request.to_ms - 1, request.to_ms) for request in bench.asked[before:])
            assert not spans((100, 700), (900, 1800)) - await bench.stored()
        return scope.cancelled_caught

    step = 1
    while trio.run(main, step, clock=MockClock(autojump_threshold=0)):
        step += 1
    assert step >= 8


@given(
    traded=st.lists(st.integers(0, 2), min_size=30, max_size=30),
    holes=st.lists(st.tuples(st.integers(0, 28), st.integers(1, 10)), min_size=1, max_size=4),
    at_once=st.integers(1, 5),
    ill=st.sets(st.integers(0, 12), max_size=2),
)
def test_whatever_a_fetch_proves_is_true_and_stored(
    traded: list[int], holes: list[tuple[int, int]], at_once: int, ill: set[int]
):
    """Dense, thin and empty stretches; any holes; any number at once; whatever fails."""

    async def main() -> None:
        slots = [
            slot for at, density in enumerate(traded) for slot in range(100 * at, 100 * (at + 1), (7, 2, 1)[density])
        ]
        market = Market(slots)
        market.ill = lambda request: DOWN.copy() if len(bench.asked) - 1 in ill else None
        async with bench_of(market, at_once=at_once) as bench:
            planner = bench.planner(
                *((100 * first + 7, 100 * (first + length)) for first, length in holes if first + length <= 30)
            )
            wanted = planner.missing
            try:
                pieces = await bench.pages.fetch(planner, NORMAL)
            except ExchangeUnavailable:
                assert planner.missing
            else:
                assert not wanted - SpanSet.of(*((each.start_ms, each.end_ms) for each in pieces))
            stored = await bench.stored()
            assert wanted - stored == planner.missing
            known = {(each.open_ms - opens(0)) // 60_000 for each in bench.store.bars(MARKET, M1, *EVER)}
            assert known == {slot for slot in slots if opens(slot) in stored}
            assert bench.store.integrity() == ()
            assert bench.store.amendments(MARKET, M1) == ()

    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- several ------------------------------------------------------------------------------------------------------


async def test_what_others_prove_meanwhile_is_not_asked_for_and_given_all_the_same(autojump_clock):
    async with bench_of(at_once=1) as bench:
        found: list[tuple[Piece, ...]] = []

        async def fetch() -> None:
            found.append(await bench.pages.fetch(bench.planner((0, 1000)), NORMAL))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await trio.sleep(0.01)
            others = full(100, 700)
            assert bench.archive.add(others)
            assert bench.archive.add(piece(2000, 2001, [2000]))  # nobody's
        assert [request.to_ms for request in bench.asked] == [opens(1000), opens(800), opens(100)]
        assert others in found[0]
        assert len(found[0]) == 4


async def test_what_others_have_read_and_could_not_store_is_taken_too(autojump_clock):
    """It is proven, after all."""
    async with bench_of(at_once=1, kept_rows=1) as bench:
        bench.store.close()
        assert bench.archive.add(full(2000, 2001))
        found: list[tuple[Piece, ...]] = []

        async def fetch() -> None:
            found.append(await bench.pages.fetch(bench.planner((0, 1000)), NORMAL))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await trio.sleep(0.01)
            assert not bench.archive.add(full(100, 700))
        proven = SpanSet.of(*((each.start_ms, each.end_ms) for each in found[0]))
        assert not spans((0, 1000)) - proven
        assert len(bench.asked) == 3


async def test_a_planner_that_follows_leaves_out_what_is_stored_by_others_and_nothing_else(autojump_clock):
    async with bench_of(kept_rows=300) as bench:
        planner = bench.planner((0, 1000))
        with bench.pages.following(planner):
            assert bench.archive.add(full(100, 400))
            assert not bench.archive.add(full(500, 600))
        assert planner.missing == spans((0, 100), (400, 1000))


@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.05, 0.2])
async def test_two_fetches_over_the_same_range_at_once_ask_once(late_s: float, autojump_clock):
    """Over the whole pipe, whose batcher joins the same questions; both get all of it."""
    async with open_rig(store=":memory:", jitter_s=0.01) as rig:
        start_ms = EPOCH_MS - 86_400_000
        answers: list[Any] = []

        async def read() -> None:
            answers.append(await rig.market.get_candle("KRW-BTC", start=start_ms, end=EPOCH_MS - 3_600_000))

        await rig.market.get_market("KRW-BTC")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(late_s)
            nursery.start_soon(read)
        assert len(answers[0]) == 1380
        one, other = ([attrs.evolve(each, received_ms=0, source=Source.REST) for each in answer] for answer in answers)
        assert one == other
        requests = rig.exchange.of(CandlesRequest)
        assert len(requests) == len(set(requests)) == 7
