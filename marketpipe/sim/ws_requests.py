"""What clients say over WebSocket, and what they are told when it makes no sense.

A request is a JSON array of a ticket, type objects or a method, and perhaps a format, in any order
(docs.upbit.com/kr reference/websocket-guide, 2026-08-31; list-subscriptions, 2026-09-22). The words of errors are those
seen on the wire (2026-09-23), Korean in Korea and English elsewhere; where none were seen, they are in their style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from marketpipe.sim.config import Region
from marketpipe.sim.streams import TYPES, Wanted

__all__ = ["FORMATS", "PING", "BadMessage", "Listing", "Subscribe", "error_frame", "listing_frame", "parse_message"]

FORMATS = ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST")
# The text that asks for a sign of life every ten seconds.
PING = b"PING"
# Streams of an account, which need a token.
PRIVATE = ("myOrder", "myAsset")

_KOREAN = {
    "WRONG_FORMAT": "Format 이 맞지 않습니다.",
    "NO_TICKET": "티켓이 존재하지 않거나, 유효하지 않습니다.",
    "NO_TYPE": "타입이 존재하지 않습니다.",
    "NO_CODES": "codes 필드가 존재하지 않습니다.",
    "INVALID_PARAM": "{} 은 지원하지 않는 타입입니다.",
    "INVALID_AUTH": "인증 정보가 올바르지 않습니다.",
    "TOO_MANY_REQUEST": "요청이 너무 많습니다.",
}
_ENGLISH = {
    "WRONG_FORMAT": "Requested using wrong format.",
    "NO_TICKET": "Ticket field must be contained.",
    "NO_TYPE": "type field not exists.",
    "NO_CODES": "codes field not exists.",
    "INVALID_PARAM": "type {} is not supported.",
    "INVALID_AUTH": "Authentication is not valid.",
    "TOO_MANY_REQUEST": "Too many requests.",
}
# The order of the keys differs from error to error on the wire.
_MESSAGE_FIRST = ("WRONG_FORMAT", "INVALID_PARAM")
# As it is spelled in a request it is told again by LIST_SUBSCRIPTIONS.
_LEVEL = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,12})?")
_SPELLINGS = {"isOnlySnapshot": "is_only_snapshot", "isOnlyRealtime": "is_only_realtime"}


class BadMessage(Exception):
    """A message that is answered with an error: its ``name``, and the word it is about."""

    def __init__(self, name: str, word: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.word = word


@attrs.frozen
class Subscribe:
    """Replace whatever the connection listens to."""

    ticket: str
    wanted: tuple[Wanted, ...]
    format: str


@attrs.frozen
class Listing:
    """Tell what the connection listens to. ``format`` None: in the one that is in use."""

    ticket: str
    format: str | None


def parse_message(message: bytes) -> Subscribe | Listing:
    """Understand what a client said. Raises `BadMessage`."""
    try:
        # Numbers keep their spelling: a level of 0.1 is not to become another.
        parts = msgspec.json.Decoder(float_hook=str).decode(message)
    except (msgspec.DecodeError, RecursionError):
        raise BadMessage("WRONG_FORMAT") from None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadMessage("WRONG_FORMAT")
    ticket = _first(parts, "ticket")
    if not isinstance(ticket, str) or not ticket:
        raise BadMessage("NO_TICKET")
    format = _format(parts)
    if _first(parts, "method") == "LIST_SUBSCRIPTIONS":
        return Listing(ticket, format)
    objects = [part for part in parts if part.keys() - {"ticket", "format"}]
    if not objects:
        raise BadMessage("NO_TYPE")
    return Subscribe(ticket, tuple(map(_wanted, objects)), format or FORMATS[0])


def _first(parts: Sequence[dict[str, Any]], key: str) -> Any:
    return next((part[key] for part in parts if key in part), None)


def _format(parts: Sequence[dict[str, Any]]) -> str | None:
    format = _first(parts, "format")
    if format is None:
        return None
    if not isinstance(format, str) or format not in FORMATS:
        raise BadMessage("WRONG_FORMAT")
    return format


def _wanted(part: dict[str, Any]) -> Wanted:
    part = {_SPELLINGS.get(name, name): value for name, value in part.items()}
    stream, codes = part.get("type"), part.get("codes")
    if not isinstance(stream, str):
        raise BadMessage("NO_TYPE")
    if stream in PRIVATE:
        raise BadMessage("INVALID_AUTH")
    if stream not in TYPES:
        raise BadMessage("INVALID_PARAM", stream)
    if not isinstance(codes, list) or not codes:
        raise BadMessage("NO_CODES")
    if not all(isinstance(code, str) for code in codes):
        raise BadMessage("WRONG_FORMAT")
    return Wanted(
        stream,
        tuple(codes),
        _level(part.get("level", 0)),
        only_snapshot=part.get("is_only_snapshot") is True,
        only_realtime=part.get("is_only_realtime") is True,
    )


def _level(value: Any) -> str:
    text = str(value)
    if isinstance(value, bool) or _LEVEL.fullmatch(text) is None:
        raise BadMessage("WRONG_FORMAT")
    return text.rstrip("0").rstrip(".") if "." in text else text


def error_frame(error: BadMessage, region: Region) -> bytes:
    """What the exchange answers to a bad message."""
    texts = _KOREAN if region == "kr" else _ENGLISH
    fields = {"name": error.name, "message": texts[error.name].format(error.word)}
    if error.name in _MESSAGE_FIRST:
        fields = dict(reversed(fields.items()))
    return msgspec.json.encode({"error": fields})


def listing_frame(ticket: str, wanted: Sequence[Wanted], format: str) -> bytes:
    """What the exchange answers to LIST_SUBSCRIPTIONS."""
    simple = format.startswith("SIMPLE")
    names = ("mthd", "rslt", "tckt") if simple else ("method", "result", "ticket")
    rows = [_row(each, simple=simple) for each in wanted]
    frame = msgspec.json.encode(dict(zip(names, ("LIST_SUBSCRIPTIONS", rows, ticket), strict=True)))
    return b"[%b]" % frame if format.endswith("_LIST") else frame


def _row(wanted: Wanted, *, simple: bool) -> dict[str, Any]:
    stream, codes, level = ("ty", "cds", "lv") if simple else ("type", "codes", "level")
    row: dict[str, Any] = {stream: wanted.type, codes: wanted.codes}
    if wanted.type == "orderbook":
        row[level] = msgspec.Raw(wanted.level.encode())
    return row
