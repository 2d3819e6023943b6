"""Every error can be handed to several callers, each of whom gets one of his own."""

from __future__ import annotations

import traceback

import pytest

import marketpipe.errors
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    MarketPipeError,
    PipelineClosed,
    PipelineCrashed,
    RateLimited,
    StaleData,
    StoreError,
    SubscriberLagged,
    UnknownMarket,
)

ERRORS = [
    ExchangeError("refused", status=400),
    UnknownMarket("KRW-GONE"),
    UnknownMarket("KRW-GONE", "no such thing"),
    RateLimited("too many", retry_after_s=1.5),
    Banned("blocked", until_ms=1_790_121_600_000),
    ExchangeUnavailable("down", status=503),
    ExchangeUnavailable("unsent", sent=False),
    ExchangeUnavailable("late", abandoned=True),
    BadPayload("was NaN", field="trade_price", market="KRW-BTC"),
    BadPayload("no JSON"),
    StaleData("old"),
    StoreError("locked"),
    SubscriberLagged("slow"),
    PipelineClosed("left"),
    PipelineCrashed("crashed"),
    MarketPipeError("any", "number", "of arguments"),
]


def test_every_error_there_is_is_among_those_tested():
    assert {type(error).__name__ for error in ERRORS} == set(marketpipe.errors.__all__)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_copy_is_the_same_error_in_all_but_its_traceback(error: MarketPipeError):
    cause = OSError("name look-up failed")
    with pytest.raises(MarketPipeError) as raised:
        raise error from cause
    twin = error.copy()
    assert twin is not error
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert twin.__cause__ is cause
    assert twin.__traceback__ is None
    assert raised.value is error


def test_raising_a_copy_leaves_the_original_and_the_other_copies_alone():
    error = RateLimited("too many", retry_after_s=1.0)
    twins = [error.copy() for _ in range(3)]
    for twin in twins:
        with pytest.raises(RateLimited):
            raise twin
    assert [len(traceback.extract_tb(twin.__traceback__)) for twin in twins] == [1, 1, 1]
    assert error.__traceback__ is None


def test_a_note_on_one_copy_is_not_on_the_others():
    error = StaleData("old")
    error.add_note("shared")
    one, other = error.copy(), error.copy()
    one.add_note("mine")
    assert other.__notes__ == error.__notes__ == ["shared"]


@pytest.mark.parametrize("name", marketpipe.errors.__all__)
def test_every_error_is_caught_by_the_root_and_stands_in_the_tree(name: str):
    kind = getattr(marketpipe.errors, name)
    assert issubclass(kind, MarketPipeError)
    assert issubclass(MarketPipeError, Exception)
    assert f" {name} " in f" {marketpipe.errors.__doc__} ".replace("\n", " \n ")


def test_an_error_says_what_it_is_about():
    assert str(UnknownMarket("KRW-GONE")) == "unknown market 'KRW-GONE': the exchange does not list it"
    assert str(BadPayload("was NaN", field="trade_price", market="KRW-BTC")) == "KRW-BTC field 'trade_price': was NaN"
    assert str(BadPayload("was NaN", field="trade_price")) == "field 'trade_price': was NaN"
    assert str(BadPayload("was NaN", market="KRW-BTC")) == "KRW-BTC: was NaN"
    assert str(BadPayload("no JSON")) == "no JSON"


@pytest.mark.parametrize(
    ("error", "status"),
    [(ERRORS[0], 400), (ERRORS[1], 404), (ERRORS[3], 429), (ERRORS[4], 418), (ERRORS[5], 503), (ERRORS[6], None)],
)
def test_an_error_of_the_exchange_has_its_http_status(error: ExchangeError, status: int | None):
    assert error.status == status
