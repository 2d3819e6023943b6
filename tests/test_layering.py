"""Who may import whom: the picture of the architecture, held against every import of every module."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "marketpipe"

# Module (without `marketpipe.`; "" is the package itself): what of ours it may import, and why no more.
OURS = {
    "errors": ((), "everybody raises them"),
    "clock": ((), "the world's time needs nothing of ours"),
    "logs": (("errors",), "says what stands in a log line, and writes none"),
    "models": (("core.timeframes", "errors"), "values know bar boundaries, and what may stand in their place"),
    "core": (("core", "models", "errors"), "pure: decides about values and touches nothing"),
    "config": (("core",), "every number is a default there, also the policies' own"),
    "upbit": (
        ("upbit", "core", "models", "errors", "clock", "logs"),
        "the edge knows the exchange, not who asks",
    ),
    "actors": (
        ("actors", "core", "models", "errors", "clock", "config", "logs", "status"),
        "an actor talks over channels and to protocols, never to an edge or to whoever wires it",
    ),
    "store": (
        ("store", "core", "models", "errors", "logs"),
        "knows the database, and nothing of whoever fills or reads it",
    ),
    "status": (("core", "models"), "a frozen picture of the counters"),
    "sharing": (("clock", "config", "core"), "the one state that outlives a pipeline: no actor, no edge"),
    "reporting": (("actors", "clock", "core", "status"), "asks the parts; they count"),
    "client": (
        ("actors", "collected", "core", "models", "errors", "clock", "listening", "reporting", "status"),
        "a handle: no edge, no wiring",
    ),
    "collected": (("actors", "core", "models", "errors"), "the handle's candles: no edge, no wiring"),
    "listening": (("actors", "core", "models", "errors"), "the handle's streams: no edge, no wiring"),
    "pipeline": (
        (
            "actors",
            "client",
            "clock",
            "collected",
            "config",
            "core",
            "errors",
            "models",
            "reporting",
            "sharing",
            "metrics.server",
            "store.sqlite",
            "upbit.rest",
            "upbit.ws",
        ),
        "the one place that knows all the parts it joins",
    ),
    "metrics": (
        ("", "core", "errors", "logs", "metrics", "models", "status"),
        "tells others what a status says: knows none of the parts that have done it",
    ),
    "interrupts": (("clock",), "what the main thread does about Ctrl-C"),
    "portal": (("client", "errors", "interrupts"), "the one place that knows threads and Trio: no verb, no policy"),
    "blocking": (
        ("actors.hub", "actors.job", "client", "config", "core", "errors", "models", "pipeline", "portal", "status"),
        "the verbs for programs without Trio: no policy of its own",
    ),
    "examples": (("", "examples", "sim"), "programs as users write them: public names, and a simulator to try them on"),
    "compat": (
        ("", "blocking", "clock", "compat", "config", "core", "errors", "logs", "models", "status"),
        "the original brief's names, over the blocking client: no policy of its own",
    ),
    "": (
        (
            "actors.hub",
            "actors.job",
            "blocking",
            "client",
            "compat",
            "config",
            "core.buffers",
            "core.checkup",
            "core.collection",
            "core.freshness",
            "core.progress",
            "core.topics",
            "errors",
            "models",
            "pipeline",
            "status",
        ),
        "the public names",
    ),
    "__main__": (("cli",), "python -m marketpipe"),
    "cli": (
        (
            "",
            "cli",
            "client",
            "clock",
            "config",
            "core.checkup",
            "core.collection",
            "core.ranges",
            "core.spans",
            "core.timeframes",
            "core.topics",
            "errors",
            "metrics",
            "models",
            "pipeline",
            "sim",
            "status",
        ),
        "a user of the library like any other, with a simulator to show; refuses wrong words before anything starts",
    ),
    "sim": (
        ("", "sim", "core.timeframes", "clock"),
        "judges the library, so it shares none of its logic but the bar boundaries",
    ),
}

# Top-level module of others: which of ours may import it, and why nobody else.
THEIRS = {
    "httpx": (("upbit.rest", "sim.transport"), "frozen upstream, therefore behind one module (and its fake)"),
    "httpcore": ((), "httpx's own business"),
    "trio_websocket": (("upbit.ws",), "its private corners are touched in one place, and pinned there"),
    "msgspec": (
        ("upbit.wire*", "sim", "cli.rows", "store", "metrics.snapshot"),
        "bytes become models at the edge, and text in the command line",
    ),
    "click": (("cli",), "command line"),
    "rich": (("cli",), "command line"),
    "h11": (("sim", "metrics.server"), "the server's side of HTTP"),
    "prometheus_client": (("metrics.exposition",), "one place knows how Prometheus reads"),
    "wsproto": (("sim", "upbit.ws"), "the simulator's side of WebSocket; the client's, below trio_websocket"),
    "pandas": (("models",), "optional, inside to_pandas()"),
    "polars": (("models",), "optional, inside to_polars()"),
    "ddsketch": (("core.latencies",), "bins for latencies"),
    "psutil": (("pipeline",), "what is resident, imported where a pipe is opened"),
    "cachetools": (("core", "compat.pipe", "sim.history"), "a data structure on an injected timer"),
    "sqlite3": (("store",), "one package knows the database"),
    "sqlite_utils": (("store",), "one package knows the database"),
    "filelock": (("store",), "one writer for each database"),
    "platformdirs": (("config",), "where the database is, if nobody says"),
    "matplotlib": (("cli.chart*",), "optional, imported when a picture is drawn"),
    "plotly": (("cli.chart*",), "optional, imported when a page is drawn"),
    "pyarrow": (("cli.export",), "optional, imported when Parquet is written"),
    "outcome": (("portal",), "a value or an error, from one thread to another"),
    "threading": (
        ("portal", "interrupts", "blocking", "compat", "sharing"),
        "one thread has Trio; who asks, or shares, another",
    ),
    "concurrent": (("portal", "interrupts", "blocking", "compat.pipe"), "futures, for whoever is not on Trio"),
    "time": (("clock", "sim"), "one clock, so that a test's clock is everybody's"),
    "random": (("pipeline", "sim"), "randomness is injected"),
    "ssl": (("upbit.ws", "upbit.rest"), "only edges speak TLS"),
    "socket": (("upbit.rest", "sim"), "only edges touch the network"),
    "asyncio": (("compat.pipe", "examples.asyncio_program", "examples.exchange"), "who is on it awaits original names"),
}

# What may not be known in core at all, beside what is no standard library.
IMPURE = {"asyncio", "contextvars", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "select"}
IMPURE |= {"selectors", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "threading", "time", "urllib"}
PURE = (sys.stdlib_module_names - IMPURE) | {"attrs", "cachetools", "ddsketch"}

# Calls that read the machine's clock without importing `time`.
CLOCK_READS = {"now", "utcnow", "today"}


@attrs.frozen
class Import:
    """One import: the module named, and whether it runs when the importing module does."""

    name: str
    at_import: bool


def sources() -> dict[str, str]:
    """Every module of the package, named without `marketpipe.`."""
    named = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(part for part in parts if part != "__init__")] = path.read_text("utf-8")
    return named


def imports(source: str) -> Iterator[Import]:
    """Every import of ``source``, also those inside functions and under TYPE_CHECKING."""
    for node, at_import in _nodes(ast.parse(source), at_import=True):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (Import(f"{node.module}.{alias.name}", at_import) for alias in node.names)


def _nodes(parent: ast.AST, *, at_import: bool) -> Iterator[tuple[ast.stmt, bool]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.stmt):
            yield node, at_import
            yield from _nodes(node, at_import=at_import and not _runs_later(node))


def _runs_later(node: ast.AST) -> bool:
    type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return type_checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def of_ours(name: str, modules: Mapping[str, str]) -> str | None:
    """The module of ours that ``name`` (a module, or a name in one) is; None if it is not ours."""
    head, _, rest = name.partition(".")
    if head != "marketpipe":
        return None
    return rest if rest in modules else rest.rpartition(".")[0]


def matches(module: str, patterns: tuple[str, ...]) -> bool:
    """Whether ``module`` is one of ``patterns``, or inside one."""
    return any(fnmatchcase(module, pattern) or module.startswith(f"{pattern}.") for pattern in patterns)


def rule_of(module: str) -> tuple[str, ...] | None:
    return next((allowed for pattern, (allowed, _) in OURS.items() if matches(module, (pattern,))), None)


def violations(modules: Mapping[str, str]) -> list[str]:
    """What the tables forbid in ``modules`` (name: source), in words."""
    return [flaw for module, source in modules.items() for flaw in _flaws(module, source, modules)]


def _flaws(module: str, source: str, modules: Mapping[str, str]) -> Iterator[str]:
    allowed = rule_of(module)
    if allowed is None:
        yield f"{module} has no row in the table"
        return
    for each in imports(source):
        ours = of_ours(each.name, modules)
        if ours is not None:
            if not matches(ours, allowed):
                yield f"{module} imports {ours or 'marketpipe'}"
            continue
        theirs = each.name.partition(".")[0]
        users = THEIRS.get(theirs)
        if users is not None and not matches(module, users[0]):
            yield f"{module} imports {theirs}"
        elif matches(module, ("core",)) and theirs not in PURE:
            yield f"{module} imports {theirs}, which is not pure"
    if not matches(module, THEIRS["time"][0]) and (read := _reads_the_clock(source)):
        yield f"{module} calls {read}"


def _reads_the_clock(source: str) -> str | None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_READS:
            owner = ast.unparse(node.value)
            if owner.rpartition(".")[2] in ("datetime", "date"):
                return f"{owner}.{node.attr}"
    return None


def cycle(modules: Mapping[str, str]) -> list[str] | None:
    """A cycle of imports that run when the modules do, or None."""
    edges = {
        module: {
            ours for each in imports(source) if each.at_import and (ours := of_ours(each.name, modules)) is not None
        }
        for module, source in modules.items()
    }
    try:
        graphlib.TopologicalSorter({module: names - {module} for module, names in edges.items()}).prepare()
    except graphlib.CycleError as found:
        return found.args[1]
    return None


def test_every_import_is_one_that_the_tables_allow():
    assert violations(sources()) == []


def test_no_modules_import_each_other_in_a_circle():
    assert cycle(sources()) is None


def test_the_package_is_where_the_tables_think_it_is():
    modules = sources()
    assert {"", "core.paging", "upbit.rest", "actors.batcher", "sim.transport"} <= set(modules)
    unused = [pattern for pattern in OURS if not any(matches(module, (pattern,)) for module in modules)]
    assert unused == []


FORBIDDEN = [
    ("core.paging", "import trio", "trio, which is not pure"),
    ("core.paging", "import time", "time"),
    ("core.paging", "import logging", "logging, which is not pure"),
    ("core.paging", "import numpy.linalg", "numpy, which is not pure"),
    ("core.paging", "from marketpipe.clock import Clock", "imports clock"),
    ("core.paging", "def later():\n    import random", "random"),
    ("core.paging", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from marketpipe import client", "client"),
    ("models", "from marketpipe.core.paging import candle_walk", "core.paging"),
    ("errors", "from marketpipe import models", "models"),
    ("upbit.rest", "from marketpipe.config import Config", "config"),
    ("upbit.wire", "import httpx", "httpx"),
    ("client", "import httpx", "httpx"),
    ("client", "import msgspec.json", "msgspec"),
    ("client", "from marketpipe.upbit import wire", "upbit.wire"),
    ("actors.batcher", "from marketpipe.upbit.rest import UpbitRest", "upbit.rest"),
    ("actors.batcher", "import marketpipe.pipeline", "pipeline"),
    ("actors.cache", "from marketpipe.client import Client", "client"),
    ("pipeline", "from marketpipe.sim import SimExchange", "sim"),
    ("client", "import time", "time"),
    ("client", "from datetime import datetime\nx = datetime.now()", "datetime.now"),
    ("client", "import datetime\nx = datetime.date.today", "datetime.date.today"),
    ("client", "import click", "click"),
    ("newcomer", "", "has no row"),
]


@pytest.mark.parametrize(("module", "source", "words"), FORBIDDEN)
def test_what_is_forbidden_is_found(module: str, source: str, words: str):
    (flaw,) = violations({**dict.fromkeys(sources(), ""), module: source})
    assert flaw.startswith(module)
    assert words in flaw


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.paging", "import heapq, math, attrs\nfrom cachetools import TTLCache"),
        ("core.paging", "from marketpipe.core import timeframes"),
        ("upbit.rest", "import httpx, socket"),
        ("cli.demo", "from marketpipe.sim import SimConfig\nimport click"),
        ("clock", "import time"),
        ("client", "now = clock.now_ms()\nlast = job.today"),
    ],
)
def test_what_is_allowed_is_not(module: str, source: str):
    assert violations({**dict.fromkeys(sources(), ""), module: source}) == []


def test_a_circle_is_found_and_one_that_is_closed_later_is_none():
    one = "from marketpipe.models import Ticker"
    modules = {"client": one, "models": "from marketpipe import status", "status": "import marketpipe.client"}
    found = cycle(modules)
    assert found is not None
    assert set(found) == {"client", "models", "status"}
    assert cycle({**modules, "status": "def ask():\n    import marketpipe.client"}) is None


def test_a_relative_import_is_refused():
    with pytest.raises(AssertionError, match="absolute"):
        list(imports("from . import paging"))
