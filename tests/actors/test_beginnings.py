"""The beginning of a history is believed if it is said twice, and never against what is proven."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_pages import SETTLED, Bench, Market, bench_of, slot_of, spans
from store.paper_store import EVER, M1, MARKET, bar, full, opened, opens, piece
from trio.testing import MockClock

from marketpipe.core.progress import JobState
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.errors import BadPayload, ExchangeUnavailable, StoreError
from marketpipe.models import Candle, Priority
from marketpipe.store.sqlite import SqliteStore

NORMAL = Priority.NORMAL
Page = tuple[Candle, ...]
Fault = Callable[[Page], Page]


def empty(page: Page) -> Page:
    return ()


def a_row_short(page: Page) -> Page:
    return (*page[:3], *page[4:])


@attrs.define(eq=False)
class Forgetful(Market):
    """It spoils some of its answers, each of them once: by their number."""

    spoiled: dict[int, Fault] = attrs.field(factory=dict, kw_only=True)
    answers: int = attrs.field(default=0, init=False)

    def answer(self, request: CandlesRequest) -> Page:
        page = super().answer(request)
        fault = self.spoiled.get(self.answers)
        self.answers += 1
        # Where history begins indeed, nobody can tell a short page from one that lacks a row.
        is_short = len(page) < request.count or slot_of(page[-1].open_ms) == min(self.traded)
        return page if fault is None or (is_short and fault is a_row_short) else fault(page)


def to(slot: int, count: int = 200) -> CandlesRequest:
    return CandlesRequest(MARKET, M1, count, opens(slot))


async def read(bench: Bench, *requests: CandlesRequest) -> dict[CandlesRequest, Page]:
    return await bench.pages.read(requests, NORMAL, opens(SETTLED))


@asynccontextmanager
async def stored_first(market: Market) -> AsyncIterator[Bench]:
    """With the slots from 1000 to 1400 in the database already."""
    with opened(":memory:") as store:
        store.write([full(1000, 1400)], now_ms=1)
        async with bench_of(market, store=store) as bench:
            yield bench


# -- what is stored -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [empty, a_row_short])
async def test_a_job_loses_nothing_to_one_page_that_is_too_short(fault: Fault, autojump_clock):
    async with stored_first(Forgetful(spoiled={0: fault})) as bench:
        report = await bench.job(1500, 2000).wait()
        assert [str(part.error) for part in report.parts] == ["None"]
        assert await bench.stored() == spans((1000, 1400), (1500, 2000))
        assert bench.slots_stored() == [*range(1000, 1400), *range(1500, 2000)]
        assert bench.store.amendments(MARKET, M1) == ()


@pytest.mark.parametrize("fault", [empty, a_row_short])
async def test_a_page_that_is_too_short_is_refused_without_asking_where_bars_are_proven(fault: Fault, autojump_clock):
    async with stored_first(Forgetful(spoiled={0: fault})) as bench:
        with pytest.raises(BadPayload, match=f"one opens at {opens(1399)}, before"):
            await read(bench, to(2000))
        assert bench.asked == [to(2000)]
        assert await bench.stored() == spans((1000, 1400))
        assert len((await read(bench, to(2000)))[to(2000)]) == 200


async def test_a_bar_that_is_still_on_its_way_to_the_database_counts(autojump_clock):
    async with bench_of(Forgetful(spoiled={0: empty})) as bench:
        bench.archive.add(full(1000, 1400))
        with pytest.raises(BadPayload, match=f"one opens at {opens(1399)}, before"):
            await read(bench, to(2000))
        assert bench.asked == [to(2000)]


async def test_a_database_that_cannot_be_read_is_no_reason_not_to_ask(autojump_clock, caplog):
    async with bench_of(Market(range(1900, SETTLED))) as bench:

        def damaged(*args: object) -> None:
            raise StoreError("history.db: cannot read: the disk fails")

        bench.store.newest_proven = damaged
        assert len((await read(bench, to(2000)))[to(2000)]) == 100
        assert bench.asked == [to(2000), to(1900, 1)]
        assert "the disk fails; the exchange is asked instead" in caplog.text


# -- what another page says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [empty, a_row_short])
async def test_without_anything_stored_another_page_tells(fault: Fault, autojump_clock):
    async with bench_of(Forgetful(spoiled={0: fault})) as bench:
        with pytest.raises(BadPayload, match="what is no beginning of the 1m bars"):
            await read(bench, to(2000))
        assert not await bench.stored()
        assert bench.asked[1:] == [to(2000 if fault is empty else 1800, 1)]


@pytest.mark.parametrize("fault", [empty, a_row_short])
async def test_a_job_into_nothing_asks_again_what_was_too_short(fault: Fault, autojump_clock):
    async with bench_of(Forgetful(spoiled={0: fault})) as bench:
        report = await bench.job(1500, 2000).wait()
        assert (report.state, report.bars) == (JobState.DONE, 500)
        assert await bench.stored() == spans((1500, 2000))


async def test_the_beginning_of_a_history_takes_one_more_request_and_no_other(autojump_clock):
    async with bench_of(Market(range(1900, SETTLED))) as bench:
        job = bench.job(-1000, 2000)
        assert (await job.wait()).state == JobState.DONE
        assert bench.asked == [to(2000), to(1900, 1)]
        assert await bench.stored() == SpanSet.of((0, opens(2000)))
        # It is known from now on, to whomever it is of use.
        await read(bench, to(1950))
        await read(bench, to(1800))
        assert bench.asked[2:] == [to(1950), to(1800)]


async def test_pages_that_are_asked_together_below_the_beginning_confirm_each_other(autojump_clock):
    market = Market(range(1900, SETTLED), delay_s=lambda request: 9 if request.count == 1 else 0)
    async with bench_of(market) as bench:
        async with trio.open_nursery() as nursery:
            for slot in (2000, 1890, 1880, 1870):
                nursery.start_soon(read, bench, to(slot))
                await trio.sleep(1)
            assert await bench.stored() == SpanSet.of((0, opens(1890)))
        assert await bench.stored() == SpanSet.of((0, opens(2000)))
        assert sorted(request.count for request in bench.asked) == [1, 200, 200, 200, 200]


async def test_one_page_that_two_have_asked_for_does_not_confirm_itself(autojump_clock):
    async with bench_of(Forgetful(spoiled={0: empty, 1: empty})) as bench:
        refused: list[BadPayload] = []

        async def ask() -> None:
            with pytest.raises(BadPayload) as caught:
                await read(bench, to(2000))
            refused.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert len(refused) == 2
        assert not await bench.stored()


async def test_what_cannot_be_confirmed_is_not_believed(autojump_clock):
    def ill(request: CandlesRequest) -> ExchangeUnavailable | None:
        return ExchangeUnavailable("answered 503", status=503) if request.count == 1 else None

    async with bench_of(Market(range(1900, SETTLED), ill=ill)) as bench:
        with pytest.raises(ExchangeUnavailable):
            await read(bench, to(2000))
        assert not await bench.stored()
        bench.market.ill = lambda request: None
        await read(bench, to(2000))
        assert await bench.stored() == SpanSet.of((0, opens(2000)))


async def test_a_confirmation_that_is_no_answer_is_refused(autojump_clock):
    async with bench_of(Forgetful(range(1900, SETTLED), spoiled={1: lambda page: (bar(2500),)})) as bench:
        with pytest.raises(BadPayload, match="asked were those before"):
            await read(bench, to(2000))
        assert not await bench.stored()


async def test_each_series_has_a_beginning_of_its_own(autojump_clock):
    async with bench_of(Market(range(1900, SETTLED))) as bench:
        for market in (MARKET, "KRW-ETH"):
            await read(bench, CandlesRequest(market, M1, 200, opens(2000)))
        assert [request.count for request in bench.asked] == [200, 1, 200, 1]


async def test_full_pages_need_no_confirmation(autojump_clock):
    async with bench_of() as bench:
        await read(bench, to(2000), to(1800))
        assert bench.asked == [to(2000), to(1800)]


@settings(max_examples=max(20, settings.default.max_examples // 5))
@given(
    begins=st.integers(1400, 1900),
    kept=st.lists(st.tuples(st.integers(1300, 1950), st.integers(1, 100)), max_size=3),
    spoiled=st.dictionaries(st.integers(0, 4).map(lambda number: 2 * number), st.sampled_from([empty, a_row_short])),
)
def test_whatever_single_pages_lack_what_is_stored_is_the_truth(
    begins: int, kept: list[tuple[int, int]], spoiled: dict[int, Fault]
):
    """No two faults in a row: what says the same thing twice is believed."""

    async def main(store: SqliteStore) -> None:
        for first, size in kept:
            store.write([piece(first, first + size, range(max(first, begins), max(first + size, begins)))], now_ms=1)
        before = store.coverage(MARKET, M1, *EVER)
        async with bench_of(Forgetful(range(begins, 2100), spoiled=spoiled), store=store, at_once=1, tries=40) as bench:
            assert (await bench.job(1200, 2000).wait()).state is JobState.DONE
            proven = await bench.stored()
            assert not (spans((1200, 2000)) | before) - proven
            assert bench.slots_stored() == [slot for slot in range(begins, 2100) if opens(slot) in proven]
            assert store.amendments(MARKET, M1) == ()

    with opened(":memory:") as store:
        trio.run(main, store, clock=MockClock(autojump_threshold=0))
