"""What goes wrong in a run, and when: everything the simulator can do to a client, dealt like a deck of cards.

Only what a client can notice is dealt. An edit that makes one plausible row out of another, or leaves out a candle, is
a lie which nobody can see through, and no fault of whoever believes it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

__all__ = ["DECK", "Strike", "kinds", "strikes"]

Dice = random.Random
Fault = dict[str, Any]
TWO_AT_ONCE = 0.3
REST = ("ticker", "candles", "crix-trades", "orderbook", "market")
# Damage that is seen at a glance.
LEXEMES = ("1e400", "NaN", "null", '"text"')
PRICES = {"ticker": "trade_price", "candles": "opening_price", "crix-trades": "trade_price"}


@attrs.frozen
class Strike:
    """``faults`` begin together at ``at_s`` (seconds since the run began), the longest for ``lasts_s``."""

    at_s: float
    name: str
    lasts_s: float
    faults: tuple[Mapping[str, Any], ...]

    @property
    def ends_s(self) -> float:
        """When the last of them is over."""
        return self.at_s + self.lasts_s


def _rest(kind: str, **more: Any) -> Callable[[Dice, Sequence[str]], Fault]:
    """A fault of requests, of all groups or of one."""

    def deal(dice: Dice, names: Sequence[str]) -> Fault:
        groups = None if dice.random() < 0.4 else [dice.choice(REST)]
        chosen = {name: value(dice) if callable(value) else value for name, value in more.items()}
        fault = {"kind": kind, "for_s": _some_s(dice), **chosen}
        return fault if groups is None else {**fault, "groups": groups}

    return deal


def _stream(kind: str, **more: Any) -> Callable[[Dice, Sequence[str]], Fault]:
    """A fault of connections, of all or of one type."""

    def deal(dice: Dice, names: Sequence[str]) -> Fault:
        types = None if dice.random() < 0.5 else [dice.choice(("trade", "ticker", "orderbook", "candle"))]
        chosen = {name: value(dice) if callable(value) else value for name, value in more.items()}
        fault = {"kind": kind, **chosen}
        return fault if types is None else {**fault, "types": types}

    return deal


def _some_s(dice: Dice) -> float:
    return round(dice.uniform(3, 12), 1)


def _edited(dice: Dice, names: Sequence[str]) -> Fault:
    group = dice.choice(tuple(PRICES))
    fault: Fault = {"kind": "edit", "groups": [group], "for_s": _some_s(dice)}
    change = dice.choice(("remove", "set", "duplicate") if group != "ticker" else
                         ("remove", "set", "duplicate", "drop", "extra"))  # fmt: skip
    fault["change"] = change
    if change in ("remove", "set"):
        fault |= {"field": PRICES[group], "probability": 0.5}
    if change == "set":
        fault["lexeme"] = dice.choice(LEXEMES)
    if change == "extra":
        fault["market"] = dice.choice(names)
    return fault


def _mute(dice: Dice, names: Sequence[str]) -> Fault:
    return {"kind": "ws-mute", "codes": dice.sample(names, min(len(names), 5)), "for_s": _some_s(dice)}


def _between(low: float, high: float) -> Callable[[Dice], float]:
    return lambda dice: round(dice.uniform(low, high), 2)


def _one_of(*values: Any) -> Callable[[Dice], Any]:
    return lambda dice: dice.choice(values)


# One card for each kind of fault, and a second one where it has several faces.
DECK: tuple[Callable[[Dice, Sequence[str]], Fault], ...] = (
    _rest("status", status=_one_of(500, 502, 503, 504), probability=0.5),
    _rest("status", status=429, count=_one_of(1, 3, 6)),
    _rest("status", status=418, count=1),
    _rest("latency", latency_s=_between(0.3, 2.5)),
    _rest("drop", probability=0.3),
    _rest("reset", probability=0.3),
    _rest("half", probability=0.3),
    _rest("hang", count=_one_of(1, 3)),
    _rest("down"),
    _rest("dns"),
    _rest("garbage", probability=0.5),
    _rest("wrong_type", probability=0.5),
    _edited,
    _edited,
    _stream("ws-drop"),
    _stream("ws-close", code=_one_of(1000, 1001, 1011, 4000)),
    lambda dice, names: {"kind": "ws-refuse", "status": dice.choice((429, 500, 503)), "for_s": _some_s(dice)},
    _stream("ws-stall", for_s=_some_s),
    _stream("ws-stall", for_s=_some_s, pongs=False),
    _mute,
    _stream("ws-half", then=_one_of("drop", "silence")),
    _stream("ws-garbage", what=_one_of("json", "utf8", "framing"), count=_one_of(1, 3), for_s=_some_s),
    _stream("ws-drip", bytes_per_s=_between(5_000, 20_000), chunk=200, for_s=_some_s),
    _stream("ws-duplicate", probability=0.2, for_s=_some_s),
    _stream("ws-reorder", probability=0.2, for_s=_some_s),
    lambda dice, names: {"kind": "ws-down", "for_s": _some_s(dice)},
    lambda dice, names: {"kind": "clock-skew", "skew_ms": dice.choice((-60_000, -2_000, 2_000, 60_000)),
                         "for_s": _some_s(dice)},
)  # fmt: skip


def strikes(
    seed: int, names: Sequence[str], *, first_s: float, last_s: float, every_s: tuple[float, float]
) -> Iterator[Strike]:
    """What happens from ``first_s`` on; everything is over by ``last_s``. The same seed deals the same."""
    dice = random.Random(seed)
    cards = _cards(dice)
    at_s = first_s
    while True:
        count = 2 if dice.random() < TWO_AT_ONCE else 1
        faults = tuple(next(cards)(dice, names) for _ in range(count))
        strike = Strike(round(at_s, 2), " + ".join(map(_name, faults)),
                        max(fault.get("for_s", 1.0) for fault in faults), faults)  # fmt: skip
        if strike.ends_s > last_s:
            return
        yield strike
        at_s += dice.uniform(*every_s)


def kinds(struck: Sequence[Strike]) -> set[str]:
    """The kinds of faults among them."""
    return {str(fault["kind"]) for strike in struck for fault in strike.faults}


def _cards(dice: Dice) -> Iterator[Callable[[Dice, Sequence[str]], Fault]]:
    # Everything comes once before anything comes again.
    while True:
        yield from dice.sample(DECK, len(DECK))


def _name(fault: Mapping[str, Any]) -> str:
    kind = str(fault["kind"])
    detail = fault.get("status") or fault.get("change") or fault.get("what") or fault.get("skew_ms")
    where = fault.get("groups") or fault.get("types")
    return kind + (f" {detail}" if detail else "") + (f" of {where[0]}" if where else "")
