"""What the command line says before it asks anybody: help, version, usage errors."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest
import trio
from click.testing import CliRunner

import marketpipe
from marketpipe.cli import main
from marketpipe.cli.app import COMMANDS, cli
from marketpipe.sim import SimConfig


def invoke(*args: str):
    return CliRunner().invoke(cli, args)


def test_the_package_and_the_entry_point_import_neither_click_nor_rich():
    code = "import sys, marketpipe, marketpipe.cli; print(sorted({'click', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_help_lists_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_two_examples(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.output.count(f"\n  marketpipe {name}") == 2


def test_the_version_is_the_package_s():
    result = invoke("--version")
    assert result.exit_code == 0
    assert marketpipe.__version__ in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nope"], "No such command 'nope'"),
        (["ticker"], "Missing argument 'SYMBOL...'"),
        (["candles"], "Missing argument 'SYMBOL'"),
        (["candles", "KRW-BTC", "--count", "many"], "'many' is not a valid integer"),
        (["candles", "KRW-BTC", "--fill", "backward"], "'backward' is not one of 'none', 'forward'"),
        (["ticker", "KRW-BTC", "--region", "us"], "'us' is not one of 'kr', 'sg', 'id', 'th'"),
        (["ticker", "KRW-BTC", "--sim", "--region", "sg"], "give one of --sim, --region"),
        (["ticker", "KRW-BTC", "--sim", "--base-url", "http://x", "--region", "sg"], "--sim, --base-url, --region"),
        (["ticker", ",", " , "], "Missing argument 'SYMBOL...'"),
        (["ticker", "KRW-BTC", "--base-url", "ftp://x"], "--base-url must be an http(s) URL"),
        (["ticker", "KRW-BTC", "--base-url", "127.0.0.1:8600"], "--base-url must be an http(s) URL"),
        (["orderbook", "KRW-BTC", "--sim", "--depth", "31"], "'--depth': 31 is not in the range 1<=x<=30"),
        (["orderbook", "KRW-BTC", "--sim", "--depth", "0"], "'--depth': 0 is not in the range 1<=x<=30"),
        (["trades", "KRW-BTC", "--sim", "--count", "0"], "'--count': 0 is not in the range x>=1"),
        (["candles", "KRW-BTC", "--sim", "--count", "0"], "'--count': 0 is not in the range x>=1"),
        (["candles", "KRW-BTC", "--sim", "--timeframe", "7m"], "'--timeframe': unknown timeframe '7m'; allowed: 1s 1m"),
        (["candles", "KRW-BTC", "--sim", "--start", "2026-11-01T00:00"], "--start must have a timezone"),
        (["candles", "KRW-BTC", "--sim", "--start", "1790166896"], "that looks like seconds"),
        (["candles", "KRW-BTC", "--sim", "--end", "yesterday"], "--end must be a time such as"),
        (["candles", "KRW-BTC", "--sim", "--start", "2026-11-02T00:00Z", "--end", "2026-11-01T00:00Z"], "before end"),
        (["candles", "KRW-BTC", "--sim", "--start", "0", "--end", "0", "--count", "1"], "at most two of"),
        (["sim", "--window", "square"], "'square' is not one of 'fixed', 'rolling', 'first'"),
        (["sim", "--port", "99999"], "'--port': 99999 is not in the range 0<=x<=65535"),
        (["sim", "--limit", "0"], "--limit must be at least 1, was 0"),
        (["sim", "--ban-window-s", "0"], "--ban-window-s must be more than 0 s, was 0.0"),
        (["sim", "--ban-after", "-1"], "'--ban-after': -1 is not in the range x>=0"),
        (["sim", "--latency-ms", "-1"], "--latency-ms must be 0 or more ms, was -1"),
        (["sim", "--jitter-ms", "nan"], "--jitter-ms must be 0 or more ms, was nan"),
        (["demo", "--markets", "0"], "--markets must be 1 to 10000, was 0"),
        (["demo", "--seed", "-1"], "--seed must be 0 to"),
        (["demo", "--latency-ms", "-20"], "--latency-ms must be 0 or more ms, was -20"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_anything_is_started(args, message, monkeypatch):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(trio, "run", start)
    result = invoke(*args)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_main_gives_usage_errors_back_as_exit_code_2(capsys):
    assert main(["ticker"]) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_main_gives_help_back_as_exit_code_0(capsys):
    assert main(["--help"]) == 0
    assert "marketpipe demo" in capsys.readouterr().out


def test_every_option_of_the_simulator_is_on_the_command_line_with_a_word_about_it():
    sim = cli.get_command(None, "sim")
    described = {parameter.name: parameter.help for parameter in sim.params}
    for field in attrs.fields(SimConfig):
        assert described[field.name], field.name
