"""Options are checked where they are given, and the message names field and value."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from marketpipe.config import REGIONS, CacheOptions, Config, Limits, Retry

NUMBERS = [
    (group, field.name)
    for group in (Limits, Retry, CacheOptions)
    for field in attrs.fields(group)
    if isinstance(field.default, int | float)
]
COUNTS = [(group, name) for group, name in NUMBERS if isinstance(attrs.fields_dict(group)[name].default, int)]
MAY_BE_ZERO = {"guard_s", "abandoned_hold_s", "listing_max_age_s"}


def test_the_defaults_are_valid_and_equal():
    assert Config() == Config()
    assert hash(Limits()) == hash(Limits())


def test_every_number_that_can_be_set_is_among_those_tested():
    assert len(NUMBERS) == len(attrs.fields(Limits)) + len(attrs.fields(Retry)) + 2


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
    assert getattr(group(**{name: 3}), name) == 3
    with pytest.raises(ValueError, match=rf"{name} must be a whole number of at least 1, was 2\.0"):
        group(**{name: 2.0})


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


@pytest.mark.parametrize(("name", "value"), [("limits", 10), ("retry", Limits()), ("cache", None)])
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


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="regoin"):
        Config(regoin="kr")  # type: ignore[call-arg]
