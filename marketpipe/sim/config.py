"""What a simulator is like: the size of its market, its limits, its network, and the habits nobody is sure of.

Upbit leaves some habits undocumented (how a 429 looks, how the seconds are counted, how long a block lasts). Each is
an option here, with the most credible reading as the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import attrs

__all__ = ["BanBody", "Excess", "Refusal", "Region", "RowOrder", "SimConfig", "Window"]

Window = Literal["fixed", "rolling", "first"]
Refusal = Literal["text", "json", "empty"]
BanBody = Literal["message", "bare"]
RowOrder = Literal["request", "reversed", "sorted", "shuffled"]
Region = Literal["kr", "sg", "id", "th"]
Excess = Literal["close", "keep"]

_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _whole(least: int, most: int | None = None, *, or_none: bool = False) -> _Validator:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None and or_none:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{field.name} must be an int, was {value!r}")
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"{least} to {most}"
            raise ValueError(f"{field.name} must be {allowed}, was {value!r}")

    return check


def _seconds(*, positive: bool) -> _Validator:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{field.name} must be a number of seconds, was {value!r}")
        if not math.isfinite(value) or value < 0 or (positive and value == 0):
            raise ValueError(f"{field.name} must be {'more than 0' if positive else '0 or more'} s, was {value!r}")

    return check


def _chance(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field.name} must be a number from 0 to 1, was {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{field.name} must be from 0 to 1, was {value!r}")


def _one_of(*allowed: str) -> _Validator:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value not in allowed:
            raise ValueError(f"{field.name} must be one of {', '.join(allowed)}, was {value!r}")

    return check


@attrs.frozen(kw_only=True)
class SimConfig:
    """The options of a simulator. A wrong value is a ``ValueError`` or ``TypeError`` that names field and value.

    - ``seed``, ``markets``: the same pair gives the same market at the same time, on every machine.
    - ``lively``: about so many markets of 855, the first of each quote currency, trade 60,000 times a day, as in the
      busiest hours, and all others a few times. None: as uneven as in a quiet night.
    - ``limit``: requests per second that each rate-limit group accepts (reference/rate-limits, 2026-10-07).
    - ``window``: how a second is counted. ``fixed``: the wall clock's seconds, as the guides model it; ``first``: a
      second starts with the first request, as old documentation said; ``rolling``: any second, the strictest reading.
    - ``latency_s``, ``jitter_s``: the time from a request to its answer, and how much is added to it at random
      (uniform from 0 to ``jitter_s``). Half of the latency passes before the request is counted; the jitter falls on
      both sides in random shares.
    - ``refusal``: the body of a 429. ``ban_after`` refusals within ``ban_window_s`` are followed by a block (418) of
      ``ban_s``, twice as long each time; None never blocks. ``ban_body``: whether its text says how long it lasts.
    - ``origin_rule``: requests with an ``Origin`` header share one request per 10 s (since 2024-07-17).
    - ``region``: whose fields are sent; ``kr`` has the most. ``row_order``: how a batch's rows are sorted.
    - ``duplicates``, ``future_to``, ``nonpositive_count``, ``unknown_quote``: see `marketpipe.sim.quotation.Options`.
    - ``gzip``: compress for clients that accept it, as Upbit does. Off by default: on loopback it only costs time.

    Of WebSocket:

    - ``connect_limit``: connections per second (group websocket-connect); ``message_limit`` and ``minute_limit``:
      messages per second and per minute that each connection may send (websocket-message; reference/rate-limits,
      2026-10-07). ``excess``: whether a message too many closes the connection, which nobody has written down.
    - ``idle_s``: without a byte in or out for so long, a connection is dropped (60 s on the wire, 2026-09-23, though
      the guide says 120).
    - ``snapshot_s``: how long after a request its first snapshots come; the others take 1.9 times as long (170 to
      190 ms and 330 to 350 ms, 2026-09-23), and realtime (but candles) comes after it. 0: all at once.
    - ``reordered``, ``duplicated``: how many of the trades arrive late or twice, from 0 to 1.
    """

    seed: int = attrs.field(default=7, validator=_whole(0, 2**63 - 1))
    markets: int = attrs.field(default=855, validator=_whole(1, 10_000))
    lively: int | None = attrs.field(default=None, validator=_whole(0, 10_000, or_none=True))
    limit: int = attrs.field(default=10, validator=_whole(1))
    window: Window = attrs.field(default="fixed", validator=_one_of("fixed", "rolling", "first"))
    latency_s: float = attrs.field(default=0.0, validator=_seconds(positive=False))
    jitter_s: float = attrs.field(default=0.0, validator=_seconds(positive=False))
    refusal: Refusal = attrs.field(default="text", validator=_one_of("text", "json", "empty"))
    ban_after: int | None = attrs.field(default=50, validator=_whole(1, or_none=True))
    ban_window_s: float = attrs.field(default=10.0, validator=_seconds(positive=True))
    ban_s: float = attrs.field(default=10.0, validator=_seconds(positive=True))
    ban_body: BanBody = attrs.field(default="message", validator=_one_of("message", "bare"))
    origin_rule: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    region: Region = attrs.field(default="kr", validator=_one_of("kr", "sg", "id", "th"))
    row_order: RowOrder = attrs.field(default="request", validator=_one_of("request", "reversed", "sorted", "shuffled"))
    duplicates: Literal["once", "each"] = attrs.field(default="once", validator=_one_of("once", "each"))
    future_to: Literal["newest", "error"] = attrs.field(default="newest", validator=_one_of("newest", "error"))
    nonpositive_count: Literal["error", "one"] = attrs.field(default="error", validator=_one_of("error", "one"))
    unknown_quote: Literal["error", "skip"] = attrs.field(default="error", validator=_one_of("error", "skip"))
    gzip: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    connect_limit: int = attrs.field(default=5, validator=_whole(1))
    message_limit: int = attrs.field(default=5, validator=_whole(1))
    minute_limit: int = attrs.field(default=100, validator=_whole(1))
    excess: Excess = attrs.field(default="close", validator=_one_of("close", "keep"))
    idle_s: float = attrs.field(default=60.0, validator=_seconds(positive=True))
    snapshot_s: float = attrs.field(default=0.18, validator=_seconds(positive=False))
    reordered: float = attrs.field(default=0.0, validator=_chance)
    duplicated: float = attrs.field(default=0.0, validator=_chance)
