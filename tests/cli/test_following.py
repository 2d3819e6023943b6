"""What is said of the database when a job is left by Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from rig import Rig, open_rig
from store.paper_store import full

from marketpipe.cli.following import telling_what_is_kept


async def leave(rig: Rig) -> None:
    """What Ctrl-C does to a command."""
    with trio.CancelScope() as scope, telling_what_is_kept() as kept:
        kept.market = rig.market
        scope.cancel()
        await trio.sleep_forever()


async def collect(rig: Rig) -> None:
    start_ms, end_ms = full(-300, -100).start_ms, full(-300, -100).end_ms
    await (await rig.market.start_backfill("KRW-BTC", start=start_ms, end=end_ms)).wait()


async def test_what_was_stored_is_told_and_where(autojump_clock, tmp_path: Path, capsys):
    path = tmp_path / "x.db"
    async with open_rig(store=str(path)) as rig:
        await collect(rig)
        await leave(rig)
        stored = rig.market.status().store.rows_written
    assert stored > 0
    line = f"marketpipe: stopped: {stored} bars stored in {path}; the same command goes on from there\n"
    assert capsys.readouterr() == ("", line)


async def test_of_a_file_that_is_there_no_more_nothing_is_promised(autojump_clock, tmp_path: Path, capsys):
    path = tmp_path / "x.db"
    async with open_rig(store=str(path)) as rig:
        await collect(rig)
        path.unlink()
        await leave(rig)
    assert capsys.readouterr() == ("", f"marketpipe: stopped; nothing is kept: {path} is there no more\n")


async def test_of_a_memory_nothing_is_kept(autojump_clock, capsys):
    async with open_rig(store=":memory:") as rig:
        await leave(rig)
    assert capsys.readouterr().err.startswith("marketpipe: stopped; nothing is kept, since the database was in memory")


async def test_whoever_fails_otherwise_is_told_nothing_of_it(autojump_clock, capsys):
    async with open_rig(store=":memory:") as rig:
        with pytest.raises(ValueError, match="another"), telling_what_is_kept() as kept:
            kept.market = rig.market
            raise ValueError("another")
    assert capsys.readouterr() == ("", "")
