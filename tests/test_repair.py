"""A database that somebody else has had in his hands: looked through, mended, equal to the truth again."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from rig import EPOCH_MS, Rig, open_rig

import marketpipe as mp
from marketpipe.core.timeframes import Timeframe
from marketpipe.store.sqlite import SqliteStore

M1 = Timeframe.M1
MINUTE_MS = 60_000
END_MS = EPOCH_MS // MINUTE_MS * MINUTE_MS - MINUTE_MS
MARKETS = ("KRW-BTC", "KRW-ETH")
SOURCE = "http://sim"


def opens(minutes_ago: int) -> int:
    return END_MS - minutes_ago * MINUTE_MS


async def collected(rig: Rig, first: int, end: int) -> None:
    job = await rig.market.start_backfill(MARKETS, "1m", start=opens(first), end=opens(end))
    assert (await job.wait()).state is mp.JobState.DONE


def edited(store: SqliteStore, *statements: str) -> None:
    """Another hand in the same database."""
    writer = store._access.writer
    for statement in statements:
        writer.execute(statement)


def rows(store: SqliteStore, market: str) -> list[tuple]:
    return [
        (bar.open_ms, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in store.bars(market, M1, 0, END_MS)
    ]


async def mended(rig: Rig) -> mp.Report:
    report = await (await rig.market.repair_store()).wait()
    check = await rig.market.check_store()
    assert check.findings == ()
    assert check.is_well
    assert check.is_whole
    return report


async def test_a_database_in_order_is_well_and_repairing_it_asks_for_nothing(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        assert (await rig.market.check_store()).is_well
        await collected(rig, 500, 0)
        check = await rig.market.check_store()
        assert [(each.market, each.bars, each.holes) for each in check.series] == [
            (market, len(rows(rig.store, market)), ()) for market in MARKETS
        ]
        asked = len(rig.exchange.requests)
        assert (await mended(rig)).pages == 0
        assert len(rig.exchange.requests) == asked


async def test_looking_asks_the_exchange_for_nothing(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await collected(rig, 500, 0)
        asked = len(rig.exchange.requests)
        await rig.market.check_store()
        assert len(rig.exchange.requests) == asked


async def test_a_hole_between_two_stretches_is_found_and_filled(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await collected(rig, 900, 700)
        await collected(rig, 300, 0)
        check = await rig.market.check_store()
        assert [each.holes for each in check.series] == [((opens(700), opens(300)),)] * 2
        assert (check.is_well, check.is_whole, check.slots_missing) == (True, False, 800)
        await mended(rig)
        await collected(rig, 900, 0)
        summary = await rig.market.collection_summary("KRW-BTC", "1m", start=opens(900), end=END_MS)
        assert summary.is_whole


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE candles SET low = '999999999999' WHERE open_ms = {open_ms}",
        "UPDATE candles SET close = 'banana' WHERE open_ms = {open_ms}",
        "UPDATE candles SET open_ms = open_ms + 7 WHERE open_ms = {open_ms}",
        "DELETE FROM candles WHERE open_ms = {open_ms}",
        "DELETE FROM coverage",
        "DELETE FROM series",
        "INSERT INTO coverage SELECT market, timeframe, start_ms + 60000, end_ms FROM coverage",
        "UPDATE coverage SET end_ms = {open_ms} + 30000",
        "UPDATE coverage SET start_ms = start_ms - 1",
    ],
)
async def test_whatever_was_done_to_it_it_is_the_truth_again(statement, autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await collected(rig, 500, 0)
        before = [rows(rig.store, market) for market in MARKETS]
        edited(rig.store, statement.format(open_ms=before[0][len(before[0]) // 2][0]))
        check = await rig.market.check_store()
        assert check.findings
        assert not check.is_well
        await mended(rig)
        assert [rows(rig.store, market) for market in MARKETS] == before
        await collected(rig, 500, 0)
        assert [rows(rig.store, market) for market in MARKETS] == before


async def test_what_was_replaced_is_kept_as_evidence(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await collected(rig, 300, 0)
        open_ms = rows(rig.store, "KRW-BTC")[5][0]
        edited(rig.store, f"UPDATE candles SET low = '-1' WHERE open_ms = {open_ms} AND market = 'KRW-BTC'")
        await mended(rig)
        (amendment,) = rig.store.amendments("KRW-BTC", M1)
        assert (amendment.open_ms, amendment.was.low) == (open_ms, -1)


async def test_a_repair_that_is_left_in_the_middle_claims_nothing_that_is_not_so(autojump_clock, tmp_path: Path):
    with SqliteStore.open(tmp_path / "history.db", source=SOURCE) as store:
        async with open_rig(store=store) as rig:
            await collected(rig, 500, 0)
            before = rows(store, "KRW-BTC")
            edited(store, f"DELETE FROM candles WHERE open_ms = {before[9][0]} AND market = 'KRW-BTC'")
            job = await rig.market.repair_store()
            job.cancel()
            await job.wait()
            assert before[9][0] not in store.coverage("KRW-BTC", M1, 0, END_MS)
        async with open_rig(store=store) as rig:
            await mended(rig)
            await collected(rig, 500, 0)
        assert rows(store, "KRW-BTC") == before


async def test_what_no_page_can_put_right_stays_found(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await collected(rig, 300, 0)
        edited(rig.store, "INSERT INTO coverage VALUES ('KRW-BTC', '7m', 0, 420000)")
        await (await rig.market.repair_store()).wait()
        (finding,) = (await rig.market.check_store()).findings
        assert (finding.kind, finding.timeframe) == ("UNREADABLE", "7m")


async def test_a_database_that_is_only_read_can_be_looked_through_and_not_repaired(autojump_clock, tmp_path: Path):
    with (
        SqliteStore.open(tmp_path / "history.db", source=SOURCE) as first,
        SqliteStore.open(tmp_path / "history.db", source=SOURCE) as second,
    ):
        async with open_rig(store=first) as rig:
            await collected(rig, 300, 0)
        async with open_rig(store=second) as rig:
            assert (await rig.market.check_store()).is_well
            with pytest.raises(mp.StoreError, match="it is open for reading only, since another"):
                await rig.market.repair_store()


async def test_without_a_database_there_is_nothing_to_look_through(autojump_clock):
    async with open_rig() as rig:
        with pytest.raises(RuntimeError, match="without a database"):
            await rig.market.check_store()
        with pytest.raises(RuntimeError, match="without a database"):
            await rig.market.repair_store()


async def test_stored_only_asks_for_nothing_and_gives_what_is_proven(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await collected(rig, 900, 700)
        await collected(rig, 300, 0)
        asked = len(rig.exchange.requests)
        with trio.fail_after(60):
            bars = [
                bar
                async for page in rig.market.iterate_candle("krw-btc", "1m", start=opens(1_500), stored_only=True)
                for bar in page
            ]
        assert len(rig.exchange.requests) == asked
        assert [bar.open_ms for bar in bars] == [row[0] for row in rows(rig.store, "KRW-BTC")]
        assert bars[0].open_ms >= opens(900)
