"""Questions of the pipe's own to the exchange's REST side: through the batcher, like everybody's."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self, TypeVar

import attrs
import trio

from marketpipe.actors.mailbox import Ask, ask
from marketpipe.actors.messages import Answers, Question
from marketpipe.core.batching import Key
from marketpipe.errors import MarketPipeError
from marketpipe.models import Priority

__all__ = ["Asker"]

T = TypeVar("T")


@attrs.frozen(eq=False)
class Asker:
    """Asks the batcher, and drives the walks of `marketpipe.core` over several pages; leaving it, it asks no more."""

    _inbox: trio.MemorySendChannel[Ask[Question, Answers]]

    async def ask(self, keys: tuple[Key, ...], priority: Priority) -> Answers:
        """For each of ``keys`` its value, or the error that stands for it."""
        return await ask(self._inbox, Question(keys, priority))

    async def walk(self, walk: Generator[tuple[Any, ...], tuple[Any, ...], T], priority: Priority) -> T:
        """Fetch the pages that ``walk`` yields; return what it returns. Raises the first failure of a page."""
        pages: tuple[Any, ...] | None = None
        try:
            while True:
                requests = next(walk) if pages is None else walk.send(pages)
                answers = await self.ask(requests, priority)
                pages = tuple(_value(answers[request]) for request in requests)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            walk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inbox.close()


def _value(answer: Any) -> Any:
    if isinstance(answer, MarketPipeError):
        raise answer.copy()
    return answer
