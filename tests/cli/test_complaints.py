"""Failures as lines on stderr."""

from __future__ import annotations

import pytest

from marketpipe import BadPayload, ExchangeError, ExchangeUnavailable, UnknownMarket
from marketpipe.cli.complaints import complain, complain_of_each


@pytest.mark.parametrize(
    "error",
    [
        UnknownMarket("KRW-BTC"),
        UnknownMarket("KRW-BTC", "'krw-btc' is no market code"),
        BadPayload("the answer has no row for this market", market="KRW-BTC"),
        ExchangeUnavailable("HTTP 503 from /v1/ticker for KRW-BTC: no reason given"),
    ],
)
def test_a_symbol_that_the_failure_names_is_not_named_twice(error, capsys):
    complain(error, about="KRW-BTC")
    assert capsys.readouterr().err == f"marketpipe: {error}\n"


@pytest.mark.parametrize(
    "error",
    [
        ExchangeUnavailable("silence"),
        ExchangeError("HTTP 400 from /v1/ticker for 2 markets: {'asked': 'KRW-BTC'}"),
        BadPayload("cannot be read: [{'market': 'KRW-BTC'}]", market="KRW-BTCX"),
    ],
)
def test_a_symbol_that_is_only_quoted_or_part_of_another_is_named(error, capsys):
    complain(error, about="KRW-BTC")
    assert capsys.readouterr().err == f"marketpipe: KRW-BTC: {error}\n"


def test_equal_failures_of_many_symbols_share_a_line_and_others_keep_theirs(capsys):
    symbols = [f"KRW-A{number}" for number in range(300)]
    failed = {symbol: ExchangeUnavailable("HTTP 503") for symbol in symbols}
    failed |= {"KRW-NOPE": UnknownMarket("KRW-NOPE"), "KRW-B": ExchangeUnavailable("silence")}
    complain_of_each(failed)
    assert capsys.readouterr().err.splitlines() == [
        "marketpipe: 300 markets (KRW-A0, KRW-A1, KRW-A2, ...): HTTP 503",
        "marketpipe: unknown market 'KRW-NOPE': the exchange does not list it",
        "marketpipe: KRW-B: silence",
    ]


def test_few_symbols_are_all_named(capsys):
    complain_of_each({symbol: ExchangeUnavailable("silence") for symbol in ("KRW-A", "KRW-B")})
    assert capsys.readouterr().err == "marketpipe: 2 markets (KRW-A, KRW-B): silence\n"
