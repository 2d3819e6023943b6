"""The pulse: how late the event loop is."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from marketpipe.actors.pulse import EVERY_S, Pulse


async def test_a_loop_that_is_on_time_has_no_lag(autojump_clock):
    pulse = Pulse()
    async with trio.open_nursery() as nursery:
        await nursery.start(pulse.run)
        await trio.sleep(20)
        assert pulse.status(trio.current_time()).max_s == 0.0
        nursery.cancel_scope.cancel()


async def test_what_holds_the_loop_up_is_seen_and_the_longest_of_it_remembered():
    clock = MockClock()

    async def main() -> None:
        pulse = Pulse()
        async with trio.open_nursery() as nursery:
            await nursery.start(pulse.run)
            for late_s in (0.0, 0.3, 0.0):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(EVERY_S + late_s)  # nobody runs meanwhile
                await trio.testing.wait_all_tasks_blocked()
            lag = pulse.status(trio.current_time())
            assert lag.p50_s == pytest.approx(0.0, abs=1e-6)
            assert lag.p99_s == pytest.approx(0.3, rel=0.0101)
            assert lag.max_s == pytest.approx(0.3)
            clock.jump(300)
            later = pulse.status(trio.current_time())
            assert (later.p99_s, later.max_s) == (0.0, lag.max_s)
            nursery.cancel_scope.cancel()

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))
