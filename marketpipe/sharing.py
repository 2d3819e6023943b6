"""One budget for each address of the exchange, whichever thread of this process uses it.

The exchange counts requests by IP address. All pipelines of this process to the same address therefore take their slots
from the same `Slots`: those of one ``trio.run``, those in threads of their own (`marketpipe.connect`), and those that
are opened later, which find there what earlier ones have left: slots that still rest, a ceiling, a ban.

::

    run A ── Budgets of shares ──┐
                                 ├── lock ──> Slots of each group, Slots of connections, Ban
    run B ── Budgets of shares ──┘
                ^ `hear`, by B's token, whenever A has given a slot back

Every run has a Trio clock of its own, with an origin of its own, so here time is the process's: a share reads it anew
under the lock, which makes it monotonic over all threads, and translates what it answers to the caller's clock. Two
pipelines may have been told different limits: while both are open, the most careful numbers hold for both.

Other processes on this address are not known here. A fork is another process, and begins without any of this.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import RLock

import attrs
import trio

from marketpipe.clock import monotonic_s
from marketpipe.config import Config
from marketpipe.core.budgets import Budgets
from marketpipe.core.pacing import Ban, Slots, SlotStatistics, Ticket
from marketpipe.core.requests import Group

__all__ = ["new_budgets", "shared_budgets"]


def new_budgets(config: Config) -> Budgets:
    """A budget by the numbers of ``config`` for a pipeline that is alone at its exchange."""
    limits, connects = _Numbers.of(config).slots()
    return Budgets(limits, connects)


@contextmanager
def shared_budgets(config: Config) -> Generator[Budgets]:
    """A share in the budget of ``config``'s exchange, for a pipeline of this run, until it is left."""
    with _addresses_lock:
        address = _addresses.get(config.rest_url)
        if address is None:
            address = _addresses[config.rest_url] = _Address(_Numbers.of(config))
    with address.share(_Numbers.of(config)) as budgets:
        yield budgets


@attrs.frozen
class _Numbers:
    """What a pipeline was told of the limits."""

    per_second: int
    connects_per_second: int
    guard_s: float
    abandoned_hold_s: float

    @classmethod
    def of(cls, config: Config) -> _Numbers:
        limits, connects = config.limits, config.subscriptions.connects_per_second
        return cls(limits.per_second, connects, limits.guard_s, limits.abandoned_hold_s)

    def slots(self) -> tuple[dict[Group, Slots], Slots]:
        def slots(per_second: int) -> Slots:
            return Slots(per_second, guard_s=self.guard_s, abandoned_hold_s=self.abandoned_hold_s)

        return {group: slots(self.per_second) for group in Group}, slots(self.connects_per_second)


@attrs.frozen(eq=False)
class _Member:
    """A pipeline that shares an address: its numbers, its budget, and the way into its run."""

    numbers: _Numbers
    budgets: Budgets
    token: trio.lowlevel.TrioToken


class _Address:
    """What all pipelines to one address share; every use of it holds ``lock``."""

    def __init__(self, numbers: _Numbers) -> None:
        # Reentrant, since the garbage collector may end a forgotten pipeline in the middle of any line.
        self.lock = RLock()
        self.slots, self.connects = numbers.slots()
        self.ban = Ban()
        self._members: list[_Member] = []

    @contextmanager
    def share(self, numbers: _Numbers) -> Generator[Budgets]:
        slots = {group: _SharedSlots(slots, self.lock) for group, slots in self.slots.items()}
        connects, ban = _SharedSlots(self.connects, self.lock), _SharedBan(self.ban, self.lock)
        budgets = Budgets(slots, connects, ban, lambda: self._tell(member))
        member = _Member(numbers, budgets, trio.lowlevel.current_trio_token())
        with self.lock:
            self._members.append(member)
            self._retune()
        try:
            yield budgets
        finally:
            with self.lock:
                self._members.remove(member)
                self._retune()
            self._tell(member)  # there may be more slots now

    def _retune(self) -> None:
        told = [member.numbers for member in self._members]
        if not told:  # whoever comes next says how
            return
        guard_s, hold_s = max(each.guard_s for each in told), max(each.abandoned_hold_s for each in told)
        for slots in self.slots.values():
            slots.retune(min(each.per_second for each in told), guard_s=guard_s, abandoned_hold_s=hold_s)
        connects = min(each.connects_per_second for each in told)
        self.connects.retune(connects, guard_s=guard_s, abandoned_hold_s=hold_s)

    def _tell(self, teller: _Member) -> None:
        with self.lock:
            others = [member for member in self._members if member is not teller]
        for member in others:
            with suppress(trio.RunFinishedError):  # it ended without leaving: nobody is there to be told
                member.token.run_sync_soon(member.budgets.hear, idempotent=True)


@attrs.frozen(eq=False)
class _SharedSlots:
    """A share in ``slots``: as those, with the process's time in place of the caller's."""

    _slots: Slots
    _lock: RLock

    def acquire(self, now_s: float) -> Ticket | None:
        with self._lock:
            return self._slots.acquire(monotonic_s())

    def available(self, now_s: float) -> int:
        with self._lock:
            return self._slots.available(monotonic_s())

    def next_free_s(self, now_s: float) -> float | None:
        with self._lock:
            here_s = monotonic_s()
            free_s = self._slots.next_free_s(here_s)
        return None if free_s is None else _of_the_caller(free_s, here_s)

    def answered(self, ticket: Ticket, now_s: float, remaining: int | None = None) -> None:
        with self._lock:
            self._slots.answered(ticket, monotonic_s(), remaining)

    def refused(self, ticket: Ticket, now_s: float, retry_after_s: float = 0.0) -> None:
        with self._lock:
            self._slots.refused(ticket, monotonic_s(), retry_after_s)

    def abandoned(self, ticket: Ticket, now_s: float) -> None:
        with self._lock:
            self._slots.abandoned(ticket, monotonic_s())

    def unsent(self, ticket: Ticket, now_s: float) -> None:
        with self._lock:
            self._slots.unsent(ticket, monotonic_s())

    def statistics(self, now_s: float) -> SlotStatistics:
        with self._lock:
            return self._slots.statistics(monotonic_s())


@attrs.frozen(eq=False)
class _SharedBan:
    """A share in ``ban``, likewise."""

    _ban: Ban
    _lock: RLock

    def ban(self, now_s: float, duration_s: float | None) -> float:
        with self._lock:
            here_s = monotonic_s()
            return _of_the_caller(self._ban.ban(here_s, duration_s), here_s)

    def until_s(self, now_s: float) -> float | None:
        with self._lock:
            here_s = monotonic_s()
            until_s = self._ban.until_s(here_s)
        return None if until_s is None else _of_the_caller(until_s, here_s)


def _of_the_caller(at_s: float, here_s: float) -> float:
    # Read after ``here_s``, so that whoever sleeps until then never wakes before there is something.
    return trio.current_time() + (at_s - here_s)


# By address. The one piece of state that outlives a pipeline: the exchange remembers too.
_addresses: dict[str, _Address] = {}
_addresses_lock = RLock()


def _begin_anew() -> None:
    global _addresses_lock
    _addresses_lock = RLock()  # the thread that held the old one may not be here
    _addresses.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_begin_anew)
