"""Text from outside on its way to a screen: what a terminal would obey is shown, not sent."""

from __future__ import annotations

import logging
import re

__all__ = ["PlainFormatter", "escaped", "plain"]

# What JSON lets through and a terminal obeys: DEL and the C1 controls, separators of lines, and turns of direction.
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """``text`` on one line, with a ``?`` in the place of whatever cannot be seen: escape sequences above all."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def escaped(json: str) -> str:
    """A line of JSON that says the same, in letters that do nothing to a terminal."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", json)


class PlainFormatter(logging.Formatter):
    """Formats messages of the log on one line each, a traceback apart."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return plain(super().formatMessage(record))
