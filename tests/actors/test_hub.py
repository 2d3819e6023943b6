"""The hub: each value to each listener, by its policy, whoever is slow, leaves or is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketpipe.actors.hub import AT_ONCE, Hub, Subscription
from marketpipe.core.buffers import POLICIES, SubscriptionStatistics
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import PipelineClosed, SubscriberLagged, UnknownMarket
from marketpipe.models import Candle, CandleState, Gap, Side, Source, Trade
from marketpipe.status import ConsumersStatus

ONE = Decimal(1)
BTC, ETH = Topic(Line.TRADE, "KRW-BTC"), Topic(Line.TRADE, "KRW-ETH")
BTC_1M, BTC_5M = (Topic(Line.CANDLE, "KRW-BTC", timeframe) for timeframe in (Timeframe.M1, Timeframe.M5))


def trade(number: int, market: str = "KRW-BTC") -> Trade:
    return Trade(market, Side.BUY, number, number, ONE, ONE, number, number, Source.STREAM)


def trades(*numbers: int, market: str = "KRW-BTC") -> list[Trade]:
    return [trade(number, market) for number in numbers]


def bar(timeframe: Timeframe, number: int = 0) -> Candle:
    times = (number, number)
    return Candle("KRW-BTC", timeframe, 0, *(ONE,) * 6, *times, Source.STREAM, CandleState.RUNNING)


def waiting(subscription: Subscription[Any]) -> list[Any]:
    """What can be read at once."""
    return list(iterate(subscription.receive_nowait))


def iterate(receive: Callable[[], Any]) -> Iterator[Any]:
    while True:
        try:
            yield receive()
        except trio.WouldBlock:
            return


async def collect(subscription: Subscription[Any], into: list[Any]) -> None:
    async for value in subscription:
        into.append(value)  # noqa: PERF401  # at once: what was read before an error counts


@pytest.fixture
def hub() -> Hub:
    return Hub()


def listen(hub: Hub, *topics: Topic, policy: Any = "cut-off", depth: int = 1000, **more: Any) -> Subscription[Any]:
    return hub.attach(topics or (BTC,), policy=policy, depth=depth, **more)


def test_each_value_goes_to_whoever_listens_to_its_market_in_the_order_it_came(hub):
    both, btc, nobody = listen(hub, BTC, ETH), listen(hub, BTC), listen(hub, Topic(Line.TRADE, "KRW-XRP"))
    batch = [trade(1), trade(2, "KRW-ETH"), trade(3), trade(4, "KRW-DOGE")]
    hub.publish(Line.TRADE, batch)
    assert waiting(both) == batch[:3]
    assert waiting(btc) == [batch[0], batch[2]]
    assert waiting(nobody) == []


def test_the_same_market_on_another_line_is_another_topic(hub):
    tickers = listen(hub, Topic(Line.TICKER, "KRW-BTC"))
    hub.publish(Line.TRADE, trades(1))
    assert waiting(tickers) == []


def test_bars_go_by_their_timeframe(hub):
    one, five = listen(hub, BTC_1M), listen(hub, BTC_5M)
    hub.publish(Line.CANDLE, [bar(Timeframe.M1), bar(Timeframe.M5), bar(Timeframe.M15)])
    assert waiting(one) == [bar(Timeframe.M1)]
    assert waiting(five) == [bar(Timeframe.M5)]
    hub.tell(BTC_5M, [Gap("KRW-BTC", 1, 2, "closed 1006")])
    assert (len(waiting(one)), len(waiting(five))) == (0, 1)


def test_a_topic_named_twice_is_heard_once(hub):
    subscription = listen(hub, BTC, BTC)
    hub.publish(Line.TRADE, trades(1))
    assert waiting(subscription) == trades(1)
    assert subscription.markets == ("KRW-BTC",)


def test_what_is_told_comes_in_its_place_between_the_values(hub):
    subscription = listen(hub, BTC, ETH, first=trades(0), depth=2)
    gap = Gap("KRW-BTC", 1, 2, "closed 1006")
    hub.publish(Line.TRADE, trades(1))
    hub.tell(BTC, [gap, *trades(2, 3, 4)])
    hub.publish(Line.TRADE, trades(5))
    assert waiting(subscription) == [*trades(0, 1), gap, *trades(2, 3, 4, 5)]


async def test_who_waits_is_woken_and_who_does_not_is_not_waited_for(hub, autojump_clock):
    """One reads a value a second, beside one that reads as fast as it can: each gets all of it at its own speed."""
    fast, slow = listen(hub), listen(hub)
    seen: list[tuple[str, float, int]] = []

    async def read(name: str, subscription: Subscription[Trade], pause_s: float) -> None:
        for _ in range(20):
            value = await subscription.__anext__()
            seen.append((name, trio.current_time(), value.sequential_id))
            await trio.sleep(pause_s)

    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "fast", fast, 0)
        nursery.start_soon(read, "slow", slow, 1)
        for number in range(20):
            hub.publish(Line.TRADE, trades(number))
            await trio.sleep(0.1)
    tenths = [start_s + number * 0.1 for number in range(20)]
    assert [at_s for name, at_s, _ in seen if name == "fast"] == pytest.approx(tenths)
    assert [at_s for name, at_s, _ in seen if name == "slow"] == [start_s + number for number in range(20)]
    for name in ("fast", "slow"):
        assert [number for who, _, number in seen if who == name] == list(range(20))


async def test_a_burst_wakes_a_reader_for_each_of_its_values(hub, nursery, autojump_clock):
    subscription, seen = listen(hub), []

    async def read_one() -> None:
        seen.append(await subscription.__anext__())

    for _ in range(3):
        nursery.start_soon(read_one)
    await trio.testing.wait_all_tasks_blocked()
    hub.publish(Line.TRADE, trades(1, 2))
    await trio.testing.wait_all_tasks_blocked()
    assert seen == trades(1, 2)
    hub.publish(Line.TRADE, trades(3))
    await trio.testing.wait_all_tasks_blocked()
    assert seen == trades(1, 2, 3)


async def test_a_reader_that_was_woken_in_vain_waits_on(hub, nursery, autojump_clock):
    subscription, seen = listen(hub), []
    nursery.start_soon(collect, subscription, seen)
    await trio.testing.wait_all_tasks_blocked()
    hub.publish(Line.TRADE, trades(1))
    assert subscription.receive_nowait() == trade(1)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == []
    hub.publish(Line.TRADE, trades(2))
    await trio.testing.wait_all_tasks_blocked()
    assert seen == trades(2)
    nursery.cancel_scope.cancel()


async def test_others_get_a_turn_after_every_so_many_values(hub):
    subscription, turns = listen(hub, first=trades(*range(4 * AT_ONCE))), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for number in range(4 * AT_ONCE):
            assert await subscription.__anext__() == trade(number)
        assert 2 <= turns <= 6  # not after every value, and not after all
        nursery.cancel_scope.cancel()


async def test_a_cancelled_read_takes_nothing(hub):
    subscription = listen(hub, first=trades(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await subscription.__anext__()
    assert scope.cancelled_caught
    assert waiting(subscription) == trades(1)


# How a subscription ends.


def test_who_is_cut_off_reads_what_it_has_and_is_then_told_at_each_read(hub):
    behind, beside = listen(hub, depth=2), listen(hub)
    hub.publish(Line.TRADE, trades(1, 2, 3))
    hub.publish(Line.TRADE, trades(4))
    assert [behind.receive_nowait(), behind.receive_nowait()] == trades(1, 2)
    assert hub.statistics().subscribers == 2
    for _ in range(2):
        with pytest.raises(SubscriberLagged, match="2 values were lost so far, the first of KRW-BTC"):
            behind.receive_nowait()
    assert hub.statistics().subscribers == 1
    hub.publish(Line.TRADE, trades(5))
    assert behind.statistics() == SubscriptionStatistics(received=4, delivered=2, dropped=2)
    assert waiting(beside) == trades(1, 2, 3, 4, 5)


async def test_every_reader_is_told_of_the_cut(hub, autojump_clock):
    """Three wait, one value fits: one gets it, and the others do not wait for ever."""
    subscription, outcomes = listen(hub, depth=1), []

    async def read_one() -> None:
        try:
            outcomes.append(await subscription.__anext__())
        except SubscriberLagged as error:
            outcomes.append(type(error))

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read_one)
            await trio.testing.wait_all_tasks_blocked()
            hub.publish(Line.TRADE, trades(1, 2))
    assert sorted(outcomes, key=str) == sorted([trade(1), SubscriberLagged, SubscriberLagged], key=str)


async def test_after_the_pipeline_has_left_what_is_queued_can_be_read(hub, autojump_clock):
    full, empty, ends = listen(hub, first=trades(1)), listen(hub), []

    async def read_on() -> None:
        with pytest.raises(PipelineClosed, match="open a new one") as caught:
            await empty.__anext__()
        ends.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on)
        await trio.testing.wait_all_tasks_blocked()
        hub.close()
    hub.publish(Line.TRADE, trades(2))
    hub.fail(BTC, UnknownMarket("KRW-BTC"), 0)
    assert await full.__anext__() == trade(1)
    for _ in range(2):
        with pytest.raises(PipelineClosed) as caught:
            full.receive_nowait()
        assert caught.value not in ends  # each raiser has an error of its own
    with pytest.raises(PipelineClosed):
        listen(hub)


def test_who_was_cut_off_before_the_pipeline_left_is_told_of_the_cut(hub):
    subscription = listen(hub, depth=1)
    hub.publish(Line.TRADE, trades(1, 2))
    hub.close()
    assert subscription.receive_nowait() == trade(1)
    with pytest.raises(SubscriberLagged):
        subscription.receive_nowait()


def test_a_market_that_will_never_come_ends_who_listens_to_nothing_else(hub):
    alone, unread, beside = listen(hub, first=trades(1)), listen(hub), listen(hub, BTC, ETH)
    error = UnknownMarket("KRW-BTC")
    hub.fail(BTC, error, 7)
    hub.publish(Line.TRADE, [trade(2), trade(3, "KRW-ETH")])
    assert alone.receive_nowait() == trade(1)
    for _ in range(2):
        with pytest.raises(UnknownMarket, match="KRW-BTC") as caught:
            alone.receive_nowait()
        assert caught.value is not error
    gap = Gap("KRW-BTC", 7, 7, cause=str(error), proof="nothing more will come")
    assert waiting(beside) == [gap, trade(3, "KRW-ETH")]
    assert not gap.is_open
    assert beside.failed == {"KRW-BTC": error}
    assert beside.markets == ("KRW-BTC", "KRW-ETH")
    hub.fail(ETH, UnknownMarket("KRW-ETH"), 8)
    with pytest.raises(UnknownMarket, match="KRW-ETH"):
        beside.receive_nowait()
    hub.close()
    with pytest.raises(UnknownMarket):  # the first reason is the reason
        unread.receive_nowait()


def test_markets_refused_from_the_start_are_among_those_that_failed(hub):
    subscription, error = listen(hub), UnknownMarket("KRW-NONE")
    subscription.refuse({"KRW-NONE": error})
    assert subscription.failed == {"KRW-NONE": error}
    hub.publish(Line.TRADE, trades(1))
    assert waiting(subscription) == trades(1)


async def test_who_closes_its_subscription_is_heard_at_once(hub, autojump_clock):
    subscription = listen(hub)

    async def read_on() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await subscription.__anext__()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on)
        nursery.start_soon(read_on)
        await trio.testing.wait_all_tasks_blocked()
        subscription.close()
    hub.publish(Line.TRADE, trades(1))
    subscription.close()
    with pytest.raises(trio.ClosedResourceError):
        subscription.receive_nowait()
    assert hub.statistics() == ConsumersStatus()


def test_who_leaves_disturbs_nobody_who_stays(hub):
    leaving, staying = listen(hub, BTC, ETH), listen(hub, BTC)
    hub.publish(Line.TRADE, trades(1, 2))
    leaving.receive_nowait()
    leaving.close()
    hub.publish(Line.TRADE, [trade(3), trade(4, "KRW-ETH")])
    assert waiting(staying) == trades(1, 2, 3)
    assert leaving.statistics() == SubscriptionStatistics(received=2, delivered=1, queued=1)
    assert hub.statistics() == ConsumersStatus(subscribers=1, received=5, delivered=4, unread=1)


# History first, then live.


def test_a_silent_subscriber_hears_nothing_of_a_topic_until_it_joins(hub):
    subscription = listen(hub, BTC, ETH, depth=1, silent=True)
    hub.publish(Line.TRADE, [trade(1), trade(2, "KRW-ETH")])
    hub.tell(BTC, [Gap("KRW-BTC", 1, 2, "closed 1006")])
    hub.join(subscription, BTC, trades(0, 1))
    hub.publish(Line.TRADE, [trade(3), trade(4, "KRW-ETH")])
    assert waiting(subscription) == trades(0, 1, 3)


def test_whoever_is_gone_or_has_nothing_to_come_does_not_join(hub):
    closed, failed, ended = listen(hub, silent=True), listen(hub, ETH, silent=True), listen(hub, silent=True)
    closed.close()
    hub.join(closed, BTC, trades(1))
    hub.fail_one(closed, BTC, UnknownMarket("KRW-BTC"), 1)
    hub.fail(ETH, UnknownMarket("KRW-ETH"), 1)
    hub.join(failed, ETH, trades(1))
    with pytest.raises(UnknownMarket):
        failed.receive_nowait()
    hub.close()
    hub.join(ended, BTC, trades(1))
    with pytest.raises(PipelineClosed):
        ended.receive_nowait()
    assert closed.failed == {}
    assert hub.statistics() == ConsumersStatus()


def test_one_subscriber_can_fail_alone(hub):
    failing, other = listen(hub, BTC, ETH), listen(hub)
    hub.fail_one(failing, BTC, UnknownMarket("KRW-BTC"), 1)
    hub.publish(Line.TRADE, trades(1))
    assert waiting(other) == trades(1)
    assert [type(event) for event in waiting(failing)] == [Gap]


async def test_a_reader_is_woken_by_the_history_and_by_what_is_told(hub, nursery):
    subscription, seen = listen(hub, silent=True), []
    nursery.start_soon(collect, subscription, seen)
    await trio.testing.wait_all_tasks_blocked()
    hub.join(subscription, BTC, trades(1, 2))
    await trio.testing.wait_all_tasks_blocked()
    assert seen == trades(1, 2)
    gap = Gap("KRW-BTC", 1, 2, "closed 1006")
    hub.tell(BTC, [gap])
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [*trades(1, 2), gap]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("topics", "options", "words"),
    [
        ([], {}, "at least one topic"),
        ([BTC], {"policy": "latest"}, "policy must be one of"),
        ([BTC], {"depth": 0}, "depth must be"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing_behind(hub, topics, options, words):
    with pytest.raises(ValueError, match=words):
        hub.attach(topics, **{"policy": "cut-off", "depth": 1} | options)
    assert hub.statistics() == ConsumersStatus()


def test_a_subscription_says_what_it_is(hub):
    topics = [Topic(Line.CANDLE, f"KRW-{number}", Timeframe.M1) for number in range(5)]
    assert repr(listen(hub, *topics)) == "<Subscription candle.1m KRW-0, KRW-1, KRW-2, ...: 0 waiting>"
    assert repr(listen(hub, first=trades(1))) == "<Subscription trade KRW-BTC: 1 waiting>"


# Nothing is lost or told twice, whenever a reader is cancelled.


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels `scope` at the `step`-th pause of the task named `name`: while it is suspended there, or when it goes on.

    Together these are all the moments at which a task can find itself cancelled.
    """

    name: str
    step: int
    suspended: bool
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self.name and not self.suspended:
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self.name and self.suspended:
            self._count()

    def _count(self) -> None:
        self.steps += 1
        if self.steps == self.step:
            self.scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("suspended", [True, False])
@pytest.mark.parametrize("at_once", [1, 2, 16])
def test_a_cancellation_at_any_pause_of_a_reader_loses_nothing(suspended, at_once, monkeypatch):
    monkeypatch.setattr("marketpipe.actors.hub.AT_ONCE", at_once)
    reached = 0
    for step in range(1, 60):
        cancel = CancelAt("cancelled reader", step, suspended)
        seen, rest, counts = trio.run(
            two_readers, cancel, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[cancel]
        )
        assert sorted(seen + rest, key=lambda value: value.sequential_id) == trades(*range(12)), step
        assert counts == SubscriptionStatistics(received=12, delivered=12)
        if cancel.steps < step:
            break
        reached = step
    assert 12 // at_once < reached < 59, "every pause of the reader was tried"


async def two_readers(cancel: CancelAt) -> tuple[list[Any], list[Any], SubscriptionStatistics]:
    hub = Hub()
    subscription = listen(hub)
    seen: list[Any] = []
    rest: list[Any] = []

    async def cancelled_reader() -> None:
        with cancel.scope:
            await collect(subscription, seen)

    async def until_closed() -> None:
        with pytest.raises(PipelineClosed):
            await collect(subscription, rest)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, cancelled_reader, name=cancel.name)
            # One value that a reader waits for, then bursts that it finds queued, then again one by one.
            for batch in ((0,), (1, 2, 3), (), (4, 5, 6, 7), (8,), (9, 10)):
                hub.publish(Line.TRADE, trades(*batch))
                await trio.sleep(1)
            nursery.start_soon(until_closed)
            hub.publish(Line.TRADE, trades(11))
            await trio.sleep(1)
            hub.close()
    return seen, rest, subscription.statistics()


async def guarded(reader: Callable[[], Any]) -> None:
    with suppress(PipelineClosed):
        await reader()


acts = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 2)),
    st.tuples(st.just("pause"), st.integers(0, 3)),
)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_whatever_is_cancelled_and_whoever_is_slow_the_counts_add_up(policy):
    @settings(max_examples=60, deadline=None)
    @given(script=st.lists(acts, max_size=20), pauses_s=st.tuples(*[st.integers(0, 2)] * 3), depth=st.integers(1, 20))
    def check(script, pauses_s, depth):
        trio.run(
            partial(readers_come_and_go, policy, script, pauses_s, depth),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )

    check()


async def readers_come_and_go(policy: Any, script: Any, pauses_s: tuple[int, ...], depth: int) -> None:
    """Three readers share a subscription, are cancelled and come again; beside them one listens alone and misses
    nothing, whatever they do.
    """
    hub = Hub()
    shared, alone = listen(hub, policy=policy, depth=depth), listen(hub, depth=10_000)
    seen: list[Any] = []
    all_of_it: list[Any] = []
    scopes = [trio.CancelScope() for _ in pauses_s]
    offered = 0

    async def read(which: int, scope: trio.CancelScope) -> None:
        with scope, suppress(PipelineClosed, SubscriberLagged):
            async for value in shared:
                seen.append(value)
                await trio.sleep(pauses_s[which])

    async def read_alone() -> None:
        with pytest.raises(PipelineClosed):
            await collect(alone, all_of_it)

    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_alone)
            for which, scope in enumerate(scopes):
                nursery.start_soon(read, which, scope)
            for act, count in script:
                if act == "publish":
                    hub.publish(Line.TRADE, trades(*range(offered, offered + count)))
                    offered += count
                elif act == "cancel":
                    scopes[count].cancel()
                    scopes[count] = trio.CancelScope()
                    nursery.start_soon(read, count, scopes[count])
                else:
                    await trio.sleep(count)
                check_counts(hub, shared, offered)
            hub.close()
            nursery.start_soon(read, 0, trio.CancelScope())  # somebody reads the rest
    check_counts(hub, shared, offered)
    check_seen(policy, shared, seen, offered)
    assert all_of_it == trades(*range(offered))


def check_counts(hub: Hub, shared: Subscription[Any], offered: int) -> None:
    counts = shared.statistics()
    assert counts.received == counts.delivered + counts.conflated + counts.dropped + counts.queued
    assert counts.received == offered or shared.statistics().dropped
    total = hub.statistics()
    assert total.received == total.delivered + total.conflated + total.dropped + total.queued + total.unread


def check_seen(policy: str, shared: Subscription[Any], seen: list[Any], offered: int) -> None:
    counts = shared.statistics()
    values = [value for value in seen if isinstance(value, Trade)]
    gaps = [event for event in seen if isinstance(event, Gap)]
    numbers = sorted(value.sequential_id for value in values)
    assert len(set(numbers)) == len(numbers) == counts.delivered, "each value once"
    assert counts.queued == 0
    if policy == "cut-off":
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == offered or counts.dropped
    elif policy == "conflate":
        assert numbers[-1:] == [offered - 1] * (offered > 0), "the newest is never lost"
        assert len(numbers) + counts.conflated == offered
    else:
        assert sum(int(gap.proof.split()[0]) for gap in gaps) == counts.dropped == offered - len(numbers)
        assert len(gaps) == counts.gaps


# -- what it says of the lines ------------------------------------------------------------------------------------


async def test_values_are_counted_by_line_once_each_whoever_listens_and_gaps_are_none(hub, autojump_clock):
    listen(hub, BTC), listen(hub, BTC)
    hub.publish(Line.TRADE, trades(1, 2))
    hub.tell(BTC, [Gap("KRW-BTC", 1, 2, "closed 1006"), *trades(3)])
    hub.publish(Line.TRADE, [trade(4, "KRW-DOGE")])
    streams = hub.streams(trio.current_time())
    assert {line: told.values for line, told in streams.items()} == {**dict.fromkeys(Line, 0), Line.TRADE: 4}
    assert streams[Line.TRADE].p99_s == 0.0


async def test_a_batch_counts_with_its_size_where_latencies_are_measured(hub, autojump_clock):
    await trio.sleep(10)
    hub.publish(Line.TRADE, trades(*range(99)), trio.current_time() - 0.002)
    hub.publish(Line.TRADE, trades(100), trio.current_time() - 3.0)
    hub.publish(Line.TRADE, [], trio.current_time() - 9.0)
    told = hub.streams(trio.current_time())[Line.TRADE]
    assert told.p50_s == told.p99_s == pytest.approx(0.002, rel=0.0101)
    hub.timed(Line.TRADE, 5, trio.current_time() - 3.0)
    assert hub.streams(trio.current_time())[Line.TRADE].p99_s == pytest.approx(3.0, rel=0.0101)


def test_the_fullest_is_the_one_for_whom_most_waits(hub):
    assert hub.statistics().fullest == 0
    full = listen(hub, BTC, ETH)
    listen(hub, BTC)
    hub.publish(Line.TRADE, [*trades(1, 2), trade(3, "KRW-ETH")])
    assert (hub.statistics().fullest, hub.statistics().queued) == (3, 5)
    full.close()
    assert (hub.statistics().fullest, hub.statistics().unread) == (2, 3)
