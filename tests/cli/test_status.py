"""``marketpipe status`` and ``doctor --tasks``: another program looked at from outside, or a line that says why not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest
import trio
from click.testing import CliRunner
from rig import open_rig
from statuses import quiet_status, status_of_everything
from terminal import at_a_terminal

from marketpipe import Status
from marketpipe.cli import attaching, demo, main
from marketpipe.cli.app import cli as group
from marketpipe.core.topics import Line
from marketpipe.metrics.server import Endpoint
from marketpipe.metrics.snapshot import decode_status, encode_status

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60


ANOTHER = "but it is not marketpipe"


@contextmanager
def program(status: Callable[[], Status] = status_of_everything) -> Iterator[int]:
    """A port where a program tells ``status``; it has a Trio of its own, in a thread."""
    opened: list[tuple[int, trio.lowlevel.TrioToken, trio.CancelScope]] = []
    ready = threading.Event()

    async def run() -> None:
        async with await Endpoint.listen(0) as endpoint, trio.open_nursery() as nursery:
            await nursery.start(endpoint.run, status)
            opened.append((endpoint.port, trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(HANG_S)
    ((port, token, scope),) = opened
    try:
        yield port
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(HANG_S)


@contextmanager
def stranger(answer: bytes | None) -> Iterator[int]:
    """A port where something else says ``answer`` to whoever comes; None: it says nothing, and stays."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65_536)
                if answer is not None:
                    client.sendall(answer)
                else:
                    client.recv(65_536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(HANG_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- before anything is asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["status", "--port", "0"], "'--port': 0 is not in the range 1<=x<=65535"),
        (["status", "--port", "65536"], "65536 is not in the range"),
        (["doctor", "--tasks", "--repair"], "--tasks looks at a running program: leave out --repair"),
        (["doctor", "--tasks", "--store", "x.db"], "--tasks looks at a running program: leave out --store"),
        (["doctor", "--tasks", "--base-url", "http://127.0.0.1:1"], "leave out --base-url"),
        (["doctor", "--port", "8601"], "--port belongs to --tasks"),
        (["watch", "KRW-BTC", "--metrics-port", "0"], "'--metrics-port': 0 is not in the range"),
        (["demo", "--metrics-port", "x"], "'x' is not a valid integer"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_anything_is_started(args, message, monkeypatch):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(trio, "run", start)
    result = CliRunner().invoke(group, args)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


# -- nobody there, or somebody else --------------------------------------------------------------------------------

LOOKS = [
    ("status",),
    ("status", "--json"),
    ("status", "--watch"),
    ("doctor", "--tasks"),
    ("doctor", "--tasks", "--table"),
]


@pytest.mark.socket
@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
def test_where_nobody_answers_one_line_says_what_to_do(cli, look):
    port = free_port()
    done = cli.call(*look, "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"marketpipe: nothing answers on 127.0.0.1:{port}; start a program with Config(metrics_port={port}), "
        f"or a command with --metrics-port {port}\n"
    )


def test_at_the_port_that_everybody_knows_the_demo_is_named():
    assert attaching._nobody(8601).endswith("start a program with Config(metrics_port=8601), or `marketpipe demo`")


@pytest.mark.socket
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6\r\nContent-Length: 2\r\n\r\n{}", f"answers on {{}}, {ANOTHER}"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", f"answers on {{}}, {ANOTHER}"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", f"answers on {{}}, and not in HTTP, {ANOTHER}"),
        (b"HTTP/1.1 200 OK\r\nServer: marketpipe\r\nContent-Length: 9\r\n\r\n{", f"answers on {{}}, {ANOTHER}"),
        (b"HTTP/1.1 500 No\r\nServer: marketpipe\r\nContent-Length: 5\r\n\r\noops\n", "{} answers 500: oops"),
        (b"HTTP/1.1 200 OK\r\nServer: marketpipe\r\nContent-Length: 2\r\n\r\n{}", "no status of a pipe"),
        (b"", "{} closes the connection without an answer"),
        (None, "{} does not answer within 0.3 s"),
    ],
)  # fmt: skip
def test_whoever_else_answers_is_told_to_be_that(cli, monkeypatch, answer, words):
    monkeypatch.setattr(attaching, "ANSWER_S", 0.3)
    with stranger(answer) as port:
        done = cli.call("status", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert words.format(f"127.0.0.1:{port}") in line


# -- a program is looked at ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.socket
def test_programs_get_the_whole_status_and_people_get_tables(cli):
    with program() as port:
        piped, table = (cli.run("status", "--port", str(port), *more) for more in ([], ["--table"]))
    assert (piped.returncode, piped.stderr) == (table.returncode, table.stderr) == (0, "")
    assert piped.stdout.encode() == encode_status(status_of_everything()) + b"\n"
    assert " get_ticker " in table.stdout
    assert "/data/upbit.db" in table.stdout


@pytest.mark.slow
@pytest.mark.socket
def test_the_tasks_of_a_program_are_a_tree_for_people_and_json_for_programs(cli):
    with program() as port:
        piped, table = (cli.run("doctor", "--tasks", "--port", str(port), *more) for more in ([], ["--table"]))
    assert (piped.returncode, piped.stderr) == (table.returncode, table.stderr) == (0, "")
    assert json.loads(piped.stdout)["name"] == "<init>"
    *tree, count = table.stdout.splitlines()
    assert tree[0].startswith("<init>  ")
    (line,) = [line for line in tree if "metrics client" in line]
    assert line.startswith("    ")
    assert (
        count
        == f"{len([line for line in tree if not line.endswith('── nursery')])} tasks in the program on 127.0.0.1:{port}"
    )


@pytest.mark.slow
@pytest.mark.socket
def test_watching_in_a_pipe_is_a_line_a_look_until_ctrl_c(cli):
    with program() as port, cli.start("status", "--watch", "--port", str(port)) as process:
        told = [decode_status(process.stdout.readline().encode()) for _ in range(3)]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=HANG_S)
    assert [each.requests for each in told] == [status_of_everything().requests] * 3
    assert (process.returncode, errors) == (130, "")


@pytest.mark.slow
@pytest.mark.socket
def test_watching_at_a_terminal_moves_and_ctrl_c_is_quiet(cli):
    looks = iter(range(1, 1_000))

    def growing() -> Status:
        return attrs.evolve(quiet_status(), uptime_s=float(next(looks)))

    with program(growing) as port, at_a_terminal(cli, "status", "--watch", "--port", str(port)) as watcher:
        watcher.read_until(lambda screen: any(line.startswith("up 2 s ") for line in screen))
        watcher.read_until(lambda screen: any(line.startswith("up 3 s ") for line in screen))
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    assert sum(line.startswith("up ") for line in watcher.screen) == 1, "it is drawn in one place"
    assert "Traceback" not in watcher.text
    assert "marketpipe:" not in watcher.text
    assert watcher.text.endswith("\x1b[?25h")


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(("lines", "columns"), [(24, 80), (30, 160), (12, 80)])
def test_what_a_terminal_has_no_lines_for_is_told_while_watching(cli, lines, columns):
    """Blocks are shown whole or not at all, the streams before the rest."""
    with (
        program() as port,
        at_a_terminal(cli, "status", "--watch", "--port", str(port), lines=lines, columns=columns) as watcher,
    ):
        watcher.read_until(lambda screen: any(line.startswith("and ") for line in screen))
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    screen = watcher.screen
    assert len(screen) <= lines
    assert screen[0].startswith("up ")
    assert re.fullmatch(r"and \d+ more lines: make the terminal taller, or leave out --watch", screen[-1].strip())
    assert any(line.strip().startswith("stream ") for line in screen) is (lines > 12)


@pytest.mark.slow
@pytest.mark.socket
def test_a_terminal_that_has_room_for_all_shows_all_while_watching(cli):
    with (
        program() as port,
        at_a_terminal(cli, "status", "--watch", "--port", str(port), lines=50, columns=160) as watcher,
    ):
        watcher.read_until(lambda screen: any(line.startswith("collecting (paused)") for line in screen))
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    assert len(watcher.screen) < 50
    assert not any(line.startswith("and ") for line in watcher.screen)


@pytest.mark.slow
@pytest.mark.socket
def test_when_the_program_ends_its_watcher_says_so_and_leaves(cli):
    with contextlib.ExitStack() as stack:
        with program() as port:
            process = stack.enter_context(cli.start("status", "--watch", "--port", str(port)))
            assert process.stdout.readline()
        _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    assert errors.startswith(f"marketpipe: nothing answers on 127.0.0.1:{port}; ")


# -- commands that tell about themselves ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.socket
def test_a_command_with_a_metrics_port_can_be_looked_at(cli, base_url):
    port = str(free_port())
    with cli.start("watch", "KRW-BTC", "--base-url", base_url, "--metrics-port", port) as process:
        assert process.stdout.readline()
        status = decode_status(cli.run("status", "--port", port).stdout.encode())
        tasks = cli.run("doctor", "--tasks", "--port", port, "--table").stdout
        second = cli.run("watch", "KRW-BTC", "--base-url", base_url, "--metrics-port", port)
    assert status.consumers.subscribers == 1
    assert status.consumers.received >= 1
    assert "ticker read  marketpipe." in tasks
    assert second.returncode == 1
    assert second.stderr == f"marketpipe: cannot tell about the pipe on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.slow
@pytest.mark.socket
def test_the_demo_says_where_to_look_inside_and_stays_if_it_is_asked_to(monkeypatch, capsys):
    seen: list[Status] = []

    async def stay(market: object, names: list[str]) -> None:
        port = int(capsys.readouterr().err.split("--port ")[1])
        seen.append(decode_status(await attaching.ask_program(port, "/status")))

    monkeypatch.setattr(demo, "STEPS", ())
    monkeypatch.setattr(demo, "_stay", stay)
    with program() as taken:  # another demo
        monkeypatch.setattr(demo, "PORT", taken)
        assert main(["demo", "--markets", "5", "--stay"]) == 0
        assert main(["demo", "--markets", "5", "--metrics-port", str(taken)]) == 1
        assert f"port {taken}: Address already in use" in capsys.readouterr().err
    assert len(seen) == 1
    assert seen[0].uptime_s > 0
    assert main(["demo", "--markets", "5"]) == 0
    assert capsys.readouterr().err.endswith("in another terminal: marketpipe status --watch\n")
    assert len(seen) == 1


async def test_a_demo_that_stays_lets_prices_flow(autojump_clock):
    async with open_rig(streams=True) as rig:
        with trio.move_on_after(60) as scope:
            await demo._stay(rig.market, ["KRW-BTC", "KRW-ETH"])
        status = rig.market.status()
    assert scope.cancelled_caught
    assert all(status.streams[line].values > 10 for line in (Line.TICKER, Line.TRADE))
    assert status.consumers.delivered == status.consumers.received
