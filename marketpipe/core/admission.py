"""Who may travel: what the exchange does not list is kept out of every request.

One unknown code fails a whole batch with 404 (reference/list-tickers, 2026-07-28). A market that a recent list does
not name is refused at once; one that only an old list does not name is held until the list has been read again; and
before the first list, everybody may go, since asking is the fastest way to find out. A batch that fails all the same is
sifted: held, in halves, until a recent list tells who was to blame; if the list clears everybody, the halves go.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Generic, TypeVar

import attrs

from marketpipe.core.batching import Key, Lot, group_of, halves, market_of
from marketpipe.core.listing import Listing, Verdict
from marketpipe.core.requests import Group
from marketpipe.core.symbols import is_market_code
from marketpipe.core.waiting import Asker, Pending
from marketpipe.errors import UnknownMarket

__all__ = ["Admission", "unknown_market"]

A = TypeVar("A", bound=Asker)


@attrs.define(eq=False)
class Admission(Generic[A]):
    """What is known to be listed, and the keys that are held until more is known.

    ``max_age_s``: how old the list may be when it is used to refuse a market.
    """

    _max_age_s: float
    _listing: Listing = attrs.field(factory=Listing, init=False)
    _held: dict[Key, Pending[A]] = attrs.field(factory=dict, init=False)
    _count: dict[Group, int] = attrs.field(factory=lambda: dict.fromkeys(Group, 0), init=False)  # of those held
    _lot_numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    @property
    def listed_by_quote(self) -> Mapping[str, Collection[str]]:
        """The markets of each quote currency; empty before the first list."""
        return self._listing.by_quote

    def learn(self, markets: Collection[str], asked_s: float) -> None:
        """The list of markets, as it was asked for at ``asked_s``."""
        self._listing.update(markets, asked_s)

    def verdict(self, key: Key, now_s: float) -> Verdict:
        """LISTED: it may go. UNLISTED: refuse it, with `unknown_market`. UNSURE: hold it, and read the list again."""
        market = market_of(key)
        if market is None:
            return Verdict.LISTED
        verdict = self._listing.verdict(market, since_s=now_s - self._max_age_s)
        if verdict is Verdict.UNSURE and not is_market_code(market):
            return Verdict.UNLISTED
        if verdict is Verdict.UNSURE and self._listing.asked_s is None:
            return Verdict.LISTED
        return verdict

    def hold(self, pending: Pending[A]) -> None:
        """Keep it until `release`."""
        if pending.key not in self._held:
            self._count[group_of(pending.key)] += 1
        self._held[pending.key] = pending

    def sift(self, lot: Lot, members: list[Pending[A]]) -> None:
        """Hold the members of a batch that failed as a whole, marked to travel in halves."""
        by_key = {pending.key: pending for pending in members}
        for half in halves(lot):
            number = next(self._lot_numbers)
            for key in half.keys:
                by_key[key].lot = number
        for pending in members:
            self.hold(pending)

    def has_recent_list(self, now_s: float) -> bool:
        """Whether the list is recent enough to release by it."""
        asked_s = self._listing.asked_s
        return asked_s is not None and asked_s >= now_s - self._max_age_s

    def release(self, *, since_s: float) -> tuple[list[Pending[A]], list[Pending[A]]]:
        """Let go of everybody: those whom a list asked for since ``since_s`` does not name, and those who may go.

        If somebody was to blame, the others need no halves any more.
        """
        held = self.clear()
        unlisted: list[Pending[A]] = []
        going: list[Pending[A]] = []
        for pending in held:
            verdict = self._listing.verdict(market_of(pending.key) or "", since_s=since_s)
            (unlisted if verdict is Verdict.UNLISTED else going).append(pending)
        for pending in going:
            pending.lot = 0 if unlisted else pending.lot
        return unlisted, going

    def clear(self) -> list[Pending[A]]:
        """Let go of everybody, unjudged."""
        held = list(self._held.values())
        self._held.clear()
        self._count = dict.fromkeys(Group, 0)
        return held

    def held(self, group: Group) -> int:
        """How many keys of ``group`` are held."""
        return self._count[group]


def unknown_market(key: Key) -> UnknownMarket:
    """The error for a key whose market is not listed, or could not be."""
    market = market_of(key) or ""
    if is_market_code(market):
        return UnknownMarket(market)
    return UnknownMarket(market, f"{market[:40]!r} is no market code; one looks like KRW-BTC")
