"""Which faults strike which request, which connection, which frame: the faults that were posted, in time.

Times are monotonic seconds and parameters. A fault that leaves nothing to chance draws nothing, so that adding one does
not shift the fate of the others.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection
from typing import Any

import attrs

from marketpipe.sim.fault_base import Ending, Fault
from marketpipe.sim.faults import EditFault, LatencyFault
from marketpipe.sim.limiter import CONNECT
from marketpipe.sim.ws_faults import ClockSkewFault, WsDownFault, WsFault, means

__all__ = ["FaultTimeline", "Posted"]

# What can happen to one request beside other faults; of all the rest only the first applies.
_CUMULATIVE = (LatencyFault, EditFault)
# A fault of one moment is remembered a little longer, until every connection has looked.
MOMENT_S = 1.0


@attrs.define(eq=False)
class Posted:
    """A fault, from when it counts, and what became of it. Connections are numbered; the next is ``newcomer``."""

    fault: Fault
    begins_s: float
    newcomer: int | None
    struck: int = 0
    # Whether a connection was struck or spared, by its number.
    _fates: dict[int, bool] = attrs.field(factory=dict)

    @property
    def ends_s(self) -> float:
        if self.fault.for_s is not None:
            return self.begins_s + self.fault.for_s
        return self.begins_s if self._of_a_moment else math.inf

    @property
    def _of_a_moment(self) -> bool:
        fault = self.fault
        return isinstance(fault, WsFault) and fault.sort == "moment" and not fault.newcomers

    def lasts(self, now_s: float) -> bool:
        return self.begins_s <= now_s < self.ends_s and not self.exhausted

    def over(self, now_s: float) -> bool:
        # What lasts goes on for those it has struck, though it strikes nobody else.
        return now_s >= self.ends_s or (self.exhausted and _sort(self.fault) != "lasting")

    def forgotten(self, now_s: float) -> bool:
        return self.over(now_s - MOMENT_S) if isinstance(self.fault, WsFault | WsDownFault) else self.over(now_s)

    def may_strike(self, group: str | None, now_s: float) -> bool:
        fault = self.fault
        if isinstance(fault, WsFault) or (fault.of_bodies and group == CONNECT):
            return False
        return self.lasts(now_s) and (fault.groups is None or group in fault.groups)

    def fate(self, number: int) -> bool | None:
        return self._fates.get(number)

    def settle(self, number: int, *, struck: bool) -> None:
        self._fates[number] = struck
        self.struck += struck

    def concerns(self, number: int, opened_s: float) -> bool:
        """Whether a connection was there when it began, or is struck as a newcomer."""
        if isinstance(self.fault, WsFault) and self.fault.newcomers:
            return True
        return number < self.newcomer if self.newcomer is not None else opened_s < self.begins_s

    def describe(self) -> dict[str, Any]:
        return {"kind": self.fault.kind, **attrs.asdict(self.fault), "struck": self.struck}

    @property
    def exhausted(self) -> bool:
        return self.fault.count is not None and self.struck >= self.fault.count


class FaultTimeline:
    """The faults that were posted, and what they strike."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._posted: list[Posted] = []
        self._struck: Counter[str] = Counter()

    def add(self, fault: Fault, now_s: float, newcomer: int = 0) -> None:
        """Start the clock of ``fault``; the next connection to open will be number ``newcomer``."""
        self._posted = [posted for posted in self._posted if not posted.forgotten(now_s)]
        self._posted.append(Posted(fault, now_s + fault.after_s, None if fault.after_s else newcomer))

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
                self._count(posted)
                struck.append(posted.fault)
                exclusive = exclusive or not cumulative
        return tuple(struck)

    def strike_dial(self, now_s: float) -> Ending | None:
        """How an attempt to connect for WebSocket fails before anything is said; None if it does not."""
        for posted in self._posted:
            unreachable = posted.fault.ending in ("down", "dns")
            if unreachable and posted.may_strike(CONNECT, now_s) and self._falls(posted.fault):
                self._count(posted)
                return posted.fault.ending
        return None

    def moments(self, number: int, opened_s: float, types: Collection[str], now_s: float) -> list[Fault]:
        """What happens now to connection ``number``, which carries ``types``: each fault once.

        To be asked whenever `next_edge_s` has come, and whenever the connection carries something else.
        """
        return [
            posted.fault
            for posted in self._posted
            if (isinstance(posted.fault, WsDownFault) or _sort(posted.fault) == "moment")
            and posted.begins_s <= now_s
            and posted.fate(number) is None
            and self._settle(posted, number, opened_s, types, now_s)
        ]

    def lasting(self, number: int, opened_s: float, types: Collection[str], now_s: float) -> list[WsFault]:
        """What goes on for connection ``number``."""
        return [
            posted.fault
            for posted in self._posted
            if isinstance(posted.fault, WsFault)
            and posted.fault.sort == "lasting"
            and posted.begins_s <= now_s < posted.ends_s
            and (posted.fate(number) or self._settle(posted, number, opened_s, types, now_s))
        ]

    def framed(self, number: int, opened_s: float, now_s: float) -> list[Posted]:
        """The faults that may befall the frames of connection ``number``; `strike_frame` decides."""
        return [
            posted
            for posted in self._posted
            if _sort(posted.fault) == "frame" and posted.lasts(now_s) and posted.concerns(number, opened_s)
        ]

    def strike_frame(self, posted: Posted, stream: str, now_s: float) -> bool:
        """Whether a frame of ``stream`` suffers the fault."""
        fault = posted.fault
        types = fault.types if isinstance(fault, WsFault) else None
        struck = means(types, stream) and posted.lasts(now_s) and self._falls(fault)
        if struck:
            self._count(posted)
        return struck

    def skew_ms(self, now_s: float) -> int:
        """How far the exchange's clock is off."""
        skews = [posted.fault for posted in self._posted if posted.lasts(now_s)]
        return sum(fault.skew_ms for fault in skews if isinstance(fault, ClockSkewFault))

    def next_edge_s(self, now_s: float) -> float:
        """When next a fault begins or ends."""
        edges = (edge for posted in self._posted for edge in (posted.begins_s, posted.ends_s))
        return min((edge for edge in edges if edge > now_s), default=math.inf)

    def forget(self) -> None:
        """Count from 0 again; the faults stay."""
        self._struck.clear()

    def describe(self, now_s: float) -> list[dict[str, Any]]:
        """The faults that are not over, as they would be posted, each with how many it ``struck``."""
        return [posted.describe() for posted in self._posted if not posted.over(now_s)]

    def struck(self) -> dict[str, int]:
        """Requests, connections and frames struck, by kind of fault."""
        return dict(self._struck)

    def _settle(self, posted: Posted, number: int, opened_s: float, types: Collection[str], now_s: float) -> bool:
        fault = posted.fault
        concerned = posted.concerns(number, opened_s)
        meant = not isinstance(fault, WsFault) or fault.types is None or any(means(fault.types, name) for name in types)
        if not meant and concerned and isinstance(fault, WsFault) and fault.newcomers:
            return False  # it may come to carry what is struck
        expired = isinstance(fault, WsFault) and fault.newcomers and now_s >= posted.ends_s
        struck = concerned and meant and not posted.exhausted and not expired and self._falls(fault)
        posted.settle(number, struck=struck)
        self._struck[fault.kind] += struck
        return struck

    def _falls(self, fault: Fault) -> bool:
        return fault.probability >= 1 or self._random.random() < fault.probability

    def _count(self, posted: Posted) -> None:
        posted.struck += 1
        self._struck[posted.fault.kind] += 1


def _sort(fault: Fault) -> str | None:
    return fault.sort if isinstance(fault, WsFault) else None
