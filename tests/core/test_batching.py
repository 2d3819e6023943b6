"""Many callers' keys become few requests, and every key is in exactly one of them."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.batching import Key, Lot, Wanted, group_of, halves, market_of, merge
from marketpipe.core.requests import (
    BATCH_LIMIT,
    CandlesRequest,
    Group,
    MarketsRequest,
    OrderbooksRequest,
    QuoteTickersRequest,
    TickersRequest,
    TradesRequest,
)
from marketpipe.core.timeframes import Timeframe

LISTED = {
    "KRW": frozenset(f"KRW-C{i}" for i in range(289)),
    "BTC": frozenset(f"BTC-C{i}" for i in range(310)),
    "USDT": frozenset(f"USDT-C{i}" for i in range(256)),
}
EVERY = sorted(itertools.chain.from_iterable(LISTED.values()))
UNLISTED = [f"{quote}-GONE{i}" for quote in ("KRW", "BTC", "EUR") for i in range(5)]


def tickers(*markets: str) -> list[Wanted]:
    return [Wanted(Group.TICKER, market) for market in markets]


@st.composite
def demands(draw: st.DrawFn) -> list[Wanted]:
    """Ticker keys in any order of urgency: a share of each quote currency, some of them not listed."""
    markets = draw(st.lists(st.sampled_from(UNLISTED), max_size=5))
    for names in LISTED.values():
        share = draw(st.sampled_from([0, 1, 50, 100, 200, 400]))
        markets += sorted(names)[:share]
    Random(draw(st.integers(0, 100))).shuffle(markets)
    return tickers(*dict.fromkeys(markets))


@st.composite
def condemned(draw: st.DrawFn, keys: list[Wanted]) -> frozenset[Wanted]:
    """Keys that ticker/all had no row for."""
    return frozenset(draw(st.lists(st.sampled_from(keys), max_size=20))) if keys else frozenset()


def markets_in(lot: Lot) -> tuple[str, ...]:
    assert isinstance(lot.request, TickersRequest | OrderbooksRequest)
    return lot.request.markets


@given(demands(), st.data(), st.booleans())
def test_every_key_travels_once_in_a_request_that_answers_it(keys: list[Wanted], data: st.DataObject, known: bool):
    lots = merge(keys, listed_by_quote=LISTED if known else {}, alone=data.draw(condemned(keys)))
    assert sorted(key for lot in lots for key in lot.keys) == sorted(keys)
    for lot in lots:
        if isinstance(lot.request, QuoteTickersRequest):
            assert {market_of(key).partition("-")[0] for key in lot.keys} <= set(lot.request.quotes)
        else:
            assert markets_in(lot) == tuple(market_of(key) for key in lot.keys)


@given(demands(), st.data())
def test_no_request_asks_more_markets_than_a_url_holds(keys: list[Wanted], data: st.DataObject):
    lots = merge(keys, listed_by_quote=LISTED, alone=data.draw(condemned(keys)))
    assert all(len(markets_in(lot)) <= BATCH_LIMIT for lot in lots if isinstance(lot.request, TickersRequest))


@given(demands(), st.data())
def test_a_key_without_a_row_in_ticker_all_is_never_asked_there_again(keys: list[Wanted], data: st.DataObject):
    alone = data.draw(condemned(keys))
    for lot in merge(keys, listed_by_quote=LISTED, alone=alone):
        assert isinstance(lot.request, TickersRequest) or alone.isdisjoint(lot.keys)


@given(demands(), st.data())
def test_ticker_all_is_asked_once_at_most_and_only_where_it_saves_a_request(keys: list[Wanted], data: st.DataObject):
    lots = merge(keys, listed_by_quote=LISTED, alone=data.draw(condemned(keys)))
    plain = math.ceil(len(keys) / BATCH_LIMIT)
    by_all = [lot for lot in lots if isinstance(lot.request, QuoteTickersRequest)]
    assert len(lots) <= plain - len(by_all)
    assert len(by_all) <= 1


@given(demands(), st.data())
def test_the_most_urgent_keys_are_in_the_first_requests(keys: list[Wanted], data: st.DataObject):
    lots = merge(keys, listed_by_quote=LISTED, alone=data.draw(condemned(keys)))
    place = {key: index for index, key in enumerate(keys)}
    firsts = [place[lot.keys[0]] for lot in lots]
    assert firsts == sorted(firsts)
    assert all(list(lot.keys) == sorted(lot.keys, key=place.__getitem__) for lot in lots)


@pytest.mark.parametrize(
    ("markets", "requests"),
    [(EVERY, 1), (sorted(LISTED["KRW"]), 1), (EVERY[:500], 1), (EVERY[:200], 1), (EVERY[:310] + EVERY[330:400], 2)],
)
def test_most_of_a_quote_currency_is_one_request(markets: list[str], requests: int):
    assert len(merge(tickers(*markets), listed_by_quote=LISTED)) == requests


def test_a_few_of_every_quote_currency_are_asked_by_name():
    markets = [market for names in LISTED.values() for market in sorted(names)[:100]]
    lots = merge(tickers(*markets), listed_by_quote=LISTED)
    assert [type(lot.request) for lot in lots] == [TickersRequest, TickersRequest]


def test_an_urgent_market_of_another_quote_currency_goes_before_ticker_all():
    keys = tickers("USDT-C0", *sorted(LISTED["KRW"]), *sorted(LISTED["BTC"]))
    first, second = merge(keys, listed_by_quote=LISTED)
    assert first.request == TickersRequest(("USDT-C0",))
    assert second.request == QuoteTickersRequest(("BTC", "KRW"))


def test_while_nothing_is_listed_markets_are_asked_by_name():
    lots = merge(tickers(*EVERY), listed_by_quote={})
    assert len(lots) == 5
    assert {type(lot.request) for lot in lots} == {TickersRequest}


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (200, [200]), (201, [100, 101]), (500, [166, 167, 167])])
def test_books_have_no_request_for_all_of_them_and_travel_in_even_batches(count: int, sizes: list[int]):
    keys = [Wanted(Group.ORDERBOOK, market) for market in EVERY[:count]]
    lots = merge(keys, listed_by_quote=LISTED)
    assert [len(lot.keys) for lot in lots] == sizes
    assert {type(lot.request) for lot in lots} == {OrderbooksRequest}
    assert [key for lot in lots for key in lot.keys] == keys


@pytest.mark.parametrize(
    "keys",
    [
        [MarketsRequest()],
        [TradesRequest("KRW-BTC", 500), TradesRequest("KRW-BTC", 500, cursor=7), TradesRequest("KRW-ETH", 1)],
        [CandlesRequest("KRW-BTC", Timeframe.M1, 200, to_ms) for to_ms in (3, 2, 1)],
        [],
    ],
)
def test_a_page_is_a_request_of_its_own_in_the_order_of_urgency(keys: list[Key]):
    assert merge(keys, listed_by_quote=LISTED) == [Lot(key, (key,)) for key in keys]


@given(st.integers(1, 400), st.sampled_from([Group.TICKER, Group.ORDERBOOK]))
def test_the_halves_of_a_failed_batch_hold_all_its_keys_in_two_equal_parts(count: int, group: Group):
    (lot, *_) = merge([Wanted(group, market) for market in EVERY[: min(count, BATCH_LIMIT)]], listed_by_quote={})
    parts = halves(lot)
    assert tuple(key for part in parts for key in part.keys) == lot.keys
    assert [part.request for part in parts] == [type(lot.request)(markets_in(part)) for part in parts]
    assert len(parts) == min(2, len(lot.keys))
    assert max(len(part.keys) for part in parts) == math.ceil(len(lot.keys) / 2)


def test_a_key_knows_its_group_and_its_market():
    assert (group_of(Wanted(Group.ORDERBOOK, "KRW-BTC")), market_of(Wanted(Group.ORDERBOOK, "KRW-BTC"))) == (
        Group.ORDERBOOK,
        "KRW-BTC",
    )
    assert (group_of(MarketsRequest()), market_of(MarketsRequest())) == (Group.MARKET, None)
    assert (group_of(TradesRequest("KRW-BTC", 1)), market_of(TradesRequest("KRW-BTC", 1))) == (Group.TRADE, "KRW-BTC")
    page = CandlesRequest("KRW-BTC", Timeframe.D1, 1)
    assert (group_of(page), market_of(page)) == (Group.CANDLE, "KRW-BTC")


@pytest.mark.parametrize(("asked", "requests"), [(144, 1), (145, 1), (289, 1), (290, 2)])
def test_a_quote_is_asked_for_as_a_whole_if_that_saves_a_request(asked: int, requests: int):
    keys = tickers(*sorted(LISTED["KRW"])[:asked], *(["BTC-C1"] if asked > 289 else []))
    assert len(merge(keys, listed_by_quote=LISTED)) == requests


def test_a_quote_of_which_just_half_is_asked_for_is_asked_for_as_a_whole():
    listed = {"KRW": {f"KRW-{index}" for index in range(600)}}
    half = sorted(listed["KRW"])[:300]
    assert [type(lot.request) for lot in merge(tickers(*half), listed_by_quote=listed)] == [QuoteTickersRequest]
    (first, second) = merge(tickers(*half[:299]), listed_by_quote=listed)
    assert {type(first.request), type(second.request)} == {TickersRequest}


def test_a_code_with_more_than_one_dash_belongs_to_the_quote_before_the_first():
    listed = {"KRW": {f"KRW-{index}-X" for index in range(300)}}
    assert len(merge(tickers(*sorted(listed["KRW"])), listed_by_quote=listed)) == 1
