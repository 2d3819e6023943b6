"""Order books: a function of the market and the moment the book last changed.

A book is drawn around the last trade: 30 levels on each side, on the price grid, never crossed. Busy books change on a
grid of 100 ms with a phase of their own, quiet ones rarely and with each trade, so that their time can be minutes old
(seen 2026-09-23: up to 143 s).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import attrs

from marketpipe.sim.day import Deal
from marketpipe.sim.draw import draw, words
from marketpipe.sim.tape import BUSY, DEEP, DUST, MID, THIN
from marketpipe.sim.universe import SimMarket

__all__ = ["DEPTH", "Book", "Level", "changed_ms", "draw_book", "next_change_ms"]

DEPTH = 30
PERIODS_MS = {DEEP: 100, BUSY: 100, MID: 2_000, THIN: 20_000, DUST: 150_000}
SPREADS = {DEEP: 1, BUSY: 2, MID: 3, THIN: 8, DUST: 20}
SIZE_FACTORS = (10, 10, 20, 40, 80, 200, 500, 1_200)
# A full side is padded with these: price 0, size 0 (seen on 42 of 60 BTC markets, 2026-09-23).
EMPTY = (0, 0)

# Price and size, both in 1e-8.
Level = tuple[int, int]


@attrs.frozen(cache_hash=True)
class Book:
    """An order book of exactly 30 levels a side, best first, padded with zeros. ``level`` is 0 or the grouping step."""

    market: str
    changed_ms: int
    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    total_ask: int
    total_bid: int
    level: int


def changed_ms(market: SimMarket, now_ms: int, opening_ms: int, last_ms: int) -> int:
    """When the book last changed, given when the market opened and when its last trade was."""
    period_ms = PERIODS_MS[market.activity]
    grid_ms = now_ms - (now_ms - market.phase_ms) % period_ms
    # A busy book only ever changes on its grid; to a quiet one a trade is an event.
    return max(grid_ms, opening_ms if period_ms == 100 else last_ms)


def next_change_ms(market: SimMarket, after_ms: int, opening_ms: int, trade_ms: int) -> int:
    """When the book changes next after ``after_ms``, given when the market opens and when its next trade is."""
    if after_ms < opening_ms:
        return opening_ms
    period_ms = PERIODS_MS[market.activity]
    grid_ms = after_ms - (after_ms - market.phase_ms) % period_ms + period_ms
    return grid_ms if period_ms == 100 else min(grid_ms, trade_ms)


def draw_book(seed: int, market: SimMarket, at_ms: int, last: Deal, level: int = 0) -> Book:
    """The book as of ``at_ms``, when ``last`` was the newest trade; ``level`` groups prices."""
    asks, bids = _sides(seed, market, at_ms, last)
    if level:
        sizes = words(2 * DEPTH, seed, market.code, at_ms, level)
        asks = list(islice(_grouped(asks, level, 1, sizes[:DEPTH]), DEPTH))
        bids = list(islice(_grouped(bids, level, -1, sizes[DEPTH:]), DEPTH))
    return Book(
        market.code,
        at_ms,
        _padded(asks),
        _padded(bids),
        sum([size for _, size in asks]),
        sum([size for _, size in bids]),
        level,
    )


def _sides(seed: int, market: SimMarket, at_ms: int, last: Deal) -> tuple[list[Level], list[Level]]:
    words_ = words(2 * DEPTH + 1, seed, market.code, at_ms)
    price = last.price // market.step
    spread = 1 + words_[-1] % SPREADS[market.activity]
    # Who bought paid the ask, who sold got the bid; a spread is never wider than a fiftieth of a dear price.
    spread = min(spread, max(1, price // 50))
    best_ask, best_bid = (price, price - spread) if last.buy else (price + spread, price)
    asks = _side(market, best_ask, 1, words_[: _depth(seed, market, "ask")])
    bids = _side(market, best_bid, -1, words_[DEPTH : DEPTH + _depth(seed, market, "bid")])
    return asks, bids


def _depth(seed: int, market: SimMarket, side: str) -> int:
    if market.activity is not DUST or draw(10, seed, market.code, "padded") >= 7:
        return DEPTH
    return 3 + draw(DEPTH - 3, seed, market.code, side, "depth")


def _side(market: SimMarket, best: int, direction: int, draws: Iterable[int]) -> list[Level]:
    # Hundreds of books a second are drawn for those who listen: this loop is most of their cost.
    price, step, lot = best, market.step, market.lot
    gap = 7 if market.activity in (DEEP, BUSY) else 1
    units: list[Level] = []
    for word in draws:
        if price < 1:
            break
        units.append((price * step, (3 + (word >> 8) % 997) * SIZE_FACTORS[word >> 29] * lot))
        price += direction if word & gap else direction * (2 + (word >> 3 & 3))
    return units


def _grouped(units: list[Level], level: int, direction: int, draws: tuple[int, ...]) -> Iterator[Level]:
    if not units:
        return
    # What the thirty levels do not reach lies deeper in the book, about as thick as what they show.
    sizes: dict[int, int] = {}
    for price, size in units:
        group = -(-price // level) * level if direction > 0 else price // level * level
        sizes[group] = sizes.get(group, 0) + size
    yield from ((group, size) for group, size in sizes.items() if group)
    deepest, usual = list(sizes)[-1], max(sizes.values())
    for place, word in enumerate(draws, 1):
        group = deepest + direction * place * level
        if group > 0:
            yield group, usual * (50 + word % 100) // 100


def _padded(units: list[Level]) -> tuple[Level, ...]:
    return (*units, *[EMPTY] * (DEPTH - len(units)))
