"""Markets that are delisted and listed again: what everybody is told of them, and when."""

from __future__ import annotations

import gc
import weakref

import pytest

from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import World
from marketpipe.sim.history import History
from marketpipe.sim.quotation import answer
from marketpipe.sim.streams import Streams, Wanted

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NOW_MS = 1_791_379_294_567  # 2026-10-07T13:21:34.567Z
BUSY, STEADY = "KRW-ETH", "KRW-BTC"
GONE_MS, BACK_MS = NOW_MS - 5 * HOUR_MS, NOW_MS - HOUR_MS
PLAIN = World(7, 5)
WORLD = World(7, 5, absences={BUSY: [(GONE_MS, BACK_MS)]})
# An order book is told ten times a second: hours of it say no more than minutes.
SOON_MS = GONE_MS + 15 * MINUTE_MS
BRIEF = World(7, 5, absences={BUSY: [(GONE_MS, SOON_MS)]})
TYPES = ("ticker", "trade", "orderbook", "candle.1m")


def test_a_market_is_listed_but_for_its_absence():
    listed = [WORLD.is_listed(BUSY, at_ms) for at_ms in (GONE_MS - 1, GONE_MS, BACK_MS - 1, BACK_MS)]
    assert listed == [True, False, False, True]
    assert set(PLAIN.listed(GONE_MS)) - set(WORLD.listed(GONE_MS)) == {BUSY}
    assert WORLD.listed(BACK_MS) == PLAIN.listed(BACK_MS)


def test_while_it_is_away_it_is_unknown_and_nothing_is_traded():
    for path, name in (("/v1/ticker", "markets"), ("/v1/trades/ticks", "market"), ("/v1/candles/minutes/1", "market")):
        told = [answer(WORLD, path, [(name, BUSY)], at_ms).status for at_ms in (GONE_MS - 1, GONE_MS, BACK_MS)]
        assert told == [200, 404, 200]
    trades = [deal.at_ms for deal in WORLD.trades(BUSY, GONE_MS - HOUR_MS, NOW_MS, NOW_MS)]
    plain = [deal.at_ms for deal in PLAIN.trades(BUSY, GONE_MS - HOUR_MS, NOW_MS, NOW_MS)]
    assert trades == [at_ms for at_ms in plain if not GONE_MS <= at_ms < BACK_MS]


def test_the_bars_after_it_is_back_are_made_of_what_was_traded():
    (hour,) = WORLD.candles(BUSY, Timeframe.H1, BACK_MS - BACK_MS % HOUR_MS, NOW_MS - HOUR_MS + 1, NOW_MS)
    deals = WORLD.trades(BUSY, BACK_MS, hour.open_ms + HOUR_MS, NOW_MS)
    assert sum(deal.volume for deal in deals) == hour.volume


def test_the_ticker_of_a_market_that_comes_back_the_day_after_has_the_close_before():
    midnight_ms = NOW_MS - NOW_MS % DAY_MS
    world = World(7, 5, absences={BUSY: [(midnight_ms - HOUR_MS, midnight_ms + HOUR_MS)]})
    back = world.ticker(BUSY, midnight_ms + HOUR_MS)
    assert back.last.price == back.previous_close == back.opening
    assert back.last.at_ms < midnight_ms - HOUR_MS


def test_days_with_an_absence_are_not_kept_for_ever():
    first_ms = NOW_MS - NOW_MS % DAY_MS - 20 * DAY_MS
    absences = [(first_ms + day * DAY_MS, first_ms + day * DAY_MS + HOUR_MS) for day in range(20)]
    history = History(7, PLAIN.market(BUSY), absences)
    tape = weakref.ref(history.day(first_ms // DAY_MS).tape)
    assert history.day(first_ms // DAY_MS).tape is tape()
    for day in range(1, 20):
        history.day(first_ms // DAY_MS + day)
    gc.collect()
    assert tape() is None


def test_an_absence_that_covers_the_listing_puts_it_off():
    listing_ms = PLAIN.opening_ms(BUSY)
    later = World(7, 5, absences={BUSY: [(listing_ms - DAY_MS, listing_ms + 3 * DAY_MS)]})
    assert later.opening_ms(BUSY) == listing_ms + 3 * DAY_MS
    assert later.trades(BUSY, 0, later.opening_ms(BUSY) + 1, NOW_MS)[0].at_ms == later.opening_ms(BUSY)


@pytest.mark.parametrize("type", TYPES)
def test_streams_are_silent_meanwhile_and_go_on_afterwards(type: str):
    def heard(world: World) -> list[int]:
        subscription = Streams(world).open([Wanted(type, (BUSY,))], GONE_MS - 5 * MINUTE_MS)
        return [message.at_ms for message in subscription.take(SOON_MS + 5 * MINUTE_MS)]

    told, plain = heard(BRIEF), heard(PLAIN)
    # What was traded just before is told a little later.
    assert not [at_ms for at_ms in told if GONE_MS + 2_000 <= at_ms < SOON_MS]
    assert [at_ms for at_ms in told if at_ms < GONE_MS] == [at_ms for at_ms in plain if at_ms < GONE_MS]
    late_ms = SOON_MS + 2 * MINUTE_MS
    assert [at_ms for at_ms in told if at_ms > late_ms] == [at_ms for at_ms in plain if at_ms > late_ms] != []


@pytest.mark.parametrize("type", TYPES)
def test_there_is_a_snapshot_unless_it_is_away(type: str):
    streams = Streams(WORLD)
    shown = [
        len(streams.open([Wanted(type, (BUSY,))], at_ms).snapshots(at_ms))
        for at_ms in (GONE_MS - MINUTE_MS, GONE_MS + MINUTE_MS, BACK_MS + MINUTE_MS)
    ]
    assert shown == [1, 0, 1]


def test_every_trade_before_a_delisting_is_sent():
    first_ms = GONE_MS - MINUTE_MS
    told = Streams(WORLD).open([Wanted("trade", (BUSY,))], first_ms).take(GONE_MS + MINUTE_MS)
    assert len(told) >= len(WORLD.trades(BUSY, first_ms, GONE_MS, GONE_MS - 1)) > 0


def test_in_hindsight_everything_can_be_asked_for_at_any_time():
    truth = WORLD.in_hindsight()
    at_ms = GONE_MS + HOUR_MS
    assert truth.is_listed(BUSY, at_ms)
    assert truth.trades(BUSY, GONE_MS - HOUR_MS, at_ms, at_ms) == WORLD.trades(BUSY, GONE_MS - HOUR_MS, GONE_MS, NOW_MS)
    assert not WORLD.is_listed(BUSY, at_ms)
    with pytest.raises(KeyError):
        WORLD.trades(BUSY, 0, at_ms, at_ms)


def test_the_last_moment_at_which_it_was_listed():
    asked_ms = (GONE_MS - 1, GONE_MS, BACK_MS - 1, BACK_MS)
    assert [WORLD.last_listed_ms(BUSY, at_ms) for at_ms in asked_ms] == [GONE_MS - 1] * 3 + [BACK_MS]
    assert WORLD.last_listed_ms(BUSY, WORLD.opening_ms(BUSY) - 1) is None
    assert WORLD.last_listed_ms(STEADY, GONE_MS) == GONE_MS


def test_only_what_there_is_can_be_absent():
    with pytest.raises(ValueError, match="KRW-NONE"):
        World(7, 5, absences={"KRW-NONE": [(1, 2)]})
