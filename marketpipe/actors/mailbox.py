"""Request and reply between tasks, with an answer for death.

The asker opens a one-shot channel and sends its end along. If the actor dies, or closes the end unanswered, the asker
gets `PipelineClosed` instead of waiting for ever; if the asker gives up, its end is closed and the actor can see that
nobody waits any more. Inboxes have capacity 0 on purpose: what lay in a buffer when its actor died would never be
closed by anyone.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import trio

from marketpipe.errors import PipelineClosed

__all__ = ["Ask", "Reply", "ask"]

P = TypeVar("P")
R = TypeVar("R")


@attrs.define(eq=False)
class Reply(Generic[R]):
    """The actor's end of a one-shot channel."""

    _channel: trio.MemorySendChannel[R]
    _given_up: bool = attrs.field(default=False, init=False)

    def send(self, answer: R) -> None:
        """Answer, once. If the asker has given up, the answer is nobody's and is dropped."""
        with self._channel:
            try:
                self._channel.send_nowait(answer)
            except trio.BrokenResourceError:
                return

    def is_awaited(self) -> bool:
        """Whether the asker still waits."""
        return not self._given_up  # the channel knows too, but telling takes it a hundred times as long

    def give_up(self) -> None:
        """The asker waits no longer, whatever comes."""
        self._given_up = True

    def close(self) -> None:
        """Leave unanswered: the asker gets `PipelineClosed`."""
        self._channel.close()


@attrs.frozen(eq=False)
class Ask(Generic[P, R]):
    """A question on its way, with the end to answer to."""

    payload: P
    reply: Reply[R]


async def ask(inbox: trio.MemorySendChannel[Ask[P, R]], payload: P) -> R:
    """Send ``payload`` to the actor behind ``inbox`` and wait for its answer.

    Deadline and cancellation are the caller's own. Raises `PipelineClosed` if the actor is gone or goes.
    """
    answers, answer = trio.open_memory_channel[R](1)  # 1: the actor never waits for a slow asker
    reply = Reply(answers)
    with answer:
        try:
            await inbox.send(Ask(payload, reply))
            return await answer.receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel):
            raise PipelineClosed("the pipeline has been left; open a new one to ask again") from None
        finally:
            reply.give_up()
