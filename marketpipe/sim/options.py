"""The simulator's options as words on a command line: every field of `SimConfig`, there and back.

`SimConfig` says what is allowed; nothing is checked twice.
"""

from __future__ import annotations

import argparse
from typing import Any, get_type_hints

import attrs

from marketpipe.sim.config import SimConfig

__all__ = ["add_options", "config_from", "words_for"]

# Network times are told in milliseconds, as people think of them.
_IN_MS = {"latency_s": "latency_ms", "jitter_s": "jitter_ms"}
_SWITCH = {"on": True, "off": False}
_NEVER = "never"


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each field, with the field's default."""
    for field in attrs.fields(SimConfig):
        word = _word(field.name, field.default)
        parser.add_argument(_flag(field.name), dest=field.name, default=word, metavar="X", help=f"default {word}")


def config_from(parsed: argparse.Namespace) -> SimConfig:
    """The configuration that was asked for. Raises ``ValueError`` or ``TypeError`` naming the option and its value."""
    hints = get_type_hints(SimConfig)
    return SimConfig(**{name: _value(name, getattr(parsed, name), hint) for name, hint in hints.items()})


def words_for(config: SimConfig) -> list[str]:
    """The words that make `config_from` build ``config``."""
    return [f"{_flag(name)}={_word(name, value)}" for name, value in attrs.asdict(config).items()]


def _flag(name: str) -> str:
    return "--" + _IN_MS.get(name, name).replace("_", "-")


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return _NEVER
    return str(value * 1000) if name in _IN_MS and isinstance(value, int | float) else str(value)


def _value(name: str, word: str, hint: Any) -> Any:
    if hint is bool:
        return _SWITCH.get(word, word)
    if word == _NEVER:
        return None
    try:
        if hint is float:
            return float(word) / (1000 if name in _IN_MS else 1)
        return int(word) if hint in (int, int | None) else word
    except ValueError:
        raise ValueError(f"{_flag(name)} must be a number, was {word!r}") from None
