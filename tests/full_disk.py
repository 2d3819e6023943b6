"""A disk that can be filled up, for tests that run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["disk_of", "filled"]


@contextmanager
def disk_of(megabytes: int, tmp_path: Path) -> Iterator[Path]:
    """A file system of so many megabytes; the test is skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root mounts")
    size = f"size={megabytes}m"
    made = subprocess.run([mount, "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def filled(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return filler
