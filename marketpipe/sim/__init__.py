"""A simulated Upbit: in memory for tests, on a socket for people and other clients.

::

    async with open_simulator(markets=100, latency_s=0.02) as sim:        # on a free loopback port
        ...  # sim.base_url, sim.exchange.statistics(), sim.world

    exchange = SimExchange(SimConfig(), TrioClock(epoch_ms))              # in memory, under a mock clock
    client = httpx.AsyncClient(transport=SimTransport(exchange), base_url="http://sim")
"""

from marketpipe.sim.config import SimConfig
from marketpipe.sim.exchange import SimExchange, SimRequest, SimStatistics
from marketpipe.sim.faults import (
    BadFault,
    DnsFault,
    DownFault,
    DropFault,
    EditFault,
    Fault,
    GarbageFault,
    HalfFault,
    HangFault,
    LatencyFault,
    ResetFault,
    StatusFault,
    WrongTypeFault,
)
from marketpipe.sim.limiter import GroupStatistics
from marketpipe.sim.replies import SimReply
from marketpipe.sim.simulator import Simulator, open_simulator, run_simulator
from marketpipe.sim.spawn import SpawnedSimulator, spawn_simulator
from marketpipe.sim.transport import SimTransport
from marketpipe.sim.world import World

__all__ = [
    "BadFault",
    "DnsFault",
    "DownFault",
    "DropFault",
    "EditFault",
    "Fault",
    "GarbageFault",
    "GroupStatistics",
    "HalfFault",
    "HangFault",
    "LatencyFault",
    "ResetFault",
    "SimConfig",
    "SimExchange",
    "SimReply",
    "SimRequest",
    "SimStatistics",
    "SimTransport",
    "Simulator",
    "SpawnedSimulator",
    "StatusFault",
    "World",
    "WrongTypeFault",
    "open_simulator",
    "run_simulator",
    "spawn_simulator",
]
