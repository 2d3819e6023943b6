"""The part of a terminal that is drawn anew, and what scrolls above it."""

from __future__ import annotations

import io
import logging
import sys

import attrs
import pytest
import trio
from rich.console import Console
from rich.text import Text
from terminal import picture_of

from marketpipe.cli.screen import Screen


@attrs.define
class Counter:
    """Something that looks different each time it is drawn."""

    drawn: int = 0

    def __rich__(self) -> Text:
        self.drawn += 1
        return Text(f"drawn {self.drawn}")


def a_screen(*, live: bool, scrolls: bool = False) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=live, width=40, height=10, _environ={"TERM": "xterm"})
    return Screen(console, Counter(), scrolls=scrolls), out


async def test_the_bottom_is_drawn_over_itself_at_most_ten_times_a_second(autojump_clock):
    screen, out = a_screen(live=True)
    with screen.open():
        with trio.move_on_after(0.95):
            await screen.run()
        assert screen.bottom.drawn == 9
    assert picture_of(out.getvalue(), 40) == ["drawn 10"]


async def test_lines_scroll_above_the_bottom(autojump_clock):
    screen, out = a_screen(live=True, scrolls=True)
    with screen.open(), trio.move_on_after(0.25):
        screen.say(Text("one"))
        screen.say(Text("two"))
        await screen.run()
    assert picture_of(out.getvalue(), 40) == ["one", "two", "drawn 3"]


async def test_the_last_lines_are_shown_though_nobody_draws_any_more(autojump_clock):
    for live in (True, False):
        screen, out = a_screen(live=live, scrolls=True)
        with screen.open():
            screen.say(Text("the last"))
        assert "the last" in picture_of(out.getvalue(), 40)


async def test_a_terminal_is_left_with_its_cursor_and_the_state_last_drawn(autojump_clock):
    screen, out = a_screen(live=True)
    with pytest.raises(KeyError), screen.open():
        with trio.move_on_after(0.15):
            await screen.run()
        raise KeyError("in the middle")
    assert out.getvalue().endswith("\x1b[?25h")
    assert picture_of(out.getvalue(), 40) == ["drawn 1"]


async def test_where_nothing_can_be_drawn_anew_the_table_is_printed_once_in_a_while_and_at_the_end(autojump_clock):
    screen, out = a_screen(live=False)
    with screen.open(), trio.move_on_after(11):
        await screen.run()
    assert out.getvalue() == "drawn 1\ndrawn 2\ndrawn 3\n"


async def test_where_nothing_can_be_drawn_anew_lines_come_without_a_bottom(autojump_clock):
    screen, out = a_screen(live=False, scrolls=True)
    with screen.open(), trio.move_on_after(1):
        screen.say(Text("one"))
        await screen.run()
    assert out.getvalue() == "one\n"


async def test_the_log_is_printed_above_the_bottom_and_goes_back_to_where_it_was(autojump_clock, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    before = io.StringIO()
    handler, log = logging.StreamHandler(before), logging.getLogger("marketpipe")
    log.addHandler(handler)
    try:
        screen, out = a_screen(live=True)
        with screen.open(), trio.move_on_after(0.25):
            log.warning("lost")
            await screen.run()
        log.warning("found")
    finally:
        log.removeHandler(handler)
    assert picture_of(out.getvalue(), 40) == ["lost", "drawn 3"]
    assert before.getvalue() == "found\n"
