"""Ctrl-C, at every moment of a call: whoever is interrupted, the pipeline goes on."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import attrs
import pytest
from from_threads import HANG_S, until
from rig import open_rig

from marketpipe import Client
from marketpipe.blocking import BlockingClient
from marketpipe.interrupts import Answer, Deferral

MAIN = threading.main_thread()


@asynccontextmanager
async def open_market() -> AsyncIterator[Client]:
    async with open_rig(streams=True, store=":memory:") as rig:
        yield rig.market


@pytest.fixture
def market() -> Iterator[BlockingClient]:
    with BlockingClient(open_market) as market:
        yield market


@attrs.define(eq=False)
class Moment:
    """Ctrl-C when Python comes to the ``number``-th line, or end of a function, of what is traced."""

    number: int
    is_over: bool = False

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event in {"line", "return"} and not self.is_over:
            self.number -= 1
            if self.number < 0:
                self.is_over = True
                signal.raise_signal(signal.SIGINT)
        return self.trace


def moments(act: Callable[[], object]) -> Iterator[str]:
    """Do it again and again, interrupted one moment later each time, until no moment is left; how each ended."""
    for number in itertools.count():
        moment = Moment(number)
        yield interrupted(act, moment)
        if not moment.is_over:
            return


def interrupted(act: Callable[[], object], moment: Moment) -> str:
    before = sys.gettrace()
    sys.settrace(moment.trace)
    try:
        act()
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        sys.settrace(before)
    return "not interrupted"


CALLS = {
    "call": lambda market: market.get_ticker("KRW-BTC"),
    "submit": lambda market: market.submit.get_ticker("KRW-BTC"),
    "result": lambda market: market.submit.get_ticker("KRW-BTC").result(),
    "exception": lambda market: market.submit.get_ticker("KRW-BTC").exception(),
    "enter": lambda market: market.stream_ticker("KRW-BTC").close(),
    "iterate": lambda market: next(market.iterate_candle("KRW-BTC", start=0, stored_only=True), None),
}


# Python drops an interrupt that falls into the callback of a weak reference, or the end of a forgotten generator.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_interrupted_at_any_moment_leaves_the_pipeline_to_the_others(market, name):
    ends = []
    with ThreadPoolExecutor(1) as another:
        for end in moments(lambda: CALLS[name](market)):
            assert another.submit(market.get_ticker, "KRW-BTC").result(HANG_S).market == "KRW-BTC"
            ends.append(end)
    assert ends.count("interrupted") > 50
    assert ends[-1] == "not interrupted"


def test_what_came_just_before_the_interrupt_is_given_back(market):
    items = deque(["first", "second"])

    async def take(_: Client) -> str:
        signal.pthread_kill(MAIN.ident, signal.SIGINT)
        return items.popleft()

    with pytest.raises(KeyboardInterrupt):
        market._portal.call(take, undo=items.appendleft)
    until(lambda: list(items) == ["first", "second"])


class TestDeferral:
    @pytest.fixture
    def handled(self) -> Iterator[list[int]]:
        numbers: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: numbers.append(number))
        yield numbers
        signal.signal(signal.SIGINT, before)

    def test_an_interrupt_waits_until_it_is_left(self):
        passed = []
        with pytest.raises(KeyboardInterrupt), Deferral() as deferral:
            signal.raise_signal(signal.SIGINT)
            passed.append(deferral.is_interrupted)
        assert passed == [True]

    def test_an_interrupt_ends_a_wait(self):
        with Deferral() as deferral:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                deferral.wait(Future())
            assert not deferral.is_interrupted

    def test_a_handler_that_raises_nothing_ends_no_wait(self, handled):
        future: Future[str] = Future()
        with Deferral() as deferral:
            signal.raise_signal(signal.SIGINT)
            assert not deferral.wait(future, Future(), timeout=0.0)
            assert handled == [signal.SIGINT]
            future.set_result("done")
            assert deferral.wait(future, Future())
        assert handled == [signal.SIGINT]

    def test_one_within_another_tells_the_outer_one(self, handled):
        with Deferral() as outer:
            with Deferral():
                signal.raise_signal(signal.SIGINT)
            assert outer.is_interrupted
            assert handled == []
        assert handled == [signal.SIGINT]

    def test_the_handler_is_what_it_was(self, handled):
        before = signal.getsignal(signal.SIGINT)
        with Deferral():
            assert signal.getsignal(signal.SIGINT) != before
        assert signal.getsignal(signal.SIGINT) == before

    def test_signals_that_python_does_not_handle_are_left_alone(self, handled):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Deferral() as deferral:
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert not deferral.wait(Future(), timeout=0.0)

    def test_another_thread_leaves_them_alone(self, handled):
        before = signal.getsignal(signal.SIGINT)

        def deferred() -> object:
            with Deferral():
                return signal.getsignal(signal.SIGINT)

        with ThreadPoolExecutor(1) as another:
            assert another.submit(deferred).result() == before


class TestAnswer:
    def test_is_like_any_future(self):
        answer: Answer[str] = Answer()
        with pytest.raises(TimeoutError):
            answer.result(0)
        with pytest.raises(TimeoutError):
            answer.exception(timeout=0.0)
        answer.set_exception(KeyError("gone"))
        with pytest.raises(KeyError):
            answer.result()
        assert isinstance(answer.exception(), KeyError)
