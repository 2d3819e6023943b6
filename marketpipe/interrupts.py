"""Ctrl-C, answered where it does no harm.

In the main thread Python raises `KeyboardInterrupt` between any two instructions. If that is inside a future or an
event, its lock stays taken; whoever needs it next stands still for ever, and if that is the pipeline, everybody does.
So while the main thread deals with the pipeline, an interrupt is noted, and answered when it waits or is done.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import suppress
from types import FrameType
from typing import Any, Self, TypeVar

from marketpipe.clock import monotonic_s

__all__ = ["Answer", "Deferral"]

T = TypeVar("T")

# How often a wait looks for what was noted. A signal alone does not end it: its handler has returned.
LOOK_S = 0.2


class Deferral:
    """Until it is left, SIGINT is noted and nothing is raised; its handler is called by `wait`, or then.

    For the main thread of a program that handles SIGINT in Python; otherwise it changes nothing.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._noted: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._answer()

    @property
    def is_interrupted(self) -> bool:
        """Whether an interrupt was noted that is not answered yet."""
        return self._noted is not None

    def wait(self, *futures: Future[Any], timeout: float | None = None) -> bool:
        """Wait until one of them is done, False after ``timeout`` seconds. Raises what the handler of SIGINT raises."""
        until_s = monotonic_s() + (math.inf if timeout is None else timeout)
        while not _is_one_done(futures, max(0.0, min(self._look_s, until_s - monotonic_s()))):
            self._answer()
            if monotonic_s() >= until_s:
                return False
        return True

    @property
    def _look_s(self) -> float:
        return threading.TIMEOUT_MAX if self._handler is None else LOOK_S

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number, frame

    def _answer(self) -> None:
        if self._noted is not None and self._handler is not None:
            noted, self._noted = self._noted, None
            self._handler(*noted)


def _is_one_done(futures: tuple[Future[Any], ...], within_s: float) -> bool:
    match futures:
        case (future,):  # a third of the time
            with suppress(TimeoutError, CancelledError):
                Future.exception(future, within_s)
            return future.done()
        case _:
            return bool(wait(futures, within_s, FIRST_COMPLETED).done)


class Answer(Future[T]):
    """A future for which the main thread may wait, and be interrupted."""

    def result(self, timeout: float | None = None) -> T:
        """As of any future: what was asked for, or raised; `TimeoutError` if it is not there in time."""
        with Deferral() as deferral:
            deferral.wait(self, timeout=timeout)
            return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As of any future: what was raised, or None; `TimeoutError` if it is not there in time."""
        with Deferral() as deferral:
            deferral.wait(self, timeout=timeout)
            return super().exception(0)
