"""The request budget of one pipeline at its exchange: the limit of every rate-limit group, and the ban.

The exchange counts by IP address, not by pipeline: what is here may be a share in what others use too, which changes
under one's hands. `marketpipe.sharing` makes those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from marketpipe.core.pacing import Ban, Latch, Limit
from marketpipe.core.requests import Group

__all__ = ["Budgets"]


@attrs.define(eq=False)
class Budgets:
    """What every pipeline of one run has to keep. ``listeners`` are called when slots may have come free.

    ``slots``: requests of each rate-limit group. ``connects``: connections of the stream. ``elsewhere`` tells whoever
    uses the same limits in other runs.
    """

    slots: Mapping[Group, Limit]
    connects: Limit
    ban: Latch = attrs.field(factory=Ban)
    elsewhere: Callable[[], None] = lambda: None
    listeners: list[Callable[[], None]] = attrs.field(factory=list, init=False)

    def changed(self) -> None:
        """Tell everybody who shares it that a request has ended."""
        self.hear()
        self.elsewhere()

    def hear(self) -> None:
        """Others have changed it: tell those who listen here."""
        for listener in tuple(self.listeners):
            listener()
