"""What the exchange is known to list, and whether that knowledge is good enough to call a market unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto

import attrs

from marketpipe.errors import BadPayload
from marketpipe.models import Market

__all__ = ["Listing", "MarketList", "Verdict"]


@attrs.frozen
class MarketList:
    """An answer of market/all: the markets, and those that are listed but whose row could not be read."""

    markets: tuple[Market, ...]
    failed: Mapping[str, BadPayload]

    @property
    def names(self) -> list[str]:
        """Every market that is listed, readable or not."""
        return [*(market.market for market in self.markets), *self.failed]


class Verdict(Enum):
    """What the list says of one market."""

    LISTED = auto()
    UNLISTED = auto()
    UNSURE = auto()  # no list yet, or one too old to condemn a market that it does not name


@attrs.define
class Listing:
    """The market list as last read. ``asked_s`` is when it was *asked* for: what was listed later may be missing."""

    markets: frozenset[str] = frozenset()
    by_quote: Mapping[str, frozenset[str]] = attrs.field(factory=dict)
    asked_s: float | None = None

    def update(self, markets: Iterable[str], asked_s: float) -> None:
        """Replace the list by one that was asked for at ``asked_s``."""
        self.markets = frozenset(markets)
        by_quote: dict[str, set[str]] = {}
        for market in self.markets:
            by_quote.setdefault(market.partition("-")[0], set()).add(market)
        self.by_quote = {quote: frozenset(names) for quote, names in by_quote.items()}
        self.asked_s = asked_s

    def verdict(self, market: str, *, since_s: float) -> Verdict:
        """What the list says of ``market``, if it was asked for at or after ``since_s``; UNSURE otherwise.

        A market that any list names is LISTED: the exchange itself will say if it has gone meanwhile.
        """
        if market in self.markets:
            return Verdict.LISTED
        fresh = self.asked_s is not None and self.asked_s >= since_s
        return Verdict.UNLISTED if fresh else Verdict.UNSURE
