"""``python -m marketpipe.sim --port 8600 --seed 7 --markets 855``: the simulator as a program of its own."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

import trio

from marketpipe.sim.config import SimConfig
from marketpipe.sim.options import add_options, config_from
from marketpipe.sim.simulator import run_simulator


def main() -> int:
    """Serve until a signal; 0 after an orderly end, 1 if it could not listen, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m marketpipe.sim", description="A simulated Upbit on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--port", default=8600, type=int, help="default 8600; 0 takes any free port")
    parser.add_argument("--leave-with-stdin", action="store_true", help="end when standard input ends")
    add_options(parser)
    parsed = parser.parse_args()
    try:
        config = config_from(parsed)
    except (ValueError, TypeError) as exc:
        parser.error(str(exc))
    return _run(config, parsed)


def _run(config: SimConfig, parsed: argparse.Namespace) -> int:
    status = 0
    try:
        trio.run(_serve, config, parsed)
    except* BrokenPipeError:
        pass  # whoever started it has left before it was ready
    except* OSError as failures:
        print(f"cannot listen on {parsed.host} port {parsed.port}: {_first(failures)}", file=sys.stderr)
        status = 1
    except* KeyboardInterrupt:
        pass  # the signal came before the simulator was ready for it; it wanted to leave, and left
    return status


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure


async def _serve(config: SimConfig, parsed: argparse.Namespace) -> None:
    announce = partial(print, flush=True)
    async with trio.open_nursery() as nursery:
        if parsed.leave_with_stdin:
            nursery.start_soon(_leave_with_stdin, nursery.cancel_scope)
        await run_simulator(config, host=parsed.host, port=parsed.port, announce=announce)
        nursery.cancel_scope.cancel(reason="the simulator has left")


async def _leave_with_stdin(scope: trio.CancelScope) -> None:
    # Whoever started us holds the other end: it closes when they close it, and also when they are killed.
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass
    scope.cancel(reason="standard input has ended")


if __name__ == "__main__":
    sys.exit(main())
