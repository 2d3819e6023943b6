"""Who wants which stream: the union of those who hold a lease and of what is read often.

A stream consumer holds a `Lease`, and leases are counted per topic. A value that is asked for again and again becomes
*hot* and is wanted too, without anybody saying so; its heat ends some time after the last read. A topic is wanted while
it is leased or hot, and whoever owns the connections hears of each line whose union has changed, once per change.

``now_s`` is a monotonic clock's reading in seconds and must not go backwards between calls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from marketpipe.core.topics import Line, Topic

__all__ = ["Demand", "Lease"]


@attrs.frozen(eq=False)
class Lease:
    """One consumer's claim on ``topics``; a token that is given back to whoever gave it."""

    topics: frozenset[Topic]


def _above_zero(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, was {value!r}")


@attrs.define(eq=False)
class Demand:
    """The union of demands, by line.

    ``changed`` is called with each line whose union changed, after the change. ``heat_reads`` reads of a topic within
    ``heat_s`` make it hot; ``idle_s`` after its last read it is so no longer.
    """

    _changed: Callable[[Line], None]
    _heat_reads: int = attrs.field(alias="heat_reads", default=3, kw_only=True, validator=_above_zero)
    _heat_s: float = attrs.field(alias="heat_s", default=10.0, kw_only=True, validator=_above_zero)
    _idle_s: float = attrs.field(alias="idle_s", default=180.0, kw_only=True, validator=_above_zero)
    _open: set[Lease] = attrs.field(init=False, factory=set)
    _leases: dict[Topic, int] = attrs.field(init=False, factory=dict)
    _last_read_s: dict[Topic, float] = attrs.field(init=False, factory=dict)  # of hot topics
    _oldest_read_s: float = attrs.field(init=False, default=math.inf)  # no last read of a hot topic is older
    _reads: dict[Topic, deque[float]] = attrs.field(
        init=False, factory=dict
    )  # of those not hot, oldest last read first
    _union: dict[Line, set[Topic]] = attrs.field(init=False, factory=lambda: {line: set() for line in Line})
    _shown: dict[Line, frozenset[Topic]] = attrs.field(init=False, factory=dict)
    _news: dict[Line, set[Topic]] = attrs.field(init=False, factory=lambda: {line: set() for line in Line})

    def lease(self, topics: Iterable[Topic]) -> Lease:
        """Want ``topics`` until the lease is released. Duplicates are one."""
        lease = Lease(frozenset(topics))
        self._open.add(lease)
        for topic in lease.topics:
            self._leases[topic] = self._leases.get(topic, 0) + 1
        self._reconsider(lease.topics)
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease. To end it again is harmless."""
        if lease not in self._open:
            return
        self._open.remove(lease)
        for topic in lease.topics:
            if self._leases[topic] == 1:
                del self._leases[topic]
            else:
                self._leases[topic] -= 1
        self._reconsider(lease.topics)

    def read(self, topic: Topic, now_s: float) -> None:
        """Somebody read a value of ``topic``. What is hot stays so; what is read often enough becomes hot."""
        last_read_s = self._last_read_s
        if topic in last_read_s:  # nothing more: an answer from memory costs microseconds in all
            last_read_s[topic] = now_s
            return
        reads = self._reads.pop(topic, None)
        if reads is None:
            reads = deque(maxlen=self._heat_reads)
        reads.append(now_s)
        if len(reads) == self._heat_reads and now_s - reads[0] <= self._heat_s:
            last_read_s[topic] = now_s
            self._oldest_read_s = min(self._oldest_read_s, now_s)
            self._reconsider((topic,))
        else:
            self._reads[topic] = reads  # at the end: the order of this dict is that of the last reads
        self._forget_reads(now_s)

    def expire(self, now_s: float) -> None:
        """Let those cool down whose last read is ``idle_s`` or more ago. What is leased stays wanted."""
        self._forget_reads(now_s)
        if self.next_expiry_s() > now_s:
            return
        idle = [topic for topic, read_s in self._last_read_s.items() if read_s + self._idle_s <= now_s]
        self._cool(idle)
        self._oldest_read_s = min(self._last_read_s.values(), default=math.inf)
        self._reconsider(idle)

    def next_expiry_s(self) -> float:
        """When `expire` may have something to do: never too late, perhaps too early. ``math.inf``: nothing is hot."""
        return self._oldest_read_s + self._idle_s

    def drop(self, topics: Iterable[Topic]) -> None:
        """Forget what was read of ``topics``, which turned out not to exist. Leases stay with those who hold them."""
        topics = tuple(topics)
        for topic in topics:
            self._reads.pop(topic, None)
        self._cool(topics)
        if not self._last_read_s:
            self._oldest_read_s = math.inf
        self._reconsider(topics)

    def wanted(self, line: Line) -> frozenset[Topic]:
        """What is wanted on ``line``; the same object until it changes."""
        shown = self._shown.get(line)
        if shown is None:
            shown = self._shown[line] = frozenset(self._union[line])
        return shown

    def leases(self, topic: Topic) -> int:
        """How many leases hold ``topic``."""
        return self._leases.get(topic, 0)

    def is_hot(self, topic: Topic) -> bool:
        """Whether ``topic`` is wanted for being read often."""
        return topic in self._last_read_s

    def news(self, line: Line) -> set[Topic]:
        """The topics of ``line`` whose leases or heat may have changed since the last call."""
        news, self._news[line] = self._news[line], set()
        return news

    def _cool(self, topics: Iterable[Topic]) -> None:
        for topic in topics:
            self._last_read_s.pop(topic, None)

    def _forget_reads(self, now_s: float) -> None:
        # Each read puts at most one entry here, so that forgetting costs no more than reading did; and what stays are
        # the topics of one heat_s, however many there ever were.
        reads = self._reads
        while reads:
            topic = next(iter(reads))
            if now_s - reads[topic][-1] <= self._heat_s:
                return
            del reads[topic]

    def _reconsider(self, topics: Iterable[Topic]) -> None:
        changed: dict[Line, None] = {}
        for topic in topics:
            self._news[topic.line].add(topic)
            union = self._union[topic.line]
            if (topic in self._leases or topic in self._last_read_s) != (topic in union):
                union ^= {topic}
                changed[topic.line] = None
        for line in changed:
            self._shown.pop(line, None)
        for line in changed:
            self._changed(line)
