"""What is written to the exchange's WebSocket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Line, Topic
from marketpipe.upbit import wire

STREAMS = [(line, None) for line in Line if line is not Line.CANDLE] + [(Line.CANDLE, each) for each in STREAMED]
MARKETS = st.sampled_from(["KRW-BTC", "KRW-ETH", "BTC-XRP", "USDT-ETC"])
TOPICS = st.builds(lambda stream, market: Topic(stream[0], market, stream[1]), st.sampled_from(STREAMS), MARKETS)


def test_every_stream_has_one_object_with_its_codes_in_order():
    topics = [
        Topic(Line.TRADE, "KRW-BTC"),
        Topic(Line.CANDLE, "KRW-BTC", Timeframe.M1),
        Topic(Line.TRADE, "BTC-BCH"),
        Topic(Line.CANDLE, "KRW-ETH", Timeframe.H4),
        Topic(Line.TRADE, "KRW-BTC"),
    ]

    assert wire.encode_subscription("a ticket", topics, format="DEFAULT") == (
        '[{"ticket":"a ticket"},{"type":"candle.1m","codes":["KRW-BTC"]},{"type":"candle.240m","codes":["KRW-ETH"]},'
        '{"type":"trade","codes":["BTC-BCH","KRW-BTC"]},{"format":"DEFAULT"}]'
    )


def test_the_short_format_is_asked_for_if_none_is_named():
    written = wire.encode_subscription("t", [Topic(Line.TICKER, "KRW-BTC")])

    assert written == '[{"ticket":"t"},{"type":"ticker","codes":["KRW-BTC"]},{"format":"SIMPLE"}]'


@pytest.mark.slow
@given(st.sets(TOPICS, min_size=1), st.randoms(), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_asked_reads_back_whatever_its_order(topics, random, ticket):
    shuffled = sorted(topics, key=str)
    random.shuffle(shuffled)
    written = wire.encode_subscription(ticket, shuffled)
    (head, *streams, tail) = json.loads(written)

    assert written == wire.encode_subscription(ticket, topics)
    assert (head, tail) == ({"ticket": ticket}, {"format": "SIMPLE"})
    assert [(each["type"], code) for each in streams for code in each["codes"]] == sorted(
        (topic.stream, topic.market) for topic in topics
    )
    assert len({each["type"] for each in streams}) == len(streams)


@given(st.sets(TOPICS, min_size=1))
def test_what_the_exchange_lists_is_what_was_asked(topics):
    streams = json.loads(wire.encode_subscription("t", topics))[1:-1]
    listed = {"method": "LIST_SUBSCRIPTIONS", "result": streams, "ticket": "u"}
    (frame,) = wire.decode_frame(json.dumps(listed), received_ms=1)

    assert frame.value == wire.Subscribed("u", frozenset(topics))


def test_there_is_no_word_for_nothing():
    with pytest.raises(ValueError, match="nothing to subscribe to"):
        wire.encode_subscription("t", [])


@pytest.mark.parametrize(
    "topic",
    [
        Topic(Line.CANDLE, "KRW-BTC"),
        Topic(Line.CANDLE, "KRW-BTC", Timeframe.D1),
        Topic(Line.TRADE, "KRW-BTC", Timeframe.M1),
        Topic(Line.TICKER, "KRW-BTC", Timeframe.D1),
    ],
)
def test_what_is_not_streamed_cannot_be_asked(topic):
    with pytest.raises(ValueError, match="does not stream"):
        wire.encode_subscription("t", [Topic(Line.TRADE, "KRW-ETH"), topic])


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="unknown format 'XML'; allowed: DEFAULT SIMPLE JSON_LIST SIMPLE_LIST"):
        wire.encode_subscription("t", [Topic(Line.TRADE, "KRW-ETH")], format="XML")


def test_what_is_subscribed_to_can_be_asked():
    assert wire.encode_list_subscriptions("t") == (
        '[{"ticket":"t"},{"method":"LIST_SUBSCRIPTIONS"},{"format":"SIMPLE"}]'
    )
    assert wire.encode_list_subscriptions("t", format="DEFAULT").endswith('{"format":"DEFAULT"}]')
