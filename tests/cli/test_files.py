"""A file is there whole or not at all, and what was there before is not lost on the way."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from marketpipe.cli.files import replacing


def write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def test_a_file_is_there_when_the_block_has_ended_and_no_sooner(tmp_path):
    path = tmp_path / "bars.csv"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["bars.csv"]


def test_a_file_that_is_there_is_replaced_and_stays_as_open_to_others_as_it_was(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_text("old, and longer than what comes")
    path.chmod(0o640)
    write(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_is_as_open_to_others_as_any_other(tmp_path):
    (tmp_path / "usual").write_text("")
    write(tmp_path / "ours", "new")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), GeneratorExit()])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, failure):
    path = tmp_path / "bars.csv"
    path.write_text("old")

    def interrupted(path: Path) -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(type(failure)) as raised:
        interrupted(path)
    assert raised.value is failure
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["bars.csv"]
    with pytest.raises(type(failure)):
        interrupted(tmp_path / "new.csv")
    assert os.listdir(tmp_path) == ["bars.csv"]


@pytest.mark.parametrize(
    ("name", "number"), [("nowhere/bars.csv", errno.ENOENT), (".", errno.EISDIR), ("file/bars.csv", errno.ENOTDIR)]
)
def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path, name, number):
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(OSError, match=re.escape(str(path))) as raised:
        write(path, "new")
    assert raised.value.errno == number
    assert ".part" not in str(raised.value)
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "bars.csv"):
        (tmp_path / "elsewhere").read_text()


def test_an_error_that_is_no_refusal_of_the_system_is_passed_on_as_it_is(tmp_path):
    with pytest.raises(OSError, match=r"^odd$"), replacing(tmp_path / "bars.csv"):
        raise OSError("odd")


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "bars.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    write(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_the_longest_name_that_the_file_system_takes_is_taken(tmp_path):
    path = tmp_path / ("가" * 83 + ".csv")
    write(path, "new")
    assert path.read_text() == "new"


def test_a_device_is_written_and_not_replaced():
    write(Path(os.devnull), "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_named_pipe_is_written_and_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(path.read_text()))
    reader.start()
    write(path, "new")
    reader.join()
    assert heard == ["new"]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_told_with_the_name_of_the_file():
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write(Path("/dev/full"), "x")


TOO_MUCH = """
import resource, sys
from pathlib import Path
from marketpipe.cli.files import replacing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with replacing(Path(sys.argv[1])) as file:
        for _ in range(100):
            file.write(bytes(100_000))
except OSError as error:
    print(error)
"""


def test_a_file_that_does_not_fit_leaves_the_one_that_was_there(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", TOO_MUCH, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"[Errno {errno.EFBIG}] File too large: '{path}'\n"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["bars.csv"]


HALF = """
import os, signal, sys
from pathlib import Path
from marketpipe.cli.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", HALF, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
