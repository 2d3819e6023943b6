"""What the two providers of `marketpipe.compat` stand on: a blocking client, and what is beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import attrs
import trio
from cachetools import TLRUCache

from marketpipe.blocking import BlockingClient, connect
from marketpipe.clock import monotonic_s
from marketpipe.compat.asking import REFUSALS, Answer, Call
from marketpipe.compat.records import CacheItem
from marketpipe.compat.responses import moment
from marketpipe.compat.status import Tally
from marketpipe.config import Config
from marketpipe.core.symbols import normalise

__all__ = ["CacheSystem", "Pipe", "in_a_thread"]

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

CACHE_ENTRIES = 1000
CACHE_S = 60.0


class CacheSystem:
    """A small memory for values of your own, apart from market data: up to 1000, each for a minute or as long as said.

    For many threads. The least recently used has to make room.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: TLRUCache[str, CacheItem] = TLRUCache(
            CACHE_ENTRIES, ttu=lambda _, item, now_s: now_s + item.ttl_seconds, timer=monotonic_s
        )

    def set(self, key: str, value: Any, ttl_seconds: float = CACHE_S) -> None:
        """Keep ``value`` for so many seconds."""
        if not ttl_seconds > 0:
            raise ValueError(f"ttl_seconds must be above 0, was {ttl_seconds!r}")
        with self._lock:
            self._items[key] = CacheItem(key, value, moment(), ttl_seconds)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, whatever it is; ``default`` if there is none."""
        item = self.item(key)
        return default if item is None else item.data

    def item(self, key: str) -> CacheItem | None:
        """The value with what is known of it, or None."""
        with self._lock:
            found: CacheItem | None = self._items.get(key)
            return found

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._items.clear()

    def __contains__(self, key: str) -> bool:
        return self.item(key) is not None

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)


@attrs.define(eq=False)
class Forgotten:
    """When something was to be forgotten: a question about it then demands what was received later."""

    _longest_s: float  # nothing is kept for longer than that
    _all_s: float | None = attrs.field(default=None, init=False)
    _by_symbol_s: dict[str, float] = attrs.field(factory=dict, init=False)

    def all(self) -> None:
        """Everything."""
        self._all_s = monotonic_s()

    def symbol(self, symbol: str) -> None:
        """What there is of one symbol. ``TypeError`` if it is no string."""
        self._by_symbol_s[normalise(symbol)] = monotonic_s()

    def max_age_s(self, names: Iterable[object] | None) -> float | None:
        """How old an answer about ``names`` (None: the list of markets) may be, None if that does not matter."""
        normal = [name.strip().upper() for name in names or () if isinstance(name, str)]
        times_s = [self._all_s, *map(self._by_symbol_s.get, normal)]
        age_s = min((monotonic_s() - time_s for time_s in times_s if time_s is not None), default=self._longest_s)
        return age_s if age_s < self._longest_s else None


@attrs.frozen(eq=False)
class Pipe:
    """A client with its limits, what was to be forgotten, and a count of the answers."""

    market: BlockingClient
    config: Config
    max_workers: int
    tally: Tally = attrs.field(factory=Tally, init=False)
    forgotten: Forgotten = attrs.field(
        init=False, default=attrs.Factory(lambda self: Forgotten(self.config.cache.freshness.max_s), takes_self=True)
    )

    @classmethod
    def open(cls, max_workers: int, config: Config | None) -> Pipe:
        """Connect. Raises what opening a pipeline raises, and for what is no number of workers."""
        limited = _limited(config or Config(), max_workers)
        return cls(connect(limited), limited, max_workers)

    def ask(self, call: Call[A]) -> A:
        """Wait for the answer; it is always one."""
        try:
            question = call.make()
            batch = question.ask(self.market, self.forgotten.max_age_s(question.names))
        except REFUSALS as error:
            return self._counted(call.refuse(error))
        return self._counted(call.tell(question, batch))

    async def wait(self, call: Call[A]) -> A:
        """The same, awaited."""
        try:
            question = call.make()
            batch = await _result(question.ask(self.market.submit, self.forgotten.max_age_s(question.names)))
        except REFUSALS as error:
            return self._counted(call.refuse(error))
        return self._counted(call.tell(question, batch))

    def _counted(self, answer: A) -> A:
        self.tally.record(answer)
        return answer


async def in_a_thread(function: Any) -> None:
    """Do what blocks without holding up whichever event loop this is."""
    if _on_trio():
        with trio.CancelScope(shield=True):  # also on the way out of what was cancelled
            await trio.to_thread.run_sync(function)
        return
    import asyncio  # for who is on it, and has it loaded therefore

    await asyncio.to_thread(function)


def _on_trio() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


async def _result(future: Future[T]) -> T:
    """What comes of ``future``, on Trio and on asyncio; if the wait is cancelled, so is the future."""
    if not _on_trio():
        import asyncio

        return await asyncio.wrap_future(future)
    token, done = trio.lowlevel.current_trio_token(), trio.Event()

    def tell(_: Future[T]) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    future.add_done_callback(tell)
    try:
        await done.wait()
        return future.result()
    finally:
        future.cancel()


def _limited(config: Config, max_workers: int) -> Config:
    """No more than ``max_workers`` requests in flight, of all groups together, at the rate that the exchange allows."""
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"max_workers must be a whole number of at least 1, was {max_workers!r}")
    if max_workers < 1:
        raise ValueError(f"max_workers must be a whole number of at least 1, was {max_workers}")
    most = config.limits.in_flight
    in_flight = max_workers if most is None else min(most, max_workers)
    return attrs.evolve(config, limits=attrs.evolve(config.limits, in_flight=in_flight))
