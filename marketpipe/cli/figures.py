"""Numbers as people read them. Nothing here is for programs: those get every digit, see `rows`."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal

__all__ = [
    "age",
    "amount",
    "counted",
    "duration",
    "exact",
    "mebibytes",
    "percent",
    "rate",
    "share",
    "span",
    "took",
    "utc",
]

_FOUR_DIGITS = Context(prec=4)
_SCALES = ((12, "T"), (9, "B"), (6, "M"), (3, "K"))


def exact(number: Decimal) -> str:
    """Every digit that says something: ``117,404,000`` or ``0.00000008``."""
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount(number: Decimal) -> str:
    """Four digits of a sum, those that say something: ``302.6B``."""
    rounded = _FOUR_DIGITS.plus(number)  # before it gets its letter: 999,960 is 1M
    for exponent, letter in _SCALES:
        if rounded and rounded.adjusted() >= exponent:
            return f"{exact(rounded.scaleb(-exponent))}{letter}"
    return exact(rounded)


def percent(fraction: Decimal) -> str:
    """``-1.12 %``, with a sign unless it is zero."""
    return f"{fraction * 100:+.2f} %" if fraction else "0.00 %"


def share(fraction: float) -> str:
    """``98.7 %``, of a part that is 0 to 1; what is not nothing, or not all, never looks so."""
    text = f"{fraction * 100:.1f} %"
    if text == "100.0 %" and fraction < 1:
        return "99.9 %"
    return "0.1 %" if text == "0.0 %" and fraction > 0 else text


def took(seconds: float) -> str:
    """How long a call took, to two or three digits: ``0.02 ms``, ``4.5 ms``, ``127 ms``, ``3.20 s``."""
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.{0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2}f} ms"


def mebibytes(size: int) -> str:
    """``142.8 MiB``"""
    return f"{size / 2**20:,.1f} MiB"


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


def duration(seconds: float) -> str:
    """How long something takes, in the two units that fit: ``44 s``, ``3 min 20 s``, ``1 h 5 min``, ``2 d 3 h``."""
    whole = round(seconds)
    if whole < 1:
        return "less than 1 s" if seconds > 0 else "0 s"
    if whole >= 60:
        whole -= whole % 10 if whole < 3_600 else whole % 60  # seconds that nobody can rely on
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if whole >= size and len(parts) < 2:
            parts.append(f"{whole // size} {unit}")
            whole %= size
        elif parts:
            break
    return " ".join(parts)


def counted(number: int, what: str) -> str:
    """``1 request``, ``1,440 requests``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def span(start_ms: int, end_ms: int) -> str:
    """``2026-11-23 07:14 to 2026-11-24 00:00``, UTC."""
    digits = "seconds" if start_ms % 60_000 or end_ms % 60_000 else "minutes"
    return f"{utc(start_ms, digits=digits)} to {utc(end_ms, digits=digits)}"


def utc(at_ms: int, *, digits: str = "minutes") -> str:
    """``2026-11-23 07:14``, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(" ", timespec=digits)
