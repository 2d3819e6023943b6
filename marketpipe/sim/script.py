"""A market whose trades are written by hand, for tests that need a certain price at a certain moment.

What is written takes the place of whole days, so that everything that is a sum over trades (bars of every length, the
ticker's day and year, the counted volume) follows from it like from any other day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from math import gcd

import attrs

from marketpipe.sim.day import Day
from marketpipe.sim.tape import DAY_MS, make_tape
from marketpipe.sim.ticks import E8
from marketpipe.sim.universe import SimMarket

__all__ = ["ScriptedTrade", "scripted_days"]

# Sizes are kept in 32 bits, counted in the greatest unit that all volumes of a day are multiples of.
MOST_UNITS = 2**31 - 1


@attrs.frozen
class ScriptedTrade:
    """One trade as it shall happen. ``volume`` in the base asset; ``buy``: the taker bought."""

    at_ms: int
    price: Decimal
    volume: Decimal = Decimal(1)
    buy: bool = True


def scripted_days(market: SimMarket, trades: Iterable[ScriptedTrade]) -> dict[int, Day]:
    """The days of ``trades``, by their number since 1970; a day in between on which nobody trades is empty.

    Trades of one millisecond happen in the order given. Raises ``ValueError`` for none, and for a price or a volume
    that this market cannot have.
    """
    ordered = sorted(trades, key=lambda trade: trade.at_ms)
    if not ordered:
        raise ValueError(f"a script of {market.code} needs at least one trade, was given none")
    numbers = range(ordered[0].at_ms // DAY_MS, ordered[-1].at_ms // DAY_MS + 1)
    by_day = {number: list(group) for number, group in groupby(ordered, key=lambda trade: trade.at_ms // DAY_MS)}
    return {number: _day(market, number * DAY_MS, by_day.get(number, [])) for number in numbers}


def _day(market: SimMarket, start_ms: int, trades: Sequence[ScriptedTrade]) -> Day:
    prices = [_units(market, "price", trade.price, market.step) for trade in trades]
    volumes = [_units(market, "volume", trade.volume, 1) for trade in trades]
    lot = gcd(*volumes) or 1
    sizes = [volume // lot for volume in volumes]
    if max(sizes, default=0) > MOST_UNITS:
        raise ValueError(f"{market.code}: volumes of one day must not differ that much: {max(volumes)} and {lot} e-8")
    tape = make_tape([trade.at_ms - start_ms for trade in trades], prices, sizes, [trade.buy for trade in trades])
    return Day(start_ms, tape, tape.rotation(0), 0, 0, 0, market.step, lot, market.phase_ms)


def _units(market: SimMarket, name: str, value: Decimal, step: int) -> int:
    units = value * E8 / step
    if units <= 0 or units != int(units):
        least = Decimal(step) / E8
        raise ValueError(f"{market.code}: {name} must be a multiple of {least:f} above 0, was {value}")
    return int(units)
