"""Values of options, checked by the library's own rules before anything is started or asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import click

from marketpipe.cli.moments import moment
from marketpipe.clock import SystemClock
from marketpipe.core import timeframes
from marketpipe.core.ranges import bar_range
from marketpipe.core.timeframes import Timeframe

__all__ = [
    "a_moment",
    "a_range",
    "a_timeframe",
    "a_zone",
    "milliseconds",
    "of_field",
    "some_timeframes",
    "split",
    "split_or_none",
]


def a_timeframe(ctx: click.Context, param: click.Parameter, value: str) -> Timeframe:
    """A callback: ``value`` as a timeframe."""
    try:
        return timeframes.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def some_timeframes(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> tuple[Timeframe, ...]:
    """A callback: ``values``, and each part of those with commas, as timeframes; each once."""
    words = (word.strip() for value in values for word in value.split(",") if word.strip())
    found = tuple(dict.fromkeys(a_timeframe(ctx, param, word) for word in words))
    if not found:
        raise click.MissingParameter(ctx=ctx, param=param)
    return found


def a_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | int | None:
    """A callback: ``value`` as epoch milliseconds or an aware datetime; how long ago, counted from one now for all."""
    now_ms: int = ctx.meta.setdefault("marketpipe.now_ms", SystemClock().now_ms())
    try:
        return None if value is None else moment(param.opts[0], value, now_ms)
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from None


def a_zone(ctx: click.Context, param: click.Parameter, value: str) -> tzinfo:
    """A callback: ``value`` as a time zone."""
    try:
        return ZoneInfo(value)
    except (ValueError, LookupError, OSError):
        raise click.BadParameter(f"must be a time zone such as Asia/Seoul, was {value!r}", ctx, param) from None


def a_range(count: int | None, start: datetime | int | None, end: datetime | int | None) -> None:
    """Refuse what the three together cannot mean."""
    try:
        bar_range(count, start, end)
    except ValueError as error:
        raise click.UsageError(f"--count, --start, --end: {error}") from None


def milliseconds(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """A callback: ``value`` milliseconds in seconds."""
    if not 0 <= value < math.inf:
        raise click.UsageError(f"{param.opts[0]} must be 0 or more ms, was {value:g}", ctx)
    return value / 1000


def of_field(field: attrs.Attribute[Any]) -> Any:
    """A callback that holds a value against the rule of ``field``, and names the option in its place."""

    def check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if field.validator is not None:
            try:
                field.validator(None, field.evolve(name=param.opts[0]), value)
            except ValueError as error:
                raise click.UsageError(str(error), ctx) from None
        return value

    return check


def split(ctx: click.Context, param: click.Parameter, words: Iterable[str]) -> tuple[str, ...]:
    """A callback: each of ``words``, and each part of those with commas."""
    parts = split_or_none(ctx, param, words)
    if not parts:
        raise click.MissingParameter(ctx=ctx, param=param)
    return parts


def split_or_none(ctx: click.Context, param: click.Parameter, words: Iterable[str]) -> tuple[str, ...]:
    """As `split`, and none is as good as some."""
    return tuple(part for word in words for part in word.split(",") if part.strip())
