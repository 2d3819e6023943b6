"""What is only there if it was asked for at installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["needs"]


@contextmanager
def needs(module: str, extra: str, what: str) -> Iterator[None]:
    """Around the imports of ``module``: if it is not there, a ``RuntimeError`` of one line says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module:
            raise
        raise RuntimeError(f"{what} needs {module}: pip install 'marketpipe[{extra}]'") from None
