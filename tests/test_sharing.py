"""One address, one budget, whichever thread asks, and whenever."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

import pytest
import trio
from from_threads import HANG_S

import marketpipe as mp
from marketpipe.actors.turns import turn_to_connect
from marketpipe.config import Config, Limits
from marketpipe.core.budgets import Budgets
from marketpipe.core.pacing import Ban, Slots
from marketpipe.core.requests import Group
from marketpipe.sharing import new_budgets, shared_budgets
from marketpipe.sim import open_simulator

T = TypeVar("T")


def config(url: str, **limits: Any) -> Config:
    return Config(base_url=url, limits=Limits(**limits))


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """An address of its own for every test: what was used of it stays known in this process."""
    return f"http://{abs(hash(request.node.nodeid))}.test"


class Elsewhere:
    """A share in a budget that is held in a run of its own, in another thread."""

    def __init__(self, pool: ThreadPoolExecutor, chosen: Config) -> None:
        self._chosen, self._leave = chosen, trio.Event()
        self._opened: Future[Budgets] = Future()
        self._token: trio.lowlevel.TrioToken
        self._left = pool.submit(trio.run, self._hold)
        self.budgets = self._opened.result(HANG_S)

    async def _hold(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with shared_budgets(self._chosen) as budgets:
            self._opened.set_result(budgets)
            await self._leave.wait()

    def do(self, function: Callable[[Budgets], T]) -> T:
        return trio.from_thread.run_sync(function, self.budgets, trio_token=self._token)

    def leave(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._leave.set)
        self._left.result(HANG_S)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


Share = Callable[[Config], Elsewhere]


@pytest.fixture
def share(pool: ThreadPoolExecutor) -> Iterator[Share]:
    """Opens a share in another thread, for the rest of the test unless it leaves before."""
    with ExitStack() as stack:

        def opened(chosen: Config) -> Elsewhere:
            one = Elsewhere(pool, chosen)
            stack.callback(one.leave)
            return one

        yield opened


def available(budgets: Budgets) -> int:
    return budgets.slots[Group.TRADE].available(trio.current_time())


def take(budgets: Budgets, count: int) -> list[Any]:
    return [budgets.slots[Group.TRADE].acquire(trio.current_time()) for _ in range(count)]


class TestShares:
    def test_what_one_run_takes_another_has_not(self, url, share):
        one, other = share(config(url)), share(config(url))
        tickets = one.do(partial(take, count=7))
        assert (one.do(available), other.do(available)) == (3, 3)
        assert None not in other.do(partial(take, count=3))
        assert other.do(partial(take, count=1)) == [None]
        assert one.do(lambda budgets: budgets.slots[Group.TRADE].next_free_s(trio.current_time())) is None
        assert other.do(lambda budgets: budgets.slots[Group.TICKER].available(trio.current_time())) == 10
        one.do(lambda budgets: budgets.slots[Group.TRADE].unsent(tickets[0], trio.current_time()))
        assert other.do(available) == 1

    def test_when_something_is_free_is_told_by_the_clock_of_whoever_asks(self, url, share):
        """Each run's clock has its own origin; what rests here ends in a second there."""
        one, other = share(config(url, per_second=1)), share(config(url, per_second=1))

        def use(budgets: Budgets) -> None:
            (ticket,) = take(budgets, 1)
            budgets.slots[Group.TRADE].answered(ticket, trio.current_time())

        def rests_s(budgets: Budgets) -> float:
            now_s = trio.current_time()
            free_s = budgets.slots[Group.TRADE].next_free_s(now_s)
            assert free_s is not None
            return free_s - now_s

        one.do(use)
        assert 0.0 <= other.do(rests_s) < 1.01

    def test_a_ban_holds_for_everybody_and_for_whoever_comes_later(self, url, share):
        one, other = share(config(url)), share(config(url))

        def ban(budgets: Budgets) -> float:
            now_s = trio.current_time()
            return budgets.ban.ban(now_s, 3600.0) - now_s

        def banned_for_s(budgets: Budgets) -> float:
            now_s = trio.current_time()
            until_s = budgets.ban.until_s(now_s)
            return 0.0 if until_s is None else until_s - now_s

        assert one.do(banned_for_s) == 0.0
        assert one.do(ban) == pytest.approx(3600.0, abs=HANG_S)
        assert other.do(banned_for_s) == pytest.approx(3600.0, abs=HANG_S)
        one.leave()
        other.leave()
        later = share(config(url))
        assert later.do(banned_for_s) == pytest.approx(3600.0, abs=HANG_S)

    def test_who_waits_for_a_slot_is_woken_by_the_run_that_gives_it_back(self, url, pool, share):
        """Time alone brings none: without the word from there this waits for ever."""
        one = share(config(url))

        def take_all(budgets: Budgets) -> list[Any]:
            return [budgets.connects.acquire(trio.current_time()) for _ in range(5)]

        def give_back(budgets: Budgets) -> None:
            budgets.connects.unsent(tickets[0], trio.current_time())
            budgets.changed()

        tickets, waits = one.do(take_all), threading.Event()

        async def wait() -> bool:
            with shared_budgets(config(url)) as budgets:
                assert budgets.connects.next_free_s(trio.current_time()) is None
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def tell() -> None:
                        while not budgets.listeners:
                            await trio.lowlevel.checkpoint()
                        waits.set()

                    with trio.move_on_after(HANG_S):
                        return await turn_to_connect(budgets) is not None
            return False

        woken = pool.submit(trio.run, wait)
        assert waits.wait(HANG_S)
        one.do(give_back)
        assert woken.result(HANG_S)

    def test_a_run_that_ends_without_leaving_disturbs_nobody(self, url, share):
        gone = share(config(url))
        held: list[Any] = []

        async def die() -> None:
            held.append(shared_budgets(config(url)))
            held[0].__enter__()

        trio.run(die)
        gone.do(Budgets.changed)
        held[0].__exit__(None, None, None)

    @pytest.mark.parametrize("use", ["acquire", "available", "next_free_s", "statistics", "answered", "ban", "until_s"])
    def test_two_threads_are_never_in_it_at_once(self, url, pool, monkeypatch, use):
        """Without the lock, two of them would count the same slot."""
        inside, together, both = [0], [0], threading.Barrier(4)

        def alone(function: Callable[..., T]) -> Callable[..., T]:
            def watched(*args: Any, **options: Any) -> T:
                inside[0] += 1
                together[0] = max(together[0], inside[0])
                threading.Event().wait(0.002)  # the other threads get on
                found = function(*args, **options)
                inside[0] -= 1
                return found

            return watched

        async def call() -> None:
            with shared_budgets(config(url)) as budgets:
                now_s = trio.current_time()
                slots, ban = budgets.slots[Group.TRADE], budgets.ban
                ticket = slots.acquire(now_s)
                assert ticket is not None
                await trio.to_thread.run_sync(both.wait, HANG_S)
                match use:
                    case "acquire" | "available" | "next_free_s" | "statistics":
                        getattr(slots, use)(now_s)
                    case "answered":
                        slots.answered(ticket, now_s)
                    case "ban":
                        ban.ban(now_s, 1.0)
                    case _:
                        ban.until_s(now_s)

        owner = Ban if use in ("ban", "until_s") else Slots
        monkeypatch.setattr(owner, use, alone(getattr(owner, use)))
        for each in [pool.submit(trio.run, call) for _ in range(4)]:
            each.result(HANG_S)
        assert together[0] == 1

    def test_the_most_careful_numbers_hold_for_all_while_they_are_open(self, url, share):
        """Whoever leaves half of the limit to somebody else must not find it used next door."""
        usual = share(config(url))
        careful = share(config(url, per_second=5))
        assert (usual.do(available), careful.do(available)) == (5, 5)
        careful.leave()
        assert usual.do(available) == 10
        usual.leave()
        alone = share(config(url, per_second=20))
        assert alone.do(available) == 20

    def test_one_that_is_alone_shares_with_nobody(self, url, share):
        one = share(config(url))
        one.do(partial(take, count=10))
        assert new_budgets(config(url)).slots[Group.TRADE].available(0.0) == 10

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_fork_begins_anew(self, url, share):
        """Whatever is held here, and by whomever, nobody gives it back there."""
        one = share(config(url))
        one.do(partial(take, count=10))
        ours, theirs = multiprocessing.Pipe(duplex=False)

        async def use() -> int:
            with shared_budgets(config(url)) as budgets:
                return available(budgets)

        def child() -> None:
            theirs.send(trio.run(use))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert ours.poll(HANG_S)
        assert ours.recv() == 10
        process.join(HANG_S)


@pytest.mark.slow
@pytest.mark.socket
class TestPipelines:
    def test_in_threads_of_their_own_they_keep_one_limit_together(self, pool):
        """Two blocking clients and a pipeline of the program's own run: ten a second, refused none, all get on."""

        def ask(base_url: str, symbol: str) -> int:
            with mp.connect(base_url=base_url) as market:
                asked = [market.submit.get_trade(symbol, count=count) for count in range(1, 11)]
                return sum(len(each.result(HANG_S)) for each in asked)

        async def main() -> None:
            async with open_simulator(markets=5, window="rolling") as sim:
                threads = [pool.submit(ask, sim.base_url, symbol) for symbol in ("KRW-BTC", "KRW-ETH")]
                async with mp.open_pipeline(base_url=sim.base_url) as market, trio.open_nursery() as nursery:
                    for count in range(1, 11):
                        nursery.start_soon(partial(market.get_trade, "KRW-XRP", count=count))
                    for thread in threads:
                        assert await trio.to_thread.run_sync(thread.result, HANG_S) == 55
                seen = sim.exchange.statistics().groups["crix-trades"]
                assert (seen.accepted, seen.refused) == (30, 0)
                assert seen.greatest_per_second <= 10

        trio.run(main)

    def test_a_question_that_finds_all_slots_taken_next_door_waits_until_one_is_given_back(self, share):

        async def main() -> None:
            async with open_simulator(markets=5) as sim:
                next_door = await trio.to_thread.run_sync(share, Config(base_url=sim.base_url))
                tickets = await trio.to_thread.run_sync(next_door.do, partial(take, count=10))
                async with mp.open_pipeline(base_url=sim.base_url) as market:
                    asked: list[Any] = []

                    async def ask() -> None:
                        asked.append(await market.get_trade("KRW-BTC", count=3))

                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ask)
                        while not market.status().queues["questions trade"].depth:  # noqa: ASYNC110
                            await trio.sleep(0.001)
                        assert market.status().budgets[Group.TRADE].sent == 0

                        def give_back(budgets: Budgets) -> None:
                            for ticket in tickets:
                                budgets.slots[Group.TRADE].unsent(ticket, trio.current_time())
                            budgets.changed()

                        await trio.to_thread.run_sync(next_door.do, give_back)
                    assert len(asked[0]) == 3

        trio.run(main)
