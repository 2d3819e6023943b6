"""Seven rules on live prices: a small engine that decides, and writes down what it would order. It never trades.

::

    python -m marketpipe.examples.seven_rules --sim               # against a simulated exchange
    python -m marketpipe.examples.seven_rules KRW-BTC KRW-ETH     # against Upbit

The rules themselves are in `rules`. `Engine` feeds them from two streams: every trade, so that no high between two
reads is missed, and every closed one-minute bar in which somebody traded. What may be wrong makes no decision: while a
stream has a hole, when trades come late, when no fresh price can be had, a `Silence` is written down instead of an
order. What is learned later corrects the peak and the last minute, and nothing is ordered at a price of the past.

Fees, and what an order would do to the price, are left out.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction

import attrs
import trio

import marketpipe as mp
from marketpipe.examples.exchange import add_options, open_exchange, run_example
from marketpipe.examples.rules import Position, Rule, Thresholds, Window, crashes, decide, is_oversold

__all__ = ["Engine", "Order", "Silence", "main"]

log = logging.getLogger(__name__)

MINUTE_MS = 60_000
# How far this machine's clock and the exchange's may drift apart: a hundred parts in a million.
DRIFT = 1e-4


@attrs.frozen
class Order:
    """What would be ordered, because of the trade (or the closed bar) of ``at_ms``. ``volume`` is rounded."""

    market: str
    rule: Rule
    side: mp.Side
    price: Decimal
    volume: Decimal
    at_ms: int


@attrs.frozen
class Silence:
    """From here on nothing is decided: ``reason``. Written down once, until something was decided upon again."""

    market: str
    reason: str


@attrs.define
class _Book:
    """What is known of one market."""

    window: Window
    position: Position | None = None
    closes: dict[int, Decimal] = attrs.field(factory=dict)
    trades_are_whole: bool = True
    bars_are_whole: bool = True
    is_silent: bool = False


@attrs.define(eq=False)
class Engine:
    """Listens to some markets and writes down in ``journal`` what the rules order. ``positions`` are held already."""

    market: mp.Client
    rules: Thresholds = attrs.field(factory=Thresholds)
    positions: Iterable[Position] = ()
    journal: list[Order | Silence] = attrs.field(factory=list, init=False)
    _books: dict[str, _Book] = attrs.field(factory=dict, init=False)
    _promptest_ms: float = attrs.field(default=float("inf"), init=False)
    _heard_s: float = attrs.field(default=0.0, init=False)

    async def run(self, symbols: Iterable[str]) -> None:
        """Until it is cancelled. What ends a stream ends it too, as the pipe's own error."""
        symbols = list(symbols)
        history = self.rules.bars + 1  # the newest may be running
        async with (
            self.market.stream_trade(symbols) as trades,
            self.market.stream_candle(symbols, "1m", history=history) as bars,
            trio.open_nursery() as nursery,
        ):
            held = {position.market: position for position in self.positions}
            for symbol in trades.markets:
                self._books[symbol] = _Book(Window(self.rules.window_ms), held.get(symbol))
            log.info("listening to %s", ", ".join(trades.markets))
            nursery.start_soon(self._follow_trades, trades, name="trades")
            nursery.start_soon(self._follow_bars, bars, nursery, name="bars")

    def position(self, market: str) -> Position | None:
        """What is held of ``market`` now."""
        return self._books[market].position

    async def _follow_trades(self, trades: mp.Subscription[mp.Trade]) -> None:
        async for event in trades:
            book = self._books[event.market]
            if isinstance(event, mp.Gap):
                # What is missing for good cannot be helped: what comes after it is certain again.
                book.trades_are_whole = not event.is_open
                if not event.repaired:
                    self._fall_silent(event.market, "trades are missing")
            else:
                self._weigh(book, event)

    def _weigh(self, book: _Book, trade: mp.Trade) -> None:
        is_first = not book.window.newest_ms  # what was last before we listened, however long ago
        is_newest = book.window.add(trade.trade_ms, trade.price)
        if is_first:
            return
        late_ms = self._late_ms(trade.trade_ms)
        position = book.position
        if position is None or trade.trade_ms < position.opened_ms:
            return
        position = book.position = position.seen(trade.price, self.rules)
        if not is_newest:
            return
        if late_ms > self.rules.late_ms:
            self._fall_silent(trade.market, "trades come late")
        elif book.trades_are_whole:
            book.is_silent = False
            rule = decide(position, trade.price, book.window.high, book.window.low, self.rules)
            if rule is not None:
                self._act(book, position, rule, trade)

    def _act(self, book: _Book, position: Position, rule: Rule, trade: mp.Trade) -> None:
        if rule in (Rule.ADD_ON_PROFIT, Rule.AVERAGE_DOWN):
            book.position = position.bought(rule, trade.price, self.rules.stake)
            volume = book.position.volume - position.volume
            self._order(trade.market, rule, mp.Side.BUY, trade.price, volume, trade.trade_ms)
        else:
            book.position = None
            self._order(trade.market, rule, mp.Side.SELL, trade.price, position.volume, trade.trade_ms)

    async def _follow_bars(self, bars: mp.Subscription[mp.Candle], nursery: trio.Nursery) -> None:
        async for event in bars:
            book = self._books[event.market]
            if isinstance(event, mp.Gap):
                # If some are missing for good (after days), the index would be wrong: no entry until we start anew.
                book.bars_are_whole = event.repaired
                if not event.repaired:
                    self._fall_silent(event.market, "bars are missing")
            elif event.state is mp.CandleState.FINAL and self._is_news(book, event) and self._may_enter(book):
                nursery.start_soon(self._enter, book, event, name=f"enter {event.market}")

    def _is_news(self, book: _Book, bar: mp.Candle) -> bool:
        """Take a closed bar in; whether it is the minute that has just ended, and its index tells something."""
        book.closes[bar.open_ms] = bar.close
        while len(book.closes) > self.rules.bars:
            del book.closes[min(book.closes)]
        begun = self._promptest_ms < float("inf")
        return begun and self._late_ms(bar.close_ms) <= MINUTE_MS

    def _may_enter(self, book: _Book) -> bool:
        closes = [close for _, close in sorted(book.closes.items())]
        return book.position is None and book.bars_are_whole and is_oversold(closes, self.rules)

    async def _enter(self, book: _Book, bar: mp.Candle) -> None:
        ticker = None
        try:
            with trio.move_on_after(self.rules.patience_s):
                ticker = await self.market.get_ticker(bar.market, max_age_s=0, priority=mp.Priority.CRITICAL)
        except mp.ExchangeError as error:
            log.info("%s: %s", bar.market, error)
        if ticker is None:
            self._fall_silent(bar.market, "no price can be had")
        elif not book.trades_are_whole:
            self._fall_silent(bar.market, "trades are missing")
        elif self._may_enter(book) and not self._is_crashing(book, ticker.price, bar.close_ms):
            book.is_silent = False
            opened_ms = max(book.window.newest_ms, ticker.trade_ms)
            book.position = Position.opened(bar.market, ticker.price, self.rules.stake, opened_ms)
            volume = book.position.volume
            self._order(bar.market, Rule.OVERSOLD_ENTRY, mp.Side.BUY, ticker.price, volume, bar.close_ms)

    def _is_crashing(self, book: _Book, price: Decimal, now_ms: int) -> bool:
        return crashes(price, book.window.high_at(now_ms, price), self.rules)

    def _late_ms(self, at_ms: int) -> float:
        """How much later than the promptest we learn what happened at ``at_ms``: neither clock needs to be right."""
        now_s = trio.current_time()
        behind_ms = now_s * 1000 - at_ms
        self._promptest_ms = min(self._promptest_ms + (now_s - self._heard_s) * 1000 * DRIFT, behind_ms)
        self._heard_s = now_s
        return behind_ms - self._promptest_ms

    def _fall_silent(self, market: str, reason: str) -> None:
        book = self._books[market]
        if not book.is_silent:
            book.is_silent = True
            self.journal.append(Silence(market, reason))
            log.info("%s: no decision, %s", market, reason)

    def _order(self, market: str, rule: Rule, side: mp.Side, price: Decimal, exact: Fraction, at_ms: int) -> None:
        volume = Decimal(exact.numerator) / exact.denominator
        self.journal.append(Order(market, rule, side, price, volume, at_ms))
        words = rule.name.lower().replace("_", " ")
        log.info(
            "dry run: %s %.8f %s at %s (rule %d, %s)", side, volume, market, f"{price.normalize():,f}", rule, words
        )


async def _run(words: argparse.Namespace) -> None:
    async with open_exchange(words) as market:
        engine = Engine(market)
        with trio.move_on_after(words.seconds):
            await engine.run(words.symbols)
        orders = sum(isinstance(entry, Order) for entry in engine.journal)
        log.info("left after %g s: %d orders would have been given", words.seconds, orders)


def main(args: Sequence[str] | None = None) -> None:
    """The command line; see above."""
    parser = add_options(argparse.ArgumentParser(prog="python -m marketpipe.examples.seven_rules"))
    parser.add_argument("symbols", nargs="*", default=["KRW-BTC", "KRW-ETH", "KRW-XRP"])
    parser.add_argument("--for", dest="seconds", type=float, default=float("inf"), metavar="SECONDS")
    words = parser.parse_args(args)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    run_example(_run, words, interrupted=lambda: log.info("left"))


if __name__ == "__main__":
    main()
