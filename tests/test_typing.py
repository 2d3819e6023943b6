"""mypy and pyright know that a str gives a value and an iterable a Batch, and see misuse before it runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
CONTRACT = Path(__file__).with_name("typing_contract.py")

# One mistake a line; a checker has to object to every one of them.
MISUSE = """\
import marketpipe as mp

async def misuse(market: mp.Client) -> None:
    await market.get_ticker(5)
    await market.get_ticker([5])
    await market.get_ticker("KRW-BTC", 5)
    await market.get_ticker("KRW-BTC", max_age_s="1")
    await market.get_candle("KRW-BTC", "1m", fill="backward")
    await market.get_candle("KRW-BTC", timeframe=60)
    await market.get_trade("KRW-BTC", count="10")
    (await market.get_ticker("KRW-BTC"))["KRW-BTC"]
    (await market.get_ticker(["KRW-BTC"])).price
    (await market.get_ticker("KRW-BTC")).price = 5
"""
MISTAKES = {number for number, line in enumerate(MISUSE.splitlines(), 1) if "market.get" in line}

MYPY = ["mypy", "--strict", "--no-error-summary", "--show-error-codes"]
PYRIGHT = ["pyright", "--pythonpath", sys.executable]

pyright = pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
checkers = pytest.mark.parametrize(
    "checker", [pytest.param(MYPY, id="mypy"), pytest.param(PYRIGHT, id="pyright", marks=pyright)]
)


def check(checker: list[str], *arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", *checker, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@checkers
def test_the_overloads_tell_a_value_from_a_batch(checker: list[str]):
    status, said = check(checker, CONTRACT)
    assert status == 0, said


@checkers
def test_every_misuse_is_seen(checker: list[str], tmp_path: Path):
    path = tmp_path / "misuse.py"
    path.write_text(MISUSE, "utf-8")
    status, said = check(checker, path)
    seen = {int(line.split(":")[1]) for line in said.splitlines() if "misuse.py:" in line and "error" in line}
    assert status == 1, said
    assert seen == MISTAKES
