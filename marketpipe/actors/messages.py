"""What the actors say to each other. Messages are frozen and hold no workflow state."""

from __future__ import annotations

from typing import Any

import attrs

from marketpipe.actors.mailbox import Reply
from marketpipe.core.batching import Key
from marketpipe.models import Priority

__all__ = ["Answered", "Answers", "Delivery", "Question"]

# What a caller gets: for each key its value, or the error that stands for it.
Answers = dict[Key, Any]


@attrs.frozen
class Question:
    """Distinct keys, asked together by one caller. The answer comes when the last of them is known."""

    keys: tuple[Key, ...]
    priority: Priority


@attrs.frozen
class Delivery:
    """A complete answer on its way to its caller."""

    reply: Reply[Answers]
    answers: Answers


@attrs.frozen
class Answered:
    """One request's outcome for the cache: ``values`` to keep, then ``deliveries`` to make, then ``extras`` to keep.

    ``exchange_ms`` is the exchange's time as the answer told it, or else this machine's. Callers are answered by the
    cache, after it holds the values, so that whoever asks again at once finds them there.
    """

    exchange_ms: int
    values: tuple[tuple[Key, Any], ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    extras: tuple[tuple[Key, Any], ...] = ()

    def close(self) -> None:
        """Leave it undelivered: the pipe is ending, and every caller in it gets `PipelineClosed`."""
        for delivery in self.deliveries:
            delivery.reply.close()
