"""All WebSocket connections of an exchange: who is connected, what was said to whom, and what they have in common."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from marketpipe.clock import Clock
from marketpipe.sim.config import SimConfig
from marketpipe.sim.limiter import GroupStatistics
from marketpipe.sim.streams import Streams
from marketpipe.sim.timeline import FaultTimeline
from marketpipe.sim.world import World
from marketpipe.sim.ws_flood import Flood, FloodStatistics

if TYPE_CHECKING:
    from marketpipe.sim.websocket import Session

__all__ = ["Alarm", "Sockets", "StreamStatistics"]


@attrs.frozen
class StreamStatistics:
    """What was seen of WebSocket since the start or the last reset.

    ``connections``: open and in total. ``subscribes``: subscribe messages received, and ``greatest_subscribes`` the
    most on one connection; ``greatest_per_minute``: the most messages of one connection in any rolling minute.
    ``frames``: sent, by type of stream (and ``status``, ``error``, ``list``). ``codes``: subscribed now, by type of
    stream.
    """

    connections: dict[str, int]
    subscribes: int
    greatest_subscribes: int
    greatest_per_minute: int
    frames: dict[str, int]
    codes: dict[str, list[str]]
    flood: FloodStatistics


class Alarm:
    """Wakes the one task that waits for it; an alarm that rings while nobody waits is heard by the next who does."""

    def __init__(self) -> None:
        self._rang = trio.Event()

    def ring(self) -> None:
        self._rang.set()

    def hush(self) -> None:
        """Forget that it rang: whoever calls this looks now."""
        if self._rang.is_set():
            self._rang = trio.Event()

    async def wait(self, until_s: float) -> None:
        """Return when it rings, or at ``until_s`` (Trio's time)."""
        with trio.move_on_at(until_s):
            await self._rang.wait()
        self.hush()


class Sockets:
    """The connections, and what they share: configuration, clock, streams, faults, chance, flood."""

    def __init__(self, config: SimConfig, clock: Clock, world: World, timeline: FaultTimeline) -> None:
        self.config = config
        self.clock = clock
        self.timeline = timeline
        self.random = random.Random(config.seed)
        self.streams = Streams(world, reordered=config.reordered, duplicated=config.duplicated, region=config.region)
        self.flood = Flood(clock, lambda: list(self._sessions.values()))
        self.frames: Counter[str] = Counter()
        self._sessions: dict[int, Session] = {}
        self._numbered = 0
        self._total = 0
        self._past = _Talk()

    @property
    def newcomer(self) -> int:
        """The number that the next connection will have."""
        return self._numbered

    def enter(self, session: Session) -> int:
        """Count a connection as open; its number."""
        number = self._numbered
        self._numbered += 1
        self._total += 1
        self._sessions[number] = session
        return number

    def leave(self, number: int) -> None:
        """The connection is no longer open."""
        session = self._sessions.pop(number)
        self._past = self._past.with_one(session)

    def ring(self) -> None:
        """Let every connection look what has changed."""
        for session in self._sessions.values():
            session.ring()

    def message_statistics(self) -> GroupStatistics:
        """What clients have said, as if it were a group; the greatest numbers are those of one connection."""
        talk = self._talk()
        return GroupStatistics(
            requests=talk.messages,
            accepted=talk.messages - talk.refused,
            refused=talk.refused,
            banned=0,
            greatest_per_second=talk.greatest_per_second,
            greatest_accepted_per_second=talk.greatest_accepted_per_second,
        )

    def statistics(self) -> StreamStatistics:
        talk = self._talk()
        codes: dict[str, set[str]] = {}
        for session in self._sessions.values():
            for wanted in session.wanted:
                codes.setdefault(wanted.type, set()).update(wanted.codes)
        return StreamStatistics(
            connections={"open": len(self._sessions), "total": self._total},
            subscribes=talk.subscribes,
            greatest_subscribes=talk.greatest_subscribes,
            greatest_per_minute=talk.greatest_per_minute,
            frames=dict(self.frames),
            codes={type: sorted(names) for type, names in sorted(codes.items())},
            flood=self.flood.statistics(),
        )

    def reset(self) -> None:
        """Forget every count and every window; connections and a flood go on."""
        self._past = _Talk()
        self._total = len(self._sessions)
        self.frames.clear()
        self.flood.forget()
        for session in self._sessions.values():
            session.forget()

    def _talk(self) -> _Talk:
        talk = self._past
        for session in self._sessions.values():
            talk = talk.with_one(session)
        return talk


@attrs.frozen
class _Talk:
    """What was said on several connections."""

    messages: int = 0
    refused: int = 0
    subscribes: int = 0
    greatest_subscribes: int = 0
    greatest_per_second: int = 0
    greatest_accepted_per_second: int = 0
    greatest_per_minute: int = 0

    def with_one(self, session: Session) -> _Talk:
        count = session.messages.count()
        return _Talk(
            messages=self.messages + count.messages,
            refused=self.refused + count.refused,
            subscribes=self.subscribes + session.subscribes,
            greatest_subscribes=max(self.greatest_subscribes, session.subscribes),
            greatest_per_second=max(self.greatest_per_second, count.greatest_per_second),
            greatest_accepted_per_second=max(self.greatest_accepted_per_second, count.greatest_accepted_per_second),
            greatest_per_minute=max(self.greatest_per_minute, count.greatest_per_minute),
        )
