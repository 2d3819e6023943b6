"""What callers may write for a market, and what they mean by it."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["is_market_code", "normalise", "normalise_all"]

# QUOTE-BASE, upper case letters and digits (reference/list-trading-pairs, 2026-07-29). The longest known base has nine
# characters; two hundred codes of these lengths still fit into a URL that every server takes.
_CODE = re.compile(r"[A-Z0-9]{1,10}-[A-Z0-9]{1,20}")


def normalise(symbol: str) -> str:
    """``symbol`` as the exchange spells it: no blanks around it, upper case. ``TypeError`` if it is no string."""
    if not isinstance(symbol, str):
        raise TypeError(f"a symbol must be a str such as 'KRW-BTC', was {symbol!r}")
    return symbol.strip().upper()


def normalise_all(symbols: Iterable[str]) -> tuple[str, ...]:
    """The distinct symbols in the order of their first mention, normalised. ``TypeError`` names what is no string."""
    try:
        iterator = iter(symbols)
    except TypeError:
        raise TypeError(f"symbols must be a str or an iterable of str, was {symbols!r}") from None
    return tuple(dict.fromkeys(normalise(symbol) for symbol in iterator))


def is_market_code(symbol: str) -> bool:
    """Whether ``symbol`` could be a market at all; what is not is never sent to the exchange."""
    return _CODE.fullmatch(symbol) is not None
