"""Many calls for different pages at once: the limit decides how long that takes, and nothing else should."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter

import attrs
import trio

from bench.figures import Figure, Goal, Outcome, at_most
from bench.ground import LATENCY_S, Account, Ground, open_ground
from bench.scale import Scale
from bench.truth import wrong_book, wrong_candles, wrong_trades
from marketpipe import Client, MarketPipeError, open_pipeline

__all__ = ["Answers", "Page", "candle_pages", "candles_at_once", "pages", "three_groups"]

HOUR_MS = 3_600_000
BARS = 200
TRADES = 20
REPEATS = 2
# What must be reached at 20 ms, by the number of calls.
CANDLES_GOALS = {60: at_most(5.6)}
GROUPS_GOALS = {40: at_most(3.6)}


@attrs.frozen
class Page:
    """200 closed minutes of one market before a moment that has passed."""

    market: str
    end_ms: int


def candle_pages(ground: Ground) -> Iterator[Page]:
    """Pages that differ, without end: one of every market, then an earlier one of every market, and so on."""
    names, end_ms = ground.names(), ground.clock.now_ms() // HOUR_MS * HOUR_MS
    while True:
        yield from (Page(name, end_ms) for name in names)
        end_ms -= HOUR_MS


async def pages(scale: Scale) -> Outcome:
    """60 calls at once for different candle pages; 3 groups of 40 calls."""
    async with open_ground(markets=scale.markets) as ground:
        parts = []
        for _ in range(min(REPEATS, scale.repeats)):
            parts.append(await candles_at_once(ground, scale.pages, CANDLES_GOALS.get(scale.pages)))
            parts.append(await three_groups(ground, scale.calls, GROUPS_GOALS.get(scale.calls)))
    return Outcome.merged(parts)


async def candles_at_once(ground: Ground, count: int, goal: Goal | None = None) -> Outcome:
    """``count`` different candle pages, asked at once."""
    source = candle_pages(ground)
    wanted = [next(source) for _ in range(count)]
    answers = Answers(ground)
    async with open_pipeline(base_url=ground.base_url) as market:
        await market.get_market()
        await ground.settle()
        began_s = perf_counter()
        async with trio.open_nursery() as nursery:
            for page in wanted:
                nursery.start_soon(answers.candles, market, page)
        elapsed_s = perf_counter() - began_s
        account = await ground.settle()
    what = f"{count} candle pages"
    figures = [_duration(f"{what} at once", elapsed_s, count, ground, goal), _requests(what, account, "candles")]
    return Outcome(figures, answers.wrong() + account.broken(what))


async def three_groups(ground: Ground, count: int, goal: Goal | None = None) -> Outcome:
    """``count`` calls of each of three groups: candles and trades at once, order books one after the other.

    Order books asked at once would travel together in one request; so each is asked when the one before has come.
    """
    source = candle_pages(ground)
    wanted = [next(source) for _ in range(count)]
    traded = _traded_today(ground, count)
    answers = Answers(ground)
    async with open_pipeline(base_url=ground.base_url) as market:
        await market.get_market()
        await ground.settle()
        began_s = perf_counter()
        async with trio.open_nursery() as nursery:
            for page in wanted:
                nursery.start_soon(answers.candles, market, page)
            for name in traded:
                nursery.start_soon(answers.trades, market, name)
            nursery.start_soon(answers.books_in_turn, market, ground.names()[:count])
        elapsed_s = perf_counter() - began_s
        account = await ground.settle()
    what = f"3 groups of {count} calls"
    figures = [
        _duration(what, elapsed_s, count, ground, goal),
        *(_duration(f"{what}: {kind}", at_s - began_s, count, ground) for kind, at_s in answers.ended_s.items()),
        _requests(what, account, "candles", "crix-trades", "orderbook"),
    ]
    return Outcome(figures, answers.wrong() + account.broken(what))


@attrs.define
class Answers:
    """Asks, and keeps what came; it is held against the truth by `wrong`, when no clock is running any more.

    ``answered_s``: when calls ended, by Trio's clock. ``ended_s``: when the last of each kind did, by `perf_counter`.
    """

    ground: Ground
    answered_s: list[float] = attrs.field(factory=list, init=False)
    ended_s: dict[str, float] = attrs.field(factory=dict, init=False)
    _next: trio.Event = attrs.field(factory=trio.Event, init=False)
    _checks: list[Callable[[], list[str]]] = attrs.field(factory=list, init=False)

    def wrong(self) -> list[str]:
        """One line for each call that failed and each value that differs."""
        return [line for check in self._checks for line in check()]

    async def wait_answer(self) -> None:
        """Return when the next call has ended."""
        await self._next.wait()

    async def candles(self, market: Client, page: Page) -> None:
        """One page."""
        with self._noted("candles", f"{page.market} before {page.end_ms}"):
            series = await market.get_candle(page.market, "1m", count=BARS, end=page.end_ms)
            self._checks.append(partial(wrong_candles, self.ground.world, series, BARS, page.end_ms))

    async def trades(self, market: Client, name: str) -> None:
        """The newest trades."""
        asked_ms = self.ground.clock.now_ms()
        with self._noted("trades", name):
            trades = await market.get_trade(name, count=TRADES)
            self._checks.append(partial(wrong_trades, self.ground.world, name, trades, asked_ms, TRADES))

    async def books_in_turn(self, market: Client, names: Sequence[str]) -> None:
        """One order book after the other."""
        for name in names:
            asked_ms = self.ground.clock.now_ms()
            with self._noted("order books in turn", name):
                book = await market.get_orderbook(name)
                self._checks.append(partial(wrong_book, self.ground.world, book, asked_ms))

    @contextmanager
    def _noted(self, kind: str, asked: str) -> Iterator[None]:
        try:
            yield
        except MarketPipeError as error:
            line = f"{kind} of {asked} failed: {error}"
            self._checks.append(lambda: [line])
        self.ended_s[kind] = perf_counter()
        self.answered_s.append(trio.current_time())
        self._next.set()
        self._next = trio.Event()


def _traded_today(ground: Ground, count: int) -> list[str]:
    """Markets with a full page of trades today, each of which is then one request; few of them just after midnight."""
    now_ms = ground.clock.now_ms()
    midnight_ms = now_ms - now_ms % (24 * HOUR_MS)

    def trades(name: str) -> int:
        return len(ground.world.newest_trades(name, midnight_ms, now_ms, now_ms, TRADES))

    return sorted(ground.names(), key=trades, reverse=True)[:count]


def _duration(what: str, elapsed_s: float, count: int, ground: Ground, goal: Goal | None = None) -> Figure:
    config = ground.simulator.config
    rounds = -(-count // config.limit)
    return Figure(
        what=what,
        unit="s",
        samples=[elapsed_s],
        baseline="what the limit allows",
        baseline_samples=[rounds - 1 + config.latency_s],
        goal=goal if config.latency_s <= LATENCY_S and not config.jitter_s else None,
    )


def _requests(what: str, account: Account, *groups: str) -> Figure:
    count = sum(account.requests(group) for group in groups)
    return Figure(what=f"{what}, requests", unit="requests", samples=[count])
