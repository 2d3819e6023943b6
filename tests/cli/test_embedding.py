"""Programs that embed the blocking client: however they end, they end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HANG_S = 20.0

PROGRAM = """
import sys
import threading
import marketpipe as mp
market = mp.connect(base_url={url!r}, store=":memory:")
print(market.get_ticker("KRW-BTC").market, flush=True)
{rest}
"""


LISTENER = """
def listen():
    try:
        list(market.stream_trade("KRW-BTC"))
    except mp.PipelineClosed:
        pass
threading.Thread(target=listen, daemon=True).start()
"""


# Such threads are joined before the interpreter asks anybody to clean up.
WORKERS = (
    LISTENER.replace("daemon=True", "daemon=False")
    + """
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(listen)
"""
)


def program(url: str, rest: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", PROGRAM.format(url=url, rest=rest)]


@pytest.mark.slow
@pytest.mark.socket
class TestProcess:
    @pytest.mark.parametrize(
        "rest",
        [
            "market.close()",
            "",
            "stream = market.stream_trade('KRW-BTC'); next(stream)",
            LISTENER,
            WORKERS,
        ],
    )
    def test_the_interpreter_exits_whether_it_was_closed_or_not(self, base_url, rest):
        done = subprocess.run(program(base_url, rest), capture_output=True, text=True, timeout=HANG_S, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "KRW-BTC\n", "")

    def test_an_interrupt_that_another_thread_of_the_process_gets_ends_a_wait(self, base_url):
        rest = """
import signal
def interrupt():
    def calls(frame):
        return {frame.f_code.co_name, *calls(frame.f_back)} if frame else set()
    while not {"receive", "wait"} <= calls(sys._current_frames()[threading.main_thread().ident]):
        pass
    threading.Event().wait(0.1)  # by then it sleeps
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
try:
    with market.stream_candle("KRW-BTC", "1d") as bars:
        next(bars)
        threading.Thread(target=interrupt).start()
        list(bars)
except KeyboardInterrupt:
    print(market.get_ticker("KRW-ETH").market)
"""
        done = subprocess.run(program(base_url, rest), capture_output=True, text=True, timeout=HANG_S, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "KRW-BTC\nKRW-ETH\n", "")

    def test_an_interrupt_ends_a_wait(self, base_url):
        rest = """
try:
    with market.stream_candle("KRW-BTC", "1d") as bars:
        next(bars)
        print("listening", flush=True)
        list(bars)
except KeyboardInterrupt:
    print(market.get_ticker("KRW-ETH").market)
    sys.exit(130)
"""
        with subprocess.Popen(program(base_url, rest), stdout=subprocess.PIPE, text=True) as ours:
            try:
                assert ours.stdout is not None
                assert ours.stdout.readline() == "KRW-BTC\n"
                assert ours.stdout.readline() == "listening\n"
                ours.send_signal(signal.SIGINT)
                assert ours.communicate(timeout=HANG_S) == ("KRW-ETH\n", None)
                assert ours.wait(HANG_S) == 130
            finally:
                ours.kill()  # one that hangs is a failure, not a wait
