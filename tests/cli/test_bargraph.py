"""A collection as it is drawn: what fits, what is told, and from when on."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console

from marketpipe import ExchangeUnavailable, JobState, Outcome, Progress, Timeframe
from marketpipe.cli.bargraph import BarGraph, in_words


def part(number: int, *, slots: int = 1_000, done: int = 0, pages: int = 1, gone: int = 0, error=None) -> Outcome:
    return Outcome(f"KRW-C{number:02}", Timeframe.M1, slots, done, gone, done, pages, error)


def a_progress(*parts: Outcome, **changes) -> Progress:
    return attrs.evolve(
        Progress(
            state=JobState.RUNNING,
            total=2_000,
            done=500,
            bars=1_234,
            pages=7,
            bars_per_s=1_950.4,
            requests_per_s=9.76,
            eta_s=83.0,
            elapsed_s=30.0,
            current="KRW-C00",
            parts=parts,
        ),
        **changes,
    )


def drawn(progress: Progress, width: int = 80, height: int = 25) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, _environ={})
    console.print(BarGraph(lambda: progress, 10))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def words(progress: Progress) -> str:
    return ", ".join(text.plain for text in in_words(progress, 10))


def test_how_far_how_much_how_fast_and_how_long_still():
    assert words(a_progress()) == "25%, 1,234 bars, 1,950 bars/s, 9.8 of 10 requests/s, 1 min 20 s left"


def test_the_pace_of_the_first_seconds_is_not_told():
    assert words(a_progress(elapsed_s=4.9)) == "25%, 1,234 bars"


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({"eta_s": None}, "9.8 of 10 requests/s"),
        ({"eta_s": 0.0}, "nearly done"),
        ({"state": JobState.DONE}, "9.8 of 10 requests/s"),
        ({"state": JobState.PAUSED}, "9.8 of 10 requests/s"),
        ({"trouble": "HTTP 503 from /v1/candles"}, "waiting: HTTP 503 from /v1/candles"),
    ],
)
def test_what_cannot_be_said_is_not_and_what_is_in_the_way_is(changes, last):
    assert words(a_progress(**changes)).rpartition(", ")[2] == last


def test_each_market_has_a_bar_its_share_and_its_bars():
    lines = drawn(a_progress(part(0, done=500), part(1, done=1_000), part(2, slots=0), part(3, done=100, gone=400)))
    assert [line.split()[0] for line in lines[:4]] == ["KRW-C00", "KRW-C01", "KRW-C02", "KRW-C03"]
    assert [line.split()[-3] for line in lines[:4]] == ["50%", "100%", "100%", "50%"]
    assert lines[0].endswith("500 bars")
    assert lines[4].startswith("25%   1,234 bars")


@pytest.mark.parametrize("width", [120, 80, 60, 40, 30])
def test_it_fits_any_width_and_no_number_is_cut(width):
    lines = drawn(a_progress(part(0, done=500), part(1, done=1_000), trouble="HTTP 503 from /v1/candles"), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert lines[0].endswith("50%    500 bars")
    assert ("━" in lines[0]) == (width > 35)


def test_where_there_is_no_room_for_all_those_in_the_middle_of_it_are_shown():
    parts = [part(number, done=1_000 if number < 20 else 100, pages=number < 25) for number in range(40)]
    lines = drawn(a_progress(*parts), height=10)
    assert len(lines) <= 10
    shown = [line.split()[0] for line in lines if line.startswith("KRW-")]
    assert shown[:5] == [f"KRW-C{number}" for number in range(20, 25)]
    assert f"and {40 - len(shown)} more; 20 of 40 done" in lines


def test_what_failed_is_red():
    console = Console(
        file=io.StringIO(), width=80, force_terminal=True, color_system="standard", _environ={"TERM": "xterm"}
    )
    console.print(BarGraph(lambda: a_progress(part(0, error=ExchangeUnavailable("gone"))), 10))
    assert "\x1b[31mKRW-C00 1m" in console.file.getvalue()


def test_before_anything_is_planned_that_is_said():
    assert drawn(a_progress(part(0), part(1), state=JobState.PLANNING)) == ["looking at what is stored of 2 series"]
