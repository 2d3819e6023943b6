"""As much of a terminal as the command line uses: what a person would see of what was written to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator

from cli.forked import Forked

__all__ = ["Watcher", "at_a_terminal", "picture_of"]

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60

_PARTS = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([^\x1b])")


def picture_of(written: str, columns: int) -> list[str]:
    """The lines of the screen, and of what has scrolled away, without blanks at the right and lines at the end."""
    screen, row, column = [""], 0, 0
    for number, command, letter in _PARTS.findall(written):
        if command == "A":
            row -= int(number or 1)
        elif command == "K":
            screen[row] = ""
        elif letter == "\r":
            column = 0
        elif letter == "\n":
            row, column = row + 1, 0
            screen += [""] * (row + 1 - len(screen))
        elif letter:
            assert column < columns, f"line {row} is longer than the terminal: {screen[row]!r}"
            screen[row] = screen[row][:column].ljust(column) + letter + screen[row][column + 1 :]
            column += 1
    while screen and not screen[-1].strip():
        screen.pop()
    return [line.rstrip() for line in screen]


class Watcher:
    """A process at a terminal of its own."""

    def __init__(self, ours: Forked, descriptor: int, columns: int) -> None:
        self.ours = ours
        self.written = b""
        self._descriptor = descriptor
        self._columns = columns

    @property
    def text(self) -> str:
        return self.written.decode(errors="ignore")

    @property
    def screen(self) -> list[str]:
        return picture_of(self.text, self._columns)

    def read_until(self, seen: Callable[[list[str]], bool]) -> None:
        deadline_s = time.monotonic() + HANG_S
        while not seen(self.screen):
            assert time.monotonic() < deadline_s, "\n".join(self.screen)
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.written += os.read(self._descriptor, 65_536)

    def end(self) -> int:
        """Read what is left, and the exit code."""
        with contextlib.suppress(OSError):  # how Linux says that nobody holds the other end any more
            while data := os.read(self._descriptor, 65_536):
                self.written += data
        return self.ours.wait(HANG_S)


@contextlib.contextmanager
def at_a_terminal(cli, *args: str, columns: int = 120, lines: int = 25, **environment: str) -> Iterator[Watcher]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    inherited = {name: value for name, value in cli.environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    shown = {**inherited, "TERM": "xterm", **environment}
    with Forked(cli.starter, args, shown, stdin=slave, stdout=slave, stderr=slave) as ours:
        os.close(slave)
        try:
            yield Watcher(ours, master, columns)
        finally:
            ours.kill()
            os.close(master)
