"""``marketpipe demo``: the whole pipe against a simulated exchange, with the figures and the proof.

The simulator runs in its own process with its limiter on, counts what reaches it, and knows the truth. The demo fails
(exit code 1) if anything was refused, if any second saw more requests than the limit, or if a value was wrong.
"""

from __future__ import annotations

import errno
import gc
import json
import sys
from collections.abc import AsyncIterable, Mapping
from operator import attrgetter
from typing import Any
from urllib.request import Request, urlopen

import attrs
import click
import trio

from marketpipe.cli import checks
from marketpipe.cli.complaints import say
from marketpipe.cli.paper import Groups, JsonPaper, Limits, Paper, TextPaper
from marketpipe.cli.patience import patience
from marketpipe.cli.running import run, start_logging
from marketpipe.cli.steps import DISTINCT, SAMPLES, STEPS, Stage
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.metrics import PORT
from marketpipe.metrics.server import Endpoint
from marketpipe.pipeline import open_pipeline
from marketpipe.sim import SimConfig, SpawnedSimulator, World, spawn_simulator

__all__ = ["demo"]

STATS_S = 5.0
# Rate-limit groups that are no requests for data, and their limits.
WEBSOCKET = {"websocket-connect": attrgetter("connect_limit"), "websocket-message": attrgetter("message_limit")}


@click.command()
@click.option("--seed", type=int, default=7, show_default=True, callback=checks.of_field(attrs.fields(SimConfig).seed),
              help="The same seed gives the same market.")  # fmt: skip
@click.option("--markets", type=int, default=855, show_default=True,
              callback=checks.of_field(attrs.fields(SimConfig).markets),
              help="How many markets are listed.")  # fmt: skip
@click.option("--latency-ms", "latency_s", type=float, default=20.0, show_default=True, callback=checks.milliseconds,
              help="Milliseconds from a request to its answer.")  # fmt: skip
@click.option("--jitter-ms", "jitter_s", type=float, default=0.0, show_default=True, callback=checks.milliseconds,
              help="Up to so many milliseconds more, at random.")  # fmt: skip
@click.option("--window", type=click.Choice(["fixed", "rolling", "first"]), default="rolling", show_default=True,
              help="How the simulator counts a second.")  # fmt: skip
@click.option("--stay", is_flag=True, help="Let prices flow afterwards, until Ctrl-C: time to look inside.")
@click.option("--metrics-port", metavar="PORT", type=click.IntRange(1, 65_535),
              help=f"Where to look inside.  [default: {PORT}, or any free one]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a step, and one for the limit.")
@click.option("-v", "--verbose", is_flag=True, help="Show the library's log on stderr.")
def demo(*, stay: bool, metrics_port: int | None, as_json: bool, verbose: bool, **options: Any) -> None:
    """Everything at once, against a simulated exchange on this machine: what was asked, what came, how fast.

    \b
    marketpipe demo --jitter-ms 300 --window fixed
    marketpipe demo --stay                 and meanwhile, in another terminal: marketpipe status --watch
    """
    start_logging(verbose=verbose)

    async def command() -> int:
        async with await _endpoint(metrics_port) as endpoint:
            return await _demonstrate(SimConfig(**options), JsonPaper() if as_json else TextPaper(), endpoint, stay)

    run(command)


async def _endpoint(port: int | None) -> Endpoint:
    try:
        return await Endpoint.listen(PORT if port is None else port)
    except OSError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise
    return await Endpoint.listen(0)  # another demo is told there already; nobody has asked for that port


async def _demonstrate(config: SimConfig, paper: Paper, endpoint: Endpoint, stay: bool) -> int:
    async with trio.open_nursery() as nursery:
        async with patience("starting a simulated exchange and learning its market"):
            simulator, world = await _prepare(config, nursery)
        async with open_pipeline(base_url=simulator.base_url) as market:
            await nursery.start(endpoint.run, market.status, name="metrics")
            at = "" if endpoint.port == PORT else f" --port {endpoint.port}"
            say(f"to look inside, in another terminal: marketpipe status --watch{at}")
            groups, broken = await _walk(simulator, market, world, paper)
            limits = _limits(config, groups)
            broken += _over_the_limit(groups, limits)
            paper.end(groups, limits, broken)
            for line in broken:
                print(f"marketpipe: broken promise: {line}", file=sys.stderr)
            if stay:
                await _stay(market, _names(world))
        nursery.cancel_scope.cancel(reason="the demo is over")
    return 1 if broken else 0


async def _stay(market: Client, names: list[str]) -> None:
    say("prices flow until Ctrl-C")
    sys.stdout.flush()  # a program that reads what was shown so far need not wait for that
    async with (
        market.stream_ticker(names) as tickers,
        market.stream_trade(names, policy="drop-oldest") as trades,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_read, tickers, name="reader of tickers")
        nursery.start_soon(_read, trades, name="reader of trades")


async def _read(stream: AsyncIterable[object]) -> None:
    async for _ in stream:
        pass


async def _prepare(config: SimConfig, nursery: trio.Nursery) -> tuple[SpawnedSimulator, World]:
    world = World(seed=config.seed, markets=config.markets, lively=config.lively)
    async with trio.open_nursery() as both:
        both.start_soon(_learn, world, name="learning the world")
        simulator = await nursery.start(_simulate, config, name="simulator")
    return simulator, world


async def _simulate(config: SimConfig, *, task_status: trio.TaskStatus[SpawnedSimulator]) -> None:
    async with spawn_simulator(config) as simulator:
        task_status.started(simulator)
        await trio.sleep_forever()


async def _learn(world: World) -> None:
    # Knowing the truth takes seconds at first and nothing afterwards: not to be paid between two figures.
    await trio.to_thread.run_sync(_see_every_market, world, abandon_on_cancel=True)
    # Nobody's program has a whole market in memory: spare the figures the garbage collector's walks through it.
    gc.collect()
    gc.freeze()


def _see_every_market(world: World) -> None:
    now_ms = SystemClock().now_ms()
    for name in _names(world):
        world.ticker(name, now_ms)


def _names(world: World) -> list[str]:
    listed = world.listed(SystemClock().now_ms())
    first = [name for name in SAMPLES if name in listed]
    return [*first, *(name for name in listed if name not in SAMPLES)][:DISTINCT]


async def _walk(simulator: SpawnedSimulator, market: Client, world: World, paper: Paper) -> tuple[Groups, list[str]]:
    broken = []
    seen = _Seen(simulator.base_url)
    groups = await seen.groups()
    paper.begin(simulator.config)
    stage = Stage(market, world, SystemClock(), _names(world), seen)
    for step in STEPS:
        before = groups
        async with patience(step.__name__.replace("_", " ")):
            shown = await step(stage)
        groups = await seen.groups()
        paper.step(shown, _requests(groups) - _requests(before))
        broken += [f"{shown.asked}: {line}" for line in shown.wrong]
    return groups, broken


def _requests(groups: Groups) -> int:
    return sum(group["requests"] for name, group in groups.items() if name not in WEBSOCKET)


@attrs.frozen
class _Seen:
    """The simulator's own side, over HTTP."""

    base_url: str

    async def groups(self) -> Groups:
        """What it has counted since it started, by rate-limit group."""
        groups: Groups = (await self.statistics())["groups"]
        return groups

    async def statistics(self) -> Mapping[str, Any]:
        """Everything it has seen."""
        statistics: Mapping[str, Any] = await self._call("/sim/stats")
        return statistics

    async def strike(self, fault: Mapping[str, Any]) -> None:
        """Let something go wrong."""
        await self._call("/sim/faults", json.dumps(fault).encode())

    async def _call(self, path: str, body: bytes | None = None) -> Any:
        request = Request(self.base_url + path, data=body)
        return json.loads(await trio.to_thread.run_sync(_fetched, request, abandon_on_cancel=True))


def _fetched(request: Request) -> bytes:
    with urlopen(request, timeout=STATS_S) as reply:
        return bytes(reply.read())


def _limits(config: SimConfig, groups: Groups) -> Limits:
    """How much each group may see in a second; of messages, each connection."""
    return {name: WEBSOCKET[name](config) if name in WEBSOCKET else config.limit for name in groups}


def _over_the_limit(groups: Groups, limits: Limits) -> list[str]:
    broken = []
    for name, group in groups.items():
        if group["refused"]:
            broken.append(f"{group['refused']} requests of group {name} were refused")
        if group["greatest_per_second"] > limits[name]:
            broken.append(
                f"{group['greatest_per_second']} requests of group {name} in one second, the limit is {limits[name]}"
            )
    return broken
