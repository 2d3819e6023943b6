"""The command line. click and rich are imported when a command runs, so that ``import marketpipe`` stays light."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 128 + signal.SIGINT
# 128 + SIGPIPE: what every other program in a pipeline ends with.
NOBODY_READS = 141


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 1: it failed, and one line a failure on stderr says why; 2: a wrong option; 130: Ctrl-C; 141: whoever read
    our output has left.
    """
    try:
        code = _dispatch(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _silence()
        return NOBODY_READS
    return code


def _dispatch(args: Sequence[str] | None) -> int:
    import click

    from marketpipe.cli.app import cli

    try:
        cli.main(args, prog_name="marketpipe", standalone_mode=False)
    except click.Abort:  # click's name for Ctrl-C
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _silence() -> None:
    # The interpreter flushes stdout once more on its way out, and would complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
