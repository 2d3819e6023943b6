"""Who waits longer than a second is told what for."""

from __future__ import annotations

import sys

import pytest
import trio

from marketpipe.cli import patience as patience_module
from marketpipe.cli.patience import patience


async def test_a_short_wait_says_nothing(autojump_clock, capsys):
    async with patience("counting"):
        await trio.sleep(0.9)
    assert capsys.readouterr() == ("", "")


async def test_where_nobody_looks_only_a_very_long_wait_is_told_and_only_once(autojump_clock, capsys):
    async with patience("counting"):
        await trio.sleep(9)
    assert capsys.readouterr() == ("", "")
    async with patience("counting"):
        await trio.sleep(35)
    assert capsys.readouterr() == ("", "... counting\n")


async def test_what_is_waited_for_is_asked_anew_each_second(autojump_clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    left = iter([3, 2, 1])
    async with patience(lambda: f"{next(left)} left"):
        await trio.sleep(3.5)
    shown = capsys.readouterr().err
    assert [f"... {number} left ({4 - number} s)" in shown for number in (3, 2, 1)] == [True] * 3


@pytest.mark.parametrize("columns", [80, 40, 10])
async def test_the_line_never_wraps_and_keeps_its_seconds(autojump_clock, capsys, monkeypatch, columns):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(patience_module, "_columns", lambda: columns)
    async with patience("counting the grains of sand on all the beaches of the world, and then once more"):
        await trio.sleep(1.5)
    (line,) = capsys.readouterr().err.removeprefix("\r\x1b[K").removesuffix("\r\x1b[K").split("\r\x1b[K")
    assert len(line) < columns
    assert line.endswith(" (1 s)")


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
