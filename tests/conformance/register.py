"""Every row of upbit-api.md, and what stands for it: tests, or the reason why the simulator does not claim it.

A row of this register has the number of its section and a name. ``lines`` are words of the lines of the sheet that it
is about; sections 1.0 to 8.3 must be covered line by line (`test_register`). It is claimed by the tests that are named
here, as ``module::function`` under tests/sim, and by the tables of this folder that have it as a key. Sections 9 to 11
tell the same facts once more, as a history, as advice to clients and as what nobody knows.

``python -m conformance.register`` in tests/ prints the table; ROWS.md is that table.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from conformance.rows import ROWS, Row

__all__ = ["HERE", "ROWS", "SHEET", "Row", "claims", "table", "tables"]

HERE = Path(__file__).parent
SHEET = HERE.parents[2] / "shared" / "upbit-api.md"
# Where rows are keys: module, and the tables in it; a test is parametrized with each.
_TABLES = {
    "test_fields": ("CASES", "ABSENT", "ORDERS", "AGREE"),
    "test_spellings": ("REST", "FRAMES"),
    "test_rules": ("ANSWERS", "RULES", "GROUPS"),
    "test_socket": ("ERRORS", "ABBREVIATIONS", "RULES"),
}


def tables() -> dict[str, set[str]]:
    """The rows that have a case in this folder: ``module`` to ids."""
    found: dict[str, set[str]] = {}
    for name, members in _TABLES.items():
        module = importlib.import_module(f"conformance.{name}")
        keys = (key for member in members for key in getattr(module, member))
        found[name] = {key if isinstance(key, str) else key[0] for key in keys}
    return found


def claims(row: Row) -> list[str]:
    """What claims ``row``, as paths below tests/."""
    elsewhere = [f"sim/test_{test.replace('::', '.py::')}" for test in row.tests]
    return [*(f"conformance/{name}.py" for name, ids in tables().items() if row.id in ids), *elsewhere]


def table() -> str:
    """The register as Markdown."""
    claimed = [(row, claims(row)) for row in ROWS if not row.unclaimed]
    unclaimed = [row for row in ROWS if row.unclaimed]
    return "\n".join(
        [
            "# The simulator against upbit-api.md",
            "",
            "Made by `python -m conformance.register > conformance/ROWS.md` in tests/, checked by test_register.py.",
            "",
            f"{len(ROWS)} rows: {len(claimed)} claimed, {len(unclaimed)} not.",
            "",
            "| row | claimed by |",
            "|---|---|",
            *(f"| {row.id} | {', '.join(f'`{claim}`' for claim in names)} |" for row, names in claimed),
            "",
            "| not claimed | because |",
            "|---|---|",
            *(f"| {row.id} | {row.unclaimed} |" for row in unclaimed),
            "",
        ]
    )


if __name__ == "__main__":
    print(table(), end="")
