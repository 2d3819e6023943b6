"""What the pipe says to the outside: an endpoint on this machine's loopback, for Prometheus and `marketpipe status`.

Its modules are imported when somebody asks for them: a program that tells nobody does not pay for it.
"""

from __future__ import annotations

__all__ = ["HOST", "PORT", "SERVER"]

HOST = "127.0.0.1"
# Where programs tell about themselves, unless they say otherwise; the simulator is at 8600.
PORT = 8601
# What the endpoint calls itself in its answers.
SERVER = "marketpipe"
