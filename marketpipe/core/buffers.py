"""What waits for one subscriber, and what happens when it does not keep up: one buffer for each policy.

============== ================================================ ================================================
policy         a consumer that is behind                        what it is told
============== ================================================ ================================================
`conflate`     gets the newest value of each market             nothing: it asked for the newest
`cut-off`      gets everything up to the first that did not fit `SubscriberLagged`, after what was queued
`drop-oldest`  gets the newest ``depth`` values                 a `Gap` for each market, where the loss happened
============== ================================================ ================================================

Received = delivered + conflated + dropped + queued, at every moment.

``depth`` bounds what the consumer's slowness lets pile up, and nothing else. What the pipeline owes it stands *aside*:
the values it starts with, gaps, and the repairs that follow them. Who keeps up with the market would otherwise be cut
off by the very repair of a hole. What stands aside has a bound of its own, `ASIDE`, for a consumer that never reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import attrs

from marketpipe.errors import SubscriberLagged
from marketpipe.models import Candle, CandleState, Gap

__all__ = ["ASIDE", "POLICIES", "Buffer", "Policy", "SubscriptionStatistics", "check_buffer", "open_buffer"]

Policy = Literal["conflate", "cut-off", "drop-oldest"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

# Events that may stand aside unread: the two gaps that 240 markets are told at a reconnect, twenty times over.
ASIDE = 10_000


@attrs.frozen
class SubscriptionStatistics:
    """What became of the values of one subscription; ``received = delivered + conflated + dropped + queued``.

    ``conflated``: replaced by a newer value of the same key before they were read. ``dropped``: lost. ``gaps``: losses
    that were told in band; these `Gap` events were made here, not received, and are in none of the other counts.
    """

    received: int = 0
    delivered: int = 0
    conflated: int = 0
    dropped: int = 0
    queued: int = 0
    gaps: int = 0


def check_buffer(policy: object, depth: object) -> None:
    """Refuse what `open_buffer` could not do: `ValueError`, or `TypeError` for a depth that is no whole number."""
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, was {policy!r}")
    if not isinstance(depth, int) or isinstance(depth, bool):
        raise TypeError(f"depth must be a whole number of at least 1, was {depth!r}")
    if depth < 1:
        raise ValueError(f"depth must be a whole number of at least 1, was {depth!r}")


def open_buffer(policy: Policy, depth: int, first: Sequence[Any] = (), *, aside: int = ASIDE) -> Buffer:
    """A buffer by its policy, which begins with ``first``. ``aside`` bounds what stands aside.

    Raises as `check_buffer` does.
    """
    check_buffer(policy, depth)
    buffer = _KINDS[policy](depth=depth, aside_bound=aside)
    buffer.begin(first)
    return buffer


@attrs.define(eq=False, kw_only=True)
class Buffer(ABC):
    """What waits for one subscriber. Its length is what `take` can be called for, one after the other."""

    depth: int
    aside_bound: int
    _received: int = attrs.field(default=0, init=False)
    _delivered: int = attrs.field(default=0, init=False)
    _conflated: int = attrs.field(default=0, init=False)
    _dropped: int = attrs.field(default=0, init=False)
    _gaps: int = attrs.field(default=0, init=False)
    _cut: tuple[Any, str] | None = attrs.field(default=None, init=False)

    @abstractmethod
    def offer(self, values: Sequence[Any]) -> None:
        """Queue live values: `Ticker`, `Orderbook`, `Trade` or `Candle`, in order, by the policy."""

    def begin(self, first: Sequence[Any]) -> None:
        """Queue what the consumer starts with, outside of every bound and whatever the policy."""
        self.aside_bound += len(first)
        self.tell(first)

    @abstractmethod
    def tell(self, events: Sequence[Any]) -> None:
        """Queue what the pipeline owes, in order with the values: gaps, and values that repair them.

        It stands aside of ``depth``. Only `drop-oldest` counts the values against it: it is asked to keep the newest.
        """

    @abstractmethod
    def take(self) -> Any:
        """The next value or event; `IndexError` if none waits."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _queued(self) -> int: ...

    @property
    def is_cut(self) -> bool:
        """Whether nothing more will be queued."""
        return self._cut is not None

    def lagged(self) -> SubscriberLagged | None:
        """What to raise after all that is queued, if this subscriber was cut off; an error of its own at each call."""
        if self._cut is None:
            return None
        lost, bound = self._cut
        since_ms, _ = _span_ms(lost)
        since = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return SubscriberLagged(
            f"cut off: {_counted(self._dropped)} lost so far, the first of {lost.market} at {since} (exchange_ms "
            f"{since_ms}), because the consumer was behind by {bound}; read faster, or subscribe with a larger depth "
            'or with policy="drop-oldest"'
        )

    def statistics(self) -> SubscriptionStatistics:
        """The counts of this moment."""
        return SubscriptionStatistics(
            received=self._received,
            delivered=self._delivered,
            conflated=self._conflated,
            dropped=self._dropped,
            queued=self._queued(),
            gaps=self._gaps,
        )

    def _cut_off(self, lost: Sequence[Any], bound: str) -> None:
        """``lost`` does not fit, and nothing after it will be queued."""
        if self._cut is None and lost:
            self._cut = (lost[0], bound)
        self._dropped += len(lost)


_DEPTH = "more than its depth of {}"
_EVENTS = "{} unread gaps and repairs"


@attrs.define(eq=False, kw_only=True)
class _Conflate(Buffer):
    """The newest value of each key, at the place of the first of them that is still unread.

    The key is the market, and for candles also the bar: updates of a RUNNING bar replace each other, and are replaced
    by its FINAL; a FINAL that waits is replaced by nothing, so that each FINAL and each revision of it is delivered.
    A gap parts what was before it from what comes after: a value does not overtake the gap of its market by taking the
    place of one before it.

    There are only so many markets, so tickers, order books and trades need no bound. There are endlessly many bars:
    when ``depth`` of them wait, a further one cuts off.
    """

    _order: deque[Any] = attrs.field(factory=deque, init=False)  # keys; whatever nothing may replace has a number
    _pending: dict[Any, Any] = attrs.field(factory=dict, init=False)
    _aside: set[Any] = attrs.field(factory=set, init=False)  # keys of gaps, and of bars outside of depth
    _parts: dict[str, int] = attrs.field(factory=dict, init=False)  # by market: the last gap's number
    _numbers: int = attrs.field(default=0, init=False)
    _bars: int = attrs.field(default=0, init=False)  # that wait and count against depth

    def offer(self, values: Sequence[Any]) -> None:
        self._received += len(values)
        pending, part_of = self._pending, self._parts.get
        for at, value in enumerate(values):
            if self._cut is not None:
                return self._cut_off(values[at:], "")
            kind, market = value.__class__, value.market
            if kind is Candle:
                self._offer_bar(value)
                continue
            key = (kind, market, part_of(market))
            if key in pending:
                self._conflated += 1
            else:
                self._order.append(key)
            pending[key] = value
        return None

    def tell(self, events: Sequence[Any]) -> None:
        if len(self._aside) >= self.aside_bound or self._cut is not None:
            self._received += len(events)
            return self._cut_off(events, _EVENTS.format(self.aside_bound))
        for event in events:
            if isinstance(event, Gap):
                self._received += 1
                number = self._parts[event.market] = self._number()
                self._queue(number, event, aside=True)
            elif isinstance(event, Candle):
                self._received += 1
                self._offer_bar(event, aside=True)
            else:
                self.offer((event,))
        return None

    def take(self) -> Any:
        key = self._order.popleft()
        value = self._pending.pop(key)
        if key in self._aside:
            self._aside.remove(key)
        elif value.__class__ is Candle:
            self._bars -= 1
        self._delivered += 1
        return value

    def __len__(self) -> int:
        return len(self._order)

    def _queued(self) -> int:
        return len(self._pending)

    def _offer_bar(self, bar: Candle, *, aside: bool = False) -> None:
        key: Any = (bar.market, bar.timeframe, bar.open_ms, self._parts.get(bar.market))
        held = self._pending.get(key)
        if held is not None and held.state is CandleState.RUNNING:
            self._pending[key] = bar
            self._conflated += 1
            return
        if not aside and self._bars >= self.depth:
            self._cut_off((bar,), _DEPTH.format(self.depth))
            return
        self._queue(key if held is None else self._number(), bar, aside=aside)

    def _queue(self, key: Any, value: Any, *, aside: bool) -> None:
        self._order.append(key)
        self._pending[key] = value
        if aside:
            self._aside.add(key)
        else:
            self._bars += 1

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


@attrs.define(eq=False, kw_only=True)
class _InOrder(Buffer):
    """Values in the order they came, and beside them what stands aside, each with the number of values before it."""

    _values: deque[Any] = attrs.field(factory=deque, init=False)
    _aside: deque[tuple[int, Any]] = attrs.field(factory=deque, init=False)
    _gone: int = attrs.field(default=0, init=False)  # values that are no longer in _values

    def take(self) -> Any:
        if self._aside and self._aside[0][0] <= self._gone:
            value = self._aside.popleft()[1]
        else:
            value = self._values.popleft()
            self._gone += 1
        self._delivered += 1
        return value

    def __len__(self) -> int:
        return len(self._values) + len(self._aside)

    def _queued(self) -> int:
        return len(self._values) + len(self._aside)

    def _put_aside(self, event: Any) -> None:
        self._aside.append((self._gone + len(self._values), event))


@attrs.define(eq=False, kw_only=True)
class _CutOff(_InOrder):
    """Everything, up to the first value that does not fit; whatever comes after it is only counted."""

    def offer(self, values: Sequence[Any]) -> None:
        self._received += len(values)
        room = 0 if self._cut is not None else self.depth - len(self._values)
        if len(values) <= room:
            self._values.extend(values)
        else:
            self._values.extend(values[:room])
            self._cut_off(values[room:], _DEPTH.format(self.depth))

    def tell(self, events: Sequence[Any]) -> None:
        self._received += len(events)
        if len(self._aside) >= self.aside_bound or self._cut is not None:
            self._cut_off(events, _EVENTS.format(self.aside_bound))
        else:
            for event in events:
                self._put_aside(event)


@attrs.define(eq=False)
class _Loss:
    """Values of one market that were dropped at one place."""

    start_ms: int
    end_ms: int
    count: int = 0

    def add(self, value: Any) -> None:
        start_ms, end_ms = _span_ms(value)
        self.start_ms, self.end_ms = min(self.start_ms, start_ms), max(self.end_ms, end_ms)
        self.count += 1

    def told(self, market: str) -> Gap:
        proof = f"{_counted(self.count)} dropped here"
        return Gap(market, self.start_ms, self.end_ms, cause="dropped: the consumer is behind", proof=proof)


@attrs.define(eq=False, kw_only=True)
class _DropOldest(_InOrder):
    """The newest ``depth`` values. Losses not yet told are merged by market and told where the first of them happened.

    Gaps stand aside and stay; only when `ASIDE` of them are unread the oldest goes, and is told like a value.
    """

    _losses: dict[str, _Loss] = attrs.field(factory=dict, init=False)
    _lost_at: float = attrs.field(default=0, init=False)  # values before the first loss that is not told yet

    def begin(self, first: Sequence[Any]) -> None:
        self.aside_bound += len(first)
        self._received += len(first)
        for event in first:
            self._put_aside(event)

    def offer(self, values: Sequence[Any]) -> None:
        self._received += len(values)
        self._values.extend(values)
        for _ in range(len(self._values) - self.depth):
            self._lose(self._values.popleft(), self._gone)
            self._gone += 1

    def tell(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, Gap):
                self._received += 1
                self._put_aside(event)
            else:
                self.offer((event,))
        while len(self._aside) > self.aside_bound:
            at, event = self._aside.popleft()
            self._lose(event, at - 0.5)  # told before those that stand at the same place

    def take(self) -> Any:
        if not self._losses or self._lost_at > self._gone or (self._aside and self._aside[0][0] <= self._lost_at):
            return super().take()
        market = next(iter(self._losses))
        self._gaps += 1
        return self._losses.pop(market).told(market)

    def __len__(self) -> int:
        return len(self._values) + len(self._aside) + len(self._losses)

    def _lose(self, value: Any, at: float) -> None:
        self._dropped += 1
        self._lost_at = min(self._lost_at, at) if self._losses else at
        loss = self._losses.get(value.market)
        if loss is None:
            loss = self._losses[value.market] = _Loss(*_span_ms(value))
        loss.add(value)


_KINDS: dict[Policy, type[Buffer]] = {"conflate": _Conflate, "cut-off": _CutOff, "drop-oldest": _DropOldest}


def _span_ms(value: Any) -> tuple[int, int]:
    """The exchange's time of a value, or the times a gap is about."""
    return (value.start_ms, value.end_ms) if isinstance(value, Gap) else (value.exchange_ms, value.exchange_ms)


def _counted(count: int) -> str:
    return "1 value was" if count == 1 else f"{count} values were"
