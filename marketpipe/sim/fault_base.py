"""What all faults share, whatever they strike."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import attrs

from marketpipe.sim.limiter import CONNECT, GROUPS

__all__ = ["BadFault", "Ending", "Fault", "require"]

# How much of the answer reaches the client: all of it; half of the body and then a close; a close or a reset instead;
# nothing for ever; or the request never got there.
Ending = Literal["whole", "half", "drop", "reset", "hang", "down", "dns"]
_NAMES = (*GROUPS, CONNECT)


class BadFault(ValueError):
    """A fault that cannot be understood; the message names the field and its value."""


def require(condition: bool, field: str, value: object, rule: str) -> None:
    """Raise `BadFault` in words unless ``condition`` holds."""
    if not condition:
        raise BadFault(f"{field} must be {rule}, was {value!r}")


@attrs.frozen(kw_only=True)
class Fault:
    """What all faults share.

    ``groups``: the rate-limit groups it strikes, by their names on the wire and ``websocket-connect`` (None: all). It
    begins ``after_s`` after it was posted and lasts ``for_s`` (None: until it is cleared), strikes each request with
    ``probability``, and at most ``count`` requests (None: no such end).
    """

    kind: ClassVar[str] = ""
    ending: ClassVar[Ending] = "whole"
    # Whether it is about what an answer says; an upgrade to WebSocket says nothing.
    of_bodies: ClassVar[bool] = False
    groups: tuple[str, ...] | None = None
    after_s: float = 0.0
    for_s: float | None = None
    probability: float = 1.0
    count: int | None = None

    def __attrs_post_init__(self) -> None:
        for group in self.groups or ():
            require(group in _NAMES, "groups", group, f"among {', '.join(_NAMES)}")
        require(0 <= self.after_s < math.inf, "after_s", self.after_s, "0 or more seconds")
        require(self.for_s is None or self.for_s > 0, "for_s", self.for_s, "more than 0 seconds")
        require(0 <= self.probability <= 1, "probability", self.probability, "from 0 to 1")
        require(self.count is None or self.count >= 1, "count", self.count, "at least 1")
        self._check()

    def _check(self) -> None:
        """What only this kind demands of its fields."""
