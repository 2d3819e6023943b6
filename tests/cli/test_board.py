"""The table that moves: what is newest of each market, and what does not flow is seen not to."""

from __future__ import annotations

import io
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
from rich.cells import cell_len
from rich.console import Console
from rig import Rig, open_rig

from marketpipe.cli import figures
from marketpipe.cli.board import LAST_BAR, Board
from marketpipe.models import Source
from marketpipe.sim import WsDownFault

NAMES = ("KRW-BTC", "KRW-ETH", "BTC-ETH")
# A market that is silent for a moment is checked.
FLOWING = {"active", "stale"}


def console_of(width: int = 160, height: int = 24, **options: object) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, _environ={}, **options)


def shown(board: Board, console: Console | None = None) -> list[str]:
    console = console or console_of()
    console.print(board, crop=False)
    return console.file.getvalue().splitlines()


def line_of(name: str, lines: list[str]) -> str:
    (line,) = (line for line in lines if name in line.split())
    return line


def columns_of(board: Board, width: int) -> list[str]:
    lines = shown(board, console_of(width))
    return lines[next(number for number, line in enumerate(lines) if "market" in line)].split()


@asynccontextmanager
async def watching(rig: Rig, names=NAMES):
    """A board that follows all three streams."""
    board = Board(names, rig.market.status, rig.clock.now_ms)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for stream in (
            rig.market.stream_ticker(names),
            rig.market.stream_orderbook(names),
            rig.market.stream_candle(names, LAST_BAR, policy="conflate"),
        ):
            subscription = await stack.enter_async_context(stream)

            async def follow(subscription=subscription):
                async for value in subscription:
                    board.take(value)

            nursery.start_soon(follow)
        await trio.sleep(3)
        yield board
        nursery.cancel_scope.cancel()


@pytest.fixture
async def rig(autojump_clock):
    async with open_rig(streams=True) as rig:
        yield rig


async def test_each_market_has_one_line_in_the_order_asked_with_its_newest_values(rig, autojump_clock):
    async with watching(rig) as board:
        lines = shown(board)
        tickers, books = await rig.market.get_ticker(NAMES), await rig.market.get_orderbook(NAMES)
    assert sorted(NAMES, key="".join(lines).index) == list(NAMES)
    for name in NAMES:
        words = line_of(name, lines).split()
        ticker, book = tickers[name], books[name]
        for part in (
            figures.exact(ticker.price),
            figures.percent(ticker.signed_change_rate).split()[0],
            figures.amount(ticker.quote_volume_24h),
            figures.exact(book.spread),
            "STREAM",
        ):
            assert part in words
        assert FLOWING & set(words)
    assert lines[-1].startswith("ticker, orderbook, candle: connected   ")


async def test_before_anything_has_come_the_markets_are_there_all_the_same(rig, autojump_clock):
    lines = shown(Board(NAMES, rig.market.status, rig.clock.now_ms))
    assert [line.split() for line in lines if line.split()[:1] and line.split()[0] in NAMES] == [[n] for n in NAMES]


async def test_a_lost_stream_is_told_with_its_seconds_and_comes_back_by_itself(rig, autojump_clock):
    async with watching(rig) as board:
        rig.sim.add_fault(WsDownFault(for_s=10))
        await trio.sleep(7.5)
        lines = shown(board)
        assert all("reconnecting 7 s" in line_of(name, lines) for name in NAMES)
        assert "ticker, orderbook, candle: reconnecting 7 s, could not connect to sim" in lines[-1]
        assert lines[-1].endswith("gaps: 9 told, 0 mended")
        await trio.sleep(90)
        lines = shown(board)
        assert all(FLOWING & set(line_of(name, lines).split()) for name in NAMES)
        assert lines[-1].endswith("gaps: 9 told, 9 mended")


async def test_what_does_not_flow_is_dim(rig, autojump_clock):
    def is_dim(name: str) -> bool:
        lines = shown(board, console_of(force_terminal=True, color_system="standard"))
        (line,) = (line for line in lines if name in line)
        return line.startswith(f" \x1b[2m{name}")

    async with watching(rig) as board:
        assert not is_dim("KRW-BTC")
        rig.sim.add_fault(WsDownFault(for_s=10))
        await trio.sleep(1)
        assert is_dim("KRW-BTC")


async def test_rest_answers_for_a_lost_stream_and_never_turns_time_back(rig, autojump_clock):
    async with watching(rig) as board:
        assert board.away() == []
        rig.sim.add_fault(WsDownFault(for_s=60))
        await trio.sleep(20)
        assert board.away() == list(NAMES)
        fresh = await rig.market.get_ticker("KRW-BTC", max_age_s=0)
        board.take(fresh)
        board.take(attrs.evolve(fresh, exchange_ms=fresh.exchange_ms - 1, price=fresh.price + 1, source=Source.STORE))
        assert {figures.exact(fresh.price), "REST"} <= set(line_of("KRW-BTC", shown(board)).split())


async def test_an_amended_bar_does_not_replace_the_one_that_runs(rig, autojump_clock):
    before, running = await rig.market.get_candle("KRW-BTC", LAST_BAR, count=2)
    board = Board(NAMES, rig.market.status, rig.clock.now_ms)
    board.take(running)
    lines = shown(board)
    board.take(before)
    assert shown(board) == lines


async def test_a_market_that_is_gone_is_called_so(rig, autojump_clock):
    board = Board(NAMES, rig.market.status, rig.clock.now_ms)
    board.failed = {"KRW-ETH"}
    lines = shown(board)
    assert ["not listed" in line_of(name, lines) for name in NAMES] == [False, True, False]


@pytest.mark.parametrize("width", [120, 80, 60, 40, 20])
async def test_codes_and_prices_are_whole_at_any_width_and_nothing_is_wider(rig, width, autojump_clock):
    async with watching(rig) as board:
        lines = shown(board, console_of(width))
        tickers = await rig.market.get_ticker(NAMES)
    for name in NAMES:
        assert figures.exact(tickers[name].price) in line_of(name, lines).split()
    if width >= 40:
        assert max(map(cell_len, lines)) <= width


async def test_the_least_important_columns_go_first(rig, autojump_clock):
    async with watching(rig) as board:
        everything = columns_of(board, 160)
        assert " ".join(everything) == "market price change stream last 1m spread value 24 h age source"
        for width in (90, 70, 50, 30):
            some = columns_of(board, width)
            assert some == everything[: len(some)]
            assert len(some) < len(everything)


async def test_of_more_markets_than_lines_the_first_are_shown_and_the_others_counted(rig, autojump_clock):
    names = rig.sim.world.markets
    board = Board(names, rig.market.status, rig.clock.now_ms)
    lines = shown(board, console_of(height=12))
    assert len(lines) == 12
    assert len(names) == 40
    assert "and 34 more than this terminal has lines for" in lines
    board.fits = False
    assert len(shown(board, console_of(height=12))) > 40


async def test_nothing_that_a_plain_terminal_cannot_show_is_needed(rig, autojump_clock):
    class Ascii(io.StringIO):
        encoding = "ascii"

    console = Console(file=Ascii(), width=120, height=24, _environ={})
    async with watching(rig) as board:
        assert "".join(shown(board, console)).isascii()


async def test_columns_do_not_jump_when_a_number_gets_shorter(rig, autojump_clock):
    async with watching(rig) as board:
        ticker = await rig.market.get_ticker("KRW-BTC")
        before = columns_at(shown(board))
        board.take(attrs.evolve(ticker, price=ticker.price / 1000))
        assert columns_at(shown(board)) == before


def columns_at(lines: list[str]) -> int:
    return next(line.index("change") for line in lines if "market" in line)
