"""The pipe's own questions: what is asked, what comes back, and that nothing is left half done."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import trio
from paper_streams import Rest, asking

from marketpipe.actors.asker import Asker
from marketpipe.actors.mailbox import Ask
from marketpipe.actors.messages import Answers, Question
from marketpipe.core.batching import Wanted
from marketpipe.core.requests import Group, TradesRequest
from marketpipe.errors import ExchangeUnavailable, PipelineClosed, UnknownMarket
from marketpipe.models import Priority

ONE, TWO, THREE = (TradesRequest("KRW-BTC", count) for count in (1, 2, 3))


class Walk:
    """A walk of two rounds; notes what it was sent, and that it was closed."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed = False

    def __call__(self) -> Generator[tuple[Any, ...], tuple[Any, ...], str]:
        try:
            self.sent.append((yield (ONE, TWO)))
            self.sent.append((yield (THREE,)))
            return "done"
        finally:
            self.closed = True


async def test_each_question_has_its_answer_or_the_error_that_stands_for_it(autojump_clock):
    def answer(key: Any) -> Any:
        if key.market == "KRW-ETH":
            raise UnknownMarket("KRW-ETH")
        return key.market.lower()

    btc, eth = (Wanted(Group.TICKER, market) for market in ("KRW-BTC", "KRW-ETH"))
    async with asking(Rest(answer)) as asker:
        answers = await asker.ask((btc, eth), Priority.HIGH)
    assert answers[btc] == "krw-btc"
    assert isinstance(answers[eth], UnknownMarket)


async def test_a_walk_gets_its_pages_in_the_order_in_which_it_asked(autojump_clock):
    rest, walk = Rest(lambda key: key.count), Walk()
    async with asking(rest) as asker:
        assert await asker.walk(walk(), Priority.NORMAL) == "done"
    assert walk.sent == [(1, 2), (3,)]
    assert [key for _, key in rest.asked] == [ONE, TWO, THREE]


async def test_a_walk_without_a_question_is_done_at_once():
    def walk() -> Generator[tuple[Any, ...], tuple[Any, ...], int]:
        yield from ()
        return 7

    async with asking(Rest()) as asker:
        assert await asker.walk(walk(), Priority.NORMAL) == 7


async def test_a_walk_ends_with_the_first_failure_as_an_error_of_its_own(autojump_clock):
    """A copy: the same error may stand for several askers, and a raised one collects tracebacks."""
    failure = ExchangeUnavailable("HTTP 503", status=503)

    def answer(key: Any) -> Any:
        if key is TWO:
            raise failure
        return key.count

    walk = Walk()
    async with asking(Rest(answer)) as asker:
        with pytest.raises(ExchangeUnavailable, match="HTTP 503") as caught:
            await asker.walk(walk(), Priority.NORMAL)
    assert caught.value is not failure
    assert walk.closed
    assert walk.sent == []


async def test_a_walk_that_is_cancelled_is_closed(autojump_clock):
    walk = Walk()
    async with asking(Rest(deaf=True)) as asker:
        with trio.move_on_after(1) as scope:
            await asker.walk(walk(), Priority.NORMAL)
    assert scope.cancelled_caught
    assert walk.closed


async def test_what_is_urgent_is_asked_as_urgent(autojump_clock):
    questions, inbox = trio.open_memory_channel[Ask[Question, Answers]](1)
    with Asker(questions) as asker, inbox:
        with trio.move_on_after(1):
            await asker.walk(Walk()(), Priority.LOW)
        assert (await inbox.receive()).payload == Question((ONE, TWO), Priority.LOW)


async def test_whoever_leaves_it_asks_no_more():
    """The batcher sees that nobody will ask any more."""
    questions, inbox = trio.open_memory_channel[Ask[Question, Answers]](0)
    with Asker(questions):
        pass
    with inbox, pytest.raises(trio.EndOfChannel):
        await inbox.receive()


async def test_without_a_batcher_there_is_no_answer():
    questions, inbox = trio.open_memory_channel[Ask[Question, Answers]](0)
    inbox.close()
    with Asker(questions) as asker, pytest.raises(PipelineClosed):
        await asker.ask((ONE,), Priority.NORMAL)
