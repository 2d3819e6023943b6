"""The queue between reader and receiver: in order, bounded, and never a wait for nobody."""

from __future__ import annotations

import trio
from trio.testing import Sequencer, assert_checkpoints, wait_all_tasks_blocked

from marketpipe.upbit.inbox import Inbox


async def fill(inbox: Inbox, *messages: str) -> None:
    async with inbox:
        for message in messages:
            await inbox.send(message)


async def drained(inbox: Inbox) -> list[list[str | bytes]]:
    """Everything until the end, batch by batch."""
    batches: list[list[str | bytes]] = []
    while await inbox.arrived():
        batches.append(list(inbox.messages))
        inbox.messages.clear()
    return batches


async def test_what_is_sent_without_a_wait_arrives_as_one_batch():
    inbox = Inbox(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, inbox, "a", "b", "c")
        assert await drained(inbox) == [["a", "b", "c"]]


async def test_the_sender_waits_while_it_is_full(autojump_clock):
    inbox = Inbox(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, inbox, *"abcde")
        await wait_all_tasks_blocked()
        assert list(inbox.messages) == ["a", "b"]
        assert await drained(inbox) == [["a", "b"], ["c", "d"], ["e"]]


async def test_room_is_made_by_whoever_takes_some_of_it_only():
    inbox, taken = Inbox(2), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, inbox, *"abcde")
        with trio.fail_after(5):
            while await inbox.arrived():
                taken.append(inbox.messages.popleft())
    assert taken == list("abcde")


async def test_the_end_is_told_after_what_came_before_and_again():
    inbox = Inbox(2)
    await fill(inbox, "a")
    assert await inbox.arrived()
    inbox.messages.clear()
    with assert_checkpoints():
        assert not await inbox.arrived()
    await inbox.aclose()
    assert not await inbox.arrived()


async def test_who_waits_is_told_of_the_end(autojump_clock):
    inbox = Inbox(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drained, inbox)
        await wait_all_tasks_blocked()
        await inbox.aclose()


async def test_what_is_abandoned_holds_nobody_up(autojump_clock):
    inbox, order = Inbox(1), Sequencer()

    async def send():
        async with order(0):
            await inbox.send("a")
        await inbox.send("b")
        await inbox.send("c")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async with order(1):
            await wait_all_tasks_blocked()
        inbox.abandon()
    assert not inbox.messages
    assert not await inbox.arrived()


async def test_a_wait_that_is_cancelled_takes_nothing(autojump_clock):
    inbox = Inbox(2)
    await inbox.send("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        with assert_checkpoints():
            await inbox.arrived()
    assert scope.cancelled_caught
    assert list(inbox.messages) == ["a"]


async def test_asking_is_always_a_checkpoint():
    inbox = Inbox(2)
    await inbox.send("a")
    with assert_checkpoints():
        assert await inbox.arrived()


async def test_the_peak_is_what_waited_at_the_most_also_after_it_was_taken():
    inbox = Inbox(10)
    await fill(inbox, "a", "b", "c")
    assert inbox.peak == 3
    assert await inbox.arrived()
    inbox.messages.popleft()
    inbox.messages.clear()
    assert inbox.peak == 3


async def test_the_peak_survives_that_nobody_receives_any_more():
    inbox = Inbox(10)
    await fill(inbox, "a", "b")
    inbox.abandon()
    assert inbox.peak == 2


async def test_a_message_is_as_old_as_the_read_that_brought_it_however_late_it_is_taken():
    inbox = Inbox(10)
    for read_s, messages in ((1.0, "ab"), (2.0, ""), (3.0, "cde"), (4.0, "f")):
        inbox.read_s = read_s
        for message in messages:
            await inbox.send(message)
    assert await inbox.arrived()
    read: list[tuple[str | bytes, float]] = []
    while inbox.messages:
        oldest_s = inbox.oldest_s
        read.append((inbox.messages.popleft(), oldest_s))
    assert read == [("a", 1.0), ("b", 1.0), ("c", 3.0), ("d", 3.0), ("e", 3.0), ("f", 4.0)]
    inbox.read_s = 5.0
    await inbox.send("g")
    assert inbox.oldest_s == 5.0
