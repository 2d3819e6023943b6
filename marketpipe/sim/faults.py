"""Everything that goes wrong on the way to an exchange, on a timeline.

A fault is a value: what happens, to which rate-limit groups, from when, for how long, how often. It is posted to
``/sim/faults`` as JSON (``{"kind": "status", "status": 503, "groups": ["ticker"], "for_s": 5}``) or handed to the
simulator as an instance. Times count from the moment it was posted. With the same seed and the same order of requests
the same requests are struck.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any, ClassVar, Literal, get_type_hints

import attrs
import msgspec

from marketpipe.sim.limiter import GROUPS

__all__ = [
    "KINDS",
    "BadFault",
    "DnsFault",
    "DownFault",
    "DropFault",
    "EditFault",
    "Ending",
    "Fault",
    "FaultTimeline",
    "GarbageFault",
    "HalfFault",
    "HangFault",
    "LatencyFault",
    "ResetFault",
    "StatusFault",
    "WrongTypeFault",
    "parse_faults",
]


# How much of the answer reaches the client: all of it; half of the body and then a close; a close or a reset instead;
# nothing for ever; or the request never got there.
Ending = Literal["whole", "half", "drop", "reset", "hang", "down", "dns"]


class BadFault(ValueError):
    """A fault that cannot be understood; the message names the field and its value."""


def _require(condition: bool, field: str, value: object, rule: str) -> None:
    if not condition:
        raise BadFault(f"{field} must be {rule}, was {value!r}")


@attrs.frozen(kw_only=True)
class Fault:
    """What all faults share.

    ``groups``: the rate-limit groups it strikes, by their names on the wire (None: all). It begins ``after_s`` after
    it was posted and lasts ``for_s`` (None: until it is cleared), strikes each request with ``probability``, and at
    most ``count`` requests (None: no such end).
    """

    kind: ClassVar[str] = ""
    ending: ClassVar[Ending] = "whole"
    groups: tuple[str, ...] | None = None
    after_s: float = 0.0
    for_s: float | None = None
    probability: float = 1.0
    count: int | None = None

    def __attrs_post_init__(self) -> None:
        for group in self.groups or ():
            _require(group in GROUPS, "groups", group, f"among {', '.join(GROUPS)}")
        _require(0 <= self.after_s < math.inf, "after_s", self.after_s, "0 or more seconds")
        _require(self.for_s is None or self.for_s > 0, "for_s", self.for_s, "more than 0 seconds")
        _require(0 <= self.probability <= 1, "probability", self.probability, "from 0 to 1")
        _require(self.count is None or self.count >= 1, "count", self.count, "at least 1")
        self._check()

    def _check(self) -> None:
        """What only this kind demands of its fields."""


@attrs.frozen(kw_only=True)
class StatusFault(Fault):
    """Answered with this status instead. Without a ``body`` the one that the exchange would send with it."""

    kind = "status"
    status: int
    body: str | None = None
    content_type: str | None = None

    def _check(self) -> None:
        _require(200 <= self.status <= 599, "status", self.status, "from 200 to 599")
        clean = self.content_type is None or (self.content_type.isascii() and self.content_type.isprintable())
        _require(clean, "content_type", self.content_type, "printable ASCII")


@attrs.frozen(kw_only=True)
class LatencyFault(Fault):
    """``latency_s`` more, half of it before the request is counted."""

    kind = "latency"
    latency_s: float

    def _check(self) -> None:
        _require(0 <= self.latency_s < math.inf, "latency_s", self.latency_s, "0 or more seconds")


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
    body: str | None = None


@attrs.frozen(kw_only=True)
class WrongTypeFault(Fault):
    """The right body under a wrong ``content_type``."""

    kind = "wrong_type"
    content_type: str = "text/html; charset=UTF-8"

    def _check(self) -> None:
        clean = self.content_type.isascii() and self.content_type.isprintable()
        _require(clean, "content_type", self.content_type, "printable ASCII")


@attrs.frozen(kw_only=True)
class EditFault(Fault):
    """Damage to the rows of a JSON list; every other number keeps its spelling.

    ``change``: ``extra`` adds a row of ``market`` that nobody asked for; ``drop``, ``duplicate`` lose or repeat rows;
    ``remove`` takes ``field`` out of rows; ``set`` gives it the raw JSON of ``lexeme``, such as ``1e400``, ``NaN``,
    ``null`` or ``"text"``. The rows meant are those of ``market``, else the first, else with ``every_row`` all.
    ``field`` may lead inside: ``orderbook_units.0.ask_price``.
    """

    kind = "edit"
    change: Literal["extra", "drop", "duplicate", "remove", "set"]
    market: str | None = None
    every_row: bool = False
    field: str | None = None
    lexeme: str | None = None

    def _check(self) -> None:
        if self.change in ("remove", "set"):
            _require(bool(self.field), "field", self.field, f"named for change {self.change!r}")
        if self.change == "set":
            _require(self.lexeme is not None, "lexeme", self.lexeme, "given for change 'set'")


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
    )
}
# What can happen to one request beside other faults; of all the rest only the first applies.
_CUMULATIVE = (LatencyFault, EditFault)


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


@attrs.define
class _Posted:
    fault: Fault
    begins_s: float
    struck: int = 0

    @property
    def ends_s(self) -> float:
        return math.inf if self.fault.for_s is None else self.begins_s + self.fault.for_s

    def may_strike(self, group: str | None, now_s: float) -> bool:
        fault = self.fault
        return (
            self.begins_s <= now_s < self.ends_s
            and (fault.count is None or self.struck < fault.count)
            and (fault.groups is None or group in fault.groups)
        )

    def over(self, now_s: float) -> bool:
        return now_s >= self.ends_s or self.struck == self.fault.count

    def describe(self) -> dict[str, Any]:
        return {"kind": self.fault.kind, **attrs.asdict(self.fault), "struck": self.struck}


class FaultTimeline:
    """The faults that were posted, and which of them strike a request. ``now_s`` is monotonic."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._posted: list[_Posted] = []
        self._struck: Counter[str] = Counter()

    def add(self, fault: Fault, now_s: float) -> None:
        """Start the clock of ``fault``."""
        self._posted = [posted for posted in self._posted if not posted.over(now_s)]
        self._posted.append(_Posted(fault, now_s + fault.after_s))

    def clear(self) -> None:
        """Forget all faults; what they struck stays counted."""
        self._posted.clear()

    def strike(self, group: str | None, now_s: float) -> tuple[Fault, ...]:
        """The faults that this request to ``group`` suffers: every latency and edit, and the first of the others."""
        struck: list[Fault] = []
        exclusive = False
        for posted in self._posted:
            cumulative = isinstance(posted.fault, _CUMULATIVE)
            if (cumulative or not exclusive) and posted.may_strike(group, now_s) and self._falls(posted.fault):
                posted.struck += 1
                self._struck[posted.fault.kind] += 1
                struck.append(posted.fault)
                exclusive = exclusive or not cumulative
        return tuple(struck)

    def _falls(self, fault: Fault) -> bool:
        # A certain fault draws nothing, so that adding one does not shift the fate of the others.
        return fault.probability >= 1 or self._random.random() < fault.probability

    def forget(self) -> None:
        """Count from 0 again; the faults stay."""
        self._struck.clear()

    def describe(self, now_s: float) -> list[dict[str, Any]]:
        """The faults that are not over, as they would be posted, each with how many requests it ``struck``."""
        return [posted.describe() for posted in self._posted if not posted.over(now_s)]

    def struck(self) -> dict[str, int]:
        """Requests struck, by kind of fault."""
        return dict(self._struck)
