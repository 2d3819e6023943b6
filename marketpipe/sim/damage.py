"""Structured damage to a JSON answer that leaves the spelling of everything else untouched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from marketpipe.sim.faults import EditFault

__all__ = ["damage_rows"]

Row = dict[str, msgspec.Raw]

_ROWS = msgspec.json.Decoder(list[Row])
_CONTAINER = msgspec.json.Decoder(Row | list[msgspec.Raw])


def damage_rows(body: bytes, edits: Iterable[EditFault]) -> bytes:
    """``body`` with every edit done to it, in order; an answer that is no list of objects stays as it is."""
    try:
        rows = _ROWS.decode(body)
    except msgspec.DecodeError:
        return body
    for edit in edits:
        rows = _damaged(rows, edit)
    return msgspec.json.encode(rows)


def _damaged(rows: list[Row], edit: EditFault) -> list[Row]:
    if edit.change == "extra":
        stranger = msgspec.Raw(msgspec.json.encode(edit.market or "KRW-STRANGER"))
        return [*rows, *({**row, "market": stranger} for row in rows[:1])]
    damaged: list[Row] = []
    for index, row in enumerate(rows):
        damaged += _damaged_row(row, edit) if _is_meant(index, row, edit) else [row]
    return damaged


def _is_meant(index: int, row: Row, edit: EditFault) -> bool:
    if edit.market is not None:
        return "market" in row and bytes(row["market"]) == msgspec.json.encode(edit.market)
    return edit.every_row or index == 0


def _damaged_row(row: Row, edit: EditFault) -> list[Row]:
    if edit.change == "drop":
        return []
    if edit.change == "duplicate":
        return [row, row]
    damaged = dict(row)
    try:
        _replace(damaged, (edit.field or "").split("."), _lexeme(edit))
    except (LookupError, ValueError):
        return [row]  # this row has no such place; others may
    return [damaged]


def _lexeme(edit: EditFault) -> msgspec.Raw | None:
    return msgspec.Raw((edit.lexeme or "null").encode()) if edit.change == "set" else None


def _replace(container: Row | list[msgspec.Raw], path: list[str], lexeme: msgspec.Raw | None) -> None:
    """Set the place at ``path`` to ``lexeme``, or take it out if that is None."""
    key, *deeper = path
    place: Any = key if isinstance(container, dict) else int(key)
    if deeper:
        inner = _CONTAINER.decode(container[place])
        _replace(inner, deeper, lexeme)
        container[place] = msgspec.Raw(msgspec.json.encode(inner))
    elif lexeme is None:
        del container[place]
    else:
        container[place] = lexeme
