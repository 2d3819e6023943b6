"""Files that are there whole or not at all: written under another name, then put in their place in one step."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]

# With the dots, the token and the ending it stays below the 255 bytes that file systems allow.
LONGEST_PART = 200


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes ``path`` when the block ends well; otherwise what was there before stays.

    Until then it lies in the same folder as ``.NAME.….part``; only a kill or a power cut leaves it behind. A link is
    followed. What is neither file nor folder (``/dev/null``, a named pipe, ``>(gzip)`` of the shell) is written at
    once. An ``OSError`` names ``path``.
    """
    target = path.resolve()
    part = target.with_name(f".{_head(target.name)}.{secrets.token_hex(4)}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        special = target.exists() and not target.is_file()
        with _at_once(target) if special else _in_one_step(part, target) as file:
            yield file
    except OSError as error:
        # A full disk names no file, and the name of the part would say nothing to anybody.
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def _at_once(target: Path) -> Iterator[BinaryIO]:
    with target.open("wb") as file:
        yield file


@contextmanager
def _in_one_step(part: Path, target: Path) -> Iterator[BinaryIO]:
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


def _head(name: str) -> str:
    return name.encode()[:LONGEST_PART].decode(errors="ignore")
