"""Streams in memory behave as Trio's own do, and a sender waits for whoever does not read."""

from __future__ import annotations

import trio
import trio.testing

from marketpipe.sim.ws_memory import CAPACITY, pipe_pair


async def clogged_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    pair = pipe_pair()
    for stream in pair:
        with trio.move_on_after(1):
            await stream.send_all(bytes(CAPACITY + 1))
    return pair


async def make_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    return pipe_pair()


async def test_they_keep_every_promise_of_a_half_closeable_stream(autojump_clock):
    await trio.testing.check_half_closeable_stream(make_pair, clogged_pair)


async def test_a_sender_waits_until_there_is_room_and_nothing_is_lost(autojump_clock):
    here, there = pipe_pair()
    data = bytes(range(256)) * (CAPACITY // 100)
    received = bytearray()

    async def receive() -> None:
        await trio.sleep(5)
        while more := await there.receive_some(100_000):
            received.extend(more)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await here.send_all(data)
        assert trio.current_time() == 5
        await here.aclose()
    assert received == data
