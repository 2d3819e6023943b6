"""One exchange behind whatever carries its requests: latency, limits, faults and the market, in that order.

A transport (the socket server, the one in memory) hands in a `SimRequest` and gets a `SimReply`, whose ``ending`` says
how much of it reaches the client. Nothing here knows streams of bytes; nothing but `SimExchange.handle` and
`SimExchange.upgrade` waits.
"""

from __future__ import annotations

import errno
import heapq
import math
import random
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

import attrs
import trio

from marketpipe.clock import Clock
from marketpipe.sim import control, quotation
from marketpipe.sim.config import SimConfig
from marketpipe.sim.faults import Ending, Fault, LatencyFault
from marketpipe.sim.limiter import CONNECT, MESSAGE, ORIGIN, GroupStatistics, Limiter, Verdict
from marketpipe.sim.replies import TEXT, Content, SimReply, compose, refusal, spoil
from marketpipe.sim.script import ScriptedTrade
from marketpipe.sim.timeline import FaultTimeline
from marketpipe.sim.world import World
from marketpipe.sim.ws_hub import Sockets, StreamStatistics

__all__ = ["SimExchange", "SimRequest", "SimStatistics"]

# The URL may have about 8,000 characters (ccxt PR #28522, 2026-05-06); 855 markets in one call just fit (2026-09-23).
MAX_TARGET = 8_192
UNRECEIVED = ("down", "dns")
_HABITS = [field.name for field in attrs.fields(quotation.Options)]


@attrs.frozen
class SimRequest:
    """A request as it arrives: ``target`` is path and query, still encoded; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's pairs, percent-decoded, in the order they came."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@attrs.frozen
class SimStatistics:
    """What the simulator has seen: per rate-limit group, of connections, of paths it has not, of faults by kind.

    ``connections`` are all that carry HTTP, also those that were upgraded; ``streams`` is about the latter alone.
    """

    groups: dict[str, GroupStatistics]
    connections: dict[str, int]
    unrouted: int
    faults: dict[str, int]
    streams: StreamStatistics


@attrs.frozen(order=True)
class _Journey:
    """One request on its way: when it reaches the exchange, how long its answer takes back, what befalls it."""

    arrives_s: float
    request: SimRequest = attrs.field(order=False)
    group: str | None = attrs.field(order=False)
    after_s: float = attrs.field(order=False)
    faults: tuple[Fault, ...] = attrs.field(order=False)


class SimExchange:
    """A simulated Upbit that lives in the time of ``clock``.

    The same seed, clock and order of requests give the same answers, delays and faults. ``world`` is shown instead of
    the one that ``config`` describes.
    """

    def __init__(self, config: SimConfig, clock: Clock, world: World | None = None) -> None:
        self.config = config
        self.clock = clock
        self.world = World(config.seed, config.markets, lively=config.lively) if world is None else world
        self.connections_open = 0
        self.connections_total = 0
        self._options = quotation.Options(**{name: getattr(config, name) for name in _HABITS})
        self._jitter = random.Random(config.seed)
        self._timeline = FaultTimeline(config.seed)
        self.sockets = Sockets(config, clock, self.world, self._timeline)
        self._limiter = Limiter(config)
        self._unrouted = 0
        self._has_told = False
        self._abandoned: list[_Journey] = []

    async def handle(self, request: SimRequest) -> SimReply:
        """Answer after the configured latency.

        A caller who is cancelled on the way out does not call the request back: it is counted when it would have
        arrived, as a request is that has left its machine.
        """
        if control.listens_to(request.path):
            return control.handle(self, request)
        return await self._travel(request, quotation.group_of(request.path))

    async def upgrade(self, request: SimRequest) -> SimReply:
        """Answer a request to speak WebSocket from now on: 101 if it may, otherwise why not."""
        return await self._travel(request, CONNECT)

    async def dial(self) -> None:
        """Wait for as long as it takes to connect. Raises ``OSError``, as a network would, if nobody is there."""
        await trio.sleep(self.config.latency_s + self._jitter.uniform(0, self.config.jitter_s))
        match self._timeline.strike_dial(trio.current_time()):
            case None:
                return
            case "dns":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            case _:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    def one_way(self) -> float:
        """Seconds that a message takes now from one end of an open connection to the other."""
        return self.config.latency_s / 2 + self._jitter.uniform(0, 1) * self._jitter.uniform(0, self.config.jitter_s)

    async def warm_up(self) -> None:
        """Work out now what the first answers need, so that they are as quick as the later ones.

        It takes a second or two for a whole exchange; others run, and cancellation is noticed, in between.
        """
        if self.config.lively is not None:
            await trio.to_thread.run_sync(self.world.warm_up, abandon_on_cancel=True)
        for market in self.world.listed(self.clock.now_ms()):
            query = [("markets", market)]
            quotation.answer(self.world, "/v1/ticker", query, self.clock.now_ms(), self._options)
            await trio.lowlevel.checkpoint()

    def add_fault(self, fault: Fault) -> None:
        """Let ``fault`` begin now."""
        self._timeline.add(fault, trio.current_time(), self.sockets.newcomer)
        self.sockets.ring()

    def clear_faults(self) -> None:
        """Everything works again, for requests that have not left yet and for the connections that are left."""
        self._timeline.clear()
        self.sockets.ring()

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are not over, each with how many requests, connections or frames it ``struck``."""
        return self._timeline.describe(trio.current_time())

    def script(self, market: str, trades: Iterable[ScriptedTrade]) -> None:
        """Let ``market`` trade exactly so, from the first to the last UTC day of ``trades``; see `World.script`.

        Only before anything but the list of markets was told, which is not taken back: ``RuntimeError`` otherwise.
        """
        if self._has_told:
            raise RuntimeError(f"{market} cannot be scripted any more: something has been told already")
        self.world.script(market, trades)

    def flood(self, per_second: float, for_s: float) -> None:
        """Send ``per_second`` frames a second for ``for_s`` seconds, instead of the market's own.

        They go evenly to everything that is subscribed, on all connections together, and are no market truth: the last
        state over and over with the present stamp, and trades with ids that tell when they were sent, in tenths of a
        microsecond. It replaces a flood that is running. Raises ``ValueError`` for what is no rate or no time.
        """
        for name, value in (("per_second", per_second), ("for_s", for_s)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be more than 0, was {value!r}")
        self.sockets.flood.start(per_second, for_s, trio.current_time())
        self.sockets.ring()

    def end_flood(self) -> None:
        """Let the market speak for itself again."""
        self.sockets.flood.stop()
        self.sockets.ring()

    def statistics(self) -> SimStatistics:
        """What has been seen since the start or the last `reset`."""
        self._count_abandoned(trio.current_time())
        return SimStatistics(
            groups={**self._limiter.statistics(), MESSAGE: self.sockets.message_statistics()},
            connections={"open": self.connections_open, "total": self.connections_total},
            unrouted=self._unrouted,
            faults=self._timeline.struck(),
            streams=self.sockets.statistics(),
        )

    def reset(self) -> None:
        """Forget every count, every window and every block; faults go on, and so do requests on their way."""
        self._count_abandoned(trio.current_time())
        self._limiter = Limiter(self.config)
        self._timeline.forget()
        self.sockets.reset()
        self.connections_total = self.connections_open
        self._unrouted = 0

    async def _travel(self, request: SimRequest, group: str | None) -> SimReply:
        journey = self._depart(request, group)
        try:
            await trio.sleep_until(journey.arrives_s)
        except trio.Cancelled:
            arrives_s = max(journey.arrives_s, trio.current_time())
            heapq.heappush(self._abandoned, attrs.evolve(journey, arrives_s=arrives_s))
            raise
        reply = self._arrive(journey)
        await trio.sleep(journey.after_s)
        return reply

    def _depart(self, request: SimRequest, group: str | None) -> _Journey:
        now_s = trio.current_time()
        faults = self._timeline.strike(group, now_s)
        extra_s = sum(fault.latency_s for fault in faults if isinstance(fault, LatencyFault))
        half_s = (self.config.latency_s + extra_s) / 2
        jitter_s = self._jitter.uniform(0, self.config.jitter_s)
        outward_s = jitter_s * self._jitter.uniform(0, 1)
        return _Journey(now_s + half_s + outward_s, request, group, half_s + jitter_s - outward_s, faults)

    def _arrive(self, journey: _Journey) -> SimReply:
        ending = _ending(journey.faults)
        if ending in UNRECEIVED:
            return SimReply(503, (), b"", ending)
        return attrs.evolve(self._answer(journey), ending=ending)

    def _answer(self, journey: _Journey) -> SimReply:
        now_s, now_ms = trio.current_time(), self.clock.now_ms()
        date_ms = now_ms + self._timeline.skew_ms(now_s)
        request = journey.request
        if len(request.target) > MAX_TARGET:
            return compose(Content(414, b"URI Too Long", TEXT), now_ms=date_ms)
        if journey.group is None or request.method != "GET":
            self._unrouted += 1
            return compose(Content(404, quotation.NO_ROUTE), now_ms=date_ms)
        self._count_abandoned(now_s)
        verdict = self._count(journey, now_s, now_ms / 1000)
        content = self._content(journey, verdict, now_ms)
        if content.status in (418, 429):
            verdict = attrs.evolve(verdict, left=0)
        gzip = self.config.gzip and "gzip" in request.headers.get("accept-encoding", "")
        return compose(content, now_ms=date_ms, remaining_req=verdict.remaining_req, gzip=gzip)

    def _content(self, journey: _Journey, verdict: Verdict, now_ms: int) -> Content:
        if verdict.status != 200:
            return refusal(verdict, self.config)
        request = journey.request
        self._has_told |= journey.group != "market"
        if journey.group == CONNECT:
            return spoil(Content(101, b""), journey.faults, verdict, self.config)
        answer = quotation.answer(self.world, request.path, request.query, now_ms, self._options)
        return spoil(Content(answer.status, answer.body), journey.faults, verdict, self.config)

    def _count(self, journey: _Journey, now_s: float, wall_s: float) -> Verdict:
        group = journey.group or ""
        if self.config.origin_rule and "origin" in journey.request.headers:
            group = ORIGIN
        return self._limiter.arrive(group, now_s, wall_s)

    def _count_abandoned(self, now_s: float) -> None:
        # The limiter's time only goes forward: whoever was abandoned earlier is counted before whoever arrives now.
        offset_s = self.clock.now_ms() / 1000 - now_s
        while self._abandoned and self._abandoned[0].arrives_s <= now_s:
            journey = heapq.heappop(self._abandoned)
            if journey.group is not None and _ending(journey.faults) not in UNRECEIVED:
                self._count(journey, journey.arrives_s, journey.arrives_s + offset_s)


def _ending(faults: Iterable[Fault]) -> Ending:
    endings: list[Ending] = [fault.ending for fault in faults if fault.ending != "whole"]
    return endings[0] if endings else "whole"
