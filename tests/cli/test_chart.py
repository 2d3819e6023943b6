"""Charts as people see them: pictures down to the pixel, pages down to what the browser is told."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import numpy
import pytest
from matplotlib.colors import to_rgb
from matplotlib.dates import num2date
from matplotlib.image import imread
from paper_bars import START_MS, opens, reading, row
from plotly.offline import get_plotlyjs
from rig import open_rig

from marketpipe.cli.chart import SUFFIXES, Colors, check_suffix, draw
from marketpipe.cli.chart_html import html
from marketpipe.cli.chart_marks import Drawing
from marketpipe.cli.chart_paint import BLUE, GREEN, GREY, RED, UNKNOWN
from marketpipe.cli.chart_png import figure, png
from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleSeries, CandleState

SEOUL = ZoneInfo("Asia/Seoul")
HOUR_MS = 3_600_000


def bar(slot: int, opened: Any, closed: Any, **changes: Any) -> Candle:
    opened, closed = Decimal(opened), Decimal(closed)
    prices = {"open": opened, "close": closed, "high": max(opened, closed) + 1, "low": min(opened, closed) - 1}
    return row(slot, **{"state": CandleState.FINAL, "volume": 2, **prices, **changes})


# Ten slots, in six of which the price rises, and in four of which it falls.
RISES_AND_FALLS = [bar(slot, 100, 104 if slot % 5 < 3 else 96) for slot in range(10)]


def drawing(*bars: Candle, zone: Any = UTC, room: int = 480, **options: Any) -> Drawing:
    market = bars[0].market
    return Drawing.of(CandleSeries(market, bars[0].timeframe, bars), room=room, zone=zone, **options)


def pixels(*bars: Candle, colors: Colors = Colors.KOREAN, **options: Any) -> numpy.ndarray:
    """The picture in 256 steps a colour."""
    shown = imread(io.BytesIO(png(drawing(*bars, **options), colors)))
    return (shown[:, :, :3] * 255).round().astype(int)


def painted(picture: numpy.ndarray, color: str) -> numpy.ndarray:
    """Where exactly ``color`` is, below the legend."""
    where = (picture == [round(part * 255) for part in to_rgb(color)]).all(axis=2)
    where[:60] = False
    return where


# -- pictures -----------------------------------------------------------------------------------------------------


def test_a_picture_has_the_size_of_a_screen():
    assert pixels(*RISES_AND_FALLS).shape == (900, 1600, 3)


@pytest.mark.parametrize(
    ("colors", "up", "down", "absent"), [(Colors.KOREAN, RED, BLUE, GREEN), (Colors.WESTERN, GREEN, RED, BLUE)]
)
def test_up_and_down_have_the_colours_of_the_country(colors, up, down, absent):
    # A little of each is the line of the last price.
    rises = pixels(*(bar(slot, 100, 104) for slot in range(10)), colors=colors)
    assert painted(rises, up).sum() > 10_000
    assert painted(rises, down).sum() == 0
    falls = pixels(*(bar(slot, 104, 100) for slot in range(10)), colors=colors)
    assert painted(falls, down).sum() > 10_000
    assert painted(falls, absent).sum() == 0


def slots(*bars: Candle, count: int = 10, **options: Any) -> list[int]:
    """The columns at which slots begin, and the one at which the last ends."""
    drawn = figure(drawing(*bars, **options), Colors.KOREAN)
    drawn.draw_without_rendering()
    box = drawn.axes[0].get_window_extent()
    return [round(box.x0 + (box.x1 - box.x0) * place / count) for place in range(count + 1)]


def test_a_slot_without_a_trade_is_an_empty_place_and_moves_no_other_bar():
    whole, holed = pixels(*RISES_AND_FALLS), pixels(*RISES_AND_FALLS[:4], *RISES_AND_FALLS[5:])
    columns = numpy.nonzero((whole != holed).any(axis=2)[60:].any(axis=0))[0]
    begins = slots(*RISES_AND_FALLS)
    assert begins[4] <= columns.min() < columns.max() <= begins[5]
    place = numpy.s_[60:, begins[4] + 2 : begins[5] - 2]
    assert (painted(whole, RED) | painted(whole, BLUE))[place].sum() > 5_000
    assert (painted(holed, RED) | painted(holed, BLUE))[place].sum() < 200  # the line of the last price


def test_what_was_not_fetched_is_shaded_at_its_place_and_only_there():
    bars = [RISES_AND_FALLS[slot] for slot in (0, 1, 2, 3, 6, 7, 8, 9)]
    assert painted(pixels(*bars), UNKNOWN).sum() == 0
    unknown = [(opens(4), opens(6))]
    columns = numpy.nonzero(painted(pixels(*bars, unknown=unknown), UNKNOWN).any(axis=0))[0]
    begins = slots(*bars, unknown=unknown)
    assert (columns[0], columns[-1]) == pytest.approx((begins[4], begins[6]), abs=2)


def test_even_the_shortest_unknown_span_of_a_long_time_can_be_seen():
    bars = [bar(slot, 100, 104, timeframe=Timeframe.D1, open_ms=slot * 24 * HOUR_MS) for slot in range(3000)]
    known, unknown = pixels(*bars), pixels(*bars, unknown=[(bars[50].open_ms, bars[50].open_ms + 60_000)])
    columns = numpy.nonzero((known != unknown).any(axis=2)[200:840].any(axis=0))[0]
    assert 1 <= len(columns) <= 3


def test_a_running_bar_is_hollow():
    last = RISES_AND_FALLS[9]
    begins = slots(*RISES_AND_FALLS)
    inside = numpy.s_[60:, begins[9] + 40 : begins[10] - 40]
    final = pixels(*RISES_AND_FALLS)
    running = pixels(*RISES_AND_FALLS[:9], attrs.evolve(last, state=CandleState.RUNNING))
    assert painted(final, BLUE)[inside].sum() > 10_000
    assert painted(running, BLUE)[inside].sum() < 2_000


def test_a_bar_whose_price_did_not_move_is_grey_and_can_be_seen():
    flat = [bar(slot, 100, 100, high=Decimal(100), low=Decimal(100)) for slot in range(10)]
    picture = pixels(*flat, bar(10, 100, 104))
    assert painted(picture, GREY)[60:600].sum() > 500


def test_the_axes_are_named_and_so_are_the_colours():
    made_up = attrs.evolve(bar(8, 100, 100, volume=0), filled=True)
    shown = drawing(*RISES_AND_FALLS[:7], made_up, attrs.evolve(reading(9)), zone=SEOUL, unknown=[(opens(7), opens(8))])
    drawn = figure(shown, Colors.KOREAN)
    prices, volumes = drawn.axes
    assert (prices.get_ylabel(), volumes.get_ylabel()) == ("price (KRW)", "volume (BTC)")
    assert volumes.get_xlabel() == "time (Asia/Seoul, UTC+09:00)"
    assert prices.get_title(loc="left") == "KRW-BTC 1m"
    names = [text.get_text() for text in prices.get_legend().get_texts()]
    assert names == ["up", "down", "still running", "no trade, last close carried on", "not fetched: 1 min"]


def test_a_picture_names_only_what_is_on_it():
    drawn = figure(drawing(*RISES_AND_FALLS), Colors.KOREAN)
    assert [text.get_text() for text in drawn.axes[0].get_legend().get_texts()] == ["up", "down"]


def ticks(axis: Any) -> list[str]:
    axis.figure.draw_without_rendering()
    return [label.get_text() for label in axis.get_ticklabels()]


def test_the_ticks_of_time_are_in_the_zone_asked_for():
    bars = [bar(0, 1, 2, timeframe=Timeframe.H1, open_ms=START_MS // HOUR_MS * HOUR_MS + h * HOUR_MS) for h in range(9)]
    drawn = figure(drawing(*bars), Colors.KOREAN)
    assert ticks(drawn.axes[1].xaxis) == [f"{hour}:00" for hour in range(12, 22)]
    drawn = figure(drawing(*bars, zone=SEOUL), Colors.KOREAN)
    assert ticks(drawn.axes[1].xaxis) == ["21:00", "22:00", "23:00", "Sep-24", *(f"0{hour}:00" for hour in range(1, 7))]


def test_ticks_stand_at_round_hours_of_the_zone_asked_for():
    bars = [bar(0, 1, 2, timeframe=Timeframe.H4, open_ms=START_MS // HOUR_MS * HOUR_MS + h * HOUR_MS) for h in (0, 60)]
    axis = figure(drawing(*bars, zone=SEOUL), Colors.KOREAN).axes[1].xaxis
    assert {num2date(place, SEOUL).hour for place in axis.get_majorticklocs()} == {0, 6, 12, 18}


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        ("148000000", "149400000", ["148,000,000", "148,200,000", "148,400,000"]),
        ("0.00000148", "0.00000176", ["0.00000150", "0.00000155", "0.00000160"]),
        ("0.5", "3", ["1.0", "1.5", "2.0"]),
    ],
)
def test_prices_have_thousands_separators_and_equally_many_decimals(low, high, labels):
    shown = drawing(bar(0, low, high, low=Decimal(low), high=Decimal(high)), bar(1, high, high, high=Decimal(high)))
    drawn = figure(attrs.evolve(shown, marks=shown.marks[:1]), Colors.KOREAN)
    told = [label for label in ticks(drawn.axes[0].yaxis) if label]
    assert [label for label in told if label in labels] == labels
    assert len({len(label.partition(".")[2]) for label in told}) == 1


@pytest.mark.parametrize(
    ("volume", "label"),
    [("70000000000", "60B"), ("12500000", "10M"), ("8000000", "6,000,000"), ("0.0032", "0.003"), ("7", "6")],
)
def test_volumes_are_short_where_they_are_huge_and_exact_where_they_are_not(volume, label):
    drawn = figure(drawing(bar(0, 100, 104, volume=volume)), Colors.KOREAN)
    assert label in ticks(drawn.axes[1].yaxis)


def test_no_label_stands_where_the_last_price_does():
    near = bar(9, 100, "104.05")
    drawn = figure(drawing(*RISES_AND_FALLS[:9], near), Colors.KOREAN)
    labels = ticks(drawn.axes[0].yaxis)
    assert "104" not in labels
    assert {"102", "100"} <= set(labels)
    assert "104.05" in [text.get_text() for text in drawn.axes[0].texts]


@pytest.mark.parametrize("bars", [1, 2, 10, 200, 3000])
def test_the_labels_of_time_are_few_and_do_not_touch(bars):
    drawn = figure(drawing(*(bar(slot, 100, 104) for slot in range(bars))), Colors.KOREAN)
    drawn.draw_without_rendering()
    boxes = [label.get_window_extent() for label in drawn.axes[1].xaxis.get_ticklabels() if label.get_text()]
    assert 2 <= len(boxes) <= 15
    boxes.sort(key=lambda box: box.x0)
    assert all(one.x1 + 8 < two.x0 for one, two in itertools.pairwise(boxes))


@pytest.mark.parametrize("title", ["$100 and $200", r"$\no formula$"])
def test_a_title_may_have_any_letters(title):
    drawn = figure(drawing(*RISES_AND_FALLS, title=title), Colors.KOREAN)
    drawn.draw_without_rendering()
    assert drawn.axes[0].get_title(loc="left") == title


# -- pages --------------------------------------------------------------------------------------------------------


def page(*bars: Candle, **options: Any) -> str:
    """The page without plotly.js."""
    text = html(drawing(*bars, room=2500, **options), Colors.KOREAN).decode()
    library = get_plotlyjs()
    assert text.count(library) == 1
    return text.replace(library, "")


def told(text: str) -> tuple[list[dict], dict, dict]:
    """Data, layout and configuration, as the browser reads them."""
    rest, found = text.partition("Plotly.newPlot(")[2], []
    for _ in range(4):
        value, end = json.JSONDecoder().raw_decode(rest := rest.lstrip(" \n,"))
        rest = rest[end:]
        found.append(value)
    return found[1], found[2], found[3]


def bodies(text: str) -> dict:
    return next(trace for trace in told(text)[0] if trace["type"] == "bar" and "hovertext" in trace)


def test_a_page_needs_nothing_from_anywhere_and_sends_nothing_anywhere():
    text = page(*RISES_AND_FALLS)
    assert re.findall(r"""(?:src|href)\s*=|https?:|@import|url\(""", text) == []
    _, _, config = told(text)
    assert config["displaylogo"] is False
    assert {"sendChartToCloud", "sendDataToCloud"}.isdisjoint(config["modeBarButtons"][0])


def test_a_page_has_each_bar_at_its_place_as_wide_as_its_slot_allows():
    shown = bodies(page(*RISES_AND_FALLS[:4], *RISES_AND_FALLS[6:], zone=SEOUL))
    nine_hours = 9 * HOUR_MS
    assert shown["x"] == [opens(slot) + 30_000 + nine_hours for slot in (0, 1, 2, 3, 6, 7, 8, 9)]
    assert set(shown["width"]) <= {30_000}
    assert shown["base"][:4] == [100, 100, 100, 96]
    assert shown["y"][:4] == [4, 4, 4, 4]
    assert shown["marker"]["color"][:4] == [RED, RED, RED, BLUE]


def test_a_page_tells_of_each_bar_its_exact_numbers_at_its_time():
    one = bar(0, "148601000.00000000", "148602000", volume="0.02543652")
    assert bodies(page(one, zone=SEOUL))["hovertext"] == [
        "<b>2026-09-23 21:35:00</b><br>open 148,601,000<br>high 148,602,001<br>low 148,600,999<br>close 148,602,000"
        "<br>volume 0.02543652"
    ]
    made_up = attrs.evolve(bar(1, 100, 100, volume=0), filled=True)
    texts = bodies(page(one, made_up, reading(2)))["hovertext"]
    assert texts[1].endswith("<br>volume 0<br>no trade, last close carried on")
    assert texts[2].endswith("<br>still running")


def test_a_page_merges_what_would_make_a_browser_slow_and_says_so():
    bars = [bar(slot, 100, 104) for slot in range(6000)]
    text = page(*bars)
    shown = bodies(text)
    assert len(shown["x"]) <= 2500
    assert shown["hovertext"][5].endswith("<br>3 bars")
    assert "KRW-BTC 1m, drawn as 3m bars" in told(text)[1]["title"]["text"]


def test_a_page_names_its_axes_and_shades_what_was_not_fetched():
    data, layout, _ = told(page(*RISES_AND_FALLS, zone=SEOUL, unknown=[(opens(20), opens(25))]))
    assert layout["xaxis"]["title"]["text"] == "time (Asia/Seoul, UTC+09:00)"
    assert layout["yaxis"]["title"]["text"] == "price (KRW)"
    assert layout["yaxis2"]["title"]["text"] == "volume (BTC)"
    (shaded,) = [shape for shape in layout["shapes"] if shape["type"] == "rect"]
    assert (shaded["x0"], shaded["x1"]) == (opens(20) + 9 * HOUR_MS, opens(25) + 9 * HOUR_MS)
    assert [trace["name"] for trace in data if "name" in trace] == ["up", "down", "not fetched: 5 min"]


def test_a_page_over_the_end_of_summer_time_says_which_offset_its_axis_has():
    day_ms = 24 * HOUR_MS
    bars = [
        bar(0, 1, 2, timeframe=Timeframe.D1, open_ms=timeframes.floor(Timeframe.D1, START_MS) + days * day_ms)
        for days in (30, 50)
    ]
    text = page(*bars, zone=ZoneInfo("America/New_York"))
    assert told(text)[1]["xaxis"]["title"]["text"] == "time (America/New_York, UTC-05:00 throughout)"
    first, last = bodies(text)["hovertext"]
    assert "2026-10-22 20:00:00" in first
    assert "2026-11-11 19:00:00" in last


def test_a_running_bar_is_hollow_on_a_page_too():
    marker = bodies(page(*RISES_AND_FALLS[:9], attrs.evolve(RISES_AND_FALLS[9], state=CandleState.RUNNING)))["marker"]
    assert marker["color"][-2:] == [BLUE, "white"]
    assert marker["line"]["color"][-2:] == [BLUE, BLUE]


def test_a_title_stays_words_on_a_page():
    hostile = "</script></title><script>alert(1)</script>"
    text = page(*RISES_AND_FALLS, title=hostile)
    assert hostile not in text
    assert "<script>alert" not in text
    assert "<title>&lt;/script&gt;&lt;/title&gt;" in text


# -- files --------------------------------------------------------------------------------------------------------


def series(*bars: Candle) -> CandleSeries:
    return CandleSeries("KRW-BTC", Timeframe.M1, bars)


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.PNG", b"\x89PNG"), ("a.html", b"<!doctype")])
def test_the_suffix_says_what_is_drawn_and_a_file_that_is_there_is_replaced(tmp_path, name, begins):
    path = tmp_path / name
    path.write_text("old")
    draw(series(*RISES_AND_FALLS), path)
    assert path.read_bytes().startswith(begins)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["bars", "bars.svg", "bars.png.txt", ".png"])
def test_another_suffix_is_refused_with_those_that_are_not(tmp_path, name):
    with pytest.raises(ValueError, match=r"a chart must be named \*\.png or \*\.html, was '.*'"):
        draw(series(*RISES_AND_FALLS), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_every_suffix_that_is_told_is_taken():
    for suffix in SUFFIXES:
        check_suffix(Path(f"bars{suffix}"))


@pytest.mark.parametrize("name", ["bars.png", "bars.html"])
def test_nothing_to_draw_leaves_the_file_that_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(ValueError, match="there is no 1m bar of KRW-BTC to draw"):
        draw(series(), path)
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["bars.png", "bars.html"])
def test_a_path_that_cannot_be_written_is_one_line_that_names_it(tmp_path, name):
    path = tmp_path / "nowhere" / name
    with pytest.raises(FileNotFoundError) as raised:
        draw(series(*RISES_AND_FALLS), path)
    assert str(raised.value) == f"[Errno 2] No such file or directory: '{path}'"


async def test_what_an_exchange_tells_is_drawn(autojump_clock, tmp_path):
    async with open_rig() as rig:
        bars = await rig.market.get_candle("KRW-BTC", "1m", count=300)
    for suffix in SUFFIXES:
        draw(
            bars,
            tmp_path / f"bars{suffix}",
            zone=SEOUL,
            colors=Colors.WESTERN,
            span=(bars[0].open_ms, bars[-1].close_ms),
        )
        assert (tmp_path / f"bars{suffix}").stat().st_size > 20_000
