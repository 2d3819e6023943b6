"""One question from a command line: open a pipe, ask, show the answer, leave."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import trio

from marketpipe.cli.complaints import complain_of_each
from marketpipe.cli.options import Target
from marketpipe.cli.patience import patience
from marketpipe.cli.rows import json_line, row
from marketpipe.cli.running import run
from marketpipe.cli.waiting import waiting_for
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.errors import MarketPipeError
from marketpipe.pipeline import open_pipeline

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Answer", "Question", "answer", "open_market", "show"]

MEMORY = ":memory:"
# What is piped as a table has no edge to fit into.
PIPED_WIDTH = 1_000


@attrs.frozen
class Answer:
    """``values``: one line of JSON each. ``table`` makes the same for people, given the time for the ages.

    ``failed``: what could not be answered, by symbol. ``nothing``: what an answer without a value means.
    """

    values: Sequence[Any]
    table: Callable[[int], RenderableType]
    failed: Mapping[str, MarketPipeError] = attrs.field(factory=dict)
    nothing: str = ""


Question = Callable[[Client], Awaitable[Answer]]


def answer(target: Target, question: Question, *, must_exist: bool = False) -> NoReturn:
    """Ask ``question`` of ``target``, show what came, and leave: with exit code 1 if any part of it failed.

    ``must_exist``: see `open_market`.
    """

    async def command() -> int:
        async with open_market(target, must_exist=must_exist) as market:
            async with patience(lambda: waiting_for(market.status())):
                answered = await question(market)
            _print(answered, as_json=target.as_json)
        complain_of_each(answered.failed)
        return 1 if answered.failed else 0

    run(command)


def show(table: RenderableType) -> None:
    """Print a table on stdout, as wide as the terminal, or as a pipe needs it."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would leave the program from here, through every open block; it is for `running` to say

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    # What is wider than the terminal is for the terminal to wrap: rich would cut it off.
    _Console(width=width, highlight=False).print(table, crop=False)


@asynccontextmanager
async def open_market(target: Target, *, must_exist: bool = False) -> AsyncGenerator[Client]:
    """A pipeline to whom ``target`` names, with a simulator of its own if that is wished.

    ``must_exist``: a database that is not there is a ``FileNotFoundError``, for those who only read what is stored;
    otherwise it is made.
    """
    if must_exist and target.store_path != MEMORY and not await trio.Path(target.store_path).exists():
        raise FileNotFoundError(f"{Path(target.store_path)}: there is no database")
    if not target.sim:
        async with open_pipeline(target.config) as market:
            yield market
        return
    from marketpipe.sim import spawn_simulator

    async with AsyncExitStack() as stack:
        async with patience("starting a simulated exchange"):
            simulator = await stack.enter_async_context(spawn_simulator())
        yield await stack.enter_async_context(open_pipeline(target.config, base_url=simulator.base_url))


def _print(answered: Answer, *, as_json: bool) -> None:
    now_ms = SystemClock().now_ms()
    if not as_json:
        show(answered.table(now_ms))
        return
    for value in answered.values:
        print(json_line(row(value, now_ms)))
    sys.stdout.flush()
    # A table says so in its title.
    if answered.nothing and not answered.values:
        print(f"marketpipe: {answered.nothing}", file=sys.stderr)
