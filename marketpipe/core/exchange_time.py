"""What time it is at the exchange, without trusting the clock on our wall.

**The estimate is a lower bound.** Whatever carries a stamp was stamped before it came: the exchange's clock shows at
least the stamp, plus what has passed here since. The best of the last minute's stamps is the estimate, and it is behind
by no more than the shortest way that one of them took.

**The error.** An answer of REST was stamped (``Date``, in whole seconds) after it was asked for, so its stamp plus one
second, plus what has passed since the *question*, is an upper bound. The least of the last minute's, less the estimate,
is how far the estimate can be behind.

**One stamp from the future is not believed.** A stamp is believed at once if it is at most 5 s ahead of the estimate.
What is further ahead is a claim, and the first stamp of all is one too:

1. While nothing is believed, two stamps within 5 s of each other confirm each other.
2. Against an estimate, a claim needs three stamps over 3 s, and in that time not a single one within 5 s of the
   estimate: a faulty sender among sound ones is not believed however long it insists. Then the least of
   the claims is believed, and what comes later by the rules above.

A clock that was set back is noticed when the stamps from before are forgotten, about a minute later. Until then, and
forever if it was set back by up to 5 s, the estimate stands still rather than go backwards.

**For what cannot be undone there is `SureTime`.** A clock that all of the exchange follows may be wrong for a while,
and every estimate with it; a bar that is taken for over because of it would be closed to the frames that follow.
`SureTime` is the least of all that was believed within ten minutes. Who acts on it is late after the exchange's clock
was set forward, and never early. Silence makes nobody forget: of the minutes in which something was heard, the last
three count however long ago they were.

**Where only REST is asked there is `AnsweredTime`**: the two of them together, from the very first answer on.

``now_s`` is a monotonic clock's reading in seconds and must not go backwards between calls.
"""

from __future__ import annotations

from collections import deque

import attrs

__all__ = ["AnsweredTime", "ExchangeTime", "SureTime"]

BUCKET_S = 5
BUCKETS = 12  # together the minute after which a stamp is forgotten
KEPT_S = BUCKET_S * BUCKETS
STEP_US = 5_000_000  # further from the estimate is another time, not a shorter way
CLAIMS = 3
CLAIM_S = 3.0
CANDIDATES = 16
SURE_MINUTES = 10
HEARD_MINUTES = 3
AGREED_MS = 2_000  # so far apart an estimate and the sure time are by cut off seconds and slow answers alone
DATE_US = 1_000_000  # Date is in whole seconds, cut off


@attrs.define(eq=False)
class _Best:
    """The greatest number of the last minute or a little more, in buckets of 5 s."""

    value: int | None = None
    last_s: float = 0.0
    _buckets: deque[tuple[int, int]] = attrs.field(factory=deque, init=False)

    def add(self, value: int, now_s: float) -> int:
        """One more; those that are older than a minute are forgotten. Returns the greatest."""
        self.last_s = now_s
        buckets, number = self._buckets, int(now_s // BUCKET_S)
        if self.value is not None and buckets[-1][0] == number:
            if value <= buckets[-1][1]:
                return self.value
            buckets.pop()
        buckets.append((number, value))
        while buckets[0][0] < number - BUCKETS:
            buckets.popleft()
        self.value = max(value for _, value in buckets)
        return self.value

    def is_over(self, now_s: float) -> bool:
        """Whether nothing was added for a minute."""
        return now_s - self.last_s > KEPT_S


@attrs.define(eq=False)
class ExchangeTime:
    """The exchange's clock, as its stamps show it."""

    # All of these are microseconds of the exchange's clock less those of ours, but for the floor.
    _earliest: _Best = attrs.field(init=False, factory=_Best)
    _latest: _Best = attrs.field(init=False, factory=_Best)  # negated: the best is the least
    _floor_us: int = attrs.field(init=False, default=0)  # what was said before the estimate had to be lowered
    _candidates: deque[tuple[int, float]] = attrs.field(init=False, factory=lambda: deque(maxlen=CANDIDATES))
    _claims: int = attrs.field(init=False, default=0)
    _claimed_us: int = attrs.field(init=False, default=0)
    _claimed_s: float = attrs.field(init=False, default=0.0)

    def observe(self, stamp_ms: int, now_s: float) -> None:
        """Something came at ``now_s`` that the exchange had stamped with ``stamp_ms``."""
        offset_us = stamp_ms * 1000 - _us(now_s)
        if self._earliest.value is None or self._earliest.is_over(now_s):
            self._begin(offset_us, now_s)
            return
        ahead_us = offset_us - self._earliest.value
        if ahead_us > STEP_US:
            self._claim(offset_us, now_s)
            return
        if ahead_us >= -STEP_US:
            self._claims = 0
        self._believe(offset_us, now_s)

    def observe_answer(self, date_ms: int, asked_s: float, now_s: float) -> None:
        """An answer of REST came at ``now_s`` to what was asked at ``asked_s``; ``date_ms`` is its ``Date``."""
        self.observe(date_ms, now_s)
        self._latest.add(_us(asked_s) - date_ms * 1000 - DATE_US, now_s)

    def now_ms(self, now_s: float) -> int | None:
        """The exchange's time, or earlier, if ``now_s`` is now. None: nothing that can be believed for a minute."""
        if self._earliest.value is None or self._earliest.is_over(now_s):
            return None
        return max(self._earliest.value + _us(now_s), self._floor_us) // 1000

    def error_ms(self, now_s: float) -> int | None:
        """How far `now_ms` can be behind the exchange's clock, in milliseconds; never too little, if stamps are true.

        None: no answer of REST within a minute, or the clock was set, so that the bounds contradict each other.
        """
        now_ms, latest_us = self.now_ms(now_s), self._latest.value
        if now_ms is None or latest_us is None or self._latest.is_over(now_s):
            return None
        error_us = _us(now_s) - latest_us - now_ms * 1000
        return -(-error_us // 1000) if error_us >= 0 else None

    def _begin(self, offset_us: int, now_s: float) -> None:
        near_us = [
            other_us
            for other_us, came_s in self._candidates
            if abs(offset_us - other_us) <= STEP_US and now_s - came_s <= KEPT_S
        ]
        self._candidates.append((offset_us, now_s))
        if near_us:
            self._claims = 0
            self._believe(max(offset_us, *near_us), now_s)

    def _claim(self, offset_us: int, now_s: float) -> None:
        if not self._claims:
            self._claimed_us, self._claimed_s = offset_us, now_s
        self._claims += 1
        self._claimed_us = min(self._claimed_us, offset_us)
        if self._claims >= CLAIMS and now_s - self._claimed_s >= CLAIM_S:
            self._claims = 0
            self._believe(self._claimed_us, now_s)

    def _believe(self, offset_us: int, now_s: float) -> None:
        before_us = self._earliest.value
        after_us = self._earliest.add(offset_us, now_s)
        if before_us is not None and after_us < before_us:
            now_us = _us(now_s)
            said_us = max(before_us + now_us, self._floor_us)
            self._floor_us = said_us if said_us - now_us - after_us <= STEP_US else 0


@attrs.define(eq=False)
class SureTime:
    """The earliest time at the exchange that anything believed within the last ten minutes allows."""

    _least_us: dict[int, int] = attrs.field(init=False, factory=dict)  # by minute: exchange time less monotonic time

    def observe(self, believed_ms: int, now_s: float) -> None:
        """It is believed to be ``believed_ms`` at the exchange."""
        minute, offset_us = int(now_s // 60), believed_ms * 1000 - _us(now_s)
        least_us = self._least_us.get(minute)
        if least_us is None:
            heard = sorted(self._least_us)[1 - HEARD_MINUTES :]
            self._least_us = {m: us for m, us in self._least_us.items() if m > minute - SURE_MINUTES or m in heard}
        if least_us is None or offset_us < least_us:
            self._least_us[minute] = offset_us

    def now_ms(self, at_s: float) -> int:
        """What time it was at ``at_s``, at the very least. Something must have been observed."""
        return (min(self._least_us.values()) + _us(at_s)) // 1000


@attrs.define(eq=False)
class AnsweredTime:
    """The exchange's clock, as the answers of REST alone tell it; neither one answer nor our own clock can move it.

    It is what `ExchangeTime` estimates, unless `SureTime` contradicts that: then it is the sure time, rather too early
    than too late. Before two answers agree, the earliest counts.
    """

    _time: ExchangeTime = attrs.field(init=False, factory=ExchangeTime)
    _sure: SureTime = attrs.field(init=False, factory=SureTime)
    _is_known: bool = attrs.field(init=False, default=False)

    def answered(self, date_ms: int | None, asked_s: float, now_s: float) -> int | None:
        """An answer came at ``now_s`` to what was asked at ``asked_s``; ``date_ms`` is its ``Date``, if it had one.

        Returns what time it was when the exchange gave it, at the least: not later than it says itself, and not later
        than the others allow. None if nothing is known.
        """
        if date_ms is None:
            now_ms = self.now_ms(now_s)
            return None if now_ms is None else now_ms - round((now_s - asked_s) * 1000)
        self._time.observe_answer(date_ms, asked_s, now_s)
        believed_ms = self._time.now_ms(now_s)
        self._sure.observe(date_ms if believed_ms is None else believed_ms, now_s)
        self._is_known = True
        return min(date_ms, self._now_ms(now_s))

    def now_ms(self, now_s: float) -> int | None:
        """The exchange's time, or earlier, if ``now_s`` is now. None if it was never told."""
        return self._now_ms(now_s) if self._is_known else None

    def _now_ms(self, now_s: float) -> int:
        sure_ms, believed_ms = self._sure.now_ms(now_s), self._time.now_ms(now_s)
        agrees = believed_ms is not None and believed_ms - sure_ms <= AGREED_MS
        return believed_ms if believed_ms is not None and agrees else sure_ms


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
