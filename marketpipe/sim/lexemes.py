"""How the exchange spells numbers and times. Integers in, text out: nothing goes through a float.

Prices and volumes come as integers of 1e-8, turnover as an integer of 1e-16. The spellings are those seen in raw
answers (2025-07-30 to 2026-08-11): REST writes most prices and volumes with eight decimals, today's turnover with
sixteen, rates with ten, an unchanged price as a bare 0, and order books as short as possible.

Streams are written by the classes of Java, as their raw frames tell (2021-04-17 to 2026-09-23): a BigDecimal keeps its
decimals until there are more than six noughts in front (``0E-8``, ``6E-8``), a double never has more digits than it
needs nor less than one decimal, and takes an exponent from ten millions up and below a thousandth (``1.16539E8``).
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache

__all__ = [
    "KST_MS",
    "change8",
    "clock",
    "compact_clock",
    "compact_date",
    "day_text",
    "decimal8",
    "decimal16",
    "double",
    "fixed8",
    "fixed16",
    "moment",
    "plain",
    "price8",
    "price_double",
    "price_shortest",
    "rate10",
    "rate_decimal",
    "rounded8",
    "shortest",
]

E8 = 100_000_000
E16 = E8 * E8
RATE = 10**10
THOUSANDTH, TEN_MILLIONS = E8 // 1_000, 10_000_000 * E8
DAY_MS = 86_400_000
KST_MS = 9 * 3_600_000
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def fixed8(value: int) -> str:
    """An integer of 1e-8 with eight decimals: ``162876000.00000000``."""
    if value < 0:
        return f"-{-value // E8}.{-value % E8:08d}"
    return f"{value // E8}.{value % E8:08d}"


# The same few prices are written over and over.
price8 = lru_cache(maxsize=32_768)(fixed8)


def fixed16(value: int) -> str:
    """An integer of 1e-16 with sixteen decimals: ``137728155832.9616000000000000``."""
    return f"{value // E16}.{value % E16:016d}"


def rounded8(value: int) -> str:
    """An integer of 1e-16, rounded half up to eight decimals: ``242634976840.02426000``."""
    return fixed8((value + E8 // 2) // E8)


def shortest(value: int) -> str:
    """An integer of 1e-8 without needless digits: ``116233000``, ``0.00000689``, ``0``."""
    whole, rest = divmod(value, E8)
    return f"{whole}.{rest:08d}".rstrip("0") if rest else str(whole)


# As with price8: the levels of a book hardly change their prices.
price_shortest = lru_cache(maxsize=65_536)(shortest)


def plain(value: int) -> str:
    """An integer of 1e-8 without needless digits, but with a decimal: ``109847000.0``, ``0.00509799``."""
    text = f"{value // E8}.{value % E8:08d}".rstrip("0")
    return f"{text}0" if text[-1] == "." else text


def double(value: int) -> str:
    """An integer of 1e-8 that is not negative, as Java's Double: ``1.16539E8``, ``0.01129382``, ``5.0E-4``, ``0.0``."""
    if THOUSANDTH <= value < TEN_MILLIONS or not value:
        return plain(value)
    digits = str(value)
    significant = digits.rstrip("0")
    return f"{significant[0]}.{significant[1:] or 0}E{len(digits) - 9}"


price_double = lru_cache(maxsize=65_536)(double)


def decimal8(value: int) -> str:
    """An integer of 1e-8 as Java's BigDecimal: ``162876000.00000000``, ``0.00077720``, ``6E-8``, ``0E-8``."""
    if value >= 100:
        return f"{value // E8}.{value % E8:08d}"
    return fixed8(value) if value <= -100 else _tiny(value, 8)


def decimal16(value: int) -> str:
    """An integer of 1e-16 that is not negative, as Java's BigDecimal: ``95078733694.3792000000000000``, ``0E-16``."""
    return fixed16(value) if value >= 10**10 else _tiny(value, 16)


def rate_decimal(change: int, base: int) -> str:
    """``change / base`` as Java's BigDecimal of ten decimals; a bare ``0`` if nothing changed."""
    scaled = (2 * abs(change) * RATE + base) // (2 * base)
    return _tiny(scaled if change > 0 else -scaled, 10) if change and scaled < 10_000 else rate10(change, base)


def _tiny(value: int, places: int) -> str:
    digits = str(abs(value))
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{fraction}E{len(digits) - 1 - places}"


def change8(value: int) -> str:
    """A difference of prices: eight decimals, or a bare ``0``."""
    return fixed8(value) if value else "0"


def rate10(change: int, base: int) -> str:
    """``change / base`` rounded half up to ten decimals: ``-0.0017283860``, or a bare ``0`` if nothing changed."""
    if not change:
        return "0"
    scaled = (2 * abs(change) * RATE + base) // (2 * base)
    return f"{'-' if change < 0 else ''}{scaled // RATE}.{scaled % RATE:010d}"


@lru_cache(maxsize=8_192)
def day_text(day: int) -> str:
    """Day ``day`` since 1970 as ``2025-07-30``."""
    return date.fromordinal(EPOCH_ORDINAL + day).isoformat()


def clock(at_ms: int) -> str:
    """The time of day, to the second: ``17:03:15``."""
    return _CLOCK[at_ms % DAY_MS // 60_000] + _SECONDS[at_ms // 1_000 % 60]


def moment(at_ms: int) -> str:
    """Date and time without a zone: ``2025-07-30T17:03:15``."""
    return f"{day_text(at_ms // DAY_MS)}T{_CLOCK[at_ms % DAY_MS // 60_000]}{_SECONDS[at_ms // 1_000 % 60]}"


def compact_date(at_ms: int) -> str:
    """The date as tickers have it: ``20250730``."""
    return day_text(at_ms // DAY_MS).replace("-", "")


def compact_clock(at_ms: int) -> str:
    """The time of day as tickers have it: ``170315``."""
    return clock(at_ms).replace(":", "")


_CLOCK = [f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1_440)]
_SECONDS = [f"{second:02d}" for second in range(60)]
