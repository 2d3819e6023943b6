"""Who waits longer than a second is told what for."""

from __future__ import annotations

import sys

import pytest
import trio

from marketpipe.cli.patience import patience


async def test_a_short_wait_says_nothing(autojump_clock, capsys):
    async with patience("counting"):
        await trio.sleep(0.9)
    assert capsys.readouterr() == ("", "")


async def test_a_long_wait_is_told_once_where_nobody_looks(autojump_clock, capsys):
    async with patience("counting"):
        await trio.sleep(3.5)
    assert capsys.readouterr() == ("", "... counting\n")


async def test_a_long_wait_counts_its_seconds_on_a_terminal_and_leaves_no_trace(autojump_clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    async with patience("counting"):
        await trio.sleep(3.5)
    shown = capsys.readouterr().err
    assert [f"({second} s)" in shown for second in (0, 1, 2, 3, 4)] == [False, True, True, True, False]
    assert shown.endswith("\r\x1b[K")


async def test_the_block_s_failure_passes_through(autojump_clock):
    with pytest.RaisesGroup(KeyError):
        async with patience("counting"):
            raise KeyError("nothing to count")
