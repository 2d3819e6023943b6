"""As much of a terminal as the command line uses: what a person would see of what was written to it."""

from __future__ import annotations

import re

__all__ = ["picture_of"]

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
