"""A status goes through JSON and comes back as it was, whatever is in it."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import open_rig
from statuses import quiet_status, status_of_everything

from marketpipe import errors
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import Banned, ExchangeError, MarketPipeError, RateLimited, UnknownMarket
from marketpipe.metrics.snapshot import decode_status, decode_tasks, encode_status, encode_tasks
from marketpipe.metrics.tasks import NurseryNode, Spot, TaskNode
from marketpipe.models import Timeframe
from marketpipe.status import Status

ERRORS = (
    ExchangeError("400", status=400),
    UnknownMarket("KRW-NOPE"),
    RateLimited("429", retry_after_s=1.5),
    Banned("418", until_ms=1_790_000_000_000),
    errors.ExchangeUnavailable("no route", sent=False, abandoned=True),
    errors.BadPayload("no number", field="low", market="KRW-BTC"),
    errors.StoreError("the disk is full"),
    errors.PipelineClosed(),
)


def comparable(value: Any) -> Any:
    """``value`` with failures by what they say: two that are equal are not the same."""
    if isinstance(value, MarketPipeError):
        return type(value), value.args, vars(value), str(value)
    if attrs.has(type(value)):
        return type(value), {field.name: comparable(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {key: comparable(each) for key, each in value.items()}
    if type(value) is tuple:
        return [comparable(each) for each in value]
    return type(value), value


def goes_through(status: Status) -> bool:
    return comparable(decode_status(encode_status(status))) == comparable(status)


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Values of any field there is, by its type."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return st.one_of(*map(anything, parts))
    if kind is tuple:
        return (
            st.lists(anything(parts[0]), max_size=3).map(tuple)
            if parts[-1] is ...
            else st.tuples(*map(anything, parts))
        )
    if kind is not None:
        return st.dictionaries(anything(parts[0]), anything(parts[1]), max_size=3)
    if hint is Topic:
        return st.builds(Topic, st.sampled_from(Line), st.sampled_from(["KRW-BTC", "USDT-ETH"]),
                         st.none() | st.sampled_from(Timeframe))  # fmt: skip
    if hint is MarketPipeError:
        return st.sampled_from(ERRORS)
    if attrs.has(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, *(anything(hints[field.name]) for field in attrs.fields(hint)))
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    simple = {
        bool: st.booleans(),
        int: st.integers(0, 2**53),
        float: st.floats(0, 1e12),
        str: st.text(max_size=8),
        type(None): st.none(),
    }
    return simple[hint]


@given(anything(Status))
def test_whatever_a_status_says_goes_through_json_unchanged(status: Status):
    assert goes_through(status)


def test_what_is_not_there_goes_through_as_well():
    assert goes_through(status_of_everything())
    assert goes_through(quiet_status())


async def test_the_status_of_a_pipe_goes_through(autojump_clock):
    async with (
        open_rig(streams=True, store=":memory:") as rig,
        rig.market.stream_trade(["KRW-BTC", "KRW-ETH"]) as trades,
    ):
        await anext(trades)
        await rig.market.get_candle("KRW-BTC", "1m", count=10)
        status = rig.market.status()
    assert status.subscriptions
    assert status.verbs
    assert goes_through(status)


def test_keys_are_what_people_call_them():
    fields = json.loads(encode_status(status_of_everything()))
    assert list(fields["late"]) == ["critical", "high", "normal", "low"]
    assert "ticker KRW-BTC" in fields["subscriptions"]
    assert "candle KRW-BTC 1m" in fields["subscriptions"]
    assert set(fields) == {field.name for field in attrs.fields(Status)}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failure_keeps_what_it_says(error: MarketPipeError):
    status = status_of_everything()
    job = status.jobs[0]
    parts = (attrs.evolve(job.parts[0], error=error),)
    assert goes_through(attrs.evolve(status, jobs=(attrs.evolve(job, parts=parts),)))


def test_a_failure_of_another_version_is_a_failure_all_the_same():
    text = encode_status(status_of_everything()).replace(b'"ExchangeUnavailable"', b'"SomethingNew"')
    error = decode_status(text).jobs[0].parts[1].error
    assert type(error) is MarketPipeError
    assert str(error) == "502"


def test_a_field_of_a_later_version_is_no_harm():
    fields = json.loads(encode_status(quiet_status())) | {"weather": "fine"}
    assert decode_status(json.dumps(fields).encode()) == quiet_status()


@pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"[]", b"{}", b"null", b'{"late": 1, "given_up": {}, "subscriptions": {}}',
     encode_status(quiet_status()).replace(b'"critical"', b'"urgent"'),
     encode_status(quiet_status()).replace(b'"requests":0', b'"requests":"many"')],
)  # fmt: skip
def test_what_is_no_status_is_a_value_error(text: bytes):
    with pytest.raises(ValueError, match=r"."):
        decode_status(text)


def test_tasks_go_through_as_they_are():
    leaf = TaskNode("deep", Spot("program", "main.<locals>.wait", 7, "Event.wait"))
    root = TaskNode("<init>", None, (NurseryNode((leaf, leaf)), NurseryNode((), cancelled=True)))
    assert decode_tasks(encode_tasks(root)) == root
    with pytest.raises(ValueError, match="name"):
        decode_tasks(b"{}")
