"""A market is called unknown only by a list that is recent enough to know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.listing import Listing, Verdict

markets = st.sets(st.from_regex(r"(KRW|BTC|USDT)-[A-Z]{1,3}", fullmatch=True))


@given(markets, markets, st.floats(0, 100), st.floats(0, 100))
def test_only_a_list_asked_for_since_then_condemns_a_market(
    listed: set[str], others: set[str], asked_s: float, since_s: float
):
    listing = Listing()
    listing.update(listed, asked_s)
    assert {listing.verdict(market, since_s=since_s) for market in listed} <= {Verdict.LISTED}
    unlisted = Verdict.UNLISTED if asked_s >= since_s else Verdict.UNSURE
    assert {listing.verdict(market, since_s=since_s) for market in others - listed} <= {unlisted}


def test_without_a_list_nothing_is_known():
    assert Listing().verdict("KRW-BTC", since_s=0.0) is Verdict.UNSURE
    assert Listing().by_quote == {}


@given(markets)
def test_markets_are_sorted_by_the_currency_they_are_quoted_in(listed: set[str]):
    listing = Listing()
    listing.update(iter(listed), 1.0)
    assert frozenset().union(*listing.by_quote.values()) == listing.markets == listed
    assert all(market.startswith(f"{quote}-") for quote, names in listing.by_quote.items() for market in names)


def test_a_newer_list_replaces_the_older_one():
    listing = Listing()
    listing.update(["KRW-OLD", "BTC-OLD"], 1.0)
    listing.update(["KRW-NEW"], 2.0)
    assert listing.verdict("KRW-OLD", since_s=2.0) is Verdict.UNLISTED
    assert listing.by_quote == {"KRW": {"KRW-NEW"}}
