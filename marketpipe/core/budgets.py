"""The request budget of one address of ours at one exchange: the slots of every rate-limit group, and the ban.

The exchange counts by IP address, not by pipeline. Pipelines to the same exchange therefore share one budget, and one
that is opened after another takes over what the other has left: slots that still rest, a ban that still lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from marketpipe.core.pacing import Ban, Slots
from marketpipe.core.requests import Group

__all__ = ["Budgets", "Remains"]


@attrs.frozen
class Remains:
    """What is left of a budget when nobody uses it any more: how long each slot still rests, and how long the ban."""

    resting_s: Mapping[Group, tuple[float, ...]]
    connects_resting_s: tuple[float, ...]
    banned_for_s: float


@attrs.define(eq=False)
class Budgets:
    """Shared by every pipeline to the same exchange. ``listeners`` are called when slots may have come free.

    ``slots``: requests of each rate-limit group. ``connects``: connections of the stream.
    """

    slots: Mapping[Group, Slots]
    connects: Slots
    ban: Ban = attrs.field(factory=Ban)
    listeners: list[Callable[[], None]] = attrs.field(factory=list, init=False)

    def changed(self) -> None:
        """Tell everybody who shares it that a request has ended."""
        for listener in tuple(self.listeners):
            listener()

    def remains(self, now_s: float) -> Remains:
        """What a later budget for the same address has to respect. Requests in flight must have been given back."""
        until_s = self.ban.until_s(now_s)
        resting_s = {group: slots.resting_s(now_s) for group, slots in self.slots.items()}
        return Remains(resting_s, self.connects.resting_s(now_s), 0.0 if until_s is None else until_s - now_s)

    def take_over(self, remains: Remains, passed_s: float, now_s: float) -> None:
        """Respect what an earlier budget left ``passed_s`` ago. Its clock and this one's need not agree."""
        left = [(self.slots[group], resting_s) for group, resting_s in remains.resting_s.items()]
        for slots, resting_s in [*left, (self.connects, remains.connects_resting_s)]:
            for left_s in resting_s:
                if left_s > passed_s:
                    slots.rest(now_s + left_s - passed_s)
        if remains.banned_for_s > passed_s:
            self.ban.ban(now_s, remains.banned_for_s - passed_s)
