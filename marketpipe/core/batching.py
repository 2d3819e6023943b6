"""How many callers' questions become few requests.

A `Key` is the smallest thing that can be asked: one market's ticker or order book (`Wanted`), or one page. Equal keys
are one question, however many callers ask it. Keys of one group are merged here into as few requests as the exchange's
endpoints allow; requests are what is scarce (ten a second and group), rows are cheap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs

from marketpipe.core.requests import (
    BATCH_LIMIT,
    CandlesRequest,
    Group,
    MarketsRequest,
    OrderbooksRequest,
    QuoteTickersRequest,
    Request,
    TickersRequest,
    TradesRequest,
)

__all__ = ["Key", "Lot", "Wanted", "group_of", "halves", "market_of", "merge"]


class Wanted(NamedTuple):
    """One market of a group whose requests carry many markets."""

    group: Group
    market: str


Key = Wanted | MarketsRequest | TradesRequest | CandlesRequest


@attrs.frozen
class Lot:
    """One request and the keys it answers."""

    request: Request
    keys: tuple[Key, ...]


def group_of(key: Key) -> Group:
    """The rate-limit group that ``key`` is asked in."""
    return key.group


def market_of(key: Key) -> str | None:
    """The market that ``key`` is about; None for the market list."""
    return None if isinstance(key, MarketsRequest) else key.market


def merge(
    keys: Sequence[Key], *, listed_by_quote: Mapping[str, Collection[str]], alone: Collection[Key] = ()
) -> list[Lot]:
    """The fewest requests that answer ``keys`` (all of one group), most urgent keys first.

    ``listed_by_quote`` is what the exchange lists, by quote currency; while it is empty, ``ticker/all`` is not
    considered. Keys in ``alone`` are never answered through ``ticker/all``: it was tried and had no row for them.
    """
    wanted = [key for key in keys if isinstance(key, Wanted)]
    pages = [Lot(key, (key,)) for key in keys if not isinstance(key, Wanted)]
    if not wanted:
        return pages
    if wanted[0].group is Group.ORDERBOOK:
        return pages + _chunks(wanted)
    return pages + _ticker_lots(wanted, listed_by_quote, alone)


def halves(lot: Lot) -> list[Lot]:
    """The two halves of a batch that failed as a whole, each to be asked by itself."""
    middle = (len(lot.keys) + 1) // 2
    parts = (lot.keys[:middle], lot.keys[middle:])
    return [_chunk(part) for part in parts if part]


def _ticker_lots(
    wanted: list[Wanted], listed_by_quote: Mapping[str, Collection[str]], alone: Collection[Key]
) -> list[Lot]:
    plain = _chunks(wanted)
    covered = _mostly_asked([key for key in wanted if key not in alone], listed_by_quote)
    if not covered:
        return plain
    by_all = [key for key in wanted if _quote(key.market) in covered and key not in alone]
    answered = set(by_all)
    rest = _chunks([key for key in wanted if key not in answered])
    if 1 + len(rest) >= len(plain):
        return plain
    lots = [Lot(QuoteTickersRequest(tuple(sorted(covered))), tuple(by_all)), *rest]
    # There may be no slot for all of them: the one with the most urgent key goes first.
    place = {key: index for index, key in enumerate(wanted)}
    return sorted(lots, key=lambda lot: min(place[key] for key in lot.keys if isinstance(key, Wanted)))


def _mostly_asked(wanted: Iterable[Wanted], listed_by_quote: Mapping[str, Collection[str]]) -> set[str]:
    # `ticker/all` answers whole quote currencies: worth it where at least half of the rows are wanted.
    asked: dict[str, int] = {}
    for key in wanted:
        quote = _quote(key.market)
        asked[quote] = asked.get(quote, 0) + 1
    return {quote for quote, count in asked.items() if 2 * count >= len(listed_by_quote.get(quote, ())) > 0}


def _quote(market: str) -> str:
    return market.partition("-")[0]


def _chunks(wanted: Sequence[Wanted]) -> list[Lot]:
    # Even chunks: 201 markets as 101 + 100 arrive sooner than 200 + 1 would.
    count = math.ceil(len(wanted) / BATCH_LIMIT)
    bounds = [len(wanted) * i // count for i in range(count + 1)] if count else [0]
    return [_chunk(wanted[start:end]) for start, end in itertools.pairwise(bounds)]


def _chunk(keys: Sequence[Key]) -> Lot:
    markets = tuple(key.market for key in keys if isinstance(key, Wanted))
    request = OrderbooksRequest(markets) if group_of(keys[0]) is Group.ORDERBOOK else TickersRequest(markets)
    return Lot(request, tuple(keys))
