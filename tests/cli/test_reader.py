"""Reading until it is enough."""

from __future__ import annotations

import math

import pytest
import trio

from marketpipe.actors.hub import Hub, Subscription
from marketpipe.cli.reader import TOGETHER, Reader
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import PipelineClosed
from marketpipe.models import Gap

TOPIC = Topic(Line.TICKER, "KRW-BTC")


def gaps(count: int) -> list[Gap]:
    return [Gap("KRW-BTC", number, number, "a test") for number in range(count)]


@pytest.fixture
def hub() -> Hub:
    return Hub()


def listen(hub: Hub, waiting: int) -> Subscription:
    subscription = hub.attach([TOPIC], policy="conflate", depth=1)
    hub.tell(TOPIC, gaps(waiting))
    return subscription


async def test_what_waits_is_taken_together(hub):
    assert await Reader(listen(hub, 3)).some() == gaps(3)


async def test_of_very_much_a_part_is_taken_at_a_time(hub):
    reader = Reader(listen(hub, TOGETHER + 5))
    assert [len(await reader.some()) for _ in range(2)] == [TOGETHER, 5]


async def test_no_more_is_taken_than_was_wished(hub):
    subscription = listen(hub, 5)
    reader = Reader(subscription, count=3)
    assert [len(await reader.some()) for _ in range(2)] == [3, 0]
    assert subscription.statistics().queued == 2


async def test_when_the_time_is_up_it_was_enough_and_nothing_is_taken(hub, autojump_clock):
    subscription = listen(hub, 0)
    reader = Reader(subscription, math.inf, trio.current_time() + 5)
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(6)
            hub.tell(TOPIC, gaps(1))

        nursery.start_soon(later)
        assert await reader.some() == []
    assert subscription.statistics().queued == 1


async def test_what_came_before_the_end_is_read_before_the_end_is_told(hub):
    reader = Reader(listen(hub, 2))
    hub.close()
    assert await reader.some() == gaps(2)
    with pytest.raises(PipelineClosed):
        await reader.some()
