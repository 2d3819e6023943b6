"""What the examples share: which exchange they ask, and how they end."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

import marketpipe as mp

__all__ = ["add_options", "open_exchange", "run_example", "run_on_asyncio"]

INTERRUPTED = 128 + signal.SIGINT


def add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The words that say which exchange is meant; without one it is Upbit Korea."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sim", action="store_true", help="a simulated exchange, started for this")
    where.add_argument("--base-url", metavar="URL", help="another exchange, such as that of `marketpipe sim`")
    return parser


@asynccontextmanager
async def open_exchange(words: argparse.Namespace) -> AsyncIterator[mp.Client]:
    """A pipeline to the exchange that is meant."""
    if words.sim:
        from marketpipe.sim import spawn_simulator

        async with spawn_simulator(latency_s=0.02) as sim, mp.open_pipeline(base_url=sim.base_url) as market:
            yield market
    else:
        async with mp.open_pipeline(base_url=words.base_url) as market:
            yield market


def run_example(
    program: Callable[[argparse.Namespace], Any],
    words: argparse.Namespace,
    *,
    run: Callable[..., Any] | None = None,
    interrupted: Callable[[], object] = lambda: sys.exit(INTERRUPTED),
) -> None:
    """Run it to its end. What the pipe complains of is one line on stderr and exit code 1; Ctrl-C is no complaint."""
    complaints: list[str] = []
    is_interrupted = False
    try:
        (run or _run_until_interrupted)(program, words)
    except* KeyboardInterrupt:
        is_interrupted = True
    except* mp.MarketPipeError as errors:
        complaints = list(dict.fromkeys(_told(errors)))
    if is_interrupted:
        interrupted()
    elif complaints:
        sys.exit("; ".join(complaints))


def _run_until_interrupted(program: Callable[[argparse.Namespace], Any], words: argparse.Namespace) -> None:
    async def main() -> bool:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def leave_on_signal() -> None:
                    await anext(signals)
                    nursery.cancel_scope.cancel(reason="Ctrl-C")

                nursery.start_soon(leave_on_signal, name="signals")
                await program(words)
                nursery.cancel_scope.cancel(reason="the program is done")
                return False
        return True

    # By itself Ctrl-C is raised wherever Python happens to be, also between making a coroutine and awaiting it.
    if trio.run(main):
        raise KeyboardInterrupt


def run_on_asyncio(
    program: Callable[[argparse.Namespace], Coroutine[Any, Any, None]], words: argparse.Namespace
) -> None:
    """As `asyncio.run`, whose own answer to Ctrl-C may wait until the loop wakes up for something else."""

    async def main() -> None:
        ours = asyncio.current_task()
        assert ours is not None
        with suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ours.cancel)
        await program(words)

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _told(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _told(each)
    else:
        yield " ".join(str(error).split())
