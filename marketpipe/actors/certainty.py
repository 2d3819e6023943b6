"""Up to when everything of a line has certainly arrived: what is told as proven, and from when on something is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import attrs
import trio

from marketpipe.actors.desks import Desk
from marketpipe.core.topics import Topic

__all__ = ["Certainty"]

# How often the desk is told up to when everything has arrived.
PROVEN_EVERY_S = 0.5


@attrs.define(eq=False)
class Certainty:
    """What the line's desk can be told of the past, at the moment when it is known."""

    _desk: Desk
    _now_ms: Callable[[float], int]
    _proven_s: float = attrs.field(default=-math.inf, init=False)
    _is_doubted: bool = attrs.field(default=False, init=False)
    _stalled: frozenset[Topic] = attrs.field(default=frozenset(), init=False)  # found so by the last check

    def arrived(self, now_s: float) -> None:
        """Frames have arrived, and so has all before them, unless the connection is being checked."""
        if not self._is_doubted:
            self._proven_s = now_s

    @contextmanager
    def doubted(self, whole: bool) -> Iterator[None]:
        """While this is entered, frames prove nothing if the connection is suspected as a ``whole``."""
        self._is_doubted = whole
        try:
            yield
        finally:
            self._is_doubted = False

    def checked(self, asked_s: float) -> None:
        """A check, asked at ``asked_s``, has found nothing that is missing."""
        self._proven_s = max(self._proven_s, asked_s)

    def stalled(self, topics: frozenset[Topic]) -> None:
        """A check has found that these were kept from us: that they are lost is told in a moment."""
        self._stalled = topics

    def withheld(self, topics: Collection[Topic], cause: str) -> None:
        """``topics`` are lost from now on, and the connection goes on."""
        self._lost(topics, self._now_ms(trio.current_time()), cause)

    def lost(self, topics: Collection[Topic], cause: str) -> None:
        """The connection is lost, and ``topics`` with it. What came before the last sign of life is certain."""
        at_s = self._proven_s if self._proven_s > -math.inf else trio.current_time()
        self._lost(topics, self._now_ms(at_s), cause)
        self._proven_s = -math.inf

    def _lost(self, topics: Collection[Topic], start_ms: int, cause: str) -> None:
        # What was kept from us while others came is certain only as far as it was shown.
        now_ms = self._now_ms(trio.current_time())
        for topic in self._stalled & frozenset(topics):
            self._desk.lost((topic,), min(start_ms, self._desk.shown_ms(topic) or start_ms), now_ms, cause)
        self._desk.lost(frozenset(topics) - self._stalled, start_ms, now_ms, cause)
        self._stalled = frozenset()

    async def tell(self) -> None:
        """Tell the desk what is proven, for as long as the connection lasts."""
        while True:
            await trio.sleep(PROVEN_EVERY_S)
            if self._proven_s > -math.inf:
                self._desk.proven(self._now_ms(self._proven_s))
