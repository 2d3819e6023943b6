"""The exchange by hand, as the actors of the streams know it: connections that the test speaks through, and REST.

Nothing here judges; it notes what was asked and when, and says what the test tells it to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.mailbox import Ask
from marketpipe.actors.messages import Answers, Question
from marketpipe.core.batching import Key, Wanted
from marketpipe.core.requests import Group
from marketpipe.core.topics import Frame, Topic
from marketpipe.errors import BadPayload, ExchangeError, MarketPipeError, UnknownMarket
from marketpipe.models import Change, Orderbook, Priority, Side, Source, Ticker, Trade

# 2026-09-23T12:34:56Z: Trio's mock clock begins here.
EPOCH_MS = 1_790_166_896_000
ONE = Decimal(1)


def now_ms(at_s: float | None = None) -> int:
    """The time at the exchange; its clock is right."""
    return EPOCH_MS + round((trio.current_time() if at_s is None else at_s) * 1000)


def ticker(market: str = "KRW-BTC", at_ms: int = EPOCH_MS, *, trade_ms: int | None = None, **changes: Any) -> Ticker:
    prices = dict.fromkeys(
        ("open", "high", "low", "price", "prev_close", "signed_change", "signed_change_rate", "last_volume"), ONE
    )
    sums = dict.fromkeys(
        ("quote_volume", "quote_volume_24h", "volume", "volume_24h", "high_52w", "low_52w"), Decimal(100)
    )
    values = {
        "market": market,
        "change": Change.EVEN,
        "high_52w_date": date(2026, 1, 1),
        "low_52w_date": date(2026, 1, 1),
        "trade_ms": at_ms if trade_ms is None else trade_ms,
        "exchange_ms": at_ms,
        "received_ms": at_ms,
        "source": Source.STREAM,
        **prices,
        **sums,
    }
    return Ticker(**{**values, **changes})


def trade(sequential_id: int, at_ms: int = EPOCH_MS, market: str = "KRW-BTC", source: Source = Source.STREAM) -> Trade:
    return Trade(market, Side.BUY, at_ms, sequential_id, ONE, ONE, at_ms, at_ms, source)


def book(market: str = "KRW-BTC", at_ms: int = EPOCH_MS, source: Source = Source.STREAM) -> Orderbook:
    return Orderbook(market, (), (), ONE, ONE, ONE, at_ms, at_ms, source)


@attrs.define(eq=False)
class Rest:
    """The REST side behind the batcher. ``answer`` gives the value of a key, or raises the error that stands for it.

    ``deaf``: nothing is answered any more.
    """

    answer: Callable[[Key], Any] = attrs.field(default=lambda key: old_news(key))
    latency_s: float = 0.02
    deaf: bool = False
    asked: list[tuple[float, Key]] = attrs.field(factory=list)
    priorities: list[Priority] = attrs.field(factory=list)

    async def run(self, inbox: trio.MemoryReceiveChannel[Ask[Question, Answers]]) -> None:
        async with trio.open_nursery() as nursery, inbox:
            async for question in inbox:
                nursery.start_soon(self._reply, question)

    async def _reply(self, question: Ask[Question, Answers]) -> None:
        self.asked += [(trio.current_time(), key) for key in question.payload.keys]
        self.priorities.append(question.payload.priority)
        await trio.sleep(self.latency_s)
        if self.deaf:
            await trio.sleep_forever()
        question.reply.send({key: self._answer(key) for key in question.payload.keys})

    def _answer(self, key: Key) -> Any:
        try:
            return self.answer(key)
        except MarketPipeError as error:
            return error

    def times_s(self, kind: type[Any]) -> list[float]:
        """When something of this kind was asked."""
        return [at_s for at_s, key in self.asked if isinstance(key, kind)]


def old_news(key: Key) -> Any:
    """Every market exists, and nothing has happened in any of them for an hour."""
    return news(key, EPOCH_MS - 3_600_000)


def news(key: Key, at_ms: int) -> Any:
    """What REST shows of a market that last had something to tell at ``at_ms``."""
    assert isinstance(key, Wanted), key
    make = book if key.group is Group.ORDERBOOK else ticker
    return make(key.market, at_ms, source=Source.REST)


def moments(by_market: dict[str, int | None]) -> Callable[[Key], Any]:
    """REST that shows each of these markets as of its moment; None: listed, without a row. Others do not exist."""

    def answer(key: Key) -> Any:
        assert isinstance(key, Wanted), key
        if key.market not in by_market:
            raise UnknownMarket(key.market)
        at_ms = by_market[key.market]
        if at_ms is None:
            raise BadPayload("the answer has no row for this market", market=key.market)
        return news(key, at_ms)

    return answer


@asynccontextmanager
async def asking(rest: Rest) -> AsyncIterator[Asker]:
    """An asker whose questions ``rest`` answers."""
    questions, inbox = trio.open_memory_channel[Ask[Question, Answers]](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest.run, inbox)
        with Asker(questions) as asker:
            yield asker
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class PaperSession:
    """One connection: what the keeper said over it, and what it gets to hear."""

    stream: PaperStream
    opened_s: float = attrs.field(factory=trio.current_time)
    closed_s: float | None = None
    subscribed: list[tuple[float, frozenset[Topic]]] = attrs.field(factory=list)
    pings_s: list[float] = attrs.field(factory=list)
    _coming: deque[Any] = attrs.field(factory=deque)
    _most: int = 0
    _arrived: trio.Event = attrs.field(factory=trio.Event)

    @property
    def topics(self) -> frozenset[Topic]:
        return self.subscribed[-1][1] if self.subscribed else frozenset()

    async def subscribe(self, topics: Collection[Topic]) -> None:
        if not topics:
            raise ValueError("nothing to subscribe to")  # the exchange has no word for it
        new = frozenset(topics) - self.topics
        self.subscribed.append((trio.current_time(), frozenset(topics)))
        await trio.sleep(self.stream.latency_s)
        self.stream.greet(self, new)

    async def receive(self) -> Sequence[Frame]:
        await trio.lowlevel.checkpoint()
        while not self._coming:
            self._arrived = trio.Event()
            await self._arrived.wait()
        frames = self._coming.popleft()
        if isinstance(frames, BaseException):
            raise frames
        return frames

    @property
    def read_s(self) -> float:
        return trio.current_time() - self.stream.late_s

    def backlog(self) -> tuple[int, int]:
        return len(self._coming), self._most

    async def ping(self) -> None:
        self.pings_s.append(trio.current_time())
        await trio.sleep(self.stream.latency_s)
        if not self.stream.pongs:
            await trio.sleep(1.5 - self.stream.latency_s)
            raise self.end(self.stream.no_pong)

    def show(self, *values: Any, snapshot: bool = False) -> None:
        """These arrive together."""
        self._put(tuple(Frame(value, snapshot) for value in values))

    def end(self, error: BaseException) -> BaseException:
        """The connection is over, after what it has shown."""
        self._put(error)
        return error

    def _put(self, item: Any) -> None:
        self._coming.append(item)
        self._most = max(self._most, len(self._coming))
        self._arrived.set()


def silence(session: PaperSession, new: Collection[Topic]) -> None:
    """Nothing is shown by itself."""


@attrs.define(eq=False)
class PaperStream:
    """The WebSocket side. ``greet`` is what a connection shows of topics that it has just been subscribed to.

    ``late_s``: how long ago what is received was read. ``refusals``: the errors of the next attempts to connect.
    """

    greet: Callable[[PaperSession, Collection[Topic]], None] = silence
    latency_s: float = 0.02
    late_s: float = 0.0
    pongs: bool = True
    no_pong: ExchangeError = attrs.field(factory=lambda: ExchangeError("no pong"))
    refusals: deque[BaseException] = attrs.field(factory=deque)
    attempts_s: list[float] = attrs.field(factory=list)
    sessions: list[PaperSession] = attrs.field(factory=list)
    open: int = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[PaperSession]:
        self.attempts_s.append(trio.current_time())
        await trio.sleep(self.latency_s)
        if self.refusals:
            raise self.refusals.popleft()
        session = PaperSession(self)
        self.sessions.append(session)
        self.open += 1
        try:
            yield session
        finally:
            self.open -= 1
            session.closed_s = trio.current_time()

    @property
    def session(self) -> PaperSession:
        """The newest connection."""
        return self.sessions[-1]


def greatest(times_s: Iterable[float], window_s: float) -> int:
    """The greatest number of ``times_s`` that lie within less than ``window_s``."""
    times = sorted(times_s)
    first = most = 0
    for last, at_s in enumerate(times):
        while at_s - times[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most
