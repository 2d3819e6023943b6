"""What type checkers know of the verbs. Never run: `test_typing.py` gives it to mypy and to pyright."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import assert_type

import marketpipe as mp


def some() -> Iterator[str]:
    yield "KRW-BTC"


async def a_str_gives_a_value(market: mp.Client) -> None:
    assert_type(await market.get_ticker("KRW-BTC"), mp.Ticker)
    assert_type(await market.get_orderbook("KRW-BTC", depth=5), mp.Orderbook)
    assert_type(await market.get_trade("KRW-BTC", count=1000), tuple[mp.Trade, ...])
    assert_type(await market.get_candle("KRW-BTC"), mp.CandleSeries)
    assert_type(await market.get_candle("KRW-BTC", "1d", start=datetime(2026, 9, 1, tzinfo=UTC)), mp.CandleSeries)
    assert_type(await market.get_market("KRW-BTC"), mp.Market)
    assert_type(market.get_ticker_nowait("KRW-BTC"), mp.Ticker)
    assert_type(market.get_orderbook_nowait("KRW-BTC", max_age_s=1), mp.Orderbook)


async def any_iterable_of_str_gives_a_batch(market: mp.Client, book: Mapping[str, Decimal]) -> None:
    assert_type(await market.get_ticker(["KRW-BTC"]), mp.Batch[mp.Ticker])
    assert_type(await market.get_ticker(("KRW-BTC", "KRW-ETH")), mp.Batch[mp.Ticker])
    assert_type(await market.get_ticker({"KRW-BTC"}), mp.Batch[mp.Ticker])
    assert_type(await market.get_ticker(some()), mp.Batch[mp.Ticker])
    assert_type(await market.get_ticker(name for name in book), mp.Batch[mp.Ticker])
    assert_type(await market.get_ticker(book), mp.Batch[mp.Ticker])
    assert_type(await market.get_orderbook(some(), depth=1), mp.Batch[mp.Orderbook])
    assert_type(await market.get_trade(frozenset({"KRW-BTC"})), mp.Batch[tuple[mp.Trade, ...]])
    assert_type(await market.get_candle(["KRW-BTC"], "1M", count=12, fill="forward"), mp.Batch[mp.CandleSeries])
    assert_type(await market.get_market(some()), mp.Batch[mp.Market])
    assert_type(await market.get_market(), mp.Batch[mp.Market])
    assert_type(await market.get_market(quote="KRW"), mp.Batch[mp.Market])


async def values_are_what_they_say(market: mp.Client) -> None:
    batch = await market.get_candle(["KRW-BTC"], priority=mp.Priority.LOW)
    assert_type(batch["KRW-BTC"], mp.CandleSeries)
    assert_type(batch["KRW-BTC"][-1], mp.Candle)
    assert_type(batch["KRW-BTC"][-1].close, Decimal)
    assert_type(batch["KRW-BTC"][-10:], mp.CandleSeries)
    assert_type(batch.failed, Mapping[str, mp.MarketPipeError])
    assert_type(market.status(), mp.Status)


async def a_pipeline_yields_a_client() -> None:
    async with mp.open_pipeline(region="sg") as market:
        assert_type(market, mp.Client)
