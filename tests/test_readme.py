"""The README is kept: its programs run, its names and targets exist, its pictures are those of the code."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio

import marketpipe as mp
import marketpipe.errors
import marketpipe.pipeline
from marketpipe.sim import open_simulator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OFFLINE = "<!-- needs the internet -->\n"
BLOCKS = re.findall(rf"({OFFLINE})?```python\n(.*?)```", README, re.DOTALL)
PROGRAMS = [code for mark, code in BLOCKS if not mark and "trio.run" in code]
BLOCKING = [code for mark, code in BLOCKS if not mark and "mp.connect(" in code]
FRAGMENTS = [code for mark, code in BLOCKS if not mark and code not in (*PROGRAMS, *BLOCKING)]


def test_there_is_an_example_of_every_sort():
    assert len(BLOCKS) - len(PROGRAMS) - len(BLOCKING) - len(FRAGMENTS) == 1
    assert len(PROGRAMS) == len(BLOCKING) == 1
    assert len(FRAGMENTS) == 5


@pytest.mark.parametrize("code", [code for mark, code in BLOCKS if mark])
def test_what_needs_the_internet_compiles(code):
    compile(code, "README.md", "exec")


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("code", PROGRAMS)
def test_a_whole_program_runs(code, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "symbols/s" in done.stdout
    assert "<CandleSeries KRW-BTC 1m: 1000 bars" in done.stdout
    assert "spread: " in done.stdout


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("code", FRAGMENTS)
async def test_a_fragment_runs_inside_of_a_pipeline(code):
    compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with open_simulator(markets=40) as sim, mp.open_pipeline(base_url=sim.base_url) as market:
        await eval(compiled, {"mp": mp, "market": market, "exchange_url": sim.base_url})


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("code", BLOCKING)
async def test_what_blocks_runs_in_a_thread(code, capsys):
    async with open_simulator(markets=40) as sim:
        await trio.to_thread.run_sync(exec, code, {"mp": mp, "asyncio": asyncio, "exchange_url": sim.base_url})
    assert "Ticker(market='KRW-" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", sorted(name for name, thing in vars(mp).items() if name[0] != "_" and not inspect.ismodule(thing))
)
def test_every_public_name_is_mentioned(name):
    assert re.search(rf"\b{name}\b", README)


VERBS = [name for name in vars(mp.Client) if not name.startswith("_") and name != "close"]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_mentioned(name):
    assert f"**`{name}(" in README


@pytest.mark.parametrize("module", [marketpipe.errors, marketpipe.pipeline], ids=lambda module: module.__name__)
def test_the_pictures_are_those_of_the_modules(module):
    picture = re.search(r"::\n\n(.*?)\n\n\S", module.__doc__, re.DOTALL).group(1)
    assert textwrap.dedent(picture).rstrip() in README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tests|marketpipe|bench)/[\w/.]*", README))))
def test_every_path_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make (\w+)", README))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_budgets_of_the_priorities_are_as_told():
    budgets = [f"{priority.budget_s * 1000:,.0f}" for priority in mp.Priority]
    assert f"latency budgets of {', '.join(budgets[:3])} and {budgets[3]} ms" in " ".join(README.split())
