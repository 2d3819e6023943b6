"""What the exchange says when it refuses, and what its headers say; read without ever failing.

The kind of a REST error is decided by the status code alone: the body of a 429 or 503 is plain text or HTML as often as
JSON, and the ``name`` in the JSON is an integer on one path and a string on another (docs.upbit.com/kr
reference/rest-api-guide, 2026-10-06). The body only adds the exchange's own words and, for 429 and 418, the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import attrs
import msgspec

from marketpipe.core.requests import RemainingReq, Request
from marketpipe.errors import Banned, ExchangeError, ExchangeUnavailable, RateLimited, UnknownMarket
from marketpipe.upbit.wire_flaws import UNREADABLE, excerpt
from marketpipe.upbit.wire_requests import encode, markets_of

__all__ = ["date_ms", "error_of", "excerpt", "remaining_req", "stream_error_of"]

DEFAULT_RETRY_S = 1.0
# A 429 is over with the exchange's second; a longer block is a 418. What claims more than this is not believed.
LONGEST_RETRY_MS = 60_000
LONGEST_BAN_MS = 30 * 86_400_000

# One entry for each group of the pattern below, in its order.
_UNIT_MS = (1, 1_000, 60_000, 3_600_000, 86_400_000, 1_000, 60_000, 3_600_000)
_DURATION = re.compile(
    r"(?<![\d.:-])(\d{1,9}(?:\.\d{1,6})?)\s*"
    r"(?:(ms|millisecond)s?|(s|sec|second)s?|(m|min|minute)s?|(h|hr|hour)s?|(d|day)s?|(초)|(분)|(시간))(?![a-z])",
    re.IGNORECASE | re.ASCII,
)
_EPOCH = re.compile(r"(?<![\d.])(?:(\d{13})|(\d{10}))(?![\d.])", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
_HTTP_DATE = re.compile(r"\s*([A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT)\s*", re.ASCII)
_SECONDS = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*", re.ASCII)
_TAG = re.compile(r"<[^<>]*>")
_REMAINING_GROUP = re.compile(r"group\s*=\s*([\w-]{1,64})", re.ASCII)
_REMAINING_LEFT = re.compile(r"sec\s*=\s*(\d{1,9})(?!\d)", re.ASCII)


class _Error(msgspec.Struct):
    name: int | str | None = None
    message: str | None = None


class _Envelope(msgspec.Struct):
    error: _Error


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@attrs.frozen
class _Said:
    name: str
    words: str


def error_of(request: Request, status: int, headers: Mapping[str, str], body: bytes, *, now_ms: int) -> ExchangeError:
    """The error that an answer other than 200 stands for; returned, not raised.

    404 "Code not found" is `UnknownMarket` (``market``: all markets of the request, comma separated; one bad code
    fails a whole batch), 429 `RateLimited`, 418 `Banned`, 5xx `ExchangeUnavailable`; everything else, also a path
    without a route, is `ExchangeError` in the exchange's words (reference/rest-api-guide, 2026-10-06).

    ``RateLimited.retry_after_s`` is the ``Retry-After`` header or a duration named in the body, if it is one minute
    at most, else 1.0. ``Banned.until_ms`` comes from that header, or from a duration or point in time named in the
    body; **0 means that the exchange did not say**, and the caller has to choose a growing pause by itself.
    """
    said = _said(body)
    path = encode(request).partition("?")[0]
    message = f"HTTP {status} from {path}{_subject(request)}: {excerpt(said.words, 120) or 'no reason given'}"
    if status == 404 and _is_unknown_market(request, said):
        markets = ",".join(markets_of(request))
        return UnknownMarket(markets, f"{_unknown(request)}: the exchange does not list it ({message})")
    if status == 429:
        wait_ms = _wait_ms(headers, said.words, now_ms, LONGEST_RETRY_MS)
        return RateLimited(message, retry_after_s=wait_ms / 1000 if wait_ms else DEFAULT_RETRY_S)
    if status == 418:
        wait_ms = _wait_ms(headers, said.words, now_ms, LONGEST_BAN_MS)
        return Banned(message, until_ms=now_ms + wait_ms if wait_ms else 0)
    if 500 <= status <= 599:
        return ExchangeUnavailable(message, status=status)
    return ExchangeError(message, status=status)


def stream_error_of(body: bytes) -> ExchangeError:
    """The error that an error frame of the WebSocket stands for; returned, not raised.

    `RateLimited` for ``TOO_MANY_REQUEST`` (``Too Many Requests`` on one page), which holds back messages for a second;
    everything else is `ExchangeError` in the exchange's words (reference/websocket-ticker, 2026-09-22;
    websocket-orderbook, 2026-09-09). The exchange closes the connection after it.
    """
    said = _said(body)
    words = said.words if said.words != said.name else ""
    message = ": ".join(excerpt(part, 120) for part in (said.name, words) if part) or "an error without a name"
    if said.name.upper().replace(" ", "_").startswith("TOO_MANY_REQUEST"):
        return RateLimited(message, retry_after_s=DEFAULT_RETRY_S)
    return ExchangeError(message)


def remaining_req(value: str | None) -> RemainingReq | None:
    """The header ``Remaining-Req: group=candles; min=600; sec=9``, or None if it is missing or cannot be read.

    ``sec`` is what is left of the current second. ``min`` is frozen and ignored (reference/rate-limits, 2026-10-07).
    Order and spaces do not matter: older servers wrote ``group=order;min=199;sec=29``.
    """
    group = _REMAINING_GROUP.search(value or "")
    left = _REMAINING_LEFT.search(value or "")
    return RemainingReq(group[1], int(left[1])) if group and left else None


def date_ms(value: str | None) -> int | None:
    """An HTTP date, such as the ``Date`` header, in epoch milliseconds; None if it is missing or cannot be read."""
    if not (date := _HTTP_DATE.fullmatch(value or "")):
        return None
    try:
        return _epoch_ms(parsedate_to_datetime(date[1]))
    except ValueError:  # 32 January
        return None


def _said(body: bytes) -> _Said:
    try:
        error = _ENVELOPE.decode(body).error
    except UNREADABLE:
        text = body[:4096].decode("utf-8", "replace").strip()
        return _Said("", _TAG.sub(" ", text) if text.startswith("<") else text)
    name = "" if error.name is None else str(error.name)
    return _Said(name, error.message or name)


def _subject(request: Request) -> str:
    markets = markets_of(request)
    if len(markets) == 1:
        return f" for {excerpt(markets[0], 40)}"
    return f" for {len(markets)} markets" if markets else ""


def _unknown(request: Request) -> str:
    markets = markets_of(request)
    return f"unknown market {markets[0]!r}" if len(markets) == 1 else f"one or more of {len(markets)} markets unknown"


def _is_unknown_market(request: Request, said: _Said) -> bool:
    # A path without a route is a 404 too; its name is the string "not_found" and nothing in it is about a market.
    return bool(markets_of(request)) and ("code not found" in said.words.casefold() or said.name == "404")


def _wait_ms(headers: Mapping[str, str], words: str, now_ms: int, longest_ms: int) -> int | None:
    retry_after = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    waits_ms = (*_header_waits_ms(retry_after, now_ms), *_spoken_waits_ms(words, now_ms))
    return next((wait_ms for wait_ms in waits_ms if 0 < wait_ms <= longest_ms), None)


def _header_waits_ms(retry_after: str, now_ms: int) -> Iterator[int]:
    if seconds := _SECONDS.fullmatch(retry_after):
        yield round(float(seconds[1]) * 1000)
    elif (moment_ms := date_ms(retry_after)) is not None:
        yield moment_ms - now_ms


def _spoken_waits_ms(words: str, now_ms: int) -> Iterator[int]:
    # "1 minute 30 seconds" is one duration in two parts; should they be two tellings of one, the longer wait is safe.
    yield sum(_duration_ms(match) for match in _DURATION.finditer(words))
    for match in _EPOCH.finditer(words):
        yield (int(match[1]) if match[1] else int(match[2]) * 1000) - now_ms
    for match in _ISO.finditer(words):
        try:
            yield _epoch_ms(datetime.fromisoformat(match[0])) - now_ms
        except ValueError:  # it only looked like a date: 2026-99-99 00:00:00
            continue


def _duration_ms(match: re.Match[str]) -> int:
    amount, *units = match.groups()
    return next(round(float(amount) * unit_ms) for unit, unit_ms in zip(units, _UNIT_MS, strict=True) if unit)


def _epoch_ms(moment: datetime) -> int:
    # Without a zone UTC is meant, as in the parameter `to`; Korean time would end a ban nine hours too early.
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
