"""What faults make of the frames on their way out of one connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from marketpipe.sim.timeline import FaultTimeline, Posted
from marketpipe.sim.ws_faults import (
    ClockSkewFault,
    WsDripFault,
    WsDuplicateFault,
    WsFault,
    WsGarbageFault,
    WsMuteFault,
    WsReorderFault,
    WsStallFault,
    means,
)
from marketpipe.sim.ws_frames import BROKEN, skewed

__all__ = ["Outgoing", "Trouble", "spoiled"]

NO_JSON = b'{"type":"ticker","code":"KRW-'
NO_UTF8 = b'{"type":"ticker","code":"\xff\xfe\xc0\xaf"}'


@attrs.frozen
class Outgoing:
    """One message on its way out. ``type`` is the stream's, or ``status``, ``error``, ``list``.

    ``raw``: these are the bytes themselves, without a frame around them.
    """

    type: str
    code: str
    payload: bytes
    raw: bool = False


class Trouble:
    """The lasting faults of one connection, at one time."""

    def __init__(self, faults: Sequence[WsFault] = ()) -> None:
        self._faults = tuple(faults)
        stalls = [fault for fault in faults if isinstance(fault, WsStallFault)]
        self.stalled = bool(stalls)
        self.deaf = any(not stall.pongs for stall in stalls)
        self.drip = next((fault for fault in faults if isinstance(fault, WsDripFault)), None)
        self._mutes = [fault for fault in faults if isinstance(fault, WsMuteFault)]
        self._skews = [fault for fault in faults if isinstance(fault, ClockSkewFault)]

    def silences(self, type: str, code: str) -> bool:
        """Whether a frame of stream ``type`` about ``code`` is lost."""
        if self.stalled:
            return True
        return any(code in mute.codes and means(mute.types, type) for mute in self._mutes)

    def stamped(self, type: str, payload: bytes) -> bytes:
        """``payload`` with the stamp of a clock that is off."""
        skew_ms = sum(skew.skew_ms for skew in self._skews if means(skew.types, type))
        return skewed(payload, skew_ms) if skew_ms else payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trouble) and self._faults == other._faults

    def __hash__(self) -> int:
        return hash(self._faults)


def spoiled(
    messages: Sequence[Outgoing],
    held: list[Outgoing],
    posted: Sequence[Posted],
    timeline: FaultTimeline,
    now_s: float,
) -> tuple[list[Outgoing], list[Outgoing]]:
    """``messages`` after the faults of single frames: what goes out now, and what is held back for after the next.

    ``held`` was held back before.
    """
    ready: list[Outgoing] = []
    for message in messages:
        if held:
            ready += [*_copies(message, posted, timeline, now_s), *held]
            held = []
        elif _strikes(WsReorderFault, message, posted, timeline, now_s):
            held = _copies(message, posted, timeline, now_s)
        else:
            ready += _copies(message, posted, timeline, now_s)
    return ready, held


def _copies(message: Outgoing, posted: Sequence[Posted], timeline: FaultTimeline, now_s: float) -> list[Outgoing]:
    for one in _of(WsGarbageFault, posted):
        if timeline.strike_frame(one, message.type, now_s):
            return [_garbage(one.fault, message)]
    twice = _strikes(WsDuplicateFault, message, posted, timeline, now_s)
    return [message, message] if twice else [message]


def _strikes(
    kind: type[WsFault], message: Outgoing, posted: Sequence[Posted], timeline: FaultTimeline, now_s: float
) -> bool:
    return any(timeline.strike_frame(one, message.type, now_s) for one in _of(kind, posted))


def _of(kind: type[WsFault], posted: Sequence[Posted]) -> Iterator[Posted]:
    return (one for one in posted if isinstance(one.fault, kind))


def _garbage(fault: object, message: Outgoing) -> Outgoing:
    if not isinstance(fault, WsGarbageFault):
        raise TypeError(fault)
    if fault.body is not None:
        return attrs.evolve(message, payload=fault.body.encode())
    if fault.what == "framing":
        return attrs.evolve(message, payload=BROKEN, raw=True)
    return attrs.evolve(message, payload=NO_UTF8 if fault.what == "utf8" else NO_JSON)
