"""One line's keeper over an exchange by hand: what the tests of the connection stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from paper_streams import EPOCH_MS, ONE, PaperSession, PaperStream, Rest, asking, book, now_ms, ticker, trade

from marketpipe.actors.asker import Asker
from marketpipe.actors.connection import Keeper
from marketpipe.actors.desks import Desk, Tally
from marketpipe.actors.probes import Probe
from marketpipe.clock import TrioClock
from marketpipe.config import Subscriptions as Options
from marketpipe.core.budgets import Budgets
from marketpipe.core.demand import Demand, Lease
from marketpipe.core.exchange_time import ExchangeTime
from marketpipe.core.pacing import Slots
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.errors import UnknownMarket
from marketpipe.models import Candle, CandleState, Source
from marketpipe.status import SubscriptionStatus

BTC, ETH, XRP = "KRW-BTC", "KRW-ETH", "KRW-XRP"


@attrs.frozen
class Call:
    """What a desk was told: ``topics`` of ``new`` and ``kept``, of frames, or those concerned."""

    at_s: float
    name: str
    markets: frozenset[str] = frozenset()
    start_ms: int | None = None
    cause: str = ""


@attrs.define(eq=False)
class NotingDesk:
    """A desk that only notes what it is told. ``shown``: the newest stamp of each market."""

    line: Line
    tally: Tally = attrs.field(factory=Tally)
    calls: list[Call] = attrs.field(factory=list)
    frames: list[Any] = attrs.field(factory=list)
    shown: dict[str, int] = attrs.field(factory=dict)
    bug: Exception | None = None
    working: int = 0

    def _note(self, name: str, topics: Collection[Topic], start_ms: int | None = None, cause: str = "") -> None:
        markets = frozenset(topic.market for topic in topics)
        self.calls.append(Call(trio.current_time(), name, markets, start_ms, cause))

    def subscribing(self, new: Collection[Topic], kept: Collection[Topic], now_ms: int) -> None:
        self._note("new", new)
        self._note("kept", kept)

    def take(self, frames: Sequence[Frame], now_s: float, read_s: float | None = None) -> None:
        if self.bug is not None:
            raise self.bug
        self._note("take", [Topic(self.line, value.market) for value, _ in frames])
        for value, _ in frames:
            self.frames.append(value)
            stamp = value.exchange_ms if self.line in (Line.ORDERBOOK, Line.CANDLE) else value.trade_ms
            self.shown[value.market] = max(stamp, self.shown.get(value.market, 0))

    def gone(self, topic: Topic, reason: str) -> None:
        self._note("gone", (topic,), cause=reason)

    def spoiled(self, topic: Topic, start_ms: int, now_ms: int, cause: str) -> None:
        self._note("spoiled", (topic,), start_ms, cause)

    def silent(self, topics: Collection[Topic]) -> None:
        self._note("silent", topics)

    def suspend(self, topics: Collection[Topic], now_ms: int) -> None:
        self._note("suspend", topics)

    def resume(self, topics: Collection[Topic]) -> None:
        self._note("resume", topics)

    def lost(self, topics: Collection[Topic], start_ms: int, now_ms: int, cause: str) -> None:
        self._note("lost", topics, start_ms, cause)

    def release(self, topics: Collection[Topic], now_ms: int) -> None:
        self._note("release", topics)

    def proven(self, exchange_ms: int) -> None:
        self._note("proven", (), exchange_ms)

    def audited(self, values: Mapping[Topic, object], asked_ms: int) -> None:
        self._note("audited", values, asked_ms)

    def shown_ms(self, topic: Topic) -> int | None:
        return self.shown.get(topic.market)

    async def work(self) -> None:
        self.working += 1
        try:
            await trio.sleep_forever()
        finally:
            self.working -= 1

    def told(self, *names: str) -> list[Call]:
        """What it was told of these names, where any market was concerned."""
        return [call for call in self.calls if call.name in names and (call.markets or call.name == "proven")]

    def last(self, name: str) -> Call:
        return self.told(name)[-1]


@attrs.define(eq=False)
class Kept:
    """A keeper that runs, and all that it talks to."""

    keeper: Keeper
    demand: Demand
    stream: PaperStream
    rest: Rest
    desk: Any
    budgets: Budgets
    gone: list[Topic] = attrs.field(factory=list)
    begun: list[Topic] = attrs.field(factory=list)

    @property
    def session(self) -> PaperSession:
        return self.stream.session

    def topic(self, market: str) -> Topic:
        line = self.keeper.line
        return Topic(line, market, Timeframe.M1 if line is Line.CANDLE else None)

    def want(self, *markets: str) -> Lease:
        return self.demand.lease(map(self.topic, markets))

    def state(self, market: str = BTC) -> SubscriptionStatus:
        return self.keeper.subscriptions()[self.topic(market)]

    def states(self) -> dict[str, str]:
        return {topic.market: status.state.value for topic, status in self.keeper.subscriptions().items()}

    def show(self, *markets: str, snapshot: bool = False) -> None:
        """A new value of each of these, all at once."""
        self.session.show(*(value(self.keeper.line, market) for market in markets), snapshot=snapshot)

    async def flow(self, *markets: str, every_s: float, for_s: float) -> None:
        """A value of each of these, again and again."""
        until_s = trio.current_time() + for_s
        while trio.current_time() < until_s - every_s / 2:
            self.show(*markets)
            await trio.sleep(every_s)


def value(line: Line, market: str = BTC, at_ms: int | None = None) -> Any:
    """What a frame of ``line`` holds, made now."""
    made_ms = now_ms() if at_ms is None else at_ms
    match line:
        case Line.TICKER:
            return ticker(market, made_ms)
        case Line.ORDERBOOK:
            return book(market, made_ms)
        case Line.TRADE:
            return trade(made_ms, made_ms, market)
        case Line.CANDLE:
            times = (made_ms, made_ms)
            open_ms = made_ms - made_ms % 60_000
            return Candle(market, Timeframe.M1, open_ms, *(ONE,) * 6, *times, Source.STREAM, CandleState.RUNNING)


def snapshots(session: PaperSession, new: Collection[Topic]) -> None:
    """Every market shows at once what there is."""
    values = [value(topic.line, topic.market) for topic in sorted(new)]
    if values:
        session.show(*values, snapshot=True)


def budgets_of(connects: int = 5) -> Budgets:
    return Budgets({}, Slots(connects))


@asynccontextmanager
async def keeping(
    line: Line = Line.TRADE,
    *,
    stream: PaperStream | None = None,
    rest: Rest | None = None,
    budgets: Budgets | None = None,
    draw: Callable[[], float] = lambda: 0.5,
    desk: Callable[[Asker], Desk] | None = None,
    **options: Any,
) -> AsyncIterator[Kept]:
    """A keeper that runs; everything shows a snapshot at once unless ``stream`` says otherwise."""
    stream, rest, budgets = stream or PaperStream(snapshots), rest or Rest(), budgets or budgets_of()
    chosen = Options(**options)
    keepers: list[Keeper] = []
    demand = Demand(lambda changed: keepers[0].changed() if changed is line else None)
    async with asking(rest) as asker:
        at_desk: Any = desk(asker) if desk is not None else NotingDesk(line)
        gone: list[Topic] = []
        begun: list[Topic] = []

        def abandon(topic: Topic, error: UnknownMarket) -> None:
            gone.append(topic)
            keepers[0].abandon(topic, str(error))

        probe = Probe(line, asker, chosen.pong_s, abandon)
        clock, time = TrioClock(EPOCH_MS), ExchangeTime()
        keeper = Keeper(line, stream, at_desk, demand, probe, time, now_ms, clock, chosen, budgets, draw, begun.append)
        keepers.append(keeper)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            yield Kept(keeper, demand, stream, rest, at_desk, budgets, gone, begun)
            nursery.cancel_scope.cancel()
