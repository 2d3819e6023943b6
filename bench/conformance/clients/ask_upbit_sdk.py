"""upbit-sdk, the exchange's own, asynchronous; what its schemas say about the answers is asked for on its own."""

from __future__ import annotations

import asyncio
from typing import Any

import upbit
from telling import BASE_URL, CODES, LISTEN_S, Asking, iso, now_ms, open_ms, refused, tell, units
from upbit import AsyncUpbit
from upbit.lib.ws._async import AsyncWsStream

PAUSE_S = 0.12
COUNT = 150


def plain(model: Any) -> dict[str, Any]:
    """Every field the client knows of, and those it does not."""
    fields: dict[str, Any] = model.to_dict(mode="python")
    return fields


def bar(model: Any) -> dict[str, Any]:
    row = plain(model)
    return {**row, "open_ms": open_ms(row["candle_date_time_utc"])}


def book(row: dict[str, Any]) -> dict[str, Any]:
    sides = {
        f"{side}s": units([(unit[f"{side}_price"], unit[f"{side}_size"]) for unit in row["orderbook_units"]])
        for side in ("ask", "bid")
    }
    return {**{name: value for name, value in row.items() if name != "orderbook_units"}, **sides}


async def asked(question: Any) -> tuple[Asking, Any]:
    with Asking() as asking:
        answer = await question
    await asyncio.sleep(PAUSE_S)
    return asking, answer


async def ask(client: AsyncUpbit) -> None:
    asking, rows = await asked(client.trading_pairs.list(is_details=True))
    asking.tell("market rows", "all", [plain(row) for row in rows])
    asking, rows = await asked(client.tickers.list_by_quote_currencies(quote_currencies="KRW,BTC,USDT"))
    for row in rows:
        asking.tell("ticker", row.market, plain(row))
    asking, rows = await asked(client.tickers.list_by_trading_pairs(markets=",".join(CODES)))
    for row in rows:
        asking.tell("ticker", row.market, plain(row))
    asking, rows = await asked(client.orderbooks.list(markets=",".join(CODES)))
    for row in rows:
        asking.tell("orderbook", row.market, book(plain(row)))
    asking, rows = await asked(client.orderbooks.list_instruments(markets=",".join(CODES)))
    asking.tell("instruments", ",".join(CODES), [plain(row) for row in rows])
    for code in CODES:
        asking, rows = await asked(client.trades.list(market=code, count=200))
        asking.tell("trades", code, [plain(row) for row in rows], count=200)
        for kind in ("seconds", "minutes/1", "minutes/240", "days", "weeks", "months", "years"):
            name, _, unit = kind.partition("/")
            words = (int(unit),) if unit else ()
            until_ms = now_ms() // 86_400_000 * 86_400_000
            list_bars = getattr(client.candles, f"list_{name}")
            asking, rows = await asked(list_bars(*words, market=code, count=COUNT, to=iso(until_ms)))
            asking.tell(
                "candles", code, [bar(row) for row in reversed(rows)], kind=kind, count=COUNT, until_ms=until_ms
            )


async def listen(client: AsyncUpbit) -> None:
    for stream in ("ticker", "trade", "orderbook", "candle.1s", "candle.1m"):
        asked_ms = now_ms()
        name, _, interval = stream.partition(".")
        options = {"interval": interval} if interval else {}
        rows: list[dict[str, Any]] = []
        async with getattr(AsyncWsStream(client), name)(CODES[:3], **options) as connection:
            try:
                async with asyncio.timeout(LISTEN_S):
                    async for event in connection:
                        rows.append(plain(event))  # noqa: PERF401 - what came until the end of time is to stay
            except TimeoutError:
                pass
        for code in CODES[:3]:
            seen = [row for row in rows if row["code"] == code]
            tell("frames", code, asked_ms, [book(row) for row in seen] if name == "orderbook" else seen,
                 stream=stream, whole=True)  # fmt: skip


async def list_subscriptions(client: AsyncUpbit) -> None:
    async with AsyncWsStream(client).ticker(CODES[:2]) as connection:
        told = await connection.list_subscriptions()
    tell("subscriptions", "ticker", now_ms(), plain(told)["result"])


async def be_refused(client: AsyncUpbit) -> None:
    questions = {
        "NotFoundError": lambda: client.tickers.list_by_trading_pairs(markets="KRW-NOPE"),
        "BadRequestError": lambda: client.trades.list(market="KRW-BTC", days_ago=8),
    }
    for expected, question in questions.items():
        try:
            await question()
            refused(expected, None)
        except upbit.UpbitError as error:
            refused(expected, error)
    patient = client.with_options(max_retries=0)
    calls = (patient.tickers.list_by_trading_pairs(markets="KRW-BTC") for _ in range(40))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    refused("RateLimitError", errors[0] if errors else None)


async def validate() -> None:
    """Its own validation, which it leaves off unless told otherwise."""
    async with AsyncUpbit(base_url=BASE_URL, _strict_response_validation=True) as strict:
        questions = {
            "market/all": strict.trading_pairs.list(is_details=True),
            "ticker": strict.tickers.list_by_trading_pairs(markets=CODES[0]),
            "orderbook": strict.orderbooks.list(markets=CODES[0]),
            "instruments": strict.orderbooks.list_instruments(markets=CODES[0]),
            "trades": strict.trades.list(market=CODES[0], count=200),
            "minutes": strict.candles.list_minutes(1, market=CODES[0], count=200),
            "days": strict.candles.list_days(market=CODES[0], count=200),
            "weeks": strict.candles.list_weeks(market=CODES[0], count=200),
        }
        for name, question in questions.items():
            try:
                await question
                tell("schema", name, now_ms(), {name: "valid"})
            except upbit.APIResponseValidationError as error:
                tell("schema", name, now_ms(), {name: str(error.__cause__)[:200]})
            await asyncio.sleep(PAUSE_S)


async def main() -> None:
    async with AsyncUpbit(base_url=BASE_URL) as client:
        await ask(client)
        await validate()
        await listen(client)
        await list_subscriptions(client)
        await be_refused(client)


asyncio.run(main())
