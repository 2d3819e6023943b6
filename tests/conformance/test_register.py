"""The register is whole: every line of the sheet has a row, every row a test or a reason, and every test exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conformance.register import HERE, ROWS, SHEET, claims, table, tables

TESTS = HERE.parent
# Facts about the exchange; what follows them in the sheet tells the same once more.
SECTIONS = re.compile(r"[1-8](\.\d)?")


@cache
def functions(path: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_a_row_has_one_entry():
    assert [id for id, count in Counter(row.id for row in ROWS).items() if count > 1] == []


def test_every_row_has_a_test_or_a_reason_and_not_both():
    assert [row.id for row in ROWS if bool(claims(row)) is bool(row.unclaimed)] == []


def test_every_test_that_claims_a_row_exists():
    missing = [
        claim
        for row in ROWS
        for claim in claims(row)
        for path, _, name in [claim.partition("::")]
        if name and (name not in functions(TESTS / path) or not name.startswith("test_"))
    ]
    assert missing == []


def test_every_case_of_a_table_is_a_row():
    known = {row.id for row in ROWS}
    assert {name: ids - known for name, ids in tables().items() if ids - known} == {}


def test_the_printed_table_is_this_register():
    assert (HERE / "ROWS.md").read_text() == table(), "python -m conformance.register > conformance/ROWS.md, in tests/"


def lines_of_the_sheet() -> Iterator[tuple[str, str]]:
    """Section and text of every line that states something: bullets, sentences, rows of tables without their head."""
    section, head = "", True
    for line in SHEET.read_text().splitlines():
        if heading := re.match(r"#+ (\d+(?:\.\d)?)", line):
            section, head = heading[1], True
        elif not line.strip() or line.startswith(("#", "---")):
            section, head = ("" if line.startswith("# ") else section), True
        elif line.startswith("|"):
            if not head and not set(line) <= set("|-: "):
                yield section, line
            head = False
        else:
            head = True
            yield section, line


def test_every_line_of_the_sheet_has_a_row_and_every_row_its_lines():
    if not SHEET.exists():
        pytest.skip("the sheet is not here")
    lines = [(section, line) for section, line in lines_of_the_sheet() if SECTIONS.fullmatch(section)]
    known = {(row.section, words) for row in ROWS for words in row.lines}
    forgotten = [
        (section, line[:80])
        for section, line in lines
        if not any(where == section and words in line for where, words in known)
    ]
    assert forgotten == []
    assert [
        entry for entry in known if not any(entry[0] == section and entry[1] in line for section, line in lines)
    ] == []
    assert len(lines) > 180
