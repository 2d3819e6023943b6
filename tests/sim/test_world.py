"""The laws of the simulated market: everything it shows is a sum over the same trades, whatever is asked and when."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import combinations, pairwise
from statistics import median

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketpipe.core.timeframes import Timeframe, floor, next_open
from marketpipe.sim.day import Bar, Deal, fold, stored_ms
from marketpipe.sim.tape import BUSY, DEEP, DUST, THIN
from marketpipe.sim.ticks import E8, group_levels, tick
from marketpipe.sim.universe import universe
from marketpipe.sim.world import World

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOW_MS = int(datetime(2026, 10, 7, 13, 21, 34, 567_000, tzinfo=UTC).timestamp() * 1000)
# One market of each kind, of each quote currency.
SAMPLE = ("KRW-BTC", "KRW-ETH", "BTC-ETH", "USDT-BTC", "KRW-SOL", "KRW-GRT", "BTC-USDT", "BTC-ENS", "USDT-FLOW")
WORLD = World(7, 150)
WHOLE = World(7)
HOLES = ((NOW_MS - 40 * HOUR_MS - 1_234, NOW_MS - 37 * HOUR_MS), (NOW_MS - 5 * HOUR_MS, NOW_MS - 3 * HOUR_MS + 7))
HOLED = World(7, 150, holes=HOLES)

markets = st.sampled_from(SAMPLE)
moments = st.integers(NOW_MS - 900 * DAY_MS, NOW_MS)
worlds = st.sampled_from((WORLD, HOLED))
recent = st.integers(NOW_MS - 3 * DAY_MS, NOW_MS)

FINER = (
    (Timeframe.S1, Timeframe.M1),
    (Timeframe.M1, Timeframe.M3),
    (Timeframe.M1, Timeframe.M5),
    (Timeframe.M5, Timeframe.M10),
    (Timeframe.M5, Timeframe.M15),
    (Timeframe.M10, Timeframe.M30),
    (Timeframe.M1, Timeframe.H1),
    (Timeframe.M30, Timeframe.H4),
    (Timeframe.M1, Timeframe.D1),
    (Timeframe.H1, Timeframe.D1),
    (Timeframe.H4, Timeframe.D1),
    (Timeframe.D1, Timeframe.W1),
    (Timeframe.D1, Timeframe.MONTH),
    (Timeframe.D1, Timeframe.Y1),
)


def bar_of(world: World, code: str, open_ms: int, deals: list[Deal]) -> Bar:
    """What ``deals``, oldest first, add up to, computed without any of the market's shortcuts."""
    prices = [deal.price for deal in deals]
    return Bar(
        open_ms,
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(deal.price * deal.volume for deal in deals),
        sum(deal.volume for deal in deals),
        stored_ms(deals[-1].at_ms, world.market(code).phase_ms),
    )


def bars_of(world: World, code: str, timeframe: Timeframe, deals: list[Deal]) -> list[Bar]:
    groups: dict[int, list[Deal]] = {}
    for deal in deals:
        groups.setdefault(floor(timeframe, deal.at_ms), []).append(deal)
    return [bar_of(world, code, open_ms, group) for open_ms, group in groups.items()]


@pytest.mark.slow
@given(world=worlds, code=markets, pair=st.sampled_from(FINER), now_ms=moments | recent)
@settings(deadline=None, max_examples=150)
def test_a_bar_is_the_sum_of_the_finer_bars_inside_it(world, code, pair, now_ms):
    finer, coarser = pair
    newest = world.newest_candles(code, coarser, now_ms + 1, 2, now_ms)
    for bar in newest:
        end_ms = next_open(coarser, bar.open_ms)
        parts = world.candles(code, finer, bar.open_ms, end_ms, now_ms)
        assert fold(bar.open_ms, parts) == bar


@pytest.mark.slow
@given(
    world=worlds,
    code=markets,
    timeframe=st.sampled_from([Timeframe.S1, Timeframe.M1, Timeframe.M3, Timeframe.H1]),
    now_ms=moments | recent,
    hours=st.integers(1, 30),
)
@settings(deadline=None, max_examples=100)
def test_candles_are_exactly_the_trades(world, code, timeframe, now_ms, hours):
    if world.market(code).activity is DEEP:
        hours = 1 + hours % 3
    end_ms = floor(timeframe, now_ms - HOUR_MS // 4) if hours % 2 else now_ms + 1
    start_ms = floor(timeframe, end_ms - hours * HOUR_MS)
    deals = world.trades(code, start_ms, end_ms, now_ms)
    assert world.candles(code, timeframe, start_ms, end_ms, now_ms) == bars_of(world, code, timeframe, deals)


@pytest.mark.slow
@given(world=worlds, code=st.sampled_from(SAMPLE[2:]), now_ms=recent)
@example(world=WORLD, code="KRW-BTC", now_ms=NOW_MS)
@settings(deadline=None, max_examples=60)
def test_a_ticker_is_the_sum_of_the_trades(world, code, now_ms):
    ticker = world.ticker(code, now_ms)
    midnight_ms = now_ms - now_ms % DAY_MS
    today = world.trades(code, midnight_ms, now_ms + 1, now_ms)
    as_of_ms = max(midnight_ms, ticker.last.at_ms)
    window = world.trades(code, as_of_ms - DAY_MS + 1, as_of_ms + 1, now_ms)
    earlier = world.newest_trades(code, midnight_ms - 400 * DAY_MS, midnight_ms, now_ms, 1)
    assert ticker.previous_close == earlier[0].price
    assert ticker.volume_24h == sum(deal.volume for deal in window)
    assert ticker.turnover_24h == sum(deal.volume * deal.price for deal in window)
    if today:
        bar = bar_of(world, code, midnight_ms, today)
        seen = (ticker.opening, ticker.high, ticker.low, ticker.last.price, ticker.turnover, ticker.volume)
        assert seen == (bar.opening, bar.high, bar.low, bar.close, bar.turnover, bar.volume)
        assert ticker.last == today[-1]
        assert ticker.stored_ms == bar.stored_ms
    else:
        assert (ticker.opening, ticker.high, ticker.low) == (earlier[0].price,) * 3
        assert (ticker.volume, ticker.turnover, ticker.change) == (0, 0, 0)
        assert ticker.last == earlier[0]


@pytest.mark.slow
@given(world=worlds, code=markets, now_ms=moments)
@settings(deadline=None, max_examples=50)
def test_the_52_week_prices_are_the_extremes_of_364_days_with_today(world, code, now_ms):
    today_ms = now_ms - now_ms % DAY_MS
    days = world.candles(code, Timeframe.D1, today_ms - 363 * DAY_MS, now_ms + 1, now_ms)
    year = world.ticker(code, now_ms).year
    high, low = max(bar.high for bar in days), min(bar.low for bar in days)
    assert (year.high, year.low) == (high, low)
    assert year.high_day * DAY_MS == next(bar.open_ms for bar in days if bar.high == high)
    assert year.low_day * DAY_MS == next(bar.open_ms for bar in days if bar.low == low)


@pytest.mark.slow
@pytest.mark.parametrize("world", [WORLD, HOLED])
def test_the_52_week_prices_include_the_listing_day_and_days_of_maintenance(world):
    for code in world.markets[2::9]:
        days = {world.opening_ms(code) // DAY_MS, *(end_ms // DAY_MS for _, end_ms in world.holes)}
        for day in days:
            now_ms = (day + 1) * DAY_MS + 5
            bars = world.candles(code, Timeframe.D1, now_ms - 364 * DAY_MS, now_ms, now_ms)
            year = world.ticker(code, now_ms).year
            assert (year.high, year.low) == (max(bar.high for bar in bars), min(bar.low for bar in bars))


@pytest.mark.slow
@given(code=markets, now_ms=recent, ahead=st.integers(1, 200_000))
@settings(deadline=None)
def test_a_ticker_changes_with_a_trade_or_at_midnight_and_its_timestamp_never_goes_back(code, now_ms, ahead):
    before, after = WORLD.ticker(code, now_ms), WORLD.ticker(code, now_ms + ahead)
    quiet = not WORLD.trades(code, now_ms + 1, now_ms + ahead + 1, now_ms + ahead)
    same_day = now_ms // DAY_MS == (now_ms + ahead) // DAY_MS
    assert (before == after) == (quiet and same_day)
    assert before.stored_ms <= after.stored_ms


@pytest.mark.slow
@given(world=worlds, code=markets, now_ms=recent, length_ms=st.integers(0, 2 * HOUR_MS))
@settings(deadline=None)
def test_trades_are_in_order_with_unique_ids_that_name_their_millisecond(world, code, now_ms, length_ms):
    deals = world.trades(code, now_ms - length_ms, now_ms + 1, now_ms)
    ids = [deal.sequential_id for deal in deals]
    assert all(earlier < later for earlier, later in pairwise(ids))
    places = Counter[int]()
    for deal in deals:
        assert deal.sequential_id == deal.at_ms * 10_000 + places[deal.at_ms]
        places[deal.at_ms] += 1
        assert now_ms - length_ms <= deal.at_ms <= now_ms
        assert deal.volume > 0


def test_several_trades_share_a_millisecond_now_and_then():
    deals = WORLD.trades("KRW-BTC", NOW_MS - HOUR_MS, NOW_MS, NOW_MS)
    assert any(deal.sequential_id % 10_000 for deal in deals)


@pytest.mark.slow
def test_some_markets_share_trade_ids():
    ids: dict[int, set[str]] = {}
    for code in WORLD.markets:
        for deal in WORLD.newest_trades(code, NOW_MS - 3 * DAY_MS, NOW_MS, NOW_MS, 20):
            ids.setdefault(deal.sequential_id, set()).add(code)
    assert any(len(codes) > 1 for codes in ids.values())


@given(code=st.sampled_from(WORLD.markets), now_ms=moments)
@settings(deadline=None)
def test_prices_lie_on_the_tick_grid(code, now_ms):
    if not WORLD.is_listed(code, now_ms):
        return
    quote = WORLD.market(code).quote
    book = WORLD.orderbook(code, now_ms)
    prices = [deal.price for deal in WORLD.newest_trades(code, now_ms - 3 * DAY_MS, now_ms + 1, now_ms, 50)]
    prices += [price for price, size in (*book.asks, *book.bids) if size]
    assert prices
    for price in prices:
        assert price > 0
        assert price % tick(quote, price) == 0


@pytest.mark.slow
@given(code=markets, start_ms=recent, now_ms=recent, timeframe=st.sampled_from(Timeframe))
@settings(deadline=None)
def test_nothing_from_the_future_is_shown(code, start_ms, now_ms, timeframe):
    bars = WORLD.newest_candles(code, timeframe, NOW_MS, 3, now_ms)
    assert all(bar.open_ms <= now_ms for bar in bars)
    assert bars[0].close == WORLD.newest_trades(code, now_ms - 300 * DAY_MS, NOW_MS, now_ms, 1)[0].price
    assert all(deal.at_ms <= now_ms for deal in WORLD.trades(code, start_ms, start_ms + HOUR_MS // 2, now_ms))
    assert WORLD.orderbook(code, now_ms).changed_ms <= now_ms


@pytest.mark.slow
@given(
    queries=st.lists(st.tuples(markets, moments, st.sampled_from(Timeframe)), min_size=2, max_size=6),
    shuffle=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=8)
def test_answers_depend_on_neither_the_order_of_questions_nor_the_world_object(queries, shuffle):
    def ask(world: World, query: tuple[str, int, Timeframe]) -> tuple[object, ...]:
        code, now_ms, timeframe = query
        newest = world.newest_candles(code, timeframe, now_ms + 1, 3, now_ms)
        return newest, world.ticker(code, now_ms), world.orderbook(code, now_ms)

    first, second = World(7, 110), World(7, 110)
    other_order = shuffle.sample(queries, len(queries))
    answers = {query: ask(second, query) for query in other_order}
    assert all(ask(first, query) == answers[query] for query in queries)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["KRW-BTC", "KRW-ETH", "KRW-SOL", "KRW-ZUJOF"])
def test_a_market_moves_during_the_day_and_hardly_at_midnight(code):
    end_ms = NOW_MS - NOW_MS % DAY_MS
    days = WHOLE.candles(code, Timeframe.D1, end_ms - 201 * DAY_MS, end_ms, NOW_MS)
    assert len(days) == 201
    bodies = [abs(bar.close / bar.opening - 1) for bar in days]
    gaps = [abs(later.opening / earlier.close - 1) for earlier, later in pairwise(days)]
    assert 0.004 < median(bodies) < 0.02
    assert median(gaps) < median(bodies) / 4
    # No seam either where one block of days ends and the next one begins.
    assert max(gaps) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("code", ["KRW-BTC", "KRW-ETH", "KRW-SOL", "KRW-ZUJOF"])
def test_hardly_two_days_have_the_same_volume(code):
    end_ms = NOW_MS - NOW_MS % DAY_MS
    days = WHOLE.candles(code, Timeframe.D1, end_ms - 200 * DAY_MS, end_ms, NOW_MS)
    volumes = sorted(bar.volume for bar in days)
    assert len(set(volumes)) > 150
    assert 1.5 < volumes[-1] / volumes[len(volumes) // 2] < 4


def test_another_seed_is_another_market():
    ours, theirs = (World(seed, 5).ticker("USDT-BTC", NOW_MS) for seed in (7, 8))
    assert ours.last != theirs.last
    assert World(8, 5).market("KRW-BTC").code == "KRW-BTC"


@pytest.mark.slow
@given(code=markets, timeframe=st.sampled_from(Timeframe), to_ms=moments, count=st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_pages_tile_the_history_without_overlap_or_hole(code, timeframe, to_ms, count):
    first = WORLD.newest_candles(code, timeframe, to_ms, count, NOW_MS)
    if not first:
        assert to_ms <= WORLD.opening_ms(code)
        return
    second = WORLD.newest_candles(code, timeframe, first[-1].open_ms, count, NOW_MS)
    assert first + second == WORLD.newest_candles(code, timeframe, to_ms, len(first) + count, NOW_MS)
    assert all(later.open_ms > earlier.open_ms for later, earlier in pairwise(first + second))
    assert first[0].open_ms < to_ms
    assert second or first[-1].open_ms == floor(timeframe, WORLD.opening_ms(code))


@given(world=worlds, code=markets, before_ms=moments)
@settings(deadline=None)
def test_a_cursor_continues_with_the_trades_before_it(world, code, before_ms):
    start_ms = before_ms - DAY_MS
    page = world.newest_trades(code, start_ms, before_ms, NOW_MS, 40)
    for deal in page[:20]:
        rest = world.newest_trades(code, start_ms, before_ms, NOW_MS, 5, deal.sequential_id)
        place = page.index(deal)
        assert rest[:5] == page[place + 1 : place + 6] or len(page) < place + 6


@pytest.mark.slow
@pytest.mark.parametrize("hole", HOLES)
def test_maintenance_leaves_no_trade_in_any_market_and_no_other_missing(hole):
    start_ms, end_ms = hole[0] - HOUR_MS, hole[1] + HOUR_MS
    for code in SAMPLE:
        all_of_it = WORLD.trades(code, start_ms, end_ms, NOW_MS)
        kept = [deal for deal in all_of_it if not hole[0] <= deal.at_ms < hole[1]]
        assert HOLED.trades(code, start_ms, end_ms, NOW_MS) == kept


def test_a_hole_must_have_a_length():
    with pytest.raises(ValueError, match=r"\(5, 5\)"):
        World(7, 5, holes=((5, 5),))


@pytest.mark.slow
def test_a_market_opens_with_a_trade_at_its_listing_and_is_unknown_before():
    listing_ms = int(datetime(2017, 9, 25, 3, tzinfo=UTC).timestamp() * 1000)
    assert WORLD.opening_ms("KRW-BTC") == listing_ms
    for timeframe in (Timeframe.M1, Timeframe.H1):
        oldest = WORLD.candles("KRW-BTC", timeframe, 0, listing_ms + 5 * HOUR_MS, NOW_MS)[0]
        assert oldest.open_ms == listing_ms
    assert WORLD.candles("KRW-BTC", Timeframe.D1, 0, NOW_MS, NOW_MS)[0].open_ms == listing_ms - 3 * HOUR_MS
    assert WORLD.is_listed("KRW-BTC", listing_ms)
    assert not WORLD.is_listed("KRW-BTC", listing_ms - 1)
    with pytest.raises(KeyError):
        WORLD.ticker("KRW-BTC", listing_ms - 1)


@pytest.mark.parametrize("code", SAMPLE)
def test_every_market_has_its_first_trade_where_its_history_begins(code):
    opening_ms = WORLD.opening_ms(code)
    assert WORLD.trades(code, 0, opening_ms + 1, opening_ms)[0].at_ms == opening_ms
    ticker = WORLD.ticker(code, opening_ms)
    assert ticker.previous_close == ticker.opening == ticker.last.price
    book = WORLD.orderbook(code, opening_ms)
    assert book.changed_ms == opening_ms


def test_histories_begin_at_different_times_and_many_in_the_last_two_years():
    listings = [market.listing_ms for market in universe(7, 855) if market.quote == "KRW"]
    years = Counter(datetime.fromtimestamp(listing_ms / 1000, UTC).year for listing_ms in listings)
    assert years[2025] > 40
    assert years[2026] > 40
    assert len(set(listings)) > 200


def test_the_universe_has_the_exchanges_mix_and_a_smaller_one_is_its_beginning():
    whole = universe(7, 855)
    assert Counter(market.quote for market in whole) == {"KRW": 289, "BTC": 328, "USDT": 238}
    first = [market.code for market in whole[:5]]
    assert first == ["KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC"]
    assert universe(7, 100) == whole[:100]
    share = Counter(market.quote for market in whole[:171])
    assert all(abs(share[quote] - size / 5) < 2 for quote, size in {"KRW": 289, "BTC": 328, "USDT": 238}.items())
    assert 10 <= sum(market.warning for market in whole) <= 30
    assert 150 <= sum(bool(market.cautions) for market in whole) <= 300


@pytest.mark.parametrize(
    ("lively", "shares"), [(0, (0, 0, 0)), (1, (1, 1, 1)), (200, (68, 77, 56)), (855, (289, 328, 238))]
)
def test_the_first_markets_of_each_quote_are_busy_if_it_is_asked_for_and_the_rest_still(lively, shares):
    """Prices, names and listings are as ever: only how much is traded differs."""
    markets = universe(7, 855, lively)
    for quote, share in zip(("KRW", "BTC", "USDT"), shares, strict=True):
        kinds = [market.activity.name for market in markets if market.quote == quote]
        assert kinds == ["deep"] * share + ["dust"] * (len(kinds) - share)
    assert [attrs.evolve(each, activity=DUST, lot=0) for each in markets] == [
        attrs.evolve(each, activity=DUST, lot=0) for each in universe(7, 855)
    ]


@pytest.mark.slow
def test_five_thousand_markets_have_five_thousand_codes():
    codes = {market.code for market in universe(3, 5_000)}
    assert len(codes) == 5_000
    assert all(base.isascii() and base.isalnum() and base.upper() == base for _, base in (c.split("-") for c in codes))
    assert codes.isdisjoint(WORLD.delisted)


def test_thin_markets_have_empty_minutes_and_dust_has_empty_days():
    def kinds(activity: object) -> list[str]:
        return [code for code in WORLD.markets if WORLD.market(code).activity is activity]

    hour_ms = NOW_MS - NOW_MS % HOUR_MS
    for code in (*kinds(THIN), *kinds(DUST)):
        assert len(WORLD.candles(code, Timeframe.M1, hour_ms - HOUR_MS, hour_ms, NOW_MS)) < 60
    day_ms = NOW_MS - NOW_MS % DAY_MS
    days = [len(WORLD.candles(code, Timeframe.D1, day_ms - 30 * DAY_MS, day_ms, NOW_MS)) for code in kinds(DUST)]
    assert max(days) < 30
    assert min(days) > 5
    deep = WORLD.candles("KRW-BTC", Timeframe.M1, hour_ms - HOUR_MS, hour_ms, NOW_MS)
    assert len(deep) == 60


@given(at_ms=st.integers(0, NOW_MS), later=st.integers(0, 40), phase_ms=st.integers(0, 1 << 32))
@settings(max_examples=300)
def test_things_are_stored_30_to_54_ms_later_in_the_order_they_happened(at_ms, later, phase_ms):
    assert 30 <= stored_ms(at_ms, phase_ms) - at_ms <= 54
    assert stored_ms(at_ms, phase_ms) <= stored_ms(at_ms + later, phase_ms)


@pytest.mark.slow
@given(code=st.sampled_from(WORLD.markets), now_ms=recent, level=st.integers(0, 5))
@settings(deadline=None, max_examples=200)
def test_a_book_is_sorted_uncrossed_padded_and_totalled(code, now_ms, level):
    market = WORLD.market(code)
    levels = group_levels(market.quote, market.step, market.base * market.step)
    step = levels[level % len(levels)]
    if not WORLD.is_listed(code, now_ms):
        return
    book = WORLD.orderbook(code, now_ms, step)
    assert len(book.asks) == len(book.bids) == 30
    for side in (book.asks, book.bids):
        real = [unit for unit in side if unit != (0, 0)]
        assert list(side) == real + [(0, 0)] * (30 - len(real))
        assert all(price > 0 and size > 0 for price, size in real)
        assert all(price % (step or market.step) == 0 for price, _ in real)
    asks, bids = [p for p, _ in book.asks if p], [p for p, _ in book.bids if p]
    assert asks == sorted(set(asks))
    assert bids == sorted(set(bids), reverse=True)
    assert not asks or not bids or bids[0] < asks[0]
    assert book.total_ask == sum(size for _, size in book.asks)
    assert book.total_bid == sum(size for _, size in book.bids)
    assert book.level == step


@given(code=markets, now_ms=recent)
@settings(deadline=None)
def test_the_last_price_is_at_the_touch_of_the_book(code, now_ms):
    book = WORLD.orderbook(code, now_ms)
    last = WORLD.newest_trades(code, now_ms - 300 * DAY_MS, book.changed_ms + 1, now_ms, 1)[0]
    assert last.price == (book.asks if last.buy else book.bids)[0][0]


@given(
    code=st.sampled_from([code for code in SAMPLE if WORLD.market(code).activity not in (DEEP, BUSY)]), now_ms=recent
)
@settings(deadline=None)
def test_a_quiet_book_changes_with_every_trade(code, now_ms):
    last = WORLD.ticker(code, now_ms).last
    assert WORLD.orderbook(code, last.at_ms).changed_ms == last.at_ms
    assert WORLD.orderbook(code, now_ms).changed_ms >= last.at_ms


def test_busy_books_change_every_100_ms_with_a_phase_of_their_own():
    phases = set()
    for code in WORLD.markets:
        if WORLD.market(code).activity not in (DEEP, BUSY):
            continue
        times = [WORLD.orderbook(code, NOW_MS + wait).changed_ms for wait in range(0, 2_000, 10)]
        assert len({at_ms % 100 for at_ms in times}) == 1
        assert len(set(times)) >= 20
        phases.add(times[0] % 100)
    assert len(phases) > 5


def test_quiet_books_are_minutes_old_and_many_are_padded():
    dust = [code for code in WORLD.markets if WORLD.market(code).activity is DUST]
    dust = [code for code in dust if WORLD.is_listed(code, NOW_MS)]
    ages = [NOW_MS - WORLD.orderbook(code, NOW_MS).changed_ms for code in dust]
    assert 100_000 < max(ages) <= 150_000
    padded = [code for code in dust if (0, 0) in WORLD.orderbook(code, NOW_MS).asks]
    assert len(dust) // 3 < len(padded) < len(dust)


@pytest.mark.slow
@given(code=markets, now_ms=recent, wait_ms=st.integers(0, 300))
@settings(deadline=None, max_examples=30)
def test_a_book_with_the_same_timestamp_is_the_same_book(code, now_ms, wait_ms):
    fresh = World(7, 110)
    earlier, later = WORLD.orderbook(code, now_ms), fresh.orderbook(code, now_ms + wait_ms)
    assert earlier.changed_ms <= later.changed_ms
    assert (earlier == later) == (earlier.changed_ms == later.changed_ms)


def test_ticks_are_those_of_the_exchange():
    krw = {1_500_000: 1_000, 500_000: 500, 499_900: 100, 50_000: 50, 10_000: 10, 5_000: 5, 4_999: 1, 100: 1}
    assert {price: tick("KRW", price * E8) // E8 for price in krw} == krw
    assert tick("KRW", 99 * E8) == E8 // 10
    assert tick("USDT", 10 * E8) == E8 // 100
    assert tick("USDT", E8) == E8 // 1_000
    assert {tick("BTC", price) for price in (1, E8, 100 * E8)} == {1}


@pytest.mark.parametrize(("quote", "step"), [("KRW", E8), ("USDT", 1_000_000), ("BTC", 1)])
def test_only_krw_books_can_be_grouped(quote, step):
    levels = group_levels(quote, step, 4_000 * E8)
    assert levels == ((0, 10 * E8, 100 * E8, 1_000 * E8) if quote == "KRW" else (0,))


def test_sampled_markets_are_of_every_activity():
    assert {WORLD.market(code).activity.name for code in SAMPLE} == {"deep", "busy", "mid", "thin", "dust"}
    assert all(WORLD.opening_ms(code) < NOW_MS - 901 * DAY_MS for code in SAMPLE)
    assert all(a != b for a, b in combinations(SAMPLE, 2))
