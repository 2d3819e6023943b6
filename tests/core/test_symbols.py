"""What people write for a market is understood, or named as what it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.symbols import is_market_code, normalise, normalise_all

codes = st.from_regex(r"[A-Z0-9]{1,6}-[A-Z0-9]{1,10}", fullmatch=True)


@given(codes, st.sampled_from(["", " ", "\t\n"]), st.data())
def test_case_and_blanks_around_do_not_matter(code: str, blank: str, data: st.DataObject):
    written = "".join(data.draw(st.sampled_from([letter, letter.lower()])) for letter in code)
    assert normalise(f"{blank}{written}{blank}") == code
    assert is_market_code(code)


@given(st.text())
def test_normalising_twice_is_normalising_once(symbol: str):
    assert normalise(normalise(symbol)) == normalise(symbol)


@given(st.lists(codes))
def test_many_symbols_keep_the_order_of_their_first_mention(symbols: list[str]):
    names = normalise_all(symbol.lower() for symbol in symbols)
    assert list(names) == sorted(set(symbols), key=symbols.index)


@pytest.mark.parametrize("symbols", [[], (), {}, set(), iter(())])
def test_no_symbols_are_no_symbols(symbols: Any):
    assert normalise_all(symbols) == ()


@pytest.mark.parametrize("symbol", [None, 5, b"KRW-BTC", ["KRW-BTC"], 1.5])
def test_what_is_no_string_is_named(symbol: Any):
    for ask in (lambda: normalise(symbol), lambda: normalise_all(["KRW-BTC", symbol])):
        with pytest.raises(TypeError, match="a symbol must be a str such as 'KRW-BTC', was ") as misuse:
            ask()
        assert repr(symbol) in str(misuse.value)


@pytest.mark.parametrize("symbols", [None, 5, object])
def test_what_is_neither_a_string_nor_many_is_named(symbols: Any):
    with pytest.raises(TypeError, match="symbols must be a str or an iterable of str, was ") as misuse:
        normalise_all(symbols)
    assert repr(symbols) in str(misuse.value)


def test_an_error_of_the_callers_own_iterable_is_not_rewritten():
    def symbols():
        yield "KRW-BTC"
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        normalise_all(symbols())


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        "-",
        "KRW",
        "KRW-",
        "-BTC",
        "KRW_BTC",
        "KRW-BTC-X",
        "krw-btc",
        "KRW BTC",
        "KRW-BTC\n",
        "KRW-BTC,KRW-ETH",
        "KRW-비트코인",
        "KRW-ＢＴＣ",
        "KRW-BT٣",
        "../KRW-BTC",
        "KRW-BTC&count=1",
    ],
)
def test_what_cannot_be_a_market_is_told_from_what_can(symbol: str):
    assert not is_market_code(symbol)


@pytest.mark.parametrize("symbol", ["KRW-BTC", "BTC-1INCH", "USDT-A", "KRW-0G"])
def test_codes_with_digits_and_of_one_letter_are_markets(symbol: str):
    assert is_market_code(symbol)
