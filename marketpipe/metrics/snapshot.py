"""A `Status` and a tree of tasks as JSON, and back: what is shown of another program is what it would show itself.

The keys of an object in JSON are text: topics are written ``candle KRW-BTC 1m``, priorities by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from marketpipe import errors
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import MarketPipeError
from marketpipe.metrics.tasks import TaskNode
from marketpipe.models import Priority
from marketpipe.status import Status

__all__ = ["decode_status", "decode_tasks", "encode_status", "encode_tasks"]


def encode_status(status: Status) -> bytes:
    """One line of JSON, with the names of the fields as they are."""
    written: dict[str, Any] = {name: _renamed(getattr(status, name), write) for name, (write, _) in _KEYS.items()}
    return _encoder.encode(attrs.evolve(status, **written))


def decode_status(data: bytes) -> Status:
    """The `Status` that `encode_status` wrote, whichever version of us did. ``ValueError`` if it is none."""
    fields = msgspec.json.decode(data)
    try:
        read = {name: _renamed(fields[name], read) for name, (_, read) in _KEYS.items()}
        return msgspec.convert(fields | read, Status, dec_hook=_read_other)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no status of a pipe: {error!r}") from error


def encode_tasks(root: TaskNode) -> bytes:
    """One line of JSON."""
    return _encoder.encode(root)


def decode_tasks(data: bytes) -> TaskNode:
    """The tree that `encode_tasks` wrote. ``ValueError`` if it is none."""
    return msgspec.json.decode(data, type=TaskNode)


def _renamed(values: Mapping[Any, Any], name: Callable[[Any], object]) -> dict[Any, Any]:
    return {name(key): value for key, value in values.items()}


def _topic_name(topic: Topic) -> str:
    return " ".join(part for part in topic if part is not None)


def _topic(name: str) -> Topic:
    line, market, *timeframe = name.split(" ")
    return Topic(Line(line), market, *map(Timeframe, timeframe))


def _priority_name(priority: Priority) -> str:
    return priority.name.lower()


def _priority(name: str) -> Priority:
    return Priority[name.upper()]


_KEYS: Mapping[str, tuple[Callable[[Any], object], Callable[[Any], object]]] = {
    "subscriptions": (_topic_name, _topic),
    "late": (_priority_name, _priority),
    "given_up": (_priority_name, _priority),
}


def _write_other(value: object) -> object:
    if isinstance(value, MarketPipeError):
        return {"type": type(value).__name__, "args": list(value.args), "fields": vars(value)}
    raise TypeError(f"{type(value).__name__} has no place in a status")


def _read_other(kind: type, value: Any) -> object:
    if kind is not MarketPipeError:
        raise TypeError(f"{kind.__name__} has no place in a status")
    # As `MarketPipeError.copy` does it: the arguments of the constructors differ.
    found = getattr(errors, value["type"], MarketPipeError) if value["type"] in errors.__all__ else MarketPipeError
    error: MarketPipeError = found.__new__(found, *value["args"])
    error.__dict__.update(value["fields"])
    return error


_encoder = msgspec.json.Encoder(enc_hook=_write_other)
