"""How a stream is watched: written as JSON lines, shown as a table that moves, or as lines above what is running."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio

from marketpipe.cli.events import event_line
from marketpipe.cli.outlet import write
from marketpipe.cli.patience import patience
from marketpipe.cli.reader import Reader
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeUnavailable
from marketpipe.models import Candle, CandleState, Gap, Trade

__all__ = ["Watched", "as_board", "as_json", "as_lines"]

# How long the first connection may take, attempts included; a later one may take as long as it likes.
START_S = 10.0
LOOK_S = 0.05
# How often REST is asked for what the stream does not tell.
BRIDGE_S = 2.0
# Who reads more slowly than the market trades loses the oldest of so many events, and is told so by a gap.
DEPTH = 10_000


@attrs.frozen(kw_only=True)
class Watched:
    """What is watched, and for how long: ``for_s`` from the first connection, and up to ``count`` events.

    Tickers, unless it is ``trades`` or candles of ``timeframe``.
    """

    names: Sequence[str]
    trades: bool
    timeframe: Timeframe | None
    for_s: float
    count: float

    def stream(self, market: Client) -> AbstractAsyncContextManager[Any]:
        """The stream whose events are counted."""
        if self.trades:
            return market.stream_trade(self.names, policy="drop-oldest", depth=DEPTH)
        if self.timeframe is not None:
            return market.stream_candle(self.names, self.timeframe, policy="drop-oldest", depth=DEPTH)
        return market.stream_ticker(self.names)


@asynccontextmanager
async def _listening(market: Client, watched: Watched) -> AsyncGenerator[tuple[Any, Reader]]:
    async with watched.stream(market) as stream:
        async with patience(lambda: f"connecting to the exchange's stream{_losses(market)}"):
            await _until_connected(market)
        yield stream, Reader(stream, watched.count, trio.current_time() + watched.for_s)


async def _until_connected(market: Client) -> None:
    with trio.move_on_after(START_S):
        while not any(connection.connects for connection in market.status().connections.values()):  # noqa: ASYNC110
            await trio.sleep(LOOK_S)
        return
    reason = _losses(market) or ": no answer"
    raise ExchangeUnavailable(f"no connection to the exchange's stream within {START_S:g} s{reason}")


def _losses(market: Client) -> str:
    losses = {each.last_loss: None for each in market.status().connections.values() if each.last_loss}
    return ": " + "; ".join(losses) if losses else ""


async def as_json(market: Client, watched: Watched) -> None:
    """One event a line, out at once."""
    now_ms = SystemClock().now_ms
    async with _listening(market, watched) as (_, reader):
        while events := await reader.some():
            at_ms = now_ms()
            await write("".join(f"{event_line(event, at_ms)}\n" for event in events))


async def as_board(market: Client, watched: Watched) -> None:
    """A line a market, drawn anew again and again."""
    from marketpipe.cli.board import LAST_BAR, Board
    from marketpipe.cli.screen import Screen, open_console

    console = open_console()
    board = Board(watched.names, market.status, SystemClock().now_ms)
    screen = Screen(console, board)
    board.fits = screen.is_live
    async with (
        market.stream_orderbook(watched.names) as books,
        market.stream_candle(watched.names, LAST_BAR, policy="conflate") as bars,
        _listening(market, watched) as (tickers, reader),
    ):
        board.failed = tickers.failed
        with screen.open():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(screen.run, name="screen")
                nursery.start_soon(_bridge, market, board.away, board.take, name="bridge over an outage")
                for stream in (books, bars):
                    nursery.start_soon(_follow, stream, board.take, name="follower")
                while events := await reader.some():
                    for event in events:
                        board.take(event)
                nursery.cancel_scope.cancel(reason="it was enough")


async def as_lines(market: Client, watched: Watched) -> None:
    """A line for each trade or bar; on a terminal, bars that are running stay at the bottom."""
    from marketpipe.cli.bars import RunningBars
    from marketpipe.cli.lines import Columns, bar_text, gap_text, trade_text
    from marketpipe.cli.screen import Screen, open_console

    columns, console = Columns(), open_console()
    bottom = RunningBars(market.status, SystemClock().now_ms, columns)
    screen = Screen(console, bottom, scrolls=True)
    ascii_only = console.options.ascii_only

    def show(event: Trade | Candle | Gap) -> None:
        match event:
            case Trade():
                screen.say(trade_text(event, columns))
            case Gap():
                screen.say(gap_text(event))
            case Candle():
                bottom.take(event)
                if event.state is CandleState.FINAL or not screen.is_live:
                    screen.say(bar_text(event, columns, ascii_only=ascii_only))

    async with _listening(market, watched) as (_, reader):
        with screen.open():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(screen.run, name="screen")
                while events := await reader.some():
                    for event in events:
                        show(event)
                nursery.cancel_scope.cancel(reason="it was enough")


async def _follow(stream: Any, take: Callable[[Any], None]) -> None:
    async for value in stream:
        take(value)


async def _bridge(market: Client, away: Callable[[], list[str]], take: Callable[[Any], None]) -> None:
    """Ask REST for what does not flow: a lost stream is no reason for old prices."""
    while True:
        await trio.sleep(BRIDGE_S)
        names = away()
        if names:
            # What cannot be answered either stays as it is, and looks its age.
            for ticker in (await market.get_ticker(names, max_age_s=BRIDGE_S)).values():
                take(ticker)
