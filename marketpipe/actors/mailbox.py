"""Request and reply between tasks, with an answer for death.

The asker sends a one-shot `Reply` along and waits on it. If the actor closes it unanswered, because it ends, the asker
gets `PipelineClosed` instead of waiting for ever; if the asker gives up, the actor can see that nobody waits any more.
Whoever holds a reply must answer or close it, on every way out. Inboxes have capacity 0 on purpose: what lay in a
buffer when its actor died would never be closed by anyone.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import trio

from marketpipe.errors import PipelineClosed

__all__ = ["LEFT", "Ask", "Reply", "ask"]

LEFT = "the pipeline has been left; open a new one to ask again"

P = TypeVar("P")
R = TypeVar("R")


@attrs.define(eq=False)
class Reply(Generic[R]):
    """A place for one answer. A memory channel would do, at three times the price, and every cache miss pays it."""

    _settled: trio.Event = attrs.field(factory=trio.Event, init=False)
    _answer: list[R] = attrs.field(factory=list, init=False)
    _given_up: bool = attrs.field(default=False, init=False)

    def send(self, answer: R) -> None:
        """Answer, once. If the asker has given up, the answer is nobody's and is dropped."""
        self._answer.append(answer)
        self._settled.set()

    def close(self) -> None:
        """Leave unanswered: the asker gets `PipelineClosed`."""
        self._settled.set()

    def is_awaited(self) -> bool:
        """Whether the asker still waits."""
        return not self._given_up

    async def wait(self) -> R:
        """The answer, when it comes; `PipelineClosed` if none will. For the asker."""
        try:
            await self._settled.wait()
        finally:
            self._given_up = True
        if not self._answer:
            raise PipelineClosed(LEFT)
        return self._answer[0]


@attrs.frozen(eq=False)
class Ask(Generic[P, R]):
    """A question on its way, with the end to answer to."""

    payload: P
    reply: Reply[R]


async def ask(inbox: trio.MemorySendChannel[Ask[P, R]], payload: P) -> R:
    """Send ``payload`` to the actor behind ``inbox`` and wait for its answer.

    Deadline and cancellation are the caller's own. Raises `PipelineClosed` if the actor is gone or goes.
    """
    reply = Reply[R]()
    try:
        await inbox.send(Ask(payload, reply))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise PipelineClosed(LEFT) from None
    return await reply.wait()
