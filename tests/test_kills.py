"""A collection that is killed loses nothing, doubles nothing, and asks for nothing again that it has stored."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import attrs
import pytest
from rig import EPOCH_MS

from bench.doomed import ASKED, STORED
from bench.ground import open_ground
from bench.kills import PACES, Account, proven_again, read_log, survive
from bench.ledger import MINUTE_MS, Held, held_against_truth, proven_spans, rows_in
from marketpipe import CandleState, Source
from marketpipe.core.history import Piece
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import World
from marketpipe.sim.quotation import answer
from marketpipe.store.sqlite import SqliteStore
from marketpipe.upbit import wire

WORLD = World(markets=5)
MARKET = "KRW-BTC"
END_MS = EPOCH_MS // 3_600_000 * 3_600_000
BARS = 60
START_MS = END_MS - BARS * MINUTE_MS


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("pace", PACES, ids=lambda pace: pace.name)
async def test_killed_three_times_a_backfill_loses_and_doubles_nothing(pace):
    """Over a socket, into a file, at random instants: all is there at the end, and what was stored was kept."""
    async with open_ground(markets=5, limit=100_000) as ground:
        account = await survive(ground, pace, times=3, pages=15)
    assert account.kills == 3
    assert account.held == Held(bars=account.needed * 200)
    assert account.broken("kills", pace.pages_at_once) == []
    assert account.asked >= account.needed


# -- what would be found ----------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """A database with an hour of the true market."""
    request = CandlesRequest(MARKET, Timeframe.M1, BARS, END_MS)
    asked, _, query = wire.encode(request).partition("?")
    told = answer(WORLD, asked, [tuple(word.split("=")) for word in query.replace("%3A", ":").split("&")], EPOCH_MS)
    rows, _ = wire.decode(request, told.body, received_ms=EPOCH_MS, exchange_ms=EPOCH_MS)
    bars = tuple(attrs.evolve(bar, state=CandleState.FINAL, source=Source.REST) for bar in rows[::-1])
    assert len(bars) == BARS
    with SqliteStore.open(tmp_path / "bars.db", source="http://sim") as store:
        store.write([Piece(MARKET, Timeframe.M1, START_MS, END_MS, bars)], now_ms=EPOCH_MS)
    return tmp_path / "bars.db"


def held(path):
    return held_against_truth(WORLD, path, MARKET, START_MS, END_MS)


def change(path, sql):
    with closing(sqlite3.connect(path)) as conn, conn:
        assert conn.execute(sql).rowcount == 1


def test_a_database_with_what_was_traded_is_found_whole(path):
    """By rows and by what it says is proven."""
    assert held(path) == Held(bars=BARS)
    assert held(path).broken("x") == []
    assert proven_spans(path, MARKET) == [(START_MS, END_MS)]
    assert rows_in(path, MARKET, [(START_MS, END_MS), (START_MS, START_MS + MINUTE_MS)]) == [BARS, 1]


@pytest.mark.parametrize(
    ("sql", "counted"),
    [
        (f"DELETE FROM candles WHERE open_ms = {START_MS}", (1, 0, 0)),
        (f"UPDATE candles SET open_ms = {START_MS + 1} WHERE open_ms = {START_MS}", (1, 1, 0)),
        *(
            (f"UPDATE candles SET {name} = {name} || '1' WHERE open_ms = {START_MS}", (0, 0, 1))
            for name in ("open", "high", "low", "close", "volume", "quote_volume")
        ),
        (f"UPDATE candles SET exchange_ms = exchange_ms + 1 WHERE open_ms = {START_MS}", (0, 0, 1)),
    ],
)
def test_a_row_that_is_lost_invented_or_wrong_is_found(path, sql, counted):
    """Any number of any bar."""
    change(path, sql)
    found = held(path)
    assert (found.lost, found.doubled, found.wrong) == counted
    assert str(START_MS) in " ".join(found.broken("x"))


def test_a_log_is_read_as_far_as_it_was_written(tmp_path):
    """Pages by what they can show, pieces by what they prove."""
    path = tmp_path / "log"
    assert read_log(path) == []
    path.write_text(f"{ASKED} {END_MS} 200\n{STORED} {START_MS} {END_MS} 60\n")
    assert read_log(path) == [(ASKED, END_MS - 200 * MINUTE_MS, END_MS), (STORED, START_MS, END_MS)]


def test_a_page_that_is_asked_again_is_found_if_it_was_stored():
    """What was asked and never stored may be asked again."""
    page, older = (START_MS, END_MS), (START_MS - MINUTE_MS, END_MS)
    assert proven_again([(ASKED, *page), (ASKED, *page), (STORED, *page)]) == 0
    assert proven_again([(ASKED, *page), (STORED, *page), (ASKED, *older)]) == 0
    assert proven_again([(ASKED, *page), (STORED, *page), (ASKED, *page)]) == 1


def test_whatever_a_kill_has_cost_is_told():
    """Each promise by itself."""
    fine = Account(kills=3, held=Held(bars=600), unkept=0, asked=5, needed=3, proven_again=0, flaws=())
    assert fine.asked_twice == 2
    assert fine.broken("x", 1) == []
    for flaw in ({"held": Held(600, lost=1)}, {"held": Held(600, doubled=1)}, {"held": Held(600, wrong=1)},
                 {"unkept": 1}, {"proven_again": 1}, {"asked": 7}, {"flaws": ("bad",)}):  # fmt: skip
        assert len(attrs.evolve(fine, **flaw).broken("x", 1)) == 1, flaw
