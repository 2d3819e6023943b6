"""Numbers as people read them. Nothing here is for programs: those get every digit, see `rows`."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

__all__ = ["age", "amount", "exact", "percent", "rate", "utc"]

_SCALES = ((12, "T"), (9, "B"), (6, "M"), (3, "K"))


def exact(number: Decimal) -> str:
    """Every digit that says something: ``117,404,000`` or ``0.00000008``."""
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount(number: Decimal) -> str:
    """Four digits of a sum: ``302.6B``."""
    for exponent, letter in _SCALES:
        if abs(number) >= Decimal(1).scaleb(exponent):
            return f"{number.scaleb(-exponent):.4g}{letter}"
    return f"{number:.4g}"


def percent(fraction: Decimal) -> str:
    """``-1.12 %``, with a sign unless it is zero."""
    return f"{fraction * 100:+.2f} %" if fraction else "0.00 %"


def rate(count: int, unit: str, elapsed_s: float) -> str:
    """``8,620 symbols/s``"""
    return f"{count / elapsed_s:,.0f} {unit}/s" if elapsed_s > 0 else "at once"


def age(age_ms: int) -> str:
    """How long ago, in the unit that fits: ``12 ms``, ``3.4 s``, ``7 min``, ``5 h``, ``9 d``."""
    seconds = age_ms / 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{age_ms} ms"


def utc(at_ms: int, *, digits: str = "minutes") -> str:
    """``2026-11-23 07:14``, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(" ", timespec=digits)
