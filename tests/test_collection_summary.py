"""What is known of a stretch, asked of the handle: by the exchange's time, and in little memory however long it is."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from rig import EPOCH_MS, open_rig
from store.paper_store import M1, full, opened

from marketpipe import Candle, CollectionState
from marketpipe.core import timeframes
from marketpipe.sim import DownFault
from marketpipe.store.sqlite import SqliteStore

BUSY = "KRW-BTC"
HOUR_MS = 3_600_000
# Bars that are in memory at the same time at most.
STEP = 5_000


@pytest.mark.parametrize("behind_s", [-7_200, 7_200])
async def test_without_an_end_it_goes_up_to_the_exchange_s_time_and_not_to_this_machine_s(
    behind_s: int, autojump_clock
):
    async with open_rig(store=":memory:", behind_s=behind_s) as rig:
        summary = await rig.market.collection_summary(BUSY, start=EPOCH_MS - 24 * HOUR_MS)
        # The exchange's time is known to a second or two.
        assert timeframes.ceil(M1, EPOCH_MS - 2_000) <= summary.end_ms <= timeframes.ceil(M1, EPOCH_MS + 1_000)


async def test_with_an_end_nothing_is_asked_and_nobody_has_to_answer(autojump_clock):
    async with open_rig(store=":memory:", behind_s=7_200) as rig:
        began_s = trio.current_time()
        rig.sim.add_fault(DownFault())
        summary = await rig.market.collection_summary(BUSY, start=EPOCH_MS - HOUR_MS, end=EPOCH_MS)
        assert (summary.pending, trio.current_time()) == (60, began_s)


class Counting(SqliteStore):
    """It remembers how many bars were read at once."""

    read: list[int]

    def bars(self, *args: Any, **options: Any) -> tuple[Candle, ...]:
        found = super().bars(*args, **options)
        self.read.append(len(found))
        return found


async def test_however_long_the_stretch_few_of_its_bars_are_in_memory_at_once(autojump_clock):
    with opened(":memory:") as store:
        store.__class__, store.read = Counting, []
        pieces = [full(first, first + 200) for first in (*range(0, 12_000, 200), *range(13_000, 16_000, 200))]
        store.write(pieces, now_ms=1)
        async with open_rig(store=store) as rig:
            start_ms, end_ms = pieces[0].start_ms, pieces[-1].end_ms
            summary = await rig.market.collection_summary(BUSY, start=start_ms, end=end_ms)
            assert (summary.collected, summary.empty, summary.pending) == (15_000, 0, 1_000)
            assert [state for *_, state in summary.spans()] == [
                CollectionState.COLLECTED,
                CollectionState.PENDING,
                CollectionState.COLLECTED,
            ]
            assert sum(store.read) == 15_000
            assert max(store.read) <= STEP
