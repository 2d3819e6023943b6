"""What can be listened to, and how it is called."""

from __future__ import annotations

import pytest
from paper_bars import reading

from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Line, Topic


@pytest.mark.parametrize(
    ("topic", "stream"),
    [
        (Topic(Line.TICKER, "KRW-BTC"), "ticker"),
        (Topic(Line.TRADE, "KRW-BTC"), "trade"),
        (Topic(Line.ORDERBOOK, "KRW-BTC"), "orderbook"),
        (Topic(Line.CANDLE, "KRW-BTC", Timeframe.S1), "candle.1s"),
        (Topic(Line.CANDLE, "KRW-BTC", Timeframe.H1), "candle.60m"),
        (Topic(Line.CANDLE, "KRW-BTC", Timeframe.H4), "candle.240m"),
        (Topic(Line.CANDLE, "KRW-BTC", Timeframe.D1), "candle.1d"),
    ],
)
def test_a_stream_is_called_as_the_exchange_calls_it(topic, stream):
    assert topic.stream == stream
    assert str(topic) == f"{stream} KRW-BTC"


def test_bars_of_a_day_and_more_are_not_streamed():
    longer = {Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1}
    assert set(Timeframe) - set(STREAMED) == longer


@pytest.mark.parametrize("timeframe", list(STREAMED))
def test_a_bar_belongs_to_the_topic_of_its_market_and_timeframe(timeframe):
    bar = reading(0, timeframe=timeframe, market="KRW-ETH")
    assert Topic.of_candle(bar) == Topic(Line.CANDLE, "KRW-ETH", timeframe)
    assert Topic.of_candle(bar) != Topic(Line.CANDLE, "KRW-ETH")


def test_topics_of_one_market_on_two_lines_are_two():
    assert len({Topic(line, "KRW-BTC") for line in Line}) == 4
