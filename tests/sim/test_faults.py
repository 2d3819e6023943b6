"""Faults: what JSON is understood, which requests are struck, and what damage leaves untouched."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.sim.config import SimConfig
from marketpipe.sim.damage import damage_rows
from marketpipe.sim.faults import (
    KINDS,
    BadFault,
    DropFault,
    EditFault,
    LatencyFault,
    StatusFault,
    parse_faults,
)
from marketpipe.sim.limiter import Verdict
from marketpipe.sim.replies import Content, spoil
from marketpipe.sim.timeline import FaultTimeline

REQUIRED = {
    "status": {"status": 500},
    "latency": {"latency_s": 1},
    "edit": {"change": "drop"},
    "ws-mute": {"codes": ["KRW-BTC"]},
    "clock-skew": {"skew_ms": -1500},
}
VERDICT = Verdict("ticker", 200, 9, 600)
ROWS = (
    b'[{"market":"KRW-A","price":1.50000000,"units":[{"ask":1E-8,"bid":0},{"ask":2.00,"bid":1}]},'
    b'{"market":"KRW-B","price":116539000.00000000,"units":[]}]'
)


def edited(**fields) -> bytes:
    return damage_rows(ROWS, [EditFault(**fields)])


def struck(timeline: FaultTimeline, now_s: float, group: str | None = "ticker") -> list[str]:
    return [fault.kind for fault in timeline.strike(group, now_s)]


def test_a_fault_is_understood_as_json_alone_and_in_a_list():
    one = b'{"kind":"status","status":503,"body":"<html>","content_type":"text/html","groups":["ticker"],"after_s":1,'
    one += b'"for_s":5,"probability":0.05,"count":3}'
    expected = StatusFault(
        status=503,
        body="<html>",
        content_type="text/html",
        groups=("ticker",),
        after_s=1,
        for_s=5,
        probability=0.05,
        count=3,
    )
    assert parse_faults(one) == [expected]
    assert parse_faults(b'[{"kind":"drop"},%s]' % one) == [DropFault(), expected]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_listed_can_be_posted_again(kind):
    (fault,) = parse_faults(json.dumps({"kind": kind, "after_s": 1, **REQUIRED.get(kind, {})}).encode())
    timeline = FaultTimeline(7)
    timeline.add(fault, 0.0)
    (listed,) = timeline.describe(0.0)
    assert listed.pop("struck") == 0
    assert parse_faults(msgspec.json.encode(listed)) == [fault]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (b"[", "must be a JSON fault or a list of them"),
        (b"[" * 100_000, "must be a JSON fault or a list of them"),
        (b"\xff", "must be a JSON fault or a list of them"),
        (b"3", "a fault must be a JSON object, was 3"),
        (b"{}", "kind must be one of status, latency"),
        (b'{"kind":["drop"]}', "kind must be one of"),
        (b'{"kind":"status"}', "status is required for kind 'status'"),
        (b'{"kind":"latency"}', "latency_s is required"),
        (b'{"kind":"status","status":"503"}', "status: Expected `int`, got `str`, was '503'"),
        (b'{"kind":"status","status":99}', "status must be from 200 to 599, was 99"),
        (b'{"kind":"drop","status":503}', "status is no field of kind 'drop'"),
        (b'{"kind":"drop","groups":["candle"]}', "groups must be among market, ticker"),
        (b'{"kind":"drop","groups":"ticker"}', "groups: Expected `array"),
        (b'{"kind":"drop","probability":1.5}', "probability must be from 0 to 1, was 1.5"),
        (b'{"kind":"drop","count":0}', "count must be at least 1, was 0"),
        (b'{"kind":"drop","for_s":0}', "for_s must be more than 0 seconds, was 0"),
        (b'{"kind":"drop","after_s":-1}', "after_s must be 0 or more seconds, was -1"),
        (b'{"kind":"latency","latency_s":-1}', "latency_s must be 0 or more seconds"),
        (b'{"kind":"ws-drop","groups":["ticker"]}', "groups must be left out for kind 'ws-drop', was ('ticker',)"),
        (b'{"kind":"ws-drop","types":["trades"]}', "types must be among candle, candle.10m"),
        (b'{"kind":"ws-close","code":999}', "code must be a close code that can be sent, or 1006, was 999"),
        (b'{"kind":"ws-close","code":1005}', "code must be a close code that can be sent"),
        (b'{"kind":"ws-close","reason":"%s"}' % (b"x" * 124), "reason must be at most 123 bytes"),
        (b'{"kind":"ws-refuse","status":101}', "status must be from 200 to 599, was 101"),
        (b'{"kind":"ws-mute"}', "codes is required for kind 'ws-mute'"),
        (b'{"kind":"ws-half","then":"sleep"}', "then: Invalid enum value 'sleep'"),
        (b'{"kind":"ws-garbage","what":"noise"}', "what: Invalid enum value 'noise'"),
        (b'{"kind":"ws-drip","bytes_per_s":0}', "bytes_per_s must be more than 0, was 0"),
        (b'{"kind":"ws-drip","chunk":0}', "chunk must be at least 1, was 0"),
        (b'{"kind":"clock-skew"}', "skew_ms is required for kind 'clock-skew'"),
        (b'{"kind":"clock-skew","skew_ms":1e12}', "skew_ms"),
        (b'{"kind":"edit","change":"paint"}', "change: Invalid enum value 'paint'"),
        (b'{"kind":"edit","change":"set","field":"price"}', "lexeme must be given for change 'set', was None"),
        (b'{"kind":"edit","change":"remove"}', "field must be named for change 'remove', was None"),
        (b'{"kind":"wrong_type","content_type":"a\\r\\nb: c"}', "content_type must be printable ASCII"),
        (b'{"kind":"status","status":200,"content_type":"\\u00e9"}', "content_type must be printable ASCII"),
    ],
)
def test_a_wrong_fault_is_refused_with_the_field_and_its_value(document, complaint):
    with pytest.raises(BadFault) as caught:
        parse_faults(document)
    assert complaint in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from([*KINDS, "", "é"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "status", "groups", "for_s", "x"]), inner)
    ),
    max_leaves=6,
)


@given(json_values)
def test_any_json_is_a_fault_or_a_bad_fault(value):
    with contextlib.suppress(BadFault):
        assert all(fault.kind in KINDS for fault in parse_faults(json.dumps(value).encode()))


def test_a_fault_lasts_from_after_s_for_for_s():
    timeline = FaultTimeline(7)
    timeline.add(DropFault(after_s=2, for_s=3), 10.0)
    assert [struck(timeline, t) for t in (11.9, 12.0, 14.9, 15.0)] == [[], ["drop"], ["drop"], []]


def test_a_fault_strikes_only_its_groups():
    timeline = FaultTimeline(7)
    timeline.add(DropFault(groups=("candles",)), 0.0)
    assert [struck(timeline, 0.0, group) for group in ("ticker", "candles", None)] == [[], ["drop"], []]


def test_a_fault_with_a_count_ends_with_it():
    timeline = FaultTimeline(7)
    timeline.add(DropFault(count=2), 0.0)
    assert [struck(timeline, 0.0) for _ in range(3)] == [["drop"], ["drop"], []]
    assert timeline.describe(0.0) == []
    assert timeline.struck() == {"drop": 2}


def test_latency_and_edits_add_up_and_of_the_rest_the_first_strikes():
    timeline = FaultTimeline(7)
    for fault in (
        LatencyFault(latency_s=1),
        StatusFault(status=500, count=1),
        DropFault(count=1),
        LatencyFault(latency_s=2),
        EditFault(change="drop"),
    ):
        timeline.add(fault, 0.0)
    assert struck(timeline, 0.0) == ["latency", "status", "latency", "edit"]
    assert struck(timeline, 0.0) == ["latency", "drop", "latency", "edit"]
    assert struck(timeline, 0.0) == ["latency", "latency", "edit"]


def test_cleared_faults_strike_nobody():
    timeline = FaultTimeline(7)
    timeline.add(DropFault(), 0.0)
    timeline.clear()
    assert struck(timeline, 0.0) == []


def test_the_same_seed_strikes_the_same_requests():
    def run(seed: int) -> list[bool]:
        timeline = FaultTimeline(seed)
        timeline.add(DropFault(probability=0.3), 0.0)
        return [bool(timeline.strike("ticker", 0.0)) for _ in range(300)]

    assert run(7) == run(7) != run(8)
    assert 50 < sum(run(7)) < 130


def test_a_stranger_is_added_behind_the_rows():
    rows = json.loads(edited(change="extra", market="KRW-NOBODY"), parse_float=Decimal)
    assert [row["market"] for row in rows] == ["KRW-A", "KRW-B", "KRW-NOBODY"]


@pytest.mark.parametrize(
    ("fields", "markets"),
    [
        ({"change": "drop"}, ["KRW-B"]),
        ({"change": "drop", "market": "KRW-B"}, ["KRW-A"]),
        ({"change": "drop", "every_row": True}, []),
        ({"change": "duplicate", "market": "KRW-B"}, ["KRW-A", "KRW-B", "KRW-B"]),
        ({"change": "duplicate", "every_row": True}, ["KRW-A", "KRW-A", "KRW-B", "KRW-B"]),
        ({"change": "drop", "market": "KRW-C"}, ["KRW-A", "KRW-B"]),
    ],
)
def test_rows_are_dropped_and_duplicated(fields, markets):
    assert [row["market"] for row in json.loads(edited(**fields))] == markets


@pytest.mark.parametrize("lexeme", ["1e400", "NaN", '"NaN"', "null", "-0.0", "[]"])
def test_a_field_is_set_to_the_raw_text_and_everything_else_keeps_its_spelling(lexeme):
    assert edited(change="set", field="price", lexeme=lexeme) == ROWS.replace(b"1.50000000", lexeme.encode())


def test_a_field_inside_is_set_and_removed():
    assert edited(change="set", field="units.1.ask", lexeme="9") == ROWS.replace(b"2.00", b"9")
    assert edited(change="remove", field="units.0.ask") == ROWS.replace(b'"ask":1E-8,', b"")
    assert edited(change="remove", field="price", every_row=True).count(b"price") == 0


@pytest.mark.parametrize("field", ["units.7.ask", "price.deeper", "units.x", "nothing.there"])
def test_a_place_that_is_not_there_is_left_alone(field):
    assert edited(change="set", field=field, lexeme="1") == ROWS


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":{"name":404}}', b"[1,2]"])
def test_an_answer_without_rows_is_not_edited(body):
    assert damage_rows(body, [EditFault(change="drop")]) == body


def test_several_edits_are_done_in_order_even_if_one_leaves_no_valid_json():
    edits = [
        EditFault(change="set", field="price", lexeme="NaN"),
        EditFault(change="duplicate"),
        EditFault(change="drop", market="KRW-B"),
    ]
    damaged = damage_rows(ROWS, edits)
    assert damaged.count(b"NaN") == 2
    assert b"KRW-B" not in damaged


def spoiled(fault, **config) -> Content:
    return spoil(Content(200, ROWS), [fault], VERDICT, SimConfig(**config))


@pytest.mark.parametrize(
    ("fields", "body", "content_type"),
    [
        ({"status": 503}, b"<html><body><h1>503 Service Unavailable</h1></body></html>", "text/html"),
        ({"status": 500, "body": ""}, b"", "text/plain;charset=UTF-8"),
        ({"status": 429}, b"Too many API requests.", "text/plain;charset=UTF-8"),
        ({"status": 400}, b'{"error":{"name":400,"message":"Bad Request"}}', "application/json;charset=UTF-8"),
        ({"status": 502, "body": "<p>"}, b"<p>", "text/html"),
        ({"status": 200, "body": " {}"}, b" {}", "application/json;charset=UTF-8"),
        ({"status": 599, "body": "x", "content_type": "a/b"}, b"x", "a/b"),
    ],
)
def test_a_status_comes_with_its_usual_body_or_the_one_given(fields, body, content_type):
    assert spoiled(StatusFault(**fields)) == Content(fields["status"], body, content_type)


def test_an_injected_block_says_how_long_it_lasts():
    assert b"Try again in 12 seconds" in spoiled(StatusFault(status=418), ban_s=12).body
    assert b"seconds" not in spoiled(StatusFault(status=418), ban_body="bare").body


def test_garbage_is_a_200_with_a_cut_answer_or_the_given_text():
    assert spoiled(KINDS["garbage"]()) == Content(200, ROWS[: len(ROWS) // 2])
    assert spoiled(KINDS["garbage"](body="{]")) == Content(200, b"{]")


def test_a_wrong_type_leaves_status_and_body_alone():
    assert spoiled(KINDS["wrong_type"]()) == attrs.evolve(Content(200, ROWS), content_type="text/html; charset=UTF-8")
