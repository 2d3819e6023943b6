"""Request and reply, with an answer for death."""

from __future__ import annotations

import pytest
import trio

from marketpipe.actors.mailbox import Ask, ask
from marketpipe.errors import PipelineClosed


async def test_an_answer_reaches_its_asker(nursery):
    """The reply is the asker's and nobody else's."""
    inbox, questions = trio.open_memory_channel[Ask[int, int]](0)

    async def double():
        async for question in questions:
            question.reply.send(question.payload * 2)

    nursery.start_soon(double)
    assert await ask(inbox, 21) == 42
    inbox.close()


async def test_an_asker_is_told_when_its_question_is_dropped(nursery):
    """Closing the reply unanswered is an answer: PipelineClosed."""
    inbox, questions = trio.open_memory_channel[Ask[int, int]](0)

    async def drop():
        (await questions.receive()).reply.close()

    nursery.start_soon(drop)
    with pytest.raises(PipelineClosed):
        await ask(inbox, 1)


async def test_an_asker_in_line_is_told_when_the_actor_is_gone(nursery, autojump_clock):
    """Who still stands in line when the inbox is closed does not wait for ever."""
    inbox, questions = trio.open_memory_channel[Ask[int, int]](0)

    async def leave():
        await trio.sleep(1)
        questions.close()

    nursery.start_soon(leave)
    with pytest.raises(PipelineClosed):
        await ask(inbox, 1)


async def test_who_gave_up_is_seen_and_does_no_harm(autojump_clock):
    """An answer to nobody is dropped; the actor can see beforehand that nobody waits."""
    inbox, questions = trio.open_memory_channel[Ask[int, int]](0)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(ask, inbox, 1)
            question = await questions.receive()
            assert question.reply.is_awaited()
            nursery.cancel_scope.cancel()
    assert not question.reply.is_awaited()
    question.reply.send(5)
