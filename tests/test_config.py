"""Options are checked where they are given, and the message names field and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from marketpipe.config import REGIONS, Buffers, CacheOptions, Collecting, Config, Limits, Retry, Subscriptions

GROUPS = (Limits, Retry, CacheOptions, Subscriptions, Buffers, Collecting)
NUMBERS = [
    (group, field.name)
    for group in GROUPS
    for field in attrs.fields(group)
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]
COUNTS = [(group, name) for group, name in NUMBERS if isinstance(attrs.fields_dict(group)[name].default, int)]
MAY_BE_ZERO = {"guard_s", "abandoned_hold_s", "listing_max_age_s", "settle_s"}
LEAST = {(Buffers, "candles"): 3}


def test_the_defaults_are_valid_and_equal():
    assert Config() == Config()
    assert hash(Limits()) == hash(Limits())


def test_every_number_that_can_be_set_is_among_those_tested():
    others = {"freshness", "auto", "in_flight"}
    fields = [field for group in GROUPS for field in attrs.fields(group)]
    assert [name for _, name in NUMBERS] == [field.name for field in fields if field.name not in others]


@pytest.mark.parametrize(("group", "name"), NUMBERS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), float("-inf")])
def test_a_number_out_of_range_is_named(group: type[Any], name: str, value: float):
    with pytest.raises(ValueError, match=rf"^{group.__name__}\.{name} must be a .*number .*, was {value!r}$"):
        group(**{name: value})


@pytest.mark.parametrize(("group", "name"), NUMBERS)
def test_zero_is_allowed_where_it_means_something(group: type[Any], name: str):
    if name in MAY_BE_ZERO:
        assert getattr(group(**{name: 0}), name) == 0
    else:
        with pytest.raises(ValueError, match=f"{name} must be .*, was 0$"):
            group(**{name: 0})


@pytest.mark.parametrize(("group", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["10", None, True, [1]])
def test_what_is_no_number_is_named(group: type[Any], name: str, value: Any):
    with pytest.raises(TypeError, match=rf"^{group.__name__}\.{name} must be a .*number ") as misuse:
        group(**{name: value})
    assert str(misuse.value).endswith(f"was {value!r}")


@pytest.mark.parametrize(("group", "name"), COUNTS)
def test_a_count_is_whole(group: type[Any], name: str):
    least = LEAST.get((group, name), 1)
    assert getattr(group(**{name: least}), name) == least
    for value in (4.0, least - 1):
        with pytest.raises(
            ValueError, match=rf"^{group.__name__}\.{name} must be a .* of at least {least}, was {value}$"
        ):
            group(**{name: value})


@pytest.mark.parametrize("value", [0, 1, "yes", None, "False"])
def test_a_switch_is_true_or_false_and_nothing_like_it(value: Any):
    assert [Subscriptions(auto=switch).auto for switch in (True, False)] == [True, False]
    with pytest.raises(TypeError, match=r"^Subscriptions\.auto must be True or False, was ") as misuse:
        Subscriptions(auto=value)
    assert str(misuse.value).endswith(repr(value))


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_has_its_host(region: str):
    assert Config(region=region).rest_url == REGIONS[region]


@pytest.mark.parametrize("region", ["KR", "jp", "", None, 7])
def test_an_unknown_region_is_named_with_those_there_are(region: Any):
    with pytest.raises(ValueError, match=r"Config\.region must be one of kr, sg, id, th, was ") as misuse:
        Config(region=region)
    assert str(misuse.value).endswith(repr(region))


def test_a_region_that_cannot_even_be_looked_up_is_named():
    with pytest.raises(ValueError, match=r"Config\.region must be one of kr, sg, id, th, was \['kr'\]"):
        Config(region=["kr"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base_url", "rest_url"),
    [
        ("http://127.0.0.1:8600", "http://127.0.0.1:8600"),
        ("http://127.0.0.1:8600/", "http://127.0.0.1:8600"),
        ("https://proxy.example/upbit/", "https://proxy.example/upbit"),
        ("http://[::1]:8600", "http://[::1]:8600"),
    ],
)
def test_a_base_url_takes_the_place_of_the_region(base_url: str, rest_url: str):
    assert Config(base_url=base_url, region="sg").rest_url == rest_url


@pytest.mark.parametrize("in_flight", [None, 1, 40])
def test_requests_in_flight_may_be_bounded_and_are_not_by_default(in_flight: int | None):
    assert Limits().in_flight is None
    assert Limits(in_flight=in_flight).in_flight == in_flight


@pytest.mark.parametrize(
    ("in_flight", "error"), [(0, ValueError), (-1, ValueError), (1.5, ValueError), (True, TypeError), ("3", TypeError)]
)
def test_a_bound_that_is_none_is_refused(in_flight: Any, error: type[Exception]):
    with pytest.raises(error, match=rf"^Limits.in_flight must be a whole number of at least 1, was {in_flight!r}$"):
        Limits(in_flight=in_flight)


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_streams_from_the_host_it_answers_from(region: str):
    host = REGIONS[region].removeprefix("https://")
    assert Config(region=region).stream_url == f"wss://{host}/websocket/v1"


@pytest.mark.parametrize(
    ("base_url", "stream_url"),
    [
        ("http://127.0.0.1:8600", "ws://127.0.0.1:8600/websocket/v1"),
        ("http://127.0.0.1:8600/", "ws://127.0.0.1:8600/websocket/v1"),
        ("https://proxy.example/upbit/", "wss://proxy.example/upbit/websocket/v1"),
        ("http://[::1]:8600", "ws://[::1]:8600/websocket/v1"),
        ("HTTPS://proxy.example", "wss://proxy.example/websocket/v1"),
    ],
)
def test_streams_are_found_where_the_rest_is(base_url: str, stream_url: str):
    """In plain text if and only if it is."""
    assert Config(base_url=base_url, region="sg").stream_url == stream_url


@pytest.mark.parametrize("ws_url", ["ws://127.0.0.1:8600/websocket/v1", "wss://proxy.example/other/path/"])
def test_an_address_for_streams_is_taken_as_it_is(ws_url: str):
    config = Config(ws_url=ws_url, base_url="http://127.0.0.1:8600")
    assert config.stream_url == ws_url
    assert config.rest_url == "http://127.0.0.1:8600"


@pytest.mark.parametrize(
    "ws_url",
    [
        "",
        "127.0.0.1:8600",
        "http://127.0.0.1:8600/websocket/v1",
        "https://host",
        "ws://",
        "wss:///websocket/v1",
        "ws://host:port",
        "ws://host:99999",
        "ws://host:0",
        "ws://[::1",
    ],
)
def test_an_address_that_cannot_stream_is_named(ws_url: str):
    with pytest.raises(ValueError, match=r"^Config\.ws_url must be a ws\(s\) URL such as 'ws://127.") as misuse:
        Config(ws_url=ws_url)
    assert str(misuse.value).endswith(f"was {ws_url!r}")


@pytest.mark.parametrize("ws_url", [8600, b"ws://host", True])
def test_an_address_for_streams_of_another_type_is_named(ws_url: Any):
    with pytest.raises(TypeError, match=r"^Config\.ws_url must be a str such as 'ws://127.") as misuse:
        Config(ws_url=ws_url)
    assert str(misuse.value).endswith(f"was {ws_url!r}")


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "127.0.0.1:8600",
        "ftp://host",
        "http://",
        "http:///v1",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
    ],
)
def test_an_address_that_is_none_is_named(base_url: str):
    with pytest.raises(ValueError, match=r"Config\.base_url must be an http\(s\) URL such as 'http://127.") as misuse:
        Config(base_url=base_url)
    assert str(misuse.value).endswith(f"was {base_url!r}")


@pytest.mark.parametrize("base_url", [8600, b"http://host"])
def test_an_address_of_another_type_is_named(base_url: Any):
    with pytest.raises(TypeError, match=r"Config\.base_url must be a str such as ") as misuse:
        Config(base_url=base_url)
    assert str(misuse.value).endswith(f"was {base_url!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limits", 10),
        ("retry", Limits()),
        ("cache", None),
        ("subscriptions", Buffers()),
        ("subscriptions", False),
        ("buffers", 1000),
        ("collecting", Buffers()),
        ("collecting", None),
    ],
)
def test_a_group_of_options_is_of_its_own_type(name: str, value: Any):
    with pytest.raises(TypeError, match=f"'{name}' must be ") as misuse:
        Config(**{name: value})
    assert repr(value) in str(misuse.value)


def test_the_freshness_policy_is_of_its_own_type():
    with pytest.raises(TypeError, match="'freshness' must be "):
        CacheOptions(freshness=0.2)  # type: ignore[arg-type]


def test_a_changed_copy_leaves_the_original_alone_and_is_checked_too():
    config = Config()
    assert attrs.evolve(config, region="sg").rest_url != config.rest_url == REGIONS["kr"]
    with pytest.raises(ValueError, match="region"):
        attrs.evolve(config, region="mars")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.region = "sg"  # type: ignore[misc]


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_has_a_database_of_its_own_among_the_data_of_the_user(region: str):
    path = Path(Config(region=region).store_path)
    assert path.is_absolute()
    assert path.name == f"upbit-{region}.db"
    assert path.parent.name == "marketpipe"


def test_what_another_address_tells_is_not_kept_among_what_was_real():
    """A simulator invents; only who names a file for it gets one."""
    assert Config(base_url="http://127.0.0.1:8600").store_path == ":memory:"
    assert Config(base_url="http://127.0.0.1:8600", store="sim.db").store_path == "sim.db"


@pytest.mark.parametrize("store", ["candles.db", "/data/candles.db", ":memory:", Path("/data/candles.db")])
def test_a_database_that_is_named_is_taken_as_it_is(store: Any):
    assert Config(store=store).store_path == str(store)
    assert Config(store=store, region="sg", base_url="http://127.0.0.1:8600").store_path == str(store)


def test_an_address_for_streams_alone_moves_no_database():
    assert Config(ws_url="ws://127.0.0.1:8600/websocket/v1").store_path == Config().store_path


@pytest.mark.parametrize("store", [7, True, b"candles.db", ["candles.db"]])
def test_a_database_that_is_no_path_is_named(store: Any):
    with pytest.raises(TypeError, match=r"^Config\.store must be a path or ':memory:', was ") as misuse:
        Config(store=store)
    assert str(misuse.value).endswith(repr(store))


def test_a_database_without_a_name_is_named():
    with pytest.raises(ValueError, match=r"^Config\.store must be a path or ':memory:', was ''$"):
        Config(store="")


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="regoin"):
        Config(regoin="kr")  # type: ignore[call-arg]


@pytest.mark.parametrize("port", [None, 1, 8601, 65_535])
def test_a_metrics_port_is_one_that_there_is(port: int | None):
    assert Config(metrics_port=port).metrics_port == port


NO_PORTS = [(port, ValueError) for port in (0, -1, 65_536, 8601.5)] + [(port, TypeError) for port in ("8601", True)]


@pytest.mark.parametrize(("port", "error"), NO_PORTS)
def test_a_metrics_port_that_there_is_not_is_named(port: Any, error: type[Exception]):
    wanted = rf"^Config\.metrics_port must be a whole number from 1 to 65535, or None, was {port!r}$"
    with pytest.raises(error, match=wanted):
        Config(metrics_port=port)
