"""Numbers that the syntax allows but no market can mean: NaN, Infinity, 1e400, negative prices and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from itertools import chain
from operator import attrgetter

import msgspec

from marketpipe.errors import BadPayload

__all__ = ["Numbers", "are_ordinary", "are_plain", "flaw_of", "wire_name"]

# No price, size or sum comes near 10**40; printed in full, a number from outside these bounds could fill the memory.
EXPONENT_LIMIT = 40
LEAST, MOST = Decimal(f"1e-{EXPONENT_LIMIT}"), Decimal(f"1e{EXPONENT_LIMIT}")


def flaw_of(value: Decimal, *, signed: bool = False) -> str | None:
    """What is wrong with ``value``, or None; only a ``signed`` one may be negative."""
    if not value.is_finite():
        return f"was {value!s:.20}, which is not a number"
    if abs(value.adjusted()) > EXPONENT_LIMIT:
        return f"was {value:.6e}, beyond any price or size"
    return f"was {value!s:.40}, but cannot be negative" if value < 0 and not signed else None


def are_ordinary(numbers: Iterable[Decimal]) -> bool:
    """Whether no number is 0, negative or flawed. For a handful of numbers this is the quickest look at them."""
    try:
        for number in numbers:
            if not LEAST <= number < MOST:
                return False
    except InvalidOperation:  # NaN
        return False
    return True


def are_plain(numbers: Sequence[Decimal], *, signed: bool = False) -> bool:
    """Whether no number has a flaw, in C throughout. False is not the last word, for -0 has a sign and no flaw."""
    if not numbers:
        return True
    magnitudes = set(map(Decimal.adjusted, numbers))
    return (
        all(map(Decimal.is_finite, numbers))
        and min(magnitudes) >= -EXPONENT_LIMIT
        and max(magnitudes) <= EXPONENT_LIMIT
        and (signed or not any(map(Decimal.is_signed, numbers)))
    )


class Numbers:
    """The decimal fields of one kind of row, and what they may say; those named in ``signed`` may be negative."""

    def __init__(self, row: type[msgspec.Struct], *, signed: tuple[str, ...] = ()) -> None:
        names = [field.name for field in msgspec.structs.fields(row) if field.type is Decimal]
        self._fields = [(name, name in signed) for name in names]
        # Getters of one name would not give tuples; every kind of row has two or more numbers of a kind, or none.
        self._unsigned = attrgetter(*(name for name in names if name not in signed))
        self._signed = attrgetter(*signed) if signed else None

    def refuse_impossible_in(self, row: msgspec.Struct) -> None:
        """Raise `BadPayload` for the first number of one row that cannot be."""
        if not are_ordinary(self._unsigned(row)) or (
            self._signed is not None and not are_ordinary(map(Decimal.copy_abs, self._signed(row)))
        ):
            self.refuse_impossible((row,))

    def refuse_impossible(self, rows: Sequence[msgspec.Struct], *, market: str | None = None) -> None:
        """Raise `BadPayload` for the first number that cannot be; ``market`` is for rows that do not name theirs."""
        if _are_all_plain(map(self._unsigned, rows)) and (
            self._signed is None or _are_all_plain(map(self._signed, rows), signed=True)
        ):
            return
        for row in rows:
            for name, signed in self._fields:
                if flaw := flaw_of(getattr(row, name), signed=signed):
                    raise BadPayload(flaw, field=wire_name(row, name), market=market or getattr(row, "market", None))


def _are_all_plain(tuples: Iterable[tuple[Decimal, ...]], *, signed: bool = False) -> bool:
    return are_plain([*chain.from_iterable(tuples)], signed=signed)


def wire_name(row: msgspec.Struct, name: str) -> str:
    """What the wire calls the field ``name`` of ``row``."""
    return row.__struct_encode_fields__[row.__struct_fields__.index(name)]
