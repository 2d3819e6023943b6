"""What is wrong with bytes that cannot be read, in words: the field, the market, or an excerpt."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from marketpipe.errors import BadPayload

__all__ = ["UNREADABLE", "bad_payload", "excerpt", "quoted", "refuse_too_many"]

# What decoding bytes from outside can raise: bad syntax or a wrong type, bad UTF-8, brackets nested without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Looked at one by one, rows cost some microseconds each: a million bad ones would hold up everything for seconds. More
# than ten times the markets that there are.
MOST_ROWS = 10_000

T = TypeVar("T")

_PATH = re.compile(r"at `\$(.*)`$", re.DOTALL)
_MISSING = re.compile(r"missing required field `([^`]*)`")
_FIELD = re.compile(r"\.(\w+)")
_BARE = re.compile(rb"(?<=[:\[,])(\s*)(-?Infinity|-?NaN)(?=\s*[,\]}])")


def bad_payload(exc: Exception, body: bytes, market: str | None) -> BadPayload:
    """What ``exc``, raised by decoding ``body``, says about a row of ``market``."""
    flaw = str(exc)
    missing, path = _MISSING.search(flaw), _PATH.search(flaw)
    if missing or path:
        inner = _FIELD.findall(path[1]) if path else []
        field = missing[1] if missing else inner[-1] if inner else None
        return BadPayload(excerpt(flaw, 200), field=field, market=market)
    return BadPayload(f"cannot be read ({excerpt(flaw, 100)}): {excerpt(body, 80) or 'empty'}", market=market)


def excerpt(text: str | bytes, length: int) -> str:
    """``text`` on one line, printable, cut to ``length`` characters."""
    if isinstance(text, bytes):
        # A character takes four bytes at most, and blanks are folded: this much is always enough to look at.
        text = text[: 16 * length].decode("utf-8", "replace")
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def quoted(body: bytes) -> bytes | None:
    """``body`` with its bare NaN and Infinity in quotes, or None if it has none.

    They are not JSON, and would make the whole message unreadable. As strings they spoil their own row only, which is
    then refused by the name of its field.
    """
    return _BARE.sub(rb'\1"\2"', body) if _BARE.search(body) else None


def refuse_too_many(rows: list[T]) -> list[T]:
    """``rows``, if they are no more than an exchange could mean; else raises `BadPayload`."""
    if len(rows) > MOST_ROWS:
        raise BadPayload(f"lists {len(rows)} things, more than can be meant")
    return rows
