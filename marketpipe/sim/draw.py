"""Reproducible draws: the same key gives the same numbers, on every machine and in every order of asking.

Nothing here has state, so any part of the simulated market can be computed without computing what came before it.
"""

from __future__ import annotations

import hashlib
import struct

__all__ = ["draw", "octets", "words"]


def words(count: int, *key: object) -> tuple[int, ...]:
    """``count`` uniform integers below 2**32 that depend on nothing but ``key``."""
    return struct.unpack(f"<{count}I", octets(4 * count, *key))


def octets(count: int, *key: object) -> bytes:
    """``count`` uniform bytes that depend on nothing but ``key``."""
    return hashlib.shake_128("/".join(map(str, key)).encode()).digest(count)


def draw(below: int, *key: object) -> int:
    """One uniform integer in ``[0, below)`` that depends on nothing but ``key``."""
    return words(1, *key)[0] % below
