"""What the exchange says comes to a screen as letters: no escape sequence, no line of its own, no markup."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from marketpipe.cli.complaints import say
from marketpipe.cli.letters import PlainFormatter, plain
from marketpipe.cli.rows import json_line

pytestmark = [pytest.mark.socket, pytest.mark.slow]

HARM = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202egnp.exe\x00\x7f[bold]loud[/bold][link=file:///]here"
LISTED = [{"market": "KRW-BTC", "korean_name": HARM, "english_name": HARM,
           "market_event": {"warning": True, "caution": {HARM: True}}}]  # fmt: skip
HANG_S = 60


class Hostile(BaseHTTPRequestHandler):
    """Lists a market with a name that does harm; says it again whatever else is asked."""

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path.partition("?")[0], (500, HARM))
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def exchange() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        server.answers = {"/v1/market/all": (200, json.dumps(LISTED))}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(exchange: ThreadingHTTPServer, *args: str) -> tuple[int, str, str]:
    url = f"http://127.0.0.1:{exchange.server_port}"
    done = subprocess.run(
        [sys.executable, "-m", "marketpipe", *args, "--base-url", url],
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def assert_harmless(text: str) -> None:
    assert text.replace("\n", "").isprintable(), text


def test_a_table_shows_what_a_terminal_would_obey(exchange):
    code, out, err = run(exchange, "markets", "--table")

    assert code == 0, err
    assert_harmless(out)
    # Folded, as long names are, but whole: nothing of it was taken for markup.
    letters = "".join(out.split())
    for part in ("owned", "gnp.exe", "[bold]", "[/bold]", "[link="):
        assert part in letters


def test_json_says_the_same_in_letters_that_do_nothing(exchange):
    code, out, err = run(exchange, "markets", "--json")

    assert code == 0, err
    assert_harmless(out)
    assert len(out.splitlines()) == 1
    assert json.loads(out)["korean_name"] == HARM


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, HARM),
        (400, json.dumps({"error": {"name": HARM, "message": HARM}})),
        (404, json.dumps({"error": {"name": 404, "message": f"Code not found {HARM}"}})),
        (418, f"{HARM}{HARM}"),
        (200, f"<html>{HARM}"),
        (200, json.dumps([{"market": HARM}])),
        (200, json.dumps([{"market": "KRW-BTC", "change": HARM}])),
    ],
)
def test_a_failure_is_told_on_lines_of_ours(exchange, status, body):
    exchange.answers["/v1/ticker"] = (status, body)
    code, out, err = run(exchange, "ticker", "KRW-BTC")

    assert code != 0
    assert_harmless(out + err)
    assert all(line.startswith("marketpipe: ") for line in err.splitlines())


def test_the_log_is_told_on_one_line_each():
    record = logging.LogRecord("marketpipe", logging.WARNING, "", 0, "dropped %s", (HARM,), None)

    assert_harmless(PlainFormatter("%(levelname)s %(message)s").format(record))
    assert "\n" not in PlainFormatter().format(record)


def test_a_complaint_is_one_line(capsys):
    say(HARM)

    assert_harmless(capsys.readouterr().err)


def test_what_can_be_seen_is_left_alone():
    assert plain("비트코인 – Bitcoin ✓") == "비트코인 – Bitcoin ✓"
    assert json_line({"name": "비트코인 ✓"}) == '{"name":"비트코인 ✓"}'
