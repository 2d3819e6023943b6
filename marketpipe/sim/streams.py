"""What the exchange says to those who listen, and when: a pure function of the world and time.

Every connection hears the same messages at the same times, whenever it was opened. Codes that are unknown, delisted or
in lower case, and levels that a market has not, say nothing (seen 2026-09-23); a market that opens later is heard when
it opens. How subscriptions are asked for and refused is the protocol's business, not this module's.

::

    subscription = Streams(world).open([Wanted("ticker", ("KRW-BTC",))], now_ms)
    first = subscription.snapshots(now_ms)
    ...                                             # until subscription.due_ms()
    later = subscription.take(later_ms)
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation

import attrs

from marketpipe.sim.books import DEPTH
from marketpipe.sim.cadence import TradeTimes
from marketpipe.sim.feeds import CandleFeed, Feed, Message, OrderbookFeed, TickerFeed, TradeFeed
from marketpipe.sim.ticks import E8, group_levels
from marketpipe.sim.universe import SimMarket
from marketpipe.sim.world import World

__all__ = ["TYPES", "Message", "Streams", "Subscription", "Wanted"]

# reference/websocket-guide (2026-08-31), websocket-candle (2026-09-22).
TYPES = frozenset(
    ["ticker", "trade", "orderbook", "candle.1s", *(f"candle.{unit}m" for unit in (1, 3, 5, 10, 15, 30, 60, 240))]
)
# How many units an order book's code can ask for, as in KRW-BTC.15; any other number is 30 (since 2025-07-02).
UNITS = {"1": 1, "5": 5, "15": 15}


@attrs.frozen
class Wanted:
    """One type object of a subscribe request.

    ``codes`` of order books may have a suffix (``KRW-BTC.15``), and their ``level`` is a number of quote units.
    ``only_snapshot`` is without what follows, ``only_realtime`` without what comes first; both together is nothing.
    Raises ``ValueError`` if ``type`` is none of `TYPES`.
    """

    type: str = attrs.field(validator=attrs.validators.in_(TYPES))
    codes: tuple[str, ...]
    level: str = "0"
    only_snapshot: bool = False
    only_realtime: bool = False


class Subscription:
    """What one connection listens to. Time goes only forward: ``now_ms`` of a call is not before that of the last."""

    def __init__(self, first: Iterable[Feed], later: Iterable[Feed], now_ms: int) -> None:
        self._first = tuple(first)
        self._due = [(feed.next_ms(now_ms), place, feed) for place, feed in enumerate(later)]
        heapq.heapify(self._due)

    def snapshots(self, now_ms: int) -> list[Message]:
        """The state at ``now_ms``: a SNAPSHOT of every market and type that has something to show."""
        messages = (feed.snapshot(now_ms) for feed in self._first)
        return [message for message in messages if message is not None]

    def due_ms(self) -> int | None:
        """When the next REALTIME message is due: perhaps early, never late. None: never."""
        return self._due[0][0] if self._due else None

    def take(self, now_ms: int) -> list[Message]:
        """The REALTIME messages up to ``now_ms`` since the last take, or since the opening; oldest first."""
        due, messages = self._due, list[Message]()
        while due and due[0][0] <= now_ms:
            at_ms, place, feed = due[0]
            messages += feed.at(at_ms)
            heapq.heapreplace(due, (feed.next_ms(at_ms), place, feed))
        return messages


class Streams:
    """All streams of ``world``, shared by all connections.

    ``reordered`` is the share of trades that come up to 300 ms late, so that later ones overtake them; ``duplicated``
    the share that comes twice; both from 0 to 1, else ``ValueError``. In a ``region`` other than ``kr`` there is no
    time in Seoul and no grouping of order books.
    """

    def __init__(self, world: World, *, reordered: float = 0.0, duplicated: float = 0.0, region: str = "kr") -> None:
        for name, share in (("reordered", reordered), ("duplicated", duplicated)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, was {share!r}")
        self._world = world
        self._reordered = reordered
        self._duplicated = duplicated
        self._kr = region == "kr"
        self._codes = frozenset(world.markets)
        self._feeds: dict[tuple[str, str, int, int], Feed] = {}

    def open(self, wanted: Sequence[Wanted], now_ms: int) -> Subscription:
        """Listen to everything ``wanted``, to what happens after ``now_ms``; what is wanted twice is heard once."""
        first: dict[Feed, None] = {}
        later: dict[Feed, None] = {}
        for item in wanted:
            feeds = dict.fromkeys(self._feeds_of(item))
            if not item.only_realtime:
                first |= feeds
            if not item.only_snapshot:
                later |= feeds
        return Subscription(first, later, now_ms)

    def _feeds_of(self, wanted: Wanted) -> Iterator[Feed]:
        for asked in wanted.codes:
            code, dot, suffix = asked.partition(".") if wanted.type == "orderbook" else (asked, "", "")
            if code not in self._codes:
                continue
            level = self._level(self._world.market(code), wanted.level) if wanted.type == "orderbook" else 0
            if level is not None:
                yield self._feed(wanted.type, code, UNITS.get(suffix, DEPTH) if dot else DEPTH, level)

    def _feed(self, stream: str, code: str, units: int, level: int) -> Feed:
        key = (stream, code, units, level)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = self._make(stream, code, units, level)
        return feed

    def _make(self, stream: str, code: str, units: int, level: int) -> Feed:
        match stream:
            case "orderbook":
                return OrderbookFeed(self._world, code, units, level, kr=self._kr)
            case "ticker":
                return TickerFeed(self._world, code)
            case "trade":
                return TradeFeed(self._world, code, self._times(code))
            case _:
                return CandleFeed(self._world, stream, code, kr=self._kr)

    def _times(self, code: str) -> TradeTimes:
        return TradeTimes(self._world.seed, code, self._reordered, self._duplicated)

    def _level(self, market: SimMarket, text: str) -> int | None:
        # Only markets in KRW have other levels than 0; id-api knows none at all (2026-09).
        try:
            level = Decimal(text) * E8
        except InvalidOperation:
            return None
        levels = group_levels(market.quote, market.step, market.base * market.step) if self._kr else (0,)
        return next((known for known in levels if known == level), None)
