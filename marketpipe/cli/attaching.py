"""Looks into another program of this machine, at the port where it tells about its pipe."""

from __future__ import annotations

from collections.abc import Callable
from http.client import BadStatusLine, HTTPConnection, HTTPException
from typing import Any

import click
import trio

from marketpipe.metrics import HOST, PORT, SERVER

__all__ = ["ask_program", "port_option"]

# A program that is alive answers within milliseconds, unless it computes without letting others run.
ANSWER_S = 5.0

port_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=PORT,
    show_default=True,
    help="The metrics port of the program to look at.",
)


async def ask_program(port: int, path: str) -> bytes:
    """What the program at ``port`` answers; ``OSError`` in one line if there is none, or another one."""
    return await trio.to_thread.run_sync(_ask, port, path, abandon_on_cancel=True)


def _ask(port: int, path: str) -> bytes:
    where = f"{HOST}:{port}"
    # Not urllib: that would ask a proxy, where one is set.
    connection = HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        body, server = reply.read(), reply.getheader("server")
    except ConnectionRefusedError:
        raise ConnectionRefusedError(_nobody(port)) from None
    except TimeoutError:
        raise TimeoutError(f"{where} does not answer within {ANSWER_S:g} s") from None
    except ConnectionError:  # some of these are BadStatusLine as well: who said nothing said nothing wrong
        raise ConnectionError(f"{where} closes the connection without an answer") from None
    except (HTTPException, ValueError) as error:
        raise _another(where, error) from None
    finally:
        connection.close()
    if server != SERVER:
        raise _another(where, None)
    if reply.status != 200:
        raise OSError(f"{where} answers {reply.status}: {' '.join(body.decode(errors='replace').split())}")
    return body


def _nobody(port: int) -> str:
    started = "`marketpipe demo`" if port == PORT else f"a command with --metrics-port {port}"
    return f"nothing answers on {HOST}:{port}; start a program with Config(metrics_port={port}), or {started}"


def _another(where: str, error: Exception | None) -> OSError:
    how = ", and not in HTTP" if isinstance(error, BadStatusLine) else ""
    return OSError(f"something answers on {where}{how}, but it is not marketpipe")
