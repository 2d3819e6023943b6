"""The price grids: tick tables and the grouping levels of order books. Prices are integers of 1e-8 quote units."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["E8", "group_levels", "tick"]

E8 = 100_000_000

# (from this price, this tick), ascending. KRW since 2025-07-31: guides/krw-market-info, 2026-05-04.
_KRW = (
    (0, 1),
    (1_000, 10),
    (10_000, 100),
    (100_000, 1_000),
    (1_000_000, 10_000),
    (10_000_000, 100_000),
    (E8, E8 // 100),
    (10 * E8, E8 // 10),
    (100 * E8, E8),
    (5_000 * E8, 5 * E8),
    (10_000 * E8, 10 * E8),
    (50_000 * E8, 50 * E8),
    (100_000 * E8, 100 * E8),
    (500_000 * E8, 500 * E8),
    (1_000_000 * E8, 1_000 * E8),
)
# USDT since 2024-08-19: guides/usdt-market-info, 2026-05-04.
_USDT = (
    (0, 1),
    (10_000, 10),
    (100_000, 100),
    (1_000_000, 1_000),
    (10_000_000, 10_000),
    (E8, 100_000),
    (10 * E8, 1_000_000),
)
# BTC: guides/btc-market-info, 2026-05-04.
_BTC = ((0, 1),)
_TABLES = {"KRW": _KRW, "USDT": _USDT, "BTC": _BTC}


def tick(quote: str, price: int) -> int:
    """The tick of a market quoted in ``quote`` at ``price``; a higher price never has a finer tick."""
    table = _TABLES[quote]
    return table[bisect_right(table, price, key=lambda band: band[0]) - 1][1]


def group_levels(quote: str, step: int, price: int) -> tuple[int, ...]:
    """The steps an order book can be grouped by, 0 (none) first; only KRW markets have more.

    reference/list-orderbook-instruments, 2026-07-28, lists 10, 100, ... ticks up to about the price itself.
    """
    levels = [0]
    level = 10 * step
    while quote == "KRW" and level <= price:
        levels.append(level)
        level *= 10
    return tuple(levels)
