"""Starts commands as forks of a process that has imported everything already: most of what a command costs is that.

A fork is a process like any other: it has its own pid, descriptors, environment, folder and signals, and it ends as an
interpreter ends. What it does not show is that a command imports what it needs; for that, some are started afresh.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

__all__ = ["Forked", "Starter"]

# A message is its length, and as much JSON; the first part carries the descriptors.
LENGTH = 4
STATUS = 4


class Starter:
    """The process that forks, which lives until it is closed and takes with it all it has started."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._control = ours

    def fork(self, args: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]) -> int:
        """Run a command and return its pid; ``descriptors``: its stdin, stdout, stderr, and where its end is told."""
        wish = json.dumps({"args": args, "environment": dict(environment), "folder": str(Path.cwd())}).encode()
        socket.send_fds(self._control, [len(wish).to_bytes(LENGTH)], descriptors)
        self._control.sendall(wish)
        return int.from_bytes(_exactly(self._control, LENGTH))

    def close(self) -> None:
        self._control.close()
        self._process.wait()


class Forked:
    """A command that runs: as much of `subprocess.Popen` as the tests use.

    ``stdin``, ``stdout`` and ``stderr`` are descriptors; without one, what is written can be read here, as text.
    """

    def __init__(
        self,
        starter: Starter,
        args: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.args = list(args)
        self.returncode: int | None = None
        with contextlib.ExitStack() as theirs:

            def pipe() -> tuple[int, int]:
                reading, writing = os.pipe()
                theirs.callback(os.close, writing)
                return reading, writing

            def output(given: int | None) -> tuple[IO[str] | None, int]:
                if given is not None:
                    return None, given
                reading, writing = pipe()
                return open(reading, encoding="utf-8"), writing

            if stdin is None:
                stdin = os.open(os.devnull, os.O_RDONLY)
                theirs.callback(os.close, stdin)
            self.stdout, out = output(stdout)
            self.stderr, err = output(stderr)
            self._end, end = pipe()
            self.pid = starter.fork(self.args, environment, [stdin, out, err, end])

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for its end, like `subprocess.Popen`."""
        for stream in self._streams():
            stream.close()
        self.wait()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that has not been read yet of stdout and stderr, and its end."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        read: dict[IO[str], str] = {}

        def drain(stream: IO[str]) -> None:
            read[stream] = stream.read()

        threads = [threading.Thread(target=drain, args=[stream], daemon=True) for stream in self._streams()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        return read.get(self.stdout, ""), read.get(self.stderr, "")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _streams(self) -> list[IO[str]]:
        return [stream for stream in (self.stdout, self.stderr) if stream is not None and not stream.closed]

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
            told = os.read(self._end, STATUS)
            os.close(self._end)
            assert told, "the process that starts the others has died"
            self.returncode = int.from_bytes(told, signed=True)
        return self.returncode


def _exactly(control: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        part = control.recv(size - len(read))
        assert part, "the process that starts the others has died"
        read += part
    return read


# -- in the process that forks ---------------------------------------------------------------------------------------


def import_all() -> None:
    """Everything that the commands use, but for what draws and writes tables, which is large and seldom used."""
    sys.modules["numpy"] = None  # sqlite-utils imports it wherever it is installed, and threads with it; see pandas
    for name in ("marketpipe.store.sqlite", "marketpipe.upbit.rest", "marketpipe.upbit.ws", "httpcore", "certifi"):
        import_module(name)
    folder = import_module("marketpipe.cli").__path__
    for module in pkgutil.iter_modules(folder, "marketpipe.cli."):
        import_module(module.name)
    del sys.modules["numpy"]
    world = import_module("marketpipe.sim").World(markets=40)  # what all worlds of this seed have in common is kept
    now_ms = time.time_ns() // 1_000_000
    for name in world.listed(now_ms):
        world.ticker(name, now_ms)
    gc.collect()
    gc.freeze()  # what is never looked at is never copied


def serve(control: socket.socket) -> list[str]:
    """Fork for every wish, and tell how each has ended; returns in a fork alone, with the words of its command."""
    running: dict[int, int] = {}
    woken, waking = socket.socketpair()
    for each in (woken, waking):
        each.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4_096)
            _bury(running)
        if control in ready:
            length, descriptors, _, _ = socket.recv_fds(control, LENGTH, 4)
            if not length:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                sys.exit()
            wish = json.loads(_exactly(control, int.from_bytes(length)))
            pid = os.fork()
            if pid == 0:
                _become(wish, descriptors[:3])
                return wish["args"]
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has done so itself
                os.setpgid(pid, pid)
            running[pid] = descriptors[3]
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            control.sendall(pid.to_bytes(LENGTH))


def _bury(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        end = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody waited
            os.write(end, os.waitstatus_to_exitcode(status).to_bytes(STATUS, signed=True))
        os.close(end)


def _become(wish: dict[str, Any], descriptors: list[int]) -> None:
    """What the interpreter does when it starts."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.closerange(3, max(int(name) for name in os.listdir("/dev/fd")) + 1)
    os.chdir(wish["folder"])
    os.environ.clear()
    os.environ.update(wish["environment"])
    time.tzset()
    sys.stdin = _standard(0, "r", "stdin", sys.stdin)
    sys.stdout = sys.__stdout__ = _standard(1, "w", "stdout", sys.stdout)
    sys.stderr = sys.__stderr__ = _standard(2, "w", "stderr", sys.stderr)


def _standard(descriptor: int, mode: str, name: str, before: io.TextIOWrapper) -> io.TextIOWrapper:
    """Lines are written at once to a terminal, and to stderr always."""
    stream = open(  # noqa: SIM115
        descriptor, mode, buffering=-1, encoding=before.encoding, errors=before.errors, closefd=False
    )
    stream.reconfigure(line_buffering=name == "stderr" or (name == "stdout" and os.isatty(descriptor)))
    return stream


if __name__ == "__main__":
    del sys.path[0]  # this folder, which is none of theirs
    import_all()
    sys.argv = ["marketpipe", *serve(socket.socket(fileno=int(sys.argv[1])))]
    runpy.run_module("marketpipe", run_name="__main__", alter_sys=True)
