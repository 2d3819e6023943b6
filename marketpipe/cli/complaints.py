"""Failures as lines on stderr. Exception groups stop here: they are told one line a leaf."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from marketpipe.cli.letters import plain
from marketpipe.errors import MarketPipeError, PipelineCrashed

__all__ = ["TOLD", "complain", "complain_of_each", "say"]

# ValueError is misuse that the library found; RuntimeError a simulator that did not start; OSError a port that is
# taken. Anything else is a bug, and keeps its traceback.
TOLD = (MarketPipeError, ValueError, RuntimeError, OSError)
NAMED = 3


def complain(error: BaseException, *, about: str = "") -> None:
    """Say on stderr what went wrong; ``about`` is named if the failure does not name it."""
    for leaf in _leaves(error):
        text = _one_line(leaf)
        say(text if not about or _names(leaf, text, about) else f"{about}: {text}")


def complain_of_each(failed: Mapping[str, MarketPipeError]) -> None:
    """One line for each failure; those that one answer brought to many symbols share theirs."""
    alike: dict[str, list[str]] = {}
    for symbol, error in failed.items():
        alike.setdefault(_one_line(error), []).append(symbol)
    for text, symbols in alike.items():
        if len(symbols) == 1:
            complain(failed[symbols[0]], about=symbols[0])
        else:
            more = ", ..." if len(symbols) > NAMED else ""
            say(f"{len(symbols)} markets ({', '.join(symbols[:NAMED])}{more}): {text}")


def say(text: str) -> None:
    """One line on stderr."""
    print(f"marketpipe: {plain(text)}", file=sys.stderr)


def _names(error: BaseException, text: str, about: str) -> bool:
    # Behind the first colon a symbol may be quoted from the answer, and says nothing.
    return getattr(error, "market", None) == about or about in text.partition(": ")[0].split()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for leaf in error.exceptions:
            yield from _leaves(leaf)
        return
    yield error
    if isinstance(error, PipelineCrashed) and error.__cause__ is not None:
        yield from _leaves(error.__cause__)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text and isinstance(error, TOLD) else f"{type(error).__name__}: {text}".removesuffix(": ")
