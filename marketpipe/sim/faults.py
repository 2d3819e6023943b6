"""Everything that goes wrong on the way to an exchange, on a timeline.

A fault is a value: what happens, to which rate-limit groups, from when, for how long, how often. It is posted to
``/sim/faults`` as JSON (``{"kind": "status", "status": 503, "groups": ["ticker"], "for_s": 5}``) or handed to the
simulator as an instance. Times count from the moment it was posted. With the same seed and the same order of requests
the same requests are struck.

Here are the faults of requests, among which is the upgrade to WebSocket; what happens to connections after it is in
`ws_faults`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_type_hints

import attrs
import msgspec

from marketpipe.sim.fault_base import BadFault, Ending, Fault, require
from marketpipe.sim.limiter import CONNECT
from marketpipe.sim.ws_faults import (
    ClockSkewFault,
    WsCloseFault,
    WsDownFault,
    WsDripFault,
    WsDropFault,
    WsDuplicateFault,
    WsGarbageFault,
    WsHalfFault,
    WsMuteFault,
    WsReorderFault,
    WsStallFault,
)

__all__ = [
    "KINDS",
    "BadFault",
    "DnsFault",
    "DownFault",
    "DropFault",
    "EditFault",
    "Ending",
    "Fault",
    "GarbageFault",
    "HalfFault",
    "HangFault",
    "LatencyFault",
    "ResetFault",
    "StatusFault",
    "WrongTypeFault",
    "WsRefuseFault",
    "parse_faults",
]


@attrs.frozen(kw_only=True)
class StatusFault(Fault):
    """Answered with this status instead. Without a ``body`` the one that the exchange would send with it."""

    kind = "status"
    status: int
    body: str | None = None
    content_type: str | None = None

    def _check(self) -> None:
        require(200 <= self.status <= 599, "status", self.status, "from 200 to 599")
        clean = self.content_type is None or (self.content_type.isascii() and self.content_type.isprintable())
        require(clean, "content_type", self.content_type, "printable ASCII")


@attrs.frozen(kw_only=True)
class WsRefuseFault(StatusFault):
    """A connection is refused: the upgrade to WebSocket is answered with this status."""

    kind = "ws-refuse"
    status: int = 503
    groups: tuple[str, ...] | None = (CONNECT,)


@attrs.frozen(kw_only=True)
class LatencyFault(Fault):
    """``latency_s`` more, half of it before the request is counted."""

    kind = "latency"
    latency_s: float

    def _check(self) -> None:
        require(0 <= self.latency_s < math.inf, "latency_s", self.latency_s, "0 or more seconds")


@attrs.frozen(kw_only=True)
class DropFault(Fault):
    """Counted, then the connection closes before an answer."""

    kind = "drop"
    ending = "drop"


@attrs.frozen(kw_only=True)
class ResetFault(Fault):
    """Counted, then the connection is torn down (RST) before an answer."""

    kind = "reset"
    ending = "reset"


@attrs.frozen(kw_only=True)
class HalfFault(Fault):
    """Headers and half of the body, then the connection closes."""

    kind = "half"
    ending = "half"
    of_bodies = True


@attrs.frozen(kw_only=True)
class HangFault(Fault):
    """Counted, and never answered; the connection stays open."""

    kind = "hang"
    ending = "hang"


@attrs.frozen(kw_only=True)
class DownFault(Fault):
    """Nobody listens: the request is neither received nor counted. On a socket the connection is torn down."""

    kind = "down"
    ending = "down"


@attrs.frozen(kw_only=True)
class DnsFault(Fault):
    """The name is not found: the request is never sent. On a socket it is the same as ``down``."""

    kind = "dns"
    ending = "dns"


@attrs.frozen(kw_only=True)
class GarbageFault(Fault):
    """A 200 whose body is not the JSON it claims to be: ``body``, or the right answer cut in the middle."""

    kind = "garbage"
    of_bodies = True
    body: str | None = None


@attrs.frozen(kw_only=True)
class WrongTypeFault(Fault):
    """The right body under a wrong ``content_type``."""

    kind = "wrong_type"
    of_bodies = True
    content_type: str = "text/html; charset=UTF-8"

    def _check(self) -> None:
        clean = self.content_type.isascii() and self.content_type.isprintable()
        require(clean, "content_type", self.content_type, "printable ASCII")


@attrs.frozen(kw_only=True)
class EditFault(Fault):
    """Damage to the rows of a JSON list; every other number keeps its spelling.

    ``change``: ``extra`` adds a row of ``market`` that nobody asked for; ``drop``, ``duplicate`` lose or repeat rows;
    ``remove`` takes ``field`` out of rows; ``set`` gives it the raw JSON of ``lexeme``, such as ``1e400``, ``NaN``,
    ``null`` or ``"text"``. The rows meant are those of ``market``, else the first, else with ``every_row`` all.
    ``field`` may lead inside: ``orderbook_units.0.ask_price``.
    """

    kind = "edit"
    of_bodies = True
    change: Literal["extra", "drop", "duplicate", "remove", "set"]
    market: str | None = None
    every_row: bool = False
    field: str | None = None
    lexeme: str | None = None

    def _check(self) -> None:
        if self.change in ("remove", "set"):
            require(bool(self.field), "field", self.field, f"named for change {self.change!r}")
        if self.change == "set":
            require(self.lexeme is not None, "lexeme", self.lexeme, "given for change 'set'")


KINDS: dict[str, type[Fault]] = {
    kind.kind: kind
    for kind in (
        StatusFault,
        LatencyFault,
        DropFault,
        ResetFault,
        HalfFault,
        HangFault,
        DownFault,
        DnsFault,
        GarbageFault,
        WrongTypeFault,
        EditFault,
        WsDropFault,
        WsCloseFault,
        WsRefuseFault,
        WsStallFault,
        WsMuteFault,
        WsHalfFault,
        WsGarbageFault,
        WsDripFault,
        WsDuplicateFault,
        WsReorderFault,
        WsDownFault,
        ClockSkewFault,
    )
}


def parse_faults(document: bytes) -> list[Fault]:
    """The faults of a JSON object or a list of them; raises `BadFault` naming the field that is wrong."""
    try:
        value = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadFault(f"the body must be a JSON fault or a list of them: {exc}") from exc
    return [_parse_fault(item) for item in (value if isinstance(value, list) else [value])]


def _parse_fault(value: object) -> Fault:
    if not isinstance(value, dict):
        raise BadFault(f"a fault must be a JSON object, was {value!r}")
    name = value.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        raise BadFault(f"kind must be one of {', '.join(KINDS)}, was {name!r}")
    kind = KINDS[name]
    fields = {name: _parse_field(kind, name, item) for name, item in value.items() if name != "kind"}
    missing = [
        field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING and field.name not in fields
    ]
    if missing:
        raise BadFault(f"{missing[0]} is required for kind {kind.kind!r}")
    return kind(**fields)


def _parse_field(kind: type[Fault], name: str, value: object) -> Any:
    names = [field.name for field in attrs.fields(kind)]
    if name not in names:
        raise BadFault(f"{name} is no field of kind {kind.kind!r}; its fields: {', '.join(names)}")
    try:
        return msgspec.convert(value, get_type_hints(kind)[name])
    except msgspec.ValidationError as exc:
        raise BadFault(f"{name}: {exc}, was {value!r}") from exc
