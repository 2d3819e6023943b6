"""Every way a command can end has its exit code, and a failure is one line."""

from __future__ import annotations

import errno
import logging

import pytest

from marketpipe import ExchangeUnavailable, PipelineCrashed, UnknownMarket
from marketpipe.cli.running import run, start_logging


def ending(error: BaseException | None = None, code: int = 0) -> int:
    """The exit code of a command that ends like this."""

    async def command() -> int:
        if error is not None:
            raise error
        return code

    with pytest.raises(SystemExit) as leaving:
        run(command)
    return leaving.value.code


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_s_own_exit_code_is_kept(code):
    assert ending(code=code) == code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UnknownMarket("KRW-NOPE"), "unknown market 'KRW-NOPE': the exchange does not list it"),
        (ValueError("count must be at least 1,\n  was 0"), "count must be at least 1, was 0"),
        (OSError(errno.EADDRINUSE, "Address already in use"), f"[Errno {errno.EADDRINUSE}] Address already in use"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_failure_is_exit_code_1_and_one_line(error, line, capsys):
    assert ending(error) == 1
    assert capsys.readouterr() == ("", f"marketpipe: {line}\n")


def test_a_group_of_failures_is_one_line_for_each(capsys):
    inner = ExceptionGroup("inner", [ValueError("two"), ExchangeUnavailable("three")])
    assert ending(ExceptionGroup("outer", [ValueError("one"), inner])) == 1
    assert capsys.readouterr().err == "marketpipe: one\nmarketpipe: two\nmarketpipe: three\n"


def test_a_crash_of_the_pipe_says_what_broke(capsys):
    crash = PipelineCrashed("an actor of the pipeline failed")
    crash.__cause__ = ExceptionGroup("actors", [KeyError("lost")])
    assert ending(crash) == 1
    assert capsys.readouterr().err == "marketpipe: an actor of the pipeline failed\nmarketpipe: KeyError: 'lost'\n"


@pytest.mark.parametrize("wrap", [False, True])
def test_nobody_reading_is_told_by_the_exit_code_alone(wrap, capsys):
    error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert ending(ExceptionGroup("nursery", [error]) if wrap else error) == 141
    assert capsys.readouterr() == ("", "")


def test_a_bug_keeps_its_traceback():
    async def buggy() -> int:
        raise KeyError("a bug")

    with pytest.RaisesGroup(KeyError):
        run(buggy)


@pytest.mark.parametrize("verbose", [False, True])
def test_the_library_s_log_is_shown_if_it_is_wanted(verbose, capsys):
    log = logging.getLogger("marketpipe")
    before = log.handlers[:], log.level
    try:
        start_logging(verbose=verbose)
        logging.getLogger("marketpipe.batcher").info("a detail")
        logging.getLogger("marketpipe.batcher").warning("a warning")
    finally:
        log.handlers[:], log.level = before
    shown = capsys.readouterr().err
    assert ("a detail" in shown, "a warning" in shown) == (verbose, verbose)
