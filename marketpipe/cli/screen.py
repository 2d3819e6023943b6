"""Where a watcher looks: a terminal with a part at the bottom that is drawn anew, and lines that scroll above it.

Where nothing can be drawn anew (``TERM=dumb``, a table in a pipe), the part is printed once in a while instead.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs
import trio
from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import Segments
from rich.text import Text

__all__ = ["Screen", "open_console"]

REDRAW_S = 0.1
# Drawing takes at most this share of the time, however much there is to draw.
SHARE = 0.2
REPRINT_S = 5.0
# What is piped has no edge to fit into.
PIPED_WIDTH = 1_000


def open_console() -> Console:
    """Stdout, as wide as the terminal, or as a pipe needs it."""

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would leave the program from here, through every open block; it is for `running` to say

    return _Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


@attrs.frozen
class _Frame:
    drawn: Callable[[], RenderableType]

    def __rich__(self) -> RenderableType:
        return self.drawn()


@attrs.define(eq=False)
class Screen:
    """``bottom`` is drawn anew every ``redraw_s``, or more rarely. ``scrolls``: the lines are the point of it."""

    console: Console
    bottom: RenderableType
    scrolls: bool = False
    redraw_s: float = REDRAW_S
    _lines: list[Text] = attrs.field(factory=list, init=False)
    # As it was last drawn: when the terminal is left, what is shown has begun to end already.
    _drawn: RenderableType = attrs.field(default="", init=False)

    @property
    def is_live(self) -> bool:
        """Whether anything can be drawn anew."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def say(self, line: Text) -> None:
        """Let ``line`` scroll above the bottom, with the next drawing."""
        self._lines.append(line)

    @contextmanager
    def open(self) -> Generator[None]:
        """Hold the terminal for the block, and leave it as it was, with the last state on it."""
        if not self.is_live:
            yield
            self._draw()
            return
        live = Live(
            _Frame(lambda: self._drawn),
            console=self.console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),
            vertical_overflow="crop",
        )
        with live, _log_above():
            yield
            self._draw()

    async def run(self) -> None:
        """Draw, for ever. To be run inside of `open`."""
        every_s = self.redraw_s if self.is_live or self.scrolls else REPRINT_S
        took_s = 0.0
        while True:
            await trio.sleep(max(every_s, took_s / SHARE))
            began_s = trio.current_time()
            self._draw()
            took_s = trio.current_time() - began_s

    def _draw(self) -> None:
        lines, self._lines = self._lines, []
        above: list[RenderableType] = [Text("\n").join(lines)] if lines else []
        if self.is_live:
            self._drawn = Segments(list(self.console.render(self.bottom)))
            self.console.print(*(above or [Control()]))  # the bottom follows whatever is printed
        elif above or not self.scrolls:
            self.console.print(*(above or [self.bottom]), crop=False)


@contextmanager
def _log_above() -> Generator[None]:
    # Handlers keep the stream they were made with; what rich has put in its place prints above the bottom.
    handlers = [each for each in logging.getLogger("marketpipe").handlers if isinstance(each, logging.StreamHandler)]
    before = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)
