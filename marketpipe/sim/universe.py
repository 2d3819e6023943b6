"""Which markets there are, and what each is like: its grid, its activity, its listing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import attrs

from marketpipe.sim.coins import Coin, coins
from marketpipe.sim.draw import draw, words
from marketpipe.sim.tape import BUSY, DEEP, DUST, MEAN_SIZE, MID, MINUTE_MS, THIN, Activity
from marketpipe.sim.ticks import E8, tick

__all__ = ["CAUTIONS", "SimMarket", "universe"]

CAUTIONS = (
    "PRICE_FLUCTUATIONS",
    "TRADING_VOLUME_SOARING",
    "DEPOSIT_AMOUNT_SOARING",
    "GLOBAL_PRICE_DIFFERENCES",
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)
FIRST = (("KRW", "BTC"), ("KRW", "ETH"), ("KRW", "XRP"), ("BTC", "ETH"), ("USDT", "BTC"))
# 289 KRW, 328 BTC and 238 USDT markets make 855 (seen 2026-09-23).
SHARES = {"KRW": 289, "BTC": 328, "USDT": 238}
DOLLARS = {"KRW": 1_400, "BTC": 110_000, "USDT": 1}
# A trade's mean value in quote units, as (numerator, denominator).
TRADE_VALUES = {
    ("KRW", DEEP): (3_000_000, 1),
    ("KRW", BUSY): (1_000_000, 1),
    ("KRW", MID): (300_000, 1),
    ("KRW", THIN): (90_000, 1),
}
SMALL_VALUES = {"KRW": (20_000, 1), "BTC": (7, 10_000), "USDT": (70, 1)}
# How far a day's prices go from its level, in steps; few values, so that markets can share tapes.
AMPLITUDES = (0, 1, 3, 8, 20, 50, 130, 330, 850, 2_100, 5_300, 13_000, 33_000, 83_000, 200_000)
# The level stays within [2/5, 2] of its base, and prices within 3/100 of the base from the level.
TOP = 22, 10
MEAN_FACTOR = 7
FIRST_LISTING_MS = 1_506_308_400_000  # 2017-09-25T03:00Z: the first bar of KRW-BTC
LAST_LISTING_MS = 1_789_862_400_000  # 2026-09-20T00:00Z: no listing is later


@attrs.frozen(cache_hash=True)
class SimMarket:
    """One market. ``step`` is its price grid in 1e-8 quote units, valid over its whole price range; ``base`` its usual
    price in steps; ``lot`` its size unit in 1e-8 of the base asset; ``phase_ms`` its own place on every clock grid."""

    code: str
    quote: str
    korean_name: str
    english_name: str
    activity: Activity
    amplitude: int
    step: int
    base: int
    lot: int
    rotation_ms: int
    phase_ms: int
    listing_ms: int
    warning: bool
    cautions: frozenset[str]


def universe(seed: int, count: int, lively: int | None = None) -> tuple[SimMarket, ...]:
    """The first ``count`` markets. A smaller universe is the beginning of a larger one.

    ``lively``: about so many of 855, the first of each quote, trade as much as the busiest, and all others hardly ever;
    None: as uneven as the real exchange in a quiet night.
    """
    return tuple(islice(_markets(seed, lively), count))


def _markets(seed: int, lively: int | None) -> Iterator[SimMarket]:
    queues = {quote: _coins_of(seed, quote) for quote in SHARES}
    ranks = dict.fromkeys(SHARES, 0)
    for number, quote in enumerate(_quotes()):
        coin = next(queues[quote])
        if number < len(FIRST) and (quote, coin.code) != FIRST[number]:
            raise AssertionError(f"market {number} must be {FIRST[number]}, was {quote}-{coin.code}")
        yield _market(seed, quote, coin, ranks[quote], lively)
        ranks[quote] += 1


def _quotes() -> Iterator[str]:
    # After the known first ones, always the quote currency that is furthest behind its share.
    counts = dict.fromkeys(SHARES, 0)
    total = 0
    while True:
        total += 1
        if total <= len(FIRST):
            quote = FIRST[total - 1][0]
        else:
            quote = max(SHARES, key=lambda name: total * SHARES[name] - 855 * counts[name])
        counts[quote] += 1
        yield quote


def _coins_of(seed: int, quote: str) -> Iterator[Coin]:
    # Not every coin is traded against everything, the first ones are.
    left_out = {"KRW": 0, "BTC": 10, "USDT": 33}[quote]
    for number, coin in enumerate(coins(seed)):
        if coin.code != quote and (number < 20 or draw(100, quote, coin.code) >= left_out):
            yield coin


def _market(seed: int, quote: str, coin: Coin, rank: int, lively: int | None) -> SimMarket:
    code = f"{quote}-{coin.code}"
    price = coin.price * DOLLARS["KRW"] // E8 if quote == "KRW" else coin.price // (DOLLARS[quote] * E8)
    step = tick(quote, price * TOP[0] // TOP[1])
    base = max(price // step, 2)
    activity = _activity(quote, rank) if lively is None else _lively(quote, rank, lively)
    caution, warning, flag, phase = words(4, seed, code, "market")
    return SimMarket(
        code=code,
        quote=quote,
        korean_name=coin.korean,
        english_name=coin.english,
        activity=activity,
        amplitude=max(size for size in AMPLITUDES if size * 200 <= base * 3),
        step=step,
        base=base,
        lot=_lot(quote, activity, step * base, draw(1 << 16, seed, code, "lot")),
        # Of the coin, not of the market: markets of one coin that share a tape share their trade ids.
        rotation_ms=draw(1_440, seed, coin.code, "rotation") * MINUTE_MS,
        phase_ms=phase,
        listing_ms=FIRST_LISTING_MS if code == "KRW-BTC" else _listing_ms(seed, code, rank),
        warning=rank > 3 and warning % 100 < 2,
        cautions=_cautions(caution, flag) if rank > 3 else frozenset(),
    )


def _activity(quote: str, rank: int) -> Activity:
    if quote == "KRW":
        return DEEP if rank < 3 else BUSY if rank < 24 else MID if rank < 150 else THIN
    return MID if rank < 3 else THIN if rank < 20 else DUST


def _lively(quote: str, rank: int, lively: int) -> Activity:
    # Nothing in between: what is remembered of a market (its last hundred trades) is full within minutes, or as good as
    # empty for ever, so that a long run can tell a leak from what fills up by design.
    return DEEP if rank < -(-lively * SHARES[quote] // sum(SHARES.values())) else DUST


def _lot(quote: str, activity: Activity, price: int, word: int) -> int:
    value, parts = TRADE_VALUES.get((quote, activity), SMALL_VALUES[quote])
    volume = value * E8 * E8 // (parts * price)
    lot = max(1, volume // (MEAN_SIZE * MEAN_FACTOR))
    # Up to an eighth more, so that volumes of dear and cheap coins alike have uneven digits.
    return lot + lot * word // (8 << 16)


def _listing_ms(seed: int, code: str, rank: int) -> int:
    era, day, hour = words(3, seed, code, "listing")
    if rank < 20:
        first, last = (2017, 10), (2020, 1)
    elif rank < 60:
        first, last = (2019, 1), (2023, 1)
    else:
        first, last = (((2018, 1), (2025, 1)), ((2025, 1), (2026, 1)), ((2026, 1), (2026, 9)))[_era(era % 100)]
    start_ms, end_ms = _month_ms(*first), min(_month_ms(*last), LAST_LISTING_MS)
    days = (end_ms - start_ms) // 86_400_000
    return start_ms + day % days * 86_400_000 + hour % 10 * 3_600_000


def _era(percent: int) -> int:
    # Of 288 KRW markets 85 began in 2025 and 67 in 2026 (seen 2026-09-13).
    return 0 if percent < 35 else 1 if percent < 70 else 2


def _month_ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000


def _cautions(caution: int, flag: int) -> frozenset[str]:
    if caution % 100 >= 27:
        return frozenset()
    # Four of five cautions are about prices elsewhere.
    names = {"GLOBAL_PRICE_DIFFERENCES"} if flag % 5 else {CAUTIONS[flag // 5 % len(CAUTIONS)]}
    return frozenset(names)
