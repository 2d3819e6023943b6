"""The replies of the exchange: headers as on the wire, refusals, and what faults make of an answer.

Headers: real replies of 2025-07-30 (guide "REST API 시작하기"); refusals: reference/rate-limits, 2026-10-07.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

import attrs
import msgspec

from marketpipe.sim.config import SimConfig
from marketpipe.sim.damage import damage_rows
from marketpipe.sim.faults import EditFault, Ending, Fault, GarbageFault, StatusFault, WrongTypeFault
from marketpipe.sim.limiter import Verdict

__all__ = ["TEXT", "Content", "SimReply", "compose", "json_content", "refusal", "spoil"]

JSON = "application/json;charset=UTF-8"
TEXT = "text/plain;charset=UTF-8"
HTML = "text/html"

_LIMITED = (
    (b"limit-by-ip", b"Yes"),
    (b"vary", b"origin,access-control-request-method,access-control-request-headers,accept-encoding"),
)
_UNCACHED = (
    (b"cache-control", b"no-cache, no-store, max-age=0, must-revalidate"),
    (b"pragma", b"no-cache"),
    (b"expires", b"0"),
)
# Below this a compressed body is hardly smaller.
_WORTH_COMPRESSING = 1024


@attrs.frozen
class SimReply:
    """A complete reply, ``content-length`` included, and how much of it reaches the client (``ending``)."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    ending: Ending = "whole"


@attrs.frozen
class Content:
    """What an answer says, before it is dressed in headers."""

    status: int
    body: bytes
    content_type: str = JSON


def json_content(status: int, value: object) -> Content:
    """``value`` as JSON."""
    return Content(status, msgspec.json.encode(value))


def error_content(status: int, message: str) -> Content:
    """The error envelope of the quotation API: ``name`` is the status, as an integer."""
    return json_content(status, {"error": {"name": status, "message": message}})


def refusal(verdict: Verdict, config: SimConfig) -> Content:
    """The answer to a request that was one too many (429) or came during a block (418)."""
    if verdict.status == 418:
        return _teapot(verdict.blocked_s, config)
    message = "Too many API requests."
    if config.refusal == "json":
        return error_content(429, message)
    return Content(429, b"" if config.refusal == "empty" else message.encode(), TEXT)


def _teapot(blocked_s: float, config: SimConfig) -> Content:
    # No real 418 has ever been published; that it names the time is documented, its words are not.
    message = "I'm a teapot."
    if config.ban_body == "message":
        message = f"Too many requests were refused. Try again in {max(1, math.ceil(blocked_s))} seconds"
    return error_content(418, message)


def spoil(content: Content, faults: Iterable[Fault], verdict: Verdict, config: SimConfig) -> Content:
    """``content`` after the faults that change what is said; edits come first."""
    edits = [fault for fault in faults if isinstance(fault, EditFault)]
    if edits:
        content = attrs.evolve(content, body=damage_rows(content.body, edits))
    for fault in faults:
        match fault:
            case StatusFault():
                content = _status_content(fault, verdict, config)
            case GarbageFault():
                body = content.body[: len(content.body) // 2] if fault.body is None else fault.body.encode()
                content = Content(200, body)
            case WrongTypeFault():
                content = attrs.evolve(content, content_type=fault.content_type)
            case _:
                pass
    return content


def _status_content(fault: StatusFault, verdict: Verdict, config: SimConfig) -> Content:
    usual = _usual_content(fault.status, verdict, config)
    body = usual.body if fault.body is None else fault.body.encode()
    content_type = usual.content_type if fault.body is None else _guessed_type(fault.body)
    return Content(fault.status, body, fault.content_type or content_type)


def _usual_content(status: int, verdict: Verdict, config: SimConfig) -> Content:
    if status in (418, 429):
        return refusal(attrs.evolve(verdict, status=status, blocked_s=config.ban_s), config)
    phrase = _phrase(status)
    if status >= 500:
        return Content(status, f"<html><body><h1>{status} {phrase}</h1></body></html>".encode(), HTML)
    return error_content(status, phrase)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _guessed_type(body: str) -> str:
    return {"{": JSON, "[": JSON, "<": HTML}.get(body.lstrip()[:1], TEXT)


def compose(content: Content, *, now_ms: int, remaining_req: str | None = None, gzip: bool = False) -> SimReply:
    """Dress ``content`` in headers. ``now_ms`` (epoch) becomes ``date``, with the second's resolution of the wire.

    Without ``remaining_req`` it is a reply of the gateway in front of the exchange, which has fewer headers.
    """
    body = content.body
    headers = [
        (b"date", formatdate(now_ms // 1000, usegmt=True).encode()),
        (b"content-type", content.content_type.encode()),
    ]
    if gzip and len(body) >= _WORTH_COMPRESSING:
        body = _compressed(body)
        headers.append((b"content-encoding", b"gzip"))
    headers.append((b"content-length", b"%d" % len(body)))
    if remaining_req is not None:
        headers += [(b"remaining-req", remaining_req.encode()), *_LIMITED]
        if content.status == 200:
            # Weak, of what is said and not of how it is packed. The exchange's digest is longer; this one is quick.
            headers.append((b"etag", b'W/"0%08x"' % zlib.crc32(content.body)))
        headers += _UNCACHED
    return SimReply(content.status, tuple(headers), body)


def _compressed(body: bytes) -> bytes:
    gzip_wrapper = 16 + zlib.MAX_WBITS
    compressor = zlib.compressobj(level=1, wbits=gzip_wrapper)
    return compressor.compress(body) + compressor.flush()
