"""When silence is suspicious: a connection that says nothing may have nothing to say, or may have stopped.

The exchange sends no heartbeat (docs.upbit.com/kr reference/websocket-guide, 2026-10-06), answers pings while its
streams stand still, and is rightly silent where nobody trades. Silence alone therefore proves nothing. A `Vigil` says
when to check, and `is_stalled` what the check has found.

**A stopped stream is known to be stopped within 5 seconds**, with ``silence_s`` = 2.0:

- *The whole connection* is suspected ``silence_s`` after its last frame, or after the first subscription. A
  subscription that has just been sent earns half of that more, once; so after 2.0 s, 3.0 s at the most. A check ends
  with a pong that is missing for 1.5 s, or earlier with an answer of REST: 4.5 s.
- *A busy topic* on a connection that flows otherwise is suspected after 2.0 to 4.0 s. Only REST can tell: the check has
  1.0 s, which leaves 5.0 s.
- *After a check that found nothing* the next one is due ``silence_s`` after that one was asked. What the stream had
  withheld for less than the slack of 1.0 s counted for nothing then, and is 3.0 s old now: again at most 5.0 s if the
  check takes no more than 2.0.

**Busy** is what had a frame every 1.2 s or more often, so that 4 s without any would be rare. Frames come in bunches
(an order that takes several others is several trades): what follows a counted frame within 0.2 s belongs to its bunch,
and the mean is taken over the intervals between bunches. Without that, a market that trades five times at once every
two seconds cries wolf ten times a minute. Where a check finds that a suspect was really silent, the silence enters the
mean, and the topic is slower to be believed busy again, up to eight times. That keeps a market between the two kinds to
less than a false alarm a minute, and one with a trade every second, at random, to one in three or four minutes.

``now_s`` is a monotonic clock's reading in seconds and must not go backwards between calls.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic

__all__ = ["Suspicion", "Vigil", "is_stalled"]

BUNCH_S = 0.2  # frames this close are one arrival
BUSY_S = 1.2  # the longest mean interval of a busy topic
LEARNED = 8  # intervals before a topic can be called busy, and the reciprocal of the mean's smoothing factor
PATIENCE = 8  # mean intervals that a busy topic may be silent
DOUBT = 8.0  # the most that false alarms slow down the way back to being busy
FORGIVEN = 255 / 256  # what is left of that after each interval


@attrs.frozen
class Suspicion:
    """What should be checked now.

    ``topics``: those that are silent; all of the connection if it is silent as a whole (``whole``). ``silent_s``: for
    how long, the longest of them. ``words``: the same for people.
    """

    topics: frozenset[Topic]
    whole: bool
    silent_s: float
    words: str


@attrs.define(eq=False)
class _Watch:
    """One topic: when it was heard, and how often that usually happens."""

    owing_s: float  # since when a snapshot is owed
    heard_s: float = -math.inf
    counted_s: float = -math.inf  # the first frame of the latest bunch
    excused_s: float = -math.inf  # when a check was asked that found nothing
    intervals: int = 0
    mean_s: float = math.inf
    doubt: float = 1.0

    def count(self, now_s: float) -> bool:
        """A frame that begins a bunch; true if it is the first of all."""
        interval_s, self.counted_s = now_s - self.counted_s, now_s
        if interval_s == math.inf:
            return True
        self.intervals += 1
        if self.intervals == 1:
            self.mean_s = interval_s
        else:
            share = 1 / min(self.intervals, LEARNED)
            self.mean_s += (interval_s - self.mean_s) * (share if interval_s > self.mean_s else share / self.doubt)
        self.doubt = max(1.0, self.doubt * FORGIVEN)
        return False

    def excuse(self, now_s: float, silence_s: float, snapshot_s: float) -> None:
        """A check, asked at ``now_s``, has found that there was nothing to say."""
        if self.due_s(silence_s) <= now_s:
            self.mean_s += (now_s - self.heard_s - self.mean_s) / LEARNED
            self.doubt = min(DOUBT, 2 * self.doubt)
        if self.owes_from_s(snapshot_s) <= now_s:
            self.owing_s = now_s
        self.excused_s = now_s

    def due_s(self, silence_s: float) -> float:
        """When its silence becomes suspicious by itself."""
        if self.intervals < LEARNED or self.mean_s > BUSY_S:
            return math.inf
        patience_s = min(max(PATIENCE * self.mean_s, silence_s), 2 * silence_s)
        return max(self.heard_s + patience_s, self.excused_s + silence_s)

    def owes_from_s(self, snapshot_s: float) -> float:
        """When its snapshot is overdue."""
        return self.owing_s + snapshot_s if self.heard_s == -math.inf else math.inf


def _above_zero(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, was {value!r}")


@attrs.define(eq=False)
class Vigil:
    """The watch over one connection. What it has learned of a topic's pace is forgotten with the topic.

    ``silence_s``: how long the connection, or a very busy topic, may be silent. ``snapshot_s``: how long the first
    frame of a topic may take.
    """

    _silence_s: float = attrs.field(alias="silence_s", default=2.0, kw_only=True, validator=_above_zero)
    _snapshot_s: float = attrs.field(alias="snapshot_s", default=5.0, kw_only=True, validator=_above_zero)
    _watches: dict[Topic, _Watch] = attrs.field(init=False, factory=dict)
    _heard_s: float = attrs.field(init=False, default=-math.inf)
    _excused_s: float = attrs.field(init=False, default=-math.inf)
    _asked_s: float = attrs.field(init=False, default=-math.inf)  # a subscription that earned more time

    def subscribed(self, topics: Collection[Topic], now_s: float) -> None:
        """``topics`` were just subscribed, in place of all before.

        New ones owe a snapshot; those gone are forgotten.
        """
        new = [topic for topic in topics if topic not in self._watches]
        if not self._watches:
            self._heard_s = now_s  # from here on silence counts, also if there never is a frame
        elif new and now_s < self._due_s() and self._asked_s <= max(self._heard_s, self._excused_s):
            self._asked_s = now_s  # once: a program that subscribes every second must not hide a stall
        kept = frozenset(topics)
        self._watches = {topic: watch for topic, watch in self._watches.items() if topic in kept}
        for topic in new:
            self._watches[topic] = _Watch(now_s)

    def seen(self, topic: tuple[Line, str, Timeframe | None], now_s: float) -> bool:
        """A frame of ``topic`` (a `Topic`, or the plain tuple that equals it); true if it is its first.

        A frame of a topic that is not subscribed, or no longer, shows that the connection lives, and nothing else.
        """
        self._heard_s = now_s
        watch = self._watches.get(topic)  # type: ignore[call-overload]  # equal and of equal hash
        if watch is None:
            return False
        watch.heard_s = now_s
        if now_s - watch.counted_s < BUNCH_S:
            return False
        return bool(watch.count(now_s))

    def sign_of_life(self, now_s: float) -> None:
        """A frame that belongs to no topic."""
        self._heard_s = now_s

    def suspicion(self, now_s: float) -> Suspicion | None:
        """What should be checked now, if anything: the whole connection, or else the busy topics that fell silent."""
        if self._watches and self._due_s() <= now_s:
            silent_s = now_s - self._heard_s
            return Suspicion(frozenset(self._watches), True, silent_s, f"no frame for {silent_s:.1f} s")
        silent = [topic for topic, watch in self._watches.items() if watch.due_s(self._silence_s) <= now_s]
        if not silent:
            return None
        longest = min(silent, key=lambda topic: self._watches[topic].heard_s)
        silent_s = now_s - self._watches[longest].heard_s
        return Suspicion(
            frozenset(silent), False, silent_s, f"no frame of {_names(longest, silent)} for {silent_s:.1f} s"
        )

    def next_look_s(self, now_s: float) -> float:
        """When `suspicion` or `without_snapshot` should be asked again, if it was asked at ``now_s``.

        Never too late, whatever frames come until then; ``math.inf`` while nothing is subscribed.
        """
        if not self._watches:
            return math.inf
        # A topic that becomes busy in the meantime cannot become suspicious within the next silence_s.
        next_s = now_s + self._silence_s
        for due_s in (self._due_s(), *self._dues_s()):
            if now_s < due_s < next_s:
                next_s = due_s
        return next_s

    def cleared(self, topics: Collection[Topic], now_s: float) -> None:
        """A check, *asked* at ``now_s``, has found that ``topics`` had really nothing to say.

        They are not suspicious again before ``silence_s`` later; so is the connection, if these are all of its topics.
        Those whose snapshot was overdue have another ``snapshot_s`` for it.
        """
        cleared = frozenset(topics)
        for topic in cleared & self._watches.keys():
            self._watches[topic].excuse(now_s, self._silence_s, self._snapshot_s)
        if self._watches.keys() <= cleared:
            self._excused_s = now_s

    def without_snapshot(self, now_s: float) -> frozenset[Topic]:
        """The topics that were subscribed ``snapshot_s`` ago, or earlier, and had no frame yet.

        The exchange ignores codes it does not know without a word (reference/websocket-guide, 2026-10-06).
        """
        return frozenset(
            topic for topic, watch in self._watches.items() if watch.owes_from_s(self._snapshot_s) <= now_s
        )

    def _due_s(self) -> float:
        # When the whole connection becomes suspicious.
        silence_s = self._silence_s
        return max(self._heard_s + silence_s, self._excused_s + silence_s, self._asked_s + silence_s / 2)

    def _dues_s(self) -> list[float]:
        # A topic that still owes its snapshot is not known to be busy: one of the two is infinite.
        silence_s, snapshot_s = self._silence_s, self._snapshot_s
        return [min(watch.due_s(silence_s), watch.owes_from_s(snapshot_s)) for watch in self._watches.values()]


def _names(longest: Topic, silent: list[Topic]) -> str:
    name = longest.market if longest.timeframe is None else str(longest)
    return f"{name} and {len(silent) - 1} more" if len(silent) > 1 else name


def is_stalled(shown_ms: int | None, probed_ms: int, asked_ms: int, *, slack_ms: int = 1000) -> bool:
    """Whether a topic's stream has stopped: REST knows something newer that the stream should have shown by now.

    ``shown_ms``: the newest stamp the stream has shown of the topic (None: nothing yet). Read it when the answer is
    there: a frame that came meanwhile counts. ``probed_ms``: the stamp of the same kind in the answer of REST.
    ``asked_ms``: the exchange's time when REST was asked, rather too early than too late. ``slack_ms``: how long a
    frame may take; what happened less than that before the question proves nothing.
    """
    return (shown_ms is None or probed_ms > shown_ms) and probed_ms <= asked_ms - slack_ms
