"""The request batcher: turns any number of callers' questions into as few requests as the limits need.

It is the only one that talks to the exchange's REST side, and it owns every request: a caller that gives up is
forgotten, its request is never cancelled (httpcore loses a pool slot for ever when a request is cancelled).

A question waits at most until a request slot is free; nothing is delayed on purpose. What arrives within one pass of
Trio's scheduler travels together, because the inbox is a rendezvous: by the time this task runs again, every task of
that pass stands in line. While all slots rest, callers accumulate, and the next request carries them all.

Who goes first is `marketpipe.core.waiting`'s order, what travels together `marketpipe.core.batching`'s, and when a
request may go at all `marketpipe.core.pacing`'s; here they are put to work.

::

    ask ──> unlisted? ──yes──> UnknownMarket
             │ unsure ──> held until market/all is read again
             └ listed ──> waiting ──slot──> in flight ──200──> answered
                             ^                  ├─ 404 on a batch: sift by market/all, else halve ─┐
                             ├── back-off ──────┼─ 5xx, network: up to Retry.attempts              │
                             ├── next second ───┼─ 429: up to Retry.refusals                       │
                             └──────────────────┼──────────────────────────────────────────────────┘
                                                └─ 418: everybody gets Banned until it ends
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs
import trio

from marketpipe.actors.mailbox import Ask
from marketpipe.actors.mailbox import Reply as ReplyTo
from marketpipe.actors.messages import Answered, Answers, Delivery, Question
from marketpipe.clock import Clock
from marketpipe.config import Limits, Retry
from marketpipe.core.admission import Admission, unknown_market
from marketpipe.core.answers import page_of
from marketpipe.core.batching import Key, Lot, Wanted, group_of, market_of
from marketpipe.core.budgets import Budgets
from marketpipe.core.exchange_time import AnsweredTime
from marketpipe.core.listing import MarketList, Verdict
from marketpipe.core.pacing import Limit, SlotStatistics, Ticket, full_jitter_s
from marketpipe.core.requests import CandlesRequest, Group, MarketsRequest, QuoteTickersRequest, Reply, Request
from marketpipe.core.waiting import Pending, WaitingRoom
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    MarketPipeError,
    RateLimited,
    UnknownMarket,
)
from marketpipe.logs import fields, told
from marketpipe.models import Priority
from marketpipe.status import QueueStatus

__all__ = ["Batcher", "BatcherStatistics", "Exchange"]

logger = logging.getLogger("marketpipe.batcher")


class Exchange(Protocol):
    """The REST side of the exchange, as the batcher needs it."""

    async def fetch(self, request: Request) -> Reply:
        """Ask once. Raises `ExchangeError` and nothing else."""
        ...


@attrs.define(eq=False)
class _Caller:
    reply: ReplyTo[Answers]
    outstanding: int
    answers: Answers = attrs.field(factory=dict)

    def is_waiting(self) -> bool:
        return self.reply.is_awaited()


@attrs.frozen
class BatcherStatistics:
    """Counters since the start, and the queue as it is now.

    ``groups`` are the slots, which other pipelines may share; of these, ``sent`` and ``refused`` are the batcher's own.
    """

    groups: Mapping[Group, SlotStatistics]
    waiting: Mapping[Group, int]
    in_flight: int
    questions: int
    joined: int
    requests: int
    banned_for_s: float


@attrs.define(eq=False)
class Batcher:
    """State of the actor; `run` is the actor. ``draw`` gives uniform numbers in [0, 1) for the back-off."""

    _exchange: Exchange
    _inbox: trio.MemoryReceiveChannel[Ask[Question, Answers]]
    _answered: trio.MemorySendChannel[Answered]
    _clock: Clock
    _limits: Limits
    _retry: Retry
    _draw: Callable[[], float]
    _budgets: Budgets
    _admission: Admission[_Caller] = attrs.field(init=False)
    _pending: dict[Key, Pending[_Caller]] = attrs.field(factory=dict, init=False)
    _waiting: dict[Group, WaitingRoom[_Caller]] = attrs.field(
        factory=lambda: {group: WaitingRoom() for group in Group}, init=False
    )
    _tickets: dict[Ticket, Limit] = attrs.field(factory=dict, init=False)
    _deliveries: list[Delivery] = attrs.field(factory=list, init=False)
    _alarm: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _time: AnsweredTime = attrs.field(factory=AnsweredTime, init=False)
    _began_ms: int = attrs.field(init=False)  # by this machine's clock
    _began_s: float = attrs.field(factory=trio.current_time, init=False)
    _questions: int = attrs.field(default=0, init=False)
    _joined: int = attrs.field(default=0, init=False)
    _requests: int = attrs.field(default=0, init=False)
    _sent: dict[Group, int] = attrs.field(factory=lambda: dict.fromkeys(Group, 0), init=False)
    _refused: dict[Group, int] = attrs.field(factory=lambda: dict.fromkeys(Group, 0), init=False)
    _most_waiting: dict[Group, int] = attrs.field(factory=lambda: dict.fromkeys(Group, 0), init=False)
    _most_answered: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._admission = Admission(self._limits.listing_max_age_s)
        self._began_ms = self._clock.now_ms()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve questions until every asker's end of the inbox is closed, then leave what is unanswered closed."""
        try:
            with self._inbox, self._answered:
                async with trio.open_nursery() as self._nursery:
                    self._budgets.listeners.append(self._wake)
                    self._nursery.start_soon(self._watch_the_time, name="batcher timer")
                    self._want_listing(trio.current_time() + Priority.NORMAL.budget_s)
                    self._dispatch()
                    task_status.started()
                    async for question in self._inbox:
                        self._accept(question)
                        self._accept_all_in_line()
                        self._dispatch()
                    self._nursery.cancel_scope.cancel(reason="nobody is left to ask")
        finally:
            self._leave()

    def _leave(self) -> None:
        self._budgets.listeners.remove(self._wake)
        for ticket, slots in self._tickets.items():  # cut off by leaving: they may still arrive
            slots.abandoned(ticket, trio.current_time())
        for pending in self._pending.values():
            for caller in pending.askers:
                caller.reply.close()

    def exchange_now_ms(self) -> int:
        """What time it is at the exchange at the least (epoch ms), by the dates of its answers.

        These were rounded down to the second and written before they arrived, so this is early by up to a second and
        the way back. A single wrong one moves nothing, and neither does a step of this machine's clock: until the first
        answer, this is what that clock has shown at the start, and what has passed since.
        """
        now_s = trio.current_time()
        told_ms = self._time.now_ms(now_s)
        return self._began_ms + round((now_s - self._began_s) * 1000) if told_ms is None else told_ms

    @property
    def knows_the_time(self) -> bool:
        """Whether the exchange has told its time yet."""
        return self._time.now_ms(trio.current_time()) is not None

    def statistics(self) -> BatcherStatistics:
        """A snapshot of the counters."""
        now_s = trio.current_time()
        until_s = self._budgets.ban.until_s(now_s)
        return BatcherStatistics(
            groups={
                group: attrs.evolve(slots.statistics(now_s), sent=self._sent[group], refused=self._refused[group])
                for group, slots in self._budgets.slots.items()
            },
            waiting={group: self._depth(group) for group in Group},
            in_flight=len(self._tickets),
            questions=self._questions,
            joined=self._joined,
            requests=self._requests,
            banned_for_s=max(0.0, until_s - now_s) if until_s is not None else 0.0,
        )

    def queues(self) -> dict[str, QueueStatus]:
        """What waits for a slot, by group, and what waits for the cache."""
        queues = {
            f"questions {group}": QueueStatus(self._depth(group), most) for group, most in self._most_waiting.items()
        }
        answers = self._answered.statistics().current_buffer_used
        return {**queues, "answers": QueueStatus(answers, self._most_answered)}

    def _depth(self, group: Group) -> int:
        return len(self._waiting[group]) + self._admission.held(group)

    # -- taking questions ---------------------------------------------------------------------------------------

    def _accept_all_in_line(self) -> None:
        while True:
            try:
                self._accept(self._inbox.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def _accept(self, ask: Ask[Question, Answers]) -> None:
        question, now_s = ask.payload, trio.current_time()
        self._questions += 1
        caller = _Caller(ask.reply, len(question.keys))
        due_s = now_s + question.priority.budget_s
        banned = self._banned(now_s)
        for key in question.keys:
            pending = self._pending.get(key)
            if pending is not None:
                self._joined += 1
                pending.join(caller, due_s)
                continue
            pending = self._pending[key] = Pending(key, due_s)
            pending.join(caller, due_s)
            if banned is not None:
                self._resolve(pending, banned)
            else:
                self._admit(pending, now_s)
        self._publish()

    def _admit(self, pending: Pending[_Caller], now_s: float) -> None:
        match self._admission.verdict(pending.key, now_s):
            case Verdict.LISTED:
                self._wait(pending)
            case Verdict.UNLISTED:
                self._resolve(pending, unknown_market(pending.key))
            case Verdict.UNSURE:
                self._admission.hold(pending)
                self._want_listing(pending.due_s)

    def _wait(self, pending: Pending[_Caller]) -> None:
        self._waiting[group_of(pending.key)].enter(pending)

    def _want_listing(self, due_s: float) -> None:
        key = MarketsRequest()
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = Pending(key, due_s)
            self._wait(pending)
        pending.for_us = True
        pending.due_s = min(pending.due_s, due_s)

    # -- sending requests ---------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Start every request that may go now, and set the alarm for the next moment at which one may."""
        now_s = trio.current_time()
        banned = self._banned(now_s)
        if banned is not None:
            self._dismiss(banned)
        self._start_all(now_s)
        # Once there is no room, no moment brings any: only a request that ends does, and then we are called.
        self._alarm.deadline = min(self._next_s(group, now_s) for group in Group) if self._room() else math.inf
        # Whatever fills a queue comes by here before any other task runs: what is left now has to wait.
        for group, most in self._most_waiting.items():
            self._most_waiting[group] = max(most, self._depth(group))

    def _start_all(self, now_s: float) -> None:
        room = self._room()
        if not room:
            return
        lots = [lot for group in Group for lot in self._ready_lots(group, now_s)]
        if len(lots) > room:  # the groups share it, the most urgent first, whichever group that is of
            lots = heapq.nsmallest(int(room), lots, key=self._due_s)
        for lot in lots:
            self._start(lot, self._budgets.slots[lot.request.group], now_s)

    def _room(self) -> float:
        most = self._limits.in_flight
        return math.inf if most is None else max(0, most - len(self._tickets))

    def _ready_lots(self, group: Group, now_s: float) -> list[Lot]:
        waiting = self._waiting[group]
        available = self._budgets.slots[group].available(now_s) if waiting else 0
        if not available:
            return []
        for key in waiting.drop_unwanted():
            del self._pending[key]
        return waiting.lots(now_s, self._admission.listed_by_quote)[:available]

    def _due_s(self, lot: Lot) -> float:
        return min(self._pending[key].due_s for key in lot.keys)

    def _next_s(self, group: Group, now_s: float) -> float:
        waiting, slots = self._waiting[group], self._budgets.slots[group]
        if not waiting:
            return math.inf
        free_s = _or_never(slots.next_free_s(now_s))
        return max(waiting.next_ready_s(now_s), free_s)

    def _start(self, lot: Lot, slots: Limit, now_s: float) -> None:
        ticket = slots.acquire(now_s)
        if ticket is None:  # a pipeline in another thread has taken it since it was counted: this lot waits on
            return
        members = self._waiting[lot.request.group].leave(lot)
        self._tickets[ticket] = slots
        self._requests += 1
        self._sent[lot.request.group] += 1
        self._nursery.start_soon(self._perform, lot, members, ticket, name=f"request {lot.request.group}")

    async def _perform(self, lot: Lot, members: list[Pending[_Caller]], ticket: Ticket) -> None:
        slots, sent_s = self._budgets.slots[lot.request.group], trio.current_time()
        try:
            reply = await self._exchange.fetch(lot.request)
        except ExchangeError as error:
            del self._tickets[ticket]
            self._settle(lot.request.group, ticket, error)
            self._failed(lot, members, error)
            self._publish()
        else:
            del self._tickets[ticket]
            at_ms = self._time.answered(reply.exchange_ms, sent_s, trio.current_time())
            left = reply.remaining.left if reply.remaining is not None else None
            slots.answered(ticket, trio.current_time(), remaining=left)
            self._succeeded(lot, members, reply, sent_s, self.exchange_now_ms() if at_ms is None else at_ms)
        self._budgets.changed()
        self._dispatch()

    def _settle(self, group: Group, ticket: Ticket, error: ExchangeError) -> None:
        now_s, slots = trio.current_time(), self._budgets.slots[group]
        match error:
            case ExchangeUnavailable(sent=False):
                slots.unsent(ticket, now_s)
                self._sent[group] -= 1
            case ExchangeUnavailable(status=None):  # no answer came: it may still be on its way to the exchange
                slots.abandoned(ticket, now_s)
            case RateLimited():
                slots.refused(ticket, now_s, error.retry_after_s)
                self._refused[group] += 1
            case _:
                slots.answered(ticket, now_s)

    def _wake(self) -> None:
        # Others tell in a step of theirs, also from other runs: what comes of it belongs into a task of ours.
        self._alarm.deadline = -math.inf

    async def _watch_the_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._alarm.deadline) as self._alarm:
                await trio.sleep_forever()
            self._dispatch()

    # -- judging answers ----------------------------------------------------------------------------------------

    def _succeeded(self, lot: Lot, members: list[Pending[_Caller]], reply: Reply, sent_s: float, at_ms: int) -> None:
        if isinstance(lot.request, MarketsRequest):
            names = MarketList(reply.rows, reply.failed).names
            if not names:  # believing it would make every market unknown
                self._failed(lot, members, BadPayload("the exchange lists no market at all"))
                self._publish()
                return
            self._admission.learn(names, sent_s)
        rows = _by_key(lot, reply, at_ms)
        values: list[tuple[Key, Any]] = []
        for pending in members:
            if (value := rows.pop(pending.key, None)) is not None:
                self._resolve(pending, value)
                values.append((pending.key, value))
            else:
                self._missing(lot, pending, reply)
        self._publish(values, rows.items(), at_ms)
        if isinstance(lot.request, MarketsRequest):
            self._release(since_s=sent_s)
            self._publish()

    def _missing(self, lot: Lot, pending: Pending[_Caller], reply: Reply) -> None:
        market = market_of(pending.key) or ""
        if market in reply.failed:
            self._resolve(pending, reply.failed[market])
        elif isinstance(lot.request, QuoteTickersRequest):
            self._ask_by_name(pending)
        else:
            self._resolve(pending, BadPayload("the answer has no row for this market", market=market))

    def _ask_by_name(self, pending: Pending[_Caller]) -> None:
        pending.alone = True
        self._wait(pending)

    def _failed(self, lot: Lot, members: list[Pending[_Caller]], error: ExchangeError) -> None:
        about = fields("request-failed", error, group=lot.request.group, questions=len(members), status=error.status)
        logger.info("%s of %d: %s", lot.request.group, len(members), told(error), extra=about)
        match error:
            case Banned():
                self._banish(members, error)
            case ExchangeError(status=400 | 404) if isinstance(lot.request, QuoteTickersRequest):
                for pending in members:  # how an unknown quote currency is answered is not documented: ask by name
                    self._ask_by_name(pending)
            case UnknownMarket() | ExchangeError(status=413 | 414) if len(members) > 1:
                self._sift(lot, members)
            case _:
                self._retry_or_fail(members, error)
        if isinstance(lot.request, MarketsRequest) and lot.request not in self._pending:
            self._release(since_s=math.inf)  # no list to judge by: ask, and let the answers tell

    def _retry_or_fail(self, members: list[Pending[_Caller]], error: ExchangeError) -> None:
        if not isinstance(error, RateLimited | ExchangeUnavailable):
            for pending in members:
                self._resolve(pending, error)
            return
        refused = isinstance(error, RateLimited)
        # One delay for all: what travelled together goes on together.
        ready_s = -math.inf if refused else trio.current_time() + self._back_off_s(members)
        for pending in members:
            self._answer(pending.failed_again(refused, self._retry.attempts, self._retry.refusals), pending.key, error)
            pending.ready_s = ready_s
            if pending.askers or pending.for_us:
                self._wait(pending)
            else:
                del self._pending[pending.key]

    def _back_off_s(self, members: list[Pending[_Caller]]) -> float:
        failures = max(pending.failures for pending in members)
        return full_jitter_s(failures, base_s=self._retry.base_s, cap_s=self._retry.cap_s, draw=self._draw())

    def _sift(self, lot: Lot, members: list[Pending[_Caller]]) -> None:
        now_s = trio.current_time()
        self._admission.sift(lot, members)
        if self._admission.has_recent_list(now_s):
            self._release(since_s=-math.inf)
        else:
            self._want_listing(min(pending.due_s for pending in members))

    def _release(self, *, since_s: float) -> None:
        unlisted, going = self._admission.release(since_s=since_s)
        for pending in unlisted:
            self._resolve(pending, unknown_market(pending.key))
        for pending in going:
            self._wait(pending)

    # -- the ban ------------------------------------------------------------------------------------------------

    def _banned(self, now_s: float) -> Banned | None:
        until_s = self._budgets.ban.until_s(now_s)
        if until_s is None:
            return None
        until_ms = self._clock.now_ms() + int((until_s - now_s) * 1000)
        return Banned(f"blocked by the exchange (418) for another {until_s - now_s:.0f} s", until_ms=until_ms)

    def _banish(self, members: list[Pending[_Caller]], error: Banned) -> None:
        # Whoever goes on asking while blocked is blocked for longer (reference/rate-limits, 2026-10-07).
        now_s = trio.current_time()
        told_s = (error.until_ms - self._clock.now_ms()) / 1000 if error.until_ms else None
        self._budgets.ban.ban(now_s, told_s)
        banned = self._banned(now_s) or error
        logger.warning("%s", banned, extra=fields("banned", banned, until_ms=banned.until_ms))
        for pending in members:
            self._resolve(pending, banned)
        self._dismiss(banned)

    def _dismiss(self, banned: Banned) -> None:
        # Also what was in flight when the ban came, and would otherwise be tried again.
        everyone = self._admission.clear()
        for waiting in self._waiting.values():
            everyone += waiting.clear()
        for pending in everyone:
            self._resolve(pending, banned)
        self._publish()

    # -- answering ----------------------------------------------------------------------------------------------

    def _resolve(self, pending: Pending[_Caller], answer: Any | MarketPipeError) -> None:
        del self._pending[pending.key]
        self._answer(pending.askers, pending.key, answer)

    def _answer(self, callers: Iterable[_Caller], key: Key, answer: Any | MarketPipeError) -> None:
        for caller in callers:
            caller.answers[key] = answer
            caller.outstanding -= 1
            if not caller.outstanding:
                self._deliveries.append(Delivery(caller.reply, caller.answers))

    def _publish(
        self,
        values: Iterable[tuple[Key, Any]] = (),
        extras: Iterable[tuple[Key, Any]] = (),
        at_ms: int | None = None,
    ) -> None:
        at_ms = self.exchange_now_ms() if at_ms is None else at_ms
        message = Answered(at_ms, tuple(values), tuple(self._deliveries), tuple(extras))
        self._deliveries.clear()
        if message.values or message.deliveries or message.extras:
            try:
                self._answered.send_nowait(message)
                self._most_answered = max(self._most_answered, self._answered.statistics().current_buffer_used)
            except trio.BrokenResourceError:  # the cache has left, so the pipe is ending: nobody waits in vain
                message.close()


def _by_key(lot: Lot, reply: Reply, at_ms: int) -> dict[Key, Any]:
    if isinstance(lot.request, MarketsRequest):
        return {lot.request: MarketList(reply.rows, reply.failed)}
    if isinstance(lot.request, CandlesRequest):
        return {lot.request: page_of(reply.rows, at_ms)}
    if not isinstance(lot.keys[0], Wanted):
        return {lot.keys[0]: reply.rows}
    return {Wanted(lot.request.group, row.market): row for row in reply.rows}


def _or_never(at_s: float | None) -> float:
    return math.inf if at_s is None else at_s
