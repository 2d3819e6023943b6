"""Bars of a day and more, made of tickers and closed days, against a naive sum over every trade."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core import timeframes
from marketpipe.core.candles import LiveSeries
from marketpipe.core.periods import DaySpan, PeriodBars
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Change, Source, Ticker

D1, W1, MONTH, Y1 = Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def midnight(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000


# A Wednesday: the third day of its week, the 23rd of its month.
TODAY_MS = midnight(2026, 9, 23)
MONDAY_MS = TODAY_MS - 2 * DAY_MS


def ticker(trade_ms: int, *, late_ms: int = 40, **changes: Any) -> Ticker:
    """A ticker after a trade, refreshed ``late_ms`` later."""
    some = dict.fromkeys(
        ("prev_close", "signed_change", "signed_change_rate", "last_volume", "quote_volume_24h", "volume_24h"),
        Decimal(1),
    )
    values: dict[str, Any] = {
        "market": "KRW-BTC",
        "change": Change.EVEN,
        "high_52w_date": date(2026, 1, 1),
        "low_52w_date": date(2026, 1, 1),
        "trade_ms": trade_ms,
        "exchange_ms": trade_ms + late_ms,
        "open": Decimal(10),
        "high": Decimal(13),
        "low": Decimal(9),
        "price": Decimal(12),
        "volume": Decimal(5),
        "quote_volume": Decimal(50),
        "high_52w": Decimal(20),
        "low_52w": Decimal(1),
        "received_ms": trade_ms + late_ms + 5,
        "source": Source.STREAM,
    }
    return Ticker(**{**some, **values, **changes})


def day(open_ms: int, **changes: Any) -> Candle:
    """The closed bar of a day, as REST shows it."""
    values: dict[str, Any] = {
        "open": Decimal(7),
        "high": Decimal(15),
        "low": Decimal(6),
        "close": Decimal(8),
        "volume": Decimal(2),
        "quote_volume": Decimal(20),
        "exchange_ms": open_ms + DAY_MS - 500,
        "received_ms": open_ms + 2 * DAY_MS,
        "source": Source.REST,
        "state": CandleState.FINAL,
    }
    return Candle("KRW-BTC", D1, open_ms, **{**values, **changes})


def weekly(*days: Candle, read_ms: int = TODAY_MS + HOUR_MS) -> PeriodBars:
    """A week of which the days before today were read."""
    bars = PeriodBars("KRW-BTC", W1)
    bars.days(DaySpan(MONDAY_MS, TODAY_MS), days, read_ms)
    return bars


# -- against a naive sum ----------------------------------------------------------------------------------------

amounts = st.decimals("0.00000001", "99999999999999.99999999", places=8)
# More digits than the default context keeps, once they are added up.
worths = st.integers(1, 10**30).map(lambda n: Decimal(f"{n}E-16"))
prices = st.decimals("0.00000001", "999999999", places=8)


@attrs.frozen
class Deal:
    at_ms: int
    price: Decimal
    volume: Decimal
    worth: Decimal


@st.composite
def trading(draw: st.DrawFn) -> list[Deal]:
    """Some days of trades up to some moment of a day; days without one are among them."""
    newest_day = draw(st.dates(date(2020, 1, 1), date(2030, 12, 31)))
    deals = []
    for ago in sorted(draw(st.sets(st.integers(0, 400) | st.integers(0, 8), max_size=8)) | {0}, reverse=True):
        day_ms = midnight(*(newest_day - timedelta(days=ago)).timetuple()[:3])
        ats = sorted(draw(st.sets(st.sampled_from([0, 1, HOUR_MS, DAY_MS - 1500, DAY_MS - 1]), min_size=1)))
        deals += [Deal(day_ms + at, draw(prices), draw(amounts), draw(worths)) for at in ats]
    return deals


def naive(timeframe: Timeframe, deals: list[Deal], until_ms: int) -> Candle:
    """The bar that holds the last trade by ``until_ms``, from its trades alone."""
    last = max((deal for deal in deals if deal.at_ms <= until_ms), key=lambda deal: deal.at_ms)
    open_ms = timeframes.floor(timeframe, last.at_ms)
    within = [deal for deal in deals if open_ms <= deal.at_ms <= until_ms]
    wide = Context(prec=1000)
    volume = quote_volume = Decimal(0)
    for deal in within:
        volume = wide.add(volume, deal.volume)
        quote_volume = wide.add(quote_volume, deal.worth)
    return Candle(
        "KRW-BTC",
        timeframe,
        open_ms,
        open=within[0].price,
        high=max(deal.price for deal in within),
        low=min(deal.price for deal in within),
        close=last.price,
        volume=volume,
        quote_volume=quote_volume,
        exchange_ms=last.at_ms + 40,
        received_ms=last.at_ms + 45,
        source=Source.STREAM,
        state=CandleState.RUNNING,
    )


def as_ticker(deals: list[Deal], until_ms: int) -> Ticker:
    """What the exchange's ticker shows after the last trade by ``until_ms``."""
    bar = naive(D1, deals, until_ms)
    sums = {"open": bar.open, "high": bar.high, "low": bar.low, "price": bar.close}
    trade_ms = bar.exchange_ms - 40
    return ticker(trade_ms, **sums, volume=bar.volume, quote_volume=bar.quote_volume)


def closed_days(deals: list[Deal], span: DaySpan) -> list[Candle]:
    """What REST answers: a bar for each day with a trade."""
    opens = {deal.at_ms // DAY_MS * DAY_MS for deal in deals}
    within = sorted(open_ms for open_ms in opens if span.start_ms <= open_ms < span.end_ms)
    bars = [naive(D1, deals, open_ms + DAY_MS - 1) for open_ms in within]
    return [attrs.evolve(bar, source=Source.REST, state=CandleState.FINAL) for bar in bars][::-1]


@given(trading(), st.sampled_from([D1, W1, MONTH, Y1]))
def test_every_ticker_makes_the_bar_that_the_trades_add_up_to(deals: list[Deal], timeframe: Timeframe):
    """Over all the days: what is wanted is read whenever it is, and every trade has its ticker."""
    bars = PeriodBars("KRW-BTC", timeframe)
    for deal in deals:
        early = bars.ticker(as_ticker(deals, deal.at_ms))
        wanted = bars.wants_days(deal.at_ms)
        if early is None:
            now_ms = deal.at_ms + 3000  # it can be read by then, whatever the hour
            wanted = bars.wants_days(now_ms)
            if wanted is None:  # a new period has begun, and nobody needs the days of the old one any more
                assert timeframes.floor(timeframe, now_ms - 2_000) > timeframes.floor(timeframe, deal.at_ms)
                continue
            bar = bars.days(wanted, closed_days(deals, wanted), now_ms)
        else:
            bar = early
            # Nothing more is asked of the exchange than the days that have been missing.
            assert wanted is None or wanted.start_ms < wanted.end_ms <= deal.at_ms
        assert bar == naive(timeframe, deals, deal.at_ms)


@given(trading(), st.sampled_from([W1, MONTH, Y1]))
def test_what_is_wanted_lies_within_the_period_and_is_not_wanted_again(deals: list[Deal], timeframe: Timeframe):
    bars = PeriodBars("KRW-BTC", timeframe)
    for deal in deals:
        now_ms = deal.at_ms + 2_000
        wanted = bars.wants_days(now_ms)
        if wanted is not None:
            assert wanted.end_ms == deal.at_ms // DAY_MS * DAY_MS
            assert timeframes.floor(timeframe, deal.at_ms) <= wanted.start_ms < wanted.end_ms
            bars.days(wanted, closed_days(deals, wanted), now_ms)
        assert bars.wants_days(now_ms) is None


# -- by example -------------------------------------------------------------------------------------------------


def test_a_days_bar_is_the_ticker():
    shown = ticker(TODAY_MS + HOUR_MS)
    bars = PeriodBars("KRW-BTC", D1)
    assert bars.wants_days(TODAY_MS + HOUR_MS) is None
    assert bars.ticker(shown) == Candle(
        "KRW-BTC",
        D1,
        TODAY_MS,
        open=shown.open,
        high=shown.high,
        low=shown.low,
        close=shown.price,
        volume=shown.volume,
        quote_volume=shown.quote_volume,
        exchange_ms=shown.exchange_ms,
        received_ms=shown.received_ms,
        source=Source.STREAM,
        state=CandleState.RUNNING,
    )


def test_a_weeks_bar_is_its_closed_days_and_the_ticker():
    monday = day(MONDAY_MS, open=Decimal(3), low=Decimal(2))
    bar = weekly(monday, day(MONDAY_MS + DAY_MS)).ticker(ticker(TODAY_MS + HOUR_MS, high=Decimal(16)))
    assert bar is not None
    assert (bar.timeframe, bar.open_ms, bar.exchange_ms) == (W1, MONDAY_MS, TODAY_MS + HOUR_MS + 40)
    assert (bar.open, bar.high, bar.low, bar.close) == (3, 16, 2, 12)
    assert (bar.volume, bar.quote_volume) == (9, 90)
    assert (bar.state, bar.source, bar.revision) == (CandleState.RUNNING, Source.STREAM, 0)


@pytest.mark.parametrize("trade_ms", [TODAY_MS - 1, TODAY_MS - 5 * DAY_MS])
def test_a_market_without_a_trade_today_has_no_bar_today(trade_ms: int):
    """Its sums are 0 once the day has begun; its prices are those of the last trade."""
    nothing = dict.fromkeys(("volume", "quote_volume"), Decimal(0))
    shown = ticker(trade_ms, late_ms=TODAY_MS + HOUR_MS - trade_ms, **nothing)
    for timeframe in (D1, W1, MONTH, Y1):
        assert PeriodBars("KRW-BTC", timeframe).ticker(shown) is None


def test_the_last_trade_of_a_day_belongs_to_it_although_its_ticker_comes_after_midnight():
    bar = PeriodBars("KRW-BTC", D1).ticker(ticker(TODAY_MS - 10))
    assert bar is not None
    assert (bar.open_ms, bar.exchange_ms) == (TODAY_MS - DAY_MS, TODAY_MS + 30)


def test_there_is_no_bar_while_a_closed_day_of_its_period_is_missing():
    bars = PeriodBars("KRW-BTC", W1)
    assert bars.ticker(ticker(TODAY_MS + HOUR_MS)) is None
    assert bars.wants_days(TODAY_MS + HOUR_MS) == (MONDAY_MS, TODAY_MS)
    tuesday = DaySpan(MONDAY_MS + DAY_MS, TODAY_MS)
    assert bars.days(tuesday, [day(MONDAY_MS + DAY_MS)], TODAY_MS + HOUR_MS) is None
    assert bars.wants_days(TODAY_MS + HOUR_MS) == (MONDAY_MS, TODAY_MS)
    told = bars.days(DaySpan(MONDAY_MS, TODAY_MS), [day(MONDAY_MS + DAY_MS)], TODAY_MS + HOUR_MS)
    assert told is not None  # the newest ticker makes it at once
    assert (told.open, told.volume, told.exchange_ms) == (7, 7, TODAY_MS + HOUR_MS + 40)


def test_on_the_first_day_of_its_period_a_bar_needs_nothing_else():
    bars = PeriodBars("KRW-BTC", W1)
    assert bars.wants_days(MONDAY_MS + HOUR_MS) is None
    bar = bars.ticker(ticker(MONDAY_MS + HOUR_MS))
    assert bar is not None
    assert (bar.open_ms, bar.open, bar.volume) == (MONDAY_MS, 10, 5)


@pytest.mark.parametrize(("into_ms", "wanted"), [(1_999, None), (2_000, (TODAY_MS, TODAY_MS + DAY_MS))])
def test_after_midnight_the_day_that_has_ended_is_wanted_two_seconds_later(into_ms: int, wanted: Any):
    bars = weekly(day(MONDAY_MS))
    tomorrow_ms = TODAY_MS + DAY_MS
    assert bars.wants_days(tomorrow_ms + into_ms) == wanted
    assert bars.ticker(ticker(tomorrow_ms + 100)) is None  # today is not known yet
    assert bars.ticker(ticker(tomorrow_ms - 100)) is not None


@pytest.mark.parametrize(("into_ms", "missing"), [(999, True), (1_000, False)])
def test_a_day_read_within_a_second_after_its_end_is_not_taken(into_ms: int, missing: bool):
    """Its last trade may not have been stored."""
    bars = weekly(day(MONDAY_MS), read_ms=TODAY_MS - DAY_MS + HOUR_MS)
    span = DaySpan(TODAY_MS - DAY_MS, TODAY_MS)
    assert bars.wants_days(TODAY_MS + HOUR_MS) == span
    bars.days(span, [day(TODAY_MS - DAY_MS)], TODAY_MS + into_ms)
    assert (bars.wants_days(TODAY_MS + HOUR_MS) == span) is missing
    assert (bars.ticker(ticker(TODAY_MS + HOUR_MS)) is None) is missing


def test_a_closed_day_may_be_corrected():
    bars = weekly(day(MONDAY_MS))
    bars.ticker(ticker(TODAY_MS + HOUR_MS))
    corrected = day(MONDAY_MS, volume=Decimal(3), exchange_ms=MONDAY_MS + DAY_MS)
    span = DaySpan(MONDAY_MS, TODAY_MS)
    told = bars.days(span, [corrected, day(MONDAY_MS)], TODAY_MS + HOUR_MS)
    assert told is not None
    assert told.volume == 8
    assert bars.days(span, [day(MONDAY_MS)], TODAY_MS + HOUR_MS) is None


def test_what_is_known_stays_known_whatever_else_is_read():
    bars = weekly(day(MONDAY_MS))
    bars.days(DaySpan(MONDAY_MS, MONDAY_MS + DAY_MS), [day(MONDAY_MS)], TODAY_MS + HOUR_MS)
    bars.days(DaySpan(TODAY_MS + DAY_MS, TODAY_MS + 2 * DAY_MS), [], TODAY_MS + HOUR_MS)  # too early to know
    assert bars.wants_days(TODAY_MS + HOUR_MS) is None
    assert bars.ticker(ticker(TODAY_MS + HOUR_MS)) is not None


def test_days_beyond_those_asked_for_are_left_out():
    asked = DaySpan(MONDAY_MS, TODAY_MS)
    bars = PeriodBars("KRW-BTC", W1)
    bars.days(asked, [day(MONDAY_MS - DAY_MS), day(MONDAY_MS), day(TODAY_MS)], TODAY_MS + 5 * DAY_MS)
    bar = bars.ticker(ticker(TODAY_MS + HOUR_MS))
    assert bar is not None
    assert bar.volume == 7
    assert bars.wants_days(TODAY_MS + 2 * DAY_MS + HOUR_MS) == (TODAY_MS, TODAY_MS + 2 * DAY_MS)


def test_a_ticker_that_was_refreshed_without_a_trade_says_nothing_new():
    bars = PeriodBars("KRW-BTC", D1)
    assert bars.ticker(ticker(TODAY_MS + HOUR_MS)) is not None
    assert bars.ticker(ticker(TODAY_MS + HOUR_MS, late_ms=9_000)) is None
    assert bars.ticker(ticker(TODAY_MS + HOUR_MS + 5_000, volume=Decimal(6))) is not None
    assert bars.ticker(ticker(TODAY_MS + HOUR_MS)) is None  # an older one that was overtaken


def test_an_overtaken_ticker_of_yesterday_still_tells_of_yesterday():
    bars = PeriodBars("KRW-BTC", D1)
    today = bars.ticker(ticker(TODAY_MS + 5))
    yesterday = bars.ticker(ticker(TODAY_MS - 5))
    assert [bar and bar.open_ms for bar in (today, yesterday)] == [TODAY_MS, TODAY_MS - DAY_MS]
    assert bars.ticker(ticker(TODAY_MS + 5)) is None


def test_the_newest_ticker_is_the_one_that_waits_for_the_days():
    bars = PeriodBars("KRW-BTC", W1)
    bars.ticker(ticker(TODAY_MS + HOUR_MS, price=Decimal(11)))
    bars.ticker(ticker(TODAY_MS + HOUR_MS - 1, price=Decimal(10)))
    told = bars.days(DaySpan(MONDAY_MS, TODAY_MS), [], TODAY_MS + HOUR_MS)
    assert told is not None
    assert (told.close, told.open) == (11, 10)


def test_rests_bar_and_the_ticker_of_a_trade_just_after_it_merge_rightly():
    """REST stamps its bar with the ticker of its last trade; by their trades' times the older one would win."""
    bars, series = PeriodBars("KRW-BTC", D1), LiveSeries("KRW-BTC", D1)
    first, second = ticker(TODAY_MS + 100), ticker(TODAY_MS + 120, volume=Decimal(6))
    shown = attrs.evolve(day(TODAY_MS), volume=first.volume, exchange_ms=first.exchange_ms)
    series.page([shown], TODAY_MS + 150)
    told = bars.ticker(second)
    assert told is not None
    series.live(told)
    assert series.bars[0].volume == 6


@pytest.mark.parametrize("timeframe", [Timeframe.S1, Timeframe.H4])
def test_bars_that_the_exchange_streams_are_not_made_from_tickers(timeframe: Timeframe):
    with pytest.raises(ValueError, match=f"timeframe must be one of 1d, 1w, 1M, 1y, was .*{timeframe.value}"):
        PeriodBars("KRW-BTC", timeframe)
