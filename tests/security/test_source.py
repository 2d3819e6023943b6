"""What must not stand in the source, whoever wrote it: read from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from store.paper_store import EVER, M1, MARKET, bar, full, opened, opens

from marketpipe.core.history import Piece

PACKAGE = Path(__file__).parents[2] / "marketpipe"

# Modules that turn bytes from outside into whatever those bytes say.
FOREIGN = {"dill", "marshal", "pickle", "shelve", "telnetlib", "xml", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "tempfile.mkdtemp"}
# What would have TLS look away.
LENIENT = {"CERT_NONE", "_create_unverified_context", "wrap_socket"}
SENTENCES = {"execute", "executemany", "executescript", "query"}


@cache
def sources() -> dict[str, ast.AST]:
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in sources().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, kind))


def place(name: str, node: ast.AST) -> str:
    return f"{name}:{node.lineno}: {ast.unparse(node)[:100]}"


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        case _:
            return []


def test_nothing_is_imported_that_runs_what_it_reads():
    found = [place(name, node) for name, node in nodes(ast.stmt)
             if any(module.partition(".")[0] in FOREIGN or module in CALLS for module in imported(node))]  # fmt: skip

    assert found == []


def test_no_text_is_run():
    found = [place(name, node) for name, node in nodes(ast.Call) if ast.unparse(node.func) in CALLS]

    assert found == []


def test_no_command_goes_through_a_shell():
    found = [
        place(name, node)
        for name, node in nodes(ast.keyword)
        if node.arg == "shell" and ast.unparse(node.value) != "False"
    ]

    assert found == []


def test_tls_never_looks_away():
    found = [place(name, node) for name, node in nodes(ast.Attribute) if node.attr in LENIENT]
    found += [
        place(name, node) for name, node in nodes(ast.keyword)
        if node.arg in ("verify", "check_hostname") and ast.unparse(node.value) == "False"
    ]  # fmt: skip
    found += [place(name, node) for name, node in nodes(ast.Assign) if "check_hostname" in ast.unparse(node)]

    assert found == []


# Pieces of SQL that are put into others: names and numbers of ours. A value from outside is always a parameter.
CONSTANT_NAMES = "what is put into SQL is a constant of the module, in capital letters, or checked right here"
CHECKED = {
    # The names of two pragmas, of two tables and the number of a migration: each from a constant a line above.
    ("store/guard.py", "name"),
    ("store/health.py", "table"),
    ("store/schema.py", "version"),
}


def constants(tree: ast.Module) -> set[str]:
    """Names that a module gives once, at its top, to texts and numbers; and what it imports in capital letters."""
    names = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if name.isupper()}


def put_in(sentence: ast.AST) -> Iterator[ast.AST]:
    """What is put into a text: by an f-string, by ``+`` or ``%``, by ``format`` or ``join``."""
    for node in ast.walk(sentence):
        match node:
            case ast.FormattedValue():
                yield node.value
            case ast.BinOp(op=ast.Mod() | ast.Add()):
                yield from (side for side in (node.left, node.right) if not isinstance(side, ast.BinOp | ast.JoinedStr))
            case ast.Call(func=ast.Attribute(attr="format" | "join" | "replace")):
                yield from [*node.args, *(keyword.value for keyword in node.keywords)]


def executed() -> Iterator[tuple[str, ast.AST]]:
    for name, node in nodes(ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in SENTENCES and node.args:
            yield name, node.args[0]


def test_the_search_finds_the_sentences_of_the_store():
    assert sum(name.startswith("store/") for name, _ in executed()) > 30


def test_every_sentence_of_sql_is_put_together_from_constants():
    bad = []
    for name, sentence in executed():
        known = constants(sources()[name])
        for piece in put_in(sentence):
            names = {node.id for node in ast.walk(piece) if isinstance(node, ast.Name)}
            bad += [place(name, piece) for each in names - known if (name, each) not in CHECKED]
            if not names and not isinstance(piece, ast.Constant):
                bad.append(place(name, piece))

    assert bad == [], CONSTANT_NAMES


def test_no_text_of_sql_takes_in_a_value_where_it_is_made():
    """The constants themselves: an f-string of SQL holds nothing but other constants."""
    bad = []
    for name, node in nodes(ast.JoinedStr):
        words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)).split()
        if (
            not name.startswith("store/")
            or not words
            or words[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE")
        ):
            continue
        known = constants(sources()[name])
        for part in node.values:
            names = {inner.id for inner in ast.walk(part) if isinstance(inner, ast.Name)}
            bad += [place(name, node) for each in names - known if (name, each) not in CHECKED]

    assert bad == [], CONSTANT_NAMES


HOSTILE = ["'; DROP TABLE candles; --", '"; DROP TABLE candles; --', "KRW-BTC' OR '1'='1", "KRW-BTC\0", "KRW-?", "%s"]


@pytest.mark.parametrize("market", HOSTILE)
def test_whatever_a_market_is_called_it_is_a_value(market, tmp_path):
    """Past all validation, into the store itself."""
    there = Piece(market, M1, opens(0), opens(2), (bar(0, market=market), bar(1, market=market)))
    with opened(tmp_path / "store.db") as store:
        store.write([full(0, 3)], now_ms=1)
        store.write([there], now_ms=1)

        assert [each.market for each in store.bars(market, M1, *EVER)] == [market, market]
        assert len(store.bars(MARKET, M1, *EVER)) == 3
        assert {series.market for series in store.series()} == {market, MARKET}
        assert store.integrity() == ()
