"""Whoever reads a stream may be cancelled anywhere, and the pipeline left at any moment: nothing is lost by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from rig import EPOCH_MS, Rig, open_rig, stream_of
from stream_checks import BUSIEST, listening, patiently
from trio.testing import MockClock

from marketpipe import Client, Config, ExchangeUnavailable, PipelineClosed, run_pipeline
from marketpipe.clock import TrioClock
from marketpipe.sim import DownFault, SimConfig, SimExchange, SimTransport, WsDownFault, WsDropFault, WsStallFault
from marketpipe.status import SubscriptionState
from marketpipe.upbit.rest import UpbitRest


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` the moment its task waits for the ``step``-th time; ``steps``: how often it did so far."""

    step: int
    scope: trio.CancelScope
    task: trio.lowlevel.Task | None = None
    steps: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps += 1
            if self.steps == self.step:
                self.scope.cancel(reason=f"at step {self.step}")


@asynccontextmanager
async def cancelled_at(step: int) -> AsyncIterator[CancelAt]:
    """Cancel the block where it waits for the ``step``-th time."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(step, scope, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(instrument)
        try:
            yield instrument
        finally:
            trio.lowlevel.remove_instrument(instrument)


def leases(rig: Rig) -> int:
    return sum(status.leases for status in rig.market.status().subscriptions.values())


KINDS = [
    pytest.param("trade", {"policy": "cut-off"}, id="trade"),
    pytest.param("ticker", {}, id="ticker"),
    pytest.param("orderbook", {"policy": "drop-oldest", "depth": 3}, id="orderbook"),
    pytest.param("candle", {"timeframe": "1s"}, id="candle"),
    pytest.param("candle", {"timeframe": "1s", "history": 30}, id="candle with history"),
    pytest.param("candle", {"timeframe": "1d", "history": 3}, id="day with history"),
]


async def consume(client: Client, kind: str, options: dict[str, Any], many: int, into: list[Any] | None = None) -> None:
    into = [] if into is None else into
    async with getattr(client, f"stream_{kind}")(BUSIEST, **options) as subscription:
        async for event in subscription:
            into.append(event)
            if len(into) >= many:
                return


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), KINDS)
async def test_a_consumer_may_be_cancelled_wherever_it_waits(kind, options, autojump_clock, monkeypatch):
    """On the way in, reading, and on the way out: the lease is returned, nobody else notices, and it works again."""
    monkeypatch.setattr("marketpipe.actors.hub.AT_ONCE", 8)
    async with open_rig(streams=True) as rig, listening(rig, list(BUSIEST), ("trade", "ticker", "1s")) as ears:
        await trio.sleep(3)
        others = leases(rig)
        step, was_cancelled = 0, True
        while was_cancelled:
            step += 1
            with trio.fail_after(60):
                async with cancelled_at(step) as instrument:
                    await consume(rig.market, kind, options, many=25)
            was_cancelled = instrument.scope.cancelled_caught
            assert leases(rig) == others
        assert step >= 4  # not a property of nothing: it waited, and was cancelled, that often
        await trio.sleep(20)
        assert leases(rig) == others
        assert ears.flaws() == []
        assert not any(log.gaps for log in ears.logs.values())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_first_consumer_of_all_may_be_cancelled_wherever_it_waits(kind, options):
    """While the markets are still being asked for and there is no connection yet; it is all given back in the end."""

    async def main(step: int) -> bool:
        async with open_rig(streams=True) as rig:
            async with cancelled_at(step) as instrument:
                await consume(rig.market, kind, options, many=3)
            assert leases(rig) == 0
            await trio.sleep(3)
            states = {status.state for status in rig.market.status().subscriptions.values()}
            assert states <= {SubscriptionState.RELEASED}
            assert rig.sim.statistics().streams.connections["open"] == 0
            seen: list[Any] = []
            with trio.fail_after(20):
                await consume(rig.market, kind, options, many=3, into=seen)
            assert len(seen) == 3
            return instrument.scope.cancelled_caught

    step = 1
    while trio.run(main, step, clock=MockClock(autojump_threshold=0)):
        step += 1
    assert step >= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("trade", {}),
        ("orderbook", {"policy": "cut-off"}),
        ("orderbook", {}),
        ("candle", {"timeframe": "1s"}),
        ("candle", {"timeframe": "1s", "history": 200}),
    ],
    ids=["trade", "orderbook", "orderbook conflated", "candle", "candle with history"],
)
async def test_nothing_is_lost_between_two_readers_of_which_one_is_cancelled(kind, options, autojump_clock):
    """Whatever one of them was about to get, the other gets, or it is still there."""
    async with open_rig(streams=True) as rig:
        for step in range(1, 25):
            read: list[Any] = []
            async with getattr(rig.market, f"stream_{kind}")(BUSIEST, **options) as subscription:
                before = subscription.statistics()

                async def read_until_cancelled(subscription: Any = subscription, read: list[Any] = read) -> None:
                    async for event in subscription:
                        read.append(event)  # noqa: PERF401  # what was read before the cancellation counts

                async def one(step: int = step) -> None:
                    async with cancelled_at(step):
                        await read_until_cancelled()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one)
                    nursery.start_soon(read_until_cancelled)
                    await trio.sleep(4 if step % 4 == 0 else 1)
                    nursery.cancel_scope.cancel()
                drain(subscription, read)
                after = subscription.statistics()
            assert before.delivered == 0
            assert after.queued == after.dropped == 0
            assert len(read) == after.delivered == after.received - after.conflated
            assert all(count == 1 for count in Counter(map(key, read)).values())
        assert leases(rig) == 0


def drain(subscription: Any, into: list[Any]) -> None:
    with suppress(trio.WouldBlock):
        while True:
            into.append(subscription.receive_nowait())


def key(event: Any) -> Any:
    return getattr(event, "sequential_id", None), event.market, event.exchange_ms, event


@pytest.mark.slow
async def test_what_two_readers_read_together_is_what_one_reads_alone(autojump_clock):
    """Each trade goes to one of them, also when they are cancelled and others take their place all the time."""
    async with open_rig(streams=True) as rig, listening(rig, list(BUSIEST), ("trade",)) as ears:
        read: list[Any] = []
        async with rig.market.stream_trade(BUSIEST) as subscription:

            async def read_some(step: int) -> None:
                async with cancelled_at(step):
                    async for event in subscription:
                        read.append(event)  # noqa: PERF401  # what was read before the cancellation counts

            async with trio.open_nursery() as nursery:
                for second in range(40):
                    nursery.start_soon(read_some, 1 + second % 7)
                    nursery.start_soon(read_some, 1 + second % 3)
                    await trio.sleep(1)
                nursery.cancel_scope.cancel()
            drain(subscription, read)
            alone = [event for _, event in ears.logs["trade"].events]
        assert len(alone) > 40
        assert sorted(read, key=lambda trade: (trade.market, trade.sequential_id)) == sorted(
            alone, key=lambda trade: (trade.market, trade.sequential_id)
        )


# -- leaving ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def exchange_sides() -> AsyncIterator[tuple[SimExchange, Callable[[], Any]]]:
    """A simulator, and a function that opens a pipeline to it, whose body's exceptions pass no nursery of the rig."""
    clock, config = TrioClock(EPOCH_MS), Config()
    sim = SimExchange(SimConfig(markets=40, latency_s=0.02), clock)
    limits = config.limits
    async with (
        UpbitRest(
            "http://sim",
            clock=clock,
            connect_s=limits.connect_s,
            read_s=limits.read_s,
            deadline_s=limits.deadline_s,
            transport=SimTransport(sim),
        ) as rest,
        stream_of(sim, config, clock) as websocket,
    ):
        yield sim, lambda: run_pipeline(config, rest, clock=clock, stream=websocket, draw=lambda: 0.5)


class Mine(Exception):
    """What a body raises."""


LIVES = {
    "well": (),
    "dropped": (WsDropFault(after_s=4),),
    "stalled": (WsStallFault(after_s=4),),
    "deaf": (WsStallFault(after_s=4, pongs=False),),
    "down": (WsDownFault(after_s=4), DownFault(after_s=4)),
    "down from the first": (WsDownFault(), DownFault()),
}
# Who asks an exchange that was never there is told so.
REFUSED = {life: (ExchangeUnavailable,) if life == "down from the first" else () for life in LIVES}
MOMENTS = (
    0.0,
    0.01,
    0.02,
    0.03,
    0.05,
    0.065,
    0.1,
    0.25,
    0.31,
    0.5,
    1.0,
    3.99,
    4.0,
    4.01,
    4.5,
    5.0,
    6.0,
    6.03,
    7.2,
    9.0,
)


@pytest.mark.slow
@pytest.mark.parametrize(("life", "raised"), [*((life, Mine("mine")) for life in LIVES), ("well", None)])
def test_a_pipeline_may_be_left_at_any_moment(life, raised):
    """The body's own exception comes out bare, whoever still listens is told, and all of it takes less than 2 s."""

    async def main(moment_s: float) -> None:
        async with exchange_sides() as (sim, open_pipe), trio.open_nursery() as outside:
            for fault in LIVES[life]:
                sim.add_fault(fault)
            tasks, told = trio.lowlevel.current_statistics().tasks_living, []

            async def listen(client: Client, kind: str, options: dict[str, Any]) -> None:
                with pytest.raises((PipelineClosed, *REFUSED[life])):
                    await consume(client, kind, options, many=100_000)
                told.append(kind)

            left_s = 0.0
            with pytest.raises(Mine) if raised is not None else nullcontext() as caught:
                async with open_pipe() as client:
                    for param in KINDS:
                        outside.start_soon(listen, client, param.values[0], {**param.values[1], "depth": 100_000})
                    await trio.sleep(moment_s)
                    left_s = trio.current_time()
                    if raised is not None:
                        raise raised
            assert caught is None or caught.value is raised
            assert trio.current_time() - left_s < 2
            with trio.fail_after(0.01):
                await trio.testing.wait_all_tasks_blocked()
            assert len(told) == len(KINDS)
            await trio.sleep(1)
            # What the exchange keeps for its connections may take as long as it likes; ours are gone.
            await patiently(lambda: sim.statistics().streams.connections["open"] == 0, 70)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks

    for moment_s in MOMENTS:
        trio.run(main, moment_s, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
@pytest.mark.parametrize("life", ["well", "stalled"])
async def test_a_pipeline_may_be_cancelled_at_any_moment(life, autojump_clock):
    """As a whole, from outside, with its consumers within."""
    tasks = None
    for moment_s in MOMENTS:
        async with exchange_sides() as (sim, open_pipe):
            tasks = tasks or trio.lowlevel.current_statistics().tasks_living
            for fault in LIVES[life]:
                sim.add_fault(fault)
            with trio.move_on_after(moment_s) as scope:
                async with open_pipe() as client, trio.open_nursery() as nursery:
                    for param in KINDS:
                        nursery.start_soon(consume, client, *param.values, 100_000)
            assert scope.cancelled_caught
            assert trio.current_time() - scope.deadline < 2
            await patiently(lambda: trio.lowlevel.current_statistics().tasks_living == tasks, 70)  # noqa: B023
            assert sim.statistics().streams.connections["open"] == 0
