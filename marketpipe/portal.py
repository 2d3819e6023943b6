"""A pipeline in a thread of its own, and the way into it for threads that know nothing of Trio.

::

    any thread ── submit(verb) ──> token.run_sync_soon ──> a task of the pipeline's run: await verb(client)
               <────────────────── Future ──────────────── its value, its error, or `PipelineClosed`

Every question is a task of one nursery inside the pipeline, so that it ends with it; none is a task of Trio's own,
which would outlive it. A future that is cancelled cancels its task. What is asked after the end, or has no answer at
the end, is answered with `PipelineClosed`: nobody waits for ever, and nobody sees a `trio.Cancelled`.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # before anything is registered: see `_leave_at_exit`
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import partial
from typing import Any, Generic, TypeVar

import outcome
import trio

from marketpipe.client import Client
from marketpipe.errors import PipelineClosed
from marketpipe.interrupts import Answer, Deferral

__all__ = ["Held", "Opener", "Portal"]

T = TypeVar("T")

Opener = Callable[[], AbstractAsyncContextManager[Client]]
Verb = Callable[[Client], Awaitable[T]]

CLOSED = "the pipeline has ended; connect() again to ask again"
# Ending a loop takes milliseconds, unless the pipeline's thread waits for the one that ends it.
LEAVE_S = 2.0
# How long the interpreter's exit waits for a pipeline that was not closed: leaving takes under 2 s.
EXIT_S = 5.0
_END: Any = object()


class Portal:
    """Opens the pipeline that ``opener`` makes, in a new thread. Raises what opening it raises.

    Every method may be called by any thread of this process.
    """

    def __init__(self, opener: Opener) -> None:
        self._pid = os.getpid()
        self._stop = trio.Event()
        self._crash: BaseException | None = None
        # Of the thread: set while the pipeline is open.
        self._client: Client
        self._token: trio.lowlevel.TrioToken
        self._calls: trio.Nursery | None = None
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(opener, opened), name="marketpipe", daemon=True)
        with Deferral() as deferral:
            self._thread.start()
            _leave_at_exit(self)
            try:
                deferral.wait(opened)
                opened.result()
            except BaseException:
                opened.cancel()  # whoever waited has been interrupted: then nobody is to open it
                _open.pop(self, None)
                raise

    # -- for every thread -----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it answers."""
        return self._pid == os.getpid() and self._thread.is_alive() and self._calls is not None

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a fork of the one that opened it, and has nothing to leave."""
        return self._pid != os.getpid()

    def call(self, verb: Verb[T], timeout: float | None = None, *, undo: Callable[[T], None] | None = None) -> T:
        """Do ``verb`` in there and wait for it: its value, or what it raises.

        `TimeoutError` after ``timeout`` seconds; then, and if the wait is interrupted, it is cancelled. Raises
        `PipelineClosed` if the pipeline was left, and ``RuntimeError`` in the pipeline's own thread, which would wait
        for itself, and in a fork of the process that opened it. ``undo``: see `submit`.
        """
        self.refuse_own_thread()
        check_timeout(timeout)
        with Deferral() as deferral:
            future = self._begin(verb if timeout is None else _limited(verb, timeout), undo)
            try:
                deferral.wait(future)
            except BaseException:
                future.cancel()
                raise
            value = future.result()
            if deferral.is_interrupted and undo is not None:
                self._soon(partial(undo, value))  # it came just before: leaving this raises
            return value

    def submit(self, verb: Verb[T], *, undo: Callable[[T], None] | None = None) -> Future[T]:
        """Begin ``verb`` in there. Cancelling the future cancels it; a value it had by then is given to ``undo``."""
        with Deferral():
            return self._begin(verb, undo)

    def _begin(self, verb: Verb[T], undo: Callable[[T], None] | None) -> Future[T]:
        future: Future[T] = Answer()
        scope = trio.CancelScope()

        def begin() -> None:
            if self._calls is None:
                _settle(future, outcome.Error(self.closed()))
            else:
                self._calls.start_soon(self._answer, verb, future, scope, undo, name="call from another thread")

        self._soon(begin)
        future.add_done_callback(lambda done: self._cancel(scope) if done.cancelled() else None)
        return future

    def call_sync(self, function: Callable[[Client], T]) -> T:
        """As `call`, for what does not wait."""

        async def verb(client: Client) -> T:
            await trio.lowlevel.checkpoint()
            return function(client)

        return self.call(verb)

    def enter(self, make: Callable[[Client], AbstractAsyncContextManager[T]], timeout: float | None = None) -> Held[T]:
        """Enter an async context manager in there; it stays entered until `Held.leave`, or the end.

        Waits and raises as `call` does.
        """
        self.refuse_own_thread()
        check_timeout(timeout)
        entered: Future[T] = Future()
        leave = trio.Event()

        async def hold(client: Client) -> None:
            async with make(client) as value:
                if _settle(entered, outcome.Value(value)):
                    await leave.wait()

        with Deferral() as deferral:
            left = self._begin(hold, None)
            try:
                if not deferral.wait(entered, left, timeout=timeout):
                    raise TimeoutError(f"not done within {timeout:g} s")
                if not entered.done():
                    left.result()
                if deferral.is_interrupted:
                    self._soon(leave.set)  # it was entered just before: leaving this raises
                return Held(entered.result(), self, leave, left)
            except BaseException:
                entered.cancel()
                left.cancel()
                raise

    def iterate(self, make: Callable[[Client], AsyncGenerator[T]]) -> Iterator[T]:
        """The items of an async generator, which runs in there, in one task; nothing is begun ahead of being asked.

        ``make`` is called in there at once, and what it raises is raised here. Waits and raises as `call` does.
        """
        return self._steps(self.call_sync(make))

    def _steps(self, items: AsyncGenerator[T]) -> Iterator[T]:
        asked: trio.MemorySendChannel[Future[Any]]
        asked, asking = trio.open_memory_channel(1)

        async def serve(_: Client) -> None:
            with asking:
                async with aclosing(items):
                    async for future in asking:
                        await self._answer(lambda _: anext(items, _END), future, trio.CancelScope(), None)

        self.refuse_own_thread()
        served = self.submit(serve)
        try:
            while True:
                self.refuse_own_thread()
                with Deferral() as deferral:
                    future: Future[Any] = Future()
                    self._soon(partial(_hand_over, asked, future))
                    deferral.wait(future, served)
                    if not future.done():
                        served.result()
                        raise self.closed()
                    item = future.result()
                if item is _END:
                    return
                yield item
        finally:
            self._end(served)

    def _end(self, served: Future[None]) -> None:
        # Whoever forgets a loop leaves its end to the garbage collector, which runs in any thread, also in the
        # pipeline's own; and a fork has a copy of the loop, and nobody to wait for.
        if not self.is_foreign:
            with Deferral() as deferral:
                served.cancel()
                if threading.get_ident() != self._thread.ident:
                    deferral.wait(served, timeout=LEAVE_S)

    def refuse_own_thread(self) -> None:
        """``RuntimeError`` in the pipeline's own thread: whoever waits there waits for itself."""
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(
                "the pipeline's own thread cannot wait for the pipeline; in a future's callback, hand on to another"
            )

    def close(self) -> None:
        """Leave the pipeline and wait for it; it takes under 2 s. Nothing happens the second time, or in a fork.

        Raises `PipelineCrashed` if it had crashed, once.
        """
        self._leave()
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash

    def signal_end(self) -> None:
        """As `close`, without waiting."""
        if not self.is_foreign:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)

    def _leave(self, within_s: float | None = None) -> None:
        if self.is_foreign:
            return
        self.signal_end()
        if threading.get_ident() != self._thread.ident:
            self._thread.join(within_s)
        _open.pop(self, None)

    def _soon(self, function: Callable[[], object]) -> None:
        if self.is_foreign:
            raise RuntimeError(
                f"this client was opened by process {self._pid}, and process {os.getpid()} is a fork of it, which has"
                " no such pipeline: connect() there"
            )
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            raise self.closed() from self._crash

    def _cancel(self, scope: trio.CancelScope) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(scope.cancel)

    # -- in the thread --------------------------------------------------------------------------------------------

    def _run(self, opener: Opener, opened: Future[None]) -> None:
        ended = outcome.capture(lambda: trio.run(self._serve, opener, opened))
        if isinstance(ended, outcome.Error):
            if opened.done():
                self._crash = ended.error
            else:
                _settle(opened, ended)

    async def _serve(self, opener: Opener, opened: Future[None]) -> None:
        async with opener() as self._client, trio.open_nursery() as self._calls:
            self._token = trio.lowlevel.current_trio_token()
            try:
                if _settle(opened, outcome.Value(None)):
                    await self._stop.wait()
            finally:
                calls, self._calls = self._calls, None
                calls.cancel_scope.cancel(reason="the client was closed")

    async def _answer(
        self, verb: Verb[T], future: Future[T], scope: trio.CancelScope, undo: Callable[[T], None] | None
    ) -> None:
        answer: outcome.Value[T] | outcome.Error = outcome.Error(self.closed())
        try:
            with scope:
                answer = outcome.Value(await verb(self._client))
        except Exception as error:
            answer = outcome.Error(error)
        finally:
            if not _settle(future, answer) and undo is not None and isinstance(answer, outcome.Value):
                undo(answer.value)

    def closed(self) -> PipelineClosed:
        """What whoever asks after the end is told."""
        return PipelineClosed(CLOSED)


# What the interpreter's exit has to leave.
_open: dict[Portal, None] = {}
_is_registered = False


def _leave_at_exit(portal: Portal) -> None:
    global _is_registered
    _open[portal] = None
    if not _is_registered:
        # Threads that are no daemons are joined before `atexit` is asked, and one of them may wait for a stream: the
        # pipeline must have ended by then. `concurrent.futures.thread` joins its own the same way; what was registered
        # last is called first, so it must have been imported.
        getattr(threading, "_register_atexit", atexit.register)(_leave_all)
        _is_registered = True


def _leave_all() -> None:
    for portal in tuple(_open):
        portal._leave(EXIT_S)


class Held(Generic[T]):
    """An async context manager that is entered in the pipeline's thread; ``value`` is what entering it gave."""

    def __init__(self, value: T, portal: Portal, leave: trio.Event, left: Future[None]) -> None:
        self.value = value
        self._portal = portal
        self._leave = leave
        self._left = left

    def leave(self) -> None:
        """Leave it, and wait until that is done. Nothing happens if it was left, or the pipeline was; or in a fork."""
        if self._portal.is_foreign:
            return
        self._portal.refuse_own_thread()
        with Deferral() as deferral, suppress(PipelineClosed):
            if not self._left.done():
                self._portal._soon(self._leave.set)
            deferral.wait(self._left)
            self._left.result()


def check_timeout(timeout: object) -> None:
    """`TypeError` or `ValueError` for what is no time to wait; None is: for ever."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, was {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0 seconds, was {timeout!r}")


def _limited(verb: Verb[T], timeout: float) -> Verb[T]:
    async def limited(client: Client) -> T:
        with trio.move_on_after(timeout):
            return await verb(client)
        raise TimeoutError(f"not done within {timeout:g} s")

    return limited


def _settle(future: Future[T], answer: outcome.Value[T] | outcome.Error) -> bool:
    """Answer, once; False if nobody wants to know any more."""
    if not future.set_running_or_notify_cancel():
        return False
    if isinstance(answer, outcome.Value):
        future.set_result(answer.value)
    else:
        future.set_exception(answer.error)
    return True


def _hand_over(asked: trio.MemorySendChannel[Future[Any]], future: Future[Any]) -> None:
    # Once the generator has ended nobody takes it: whoever waits for it sees that too.
    with suppress(trio.BrokenResourceError):
        asked.send_nowait(future)
