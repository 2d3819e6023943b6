"""A busy pipeline is left at any instant, in any way: everybody is told, and nothing of it stays behind."""

from __future__ import annotations

import random
import threading
from contextlib import aclosing
from functools import partial

import pytest
import trio
from rig import EPOCH_MS, open_rig
from trio.testing import MockClock

import bench.busy as busy
from bench.collecting import DAY_MS, SYMBOL
from bench.leaving import SILENCES, outcome_of, trials, try_all
from bench.ledger import MINUTE_MS
from marketpipe import open_pipeline
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import open_simulator
from marketpipe.sim.faults import HangFault
from marketpipe.sim.ws_faults import WsStallFault
from marketpipe.store.sqlite import SqliteStore

HANG_S = 60.0
LEAVE_S = 2.0


@pytest.mark.slow
@pytest.mark.socket
async def test_over_sockets_and_into_a_file_nothing_stays_behind():
    """No task, thread, socket or file; whoever waited was told; what was said to be collected is in the file."""
    tried = trials(16, SILENCES, life_s=0.3)
    with trio.fail_after(HANG_S):
        found = await try_all(tried)
    assert outcome_of("", tried, found).broken == ()
    assert sum(left.answers for left in found) > 0


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True], ids=["answers", "silent"])
@pytest.mark.parametrize("form", ["left", "raised", "cancelled"])
def test_in_virtual_time_nothing_stays_behind(form, silent):
    left, after_s = busy.Left(), random.Random(f"{form} {silent}").uniform(0.1, 0.8)
    end_ms = EPOCH_MS // DAY_MS * DAY_MS
    span = end_ms - 2 * DAY_MS, end_ms

    async def main(store: SqliteStore) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as outside:
            with trio.CancelScope() as alarm:
                try:
                    async with open_rig(streams=True, store=store) as rig:
                        busy.keep_busy(rig.market, span, left, outside)
                        began_s = trio.current_time()
                        await trio.sleep(after_s)
                        if silent:
                            rig.sim.add_fault(HangFault())
                            rig.sim.add_fault(WsStallFault(pongs=False))
                            await trio.sleep(after_s / 2)
                        began_s = trio.current_time()
                        if form == "raised":
                            raise LookupError
                        if form == "cancelled":
                            alarm.cancel()
                            await trio.sleep_forever()
                except* LookupError:
                    pass
            with trio.fail_after(LEAVE_S):
                while outside.child_tasks:  # noqa: ASYNC110 - the nursery is what tells
                    await trio.sleep(0.01)
            assert trio.current_time() - began_s <= LEAVE_S
        assert trio.lowlevel.current_statistics().tasks_living == before
        proven = store.coverage(SYMBOL, Timeframe.M1, *span)
        assert proven.length // MINUTE_MS >= left.told

    with SqliteStore.open(":memory:", source="http://sim") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(busy, "PAUSE_S", 0.1)
        trio.run(main, store, clock=MockClock(autojump_threshold=0))
        assert store.integrity() == ()
    assert left.flaws == []


async def told(verb) -> str:
    """What the one who asks is told, by name."""
    try:
        await verb()
    except Exception as error:
        return type(error).__name__
    return "an answer"


async def test_who_reads_page_after_page_is_told_so_in_no_group(autojump_clock):
    """Several pages are asked for at once, and each of them is refused."""
    ends = []

    async def read(market) -> None:
        async with aclosing(market.iterate_candle(SYMBOL, start=EPOCH_MS - 3 * DAY_MS)) as pages:
            async for _ in pages:
                pass

    async with trio.open_nursery() as outside, open_rig(store=":memory:", latency_s=0.5) as rig:

        async def ask(market=rig.market) -> None:
            ends.append(await told(partial(read, market)))

        outside.start_soon(ask)
        while rig.market.status().requests_in_flight < 2:  # noqa: ASYNC110 - the status is what tells
            await trio.sleep(0.1)
    assert ends == ["PipelineClosed"]


@pytest.mark.slow
@pytest.mark.socket
class TestReadingWhileItIsLeft:
    """The database is read in threads, on behalf of callers who are not cancelled when the pipeline is left."""

    @pytest.mark.parametrize("verb", [
        lambda market: market.collection_summary(SYMBOL, start=0),
        lambda market: market.explain_candle(SYMBOL, start=EPOCH_MS - DAY_MS, end=EPOCH_MS - DAY_MS // 2),
        lambda market: market.check_store(),
    ])  # fmt: skip
    async def test_it_is_waited_for_and_whoever_reads_on_is_told(self, tmp_path, monkeypatch, verb):
        reading, go = threading.Event(), threading.Event()
        ends = []

        def slowly(original):
            def read(*args):
                reading.set()
                go.wait(0.2)  # it is being closed by then
                return original(*args)

            return read

        for name in ("coverage", "integrity"):
            monkeypatch.setattr(SqliteStore, name, slowly(getattr(SqliteStore, name)))
            monkeypatch.setattr(SqliteStore.__mro__[1], name, slowly(getattr(SqliteStore.__mro__[1], name)))
        async with open_simulator(markets=5) as sim, trio.open_nursery() as outside:
            async with open_pipeline(base_url=sim.base_url, store=tmp_path / "bars.db") as market:

                async def ask() -> None:
                    ends.append(await told(lambda: verb(market)))

                outside.start_soon(ask)
                await trio.to_thread.run_sync(reading.wait)
            # A connection that is still open would keep the log.
            assert sorted(each.name for each in tmp_path.iterdir()) == ["bars.db", "bars.db.lock"]
        assert ends == ["PipelineClosed"]
