"""WebSocket frames as the simulator writes them: whole, broken, or filled in again and again.

RFC 6455, 5.2. wsproto reads frames and keeps the state of a connection; the frames of streams are written here, since a
server's are a header of two to ten bytes and then the payload.
"""

from __future__ import annotations

import re

import attrs

__all__ = ["BROKEN", "Template", "frame", "skewed", "template"]

_FINAL_BINARY = 0x82
# Reserved bits that nobody agreed on, and an opcode that does not exist.
BROKEN = b"\xf3\x05hello"

# Where a frame carries when it was made, what happened when, and which trade it is.
_STAMPS = re.compile(rb'"(timestamp|tms|trade_timestamp|ttms|sequential_id|sid)":(\d+)')
_MADE = re.compile(rb'(?<="timestamp":)\d+|(?<="tms":)\d+')
_IDS = (b"sequential_id", b"sid")
_OCCASIONS = (b"trade_timestamp", b"ttms")


def frame(payload: bytes) -> bytes:
    """``payload`` as one binary message."""
    size = len(payload)
    if size < 126:
        return bytes((_FINAL_BINARY, size)) + payload
    if size < 65_536:
        return b"\x82\x7e" + size.to_bytes(2, "big") + payload
    return b"\x82\x7f" + size.to_bytes(8, "big") + payload


def skewed(payload: bytes, skew_ms: int) -> bytes:
    """``payload`` as a clock makes it that is off by ``skew_ms``: only the stamp of the frame itself differs."""
    return _MADE.sub(lambda stamp: b"%d" % (int(stamp[0]) + skew_ms), payload, count=1)


@attrs.frozen(eq=False)
class Template:
    """A frame cut at its stamps, which are put in anew each time. ``has_id``: it is a trade."""

    type: str
    code: str
    size: int
    has_id: bool
    _parts: tuple[bytes, ...]
    _slots: tuple[bool, ...]

    def fill(self, out: list[bytes], stamp: bytes, trade_id: bytes) -> None:
        """Append the frame's pieces to ``out``; ``stamp`` has 13 digits, ``trade_id`` 17."""
        parts = self._parts
        out.append(parts[0])
        for index, is_id in enumerate(self._slots, 1):
            out.append(trade_id if is_id else stamp)
            out.append(parts[index])


def template(type: str, code: str, payload: bytes, *, framed: bool) -> Template:
    """Cut ``payload``; ``framed``: with the header of its frame, otherwise the payload alone."""
    payload = payload.replace(b'"SNAPSHOT"', b'"REALTIME"')
    is_trade = type == "trade"
    pieces: list[bytes] = []
    slots: list[bool] = []
    size, begin = 0, 0
    for match in _STAMPS.finditer(payload):
        name = match[1]
        if name in _OCCASIONS and not is_trade:
            continue  # a ticker's last trade stays when it was
        pieces.append(payload[begin : match.start(2)])
        slots.append(name in _IDS)
        begin = match.end(2)
    pieces.append(payload[begin:])
    size = sum(map(len, pieces)) + sum(17 if is_id else 13 for is_id in slots)
    if framed:
        header = frame(bytes(size))[:-size]
        pieces[0] = header + pieces[0]
        size += len(header)
    return Template(type, code, size, is_trade, tuple(pieces), tuple(slots))
