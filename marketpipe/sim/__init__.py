"""A simulated Upbit: in memory for tests, on a socket for people and other clients.

::

    async with open_simulator(markets=100, latency_s=0.02) as sim:        # on a free loopback port
        ...  # sim.base_url, sim.exchange.statistics(), sim.world

    exchange = SimExchange(SimConfig(), TrioClock(epoch_ms))              # in memory, under a mock clock
    client = httpx.AsyncClient(transport=SimTransport(exchange), base_url="http://sim")
    dial = memory_dial(exchange, nursery)                                 # streams of bytes, to speak WebSocket on
"""

from marketpipe.sim.config import SimConfig
from marketpipe.sim.exchange import SimExchange, SimRequest, SimStatistics
from marketpipe.sim.fault_base import BadFault, Fault
from marketpipe.sim.faults import (
    DnsFault,
    DownFault,
    DropFault,
    EditFault,
    GarbageFault,
    HalfFault,
    HangFault,
    LatencyFault,
    ResetFault,
    StatusFault,
    WrongTypeFault,
    WsRefuseFault,
)
from marketpipe.sim.limiter import GroupStatistics
from marketpipe.sim.replies import SimReply
from marketpipe.sim.script import ScriptedTrade
from marketpipe.sim.simulator import Simulator, open_simulator, run_simulator
from marketpipe.sim.spawn import SpawnedSimulator, spawn_simulator
from marketpipe.sim.transport import SimTransport
from marketpipe.sim.world import World
from marketpipe.sim.ws_faults import (
    ClockSkewFault,
    WsCloseFault,
    WsDownFault,
    WsDripFault,
    WsDropFault,
    WsDuplicateFault,
    WsFault,
    WsGarbageFault,
    WsHalfFault,
    WsMuteFault,
    WsReorderFault,
    WsStallFault,
)
from marketpipe.sim.ws_flood import FloodStatistics
from marketpipe.sim.ws_hub import StreamStatistics
from marketpipe.sim.ws_memory import memory_dial

__all__ = [
    "BadFault",
    "ClockSkewFault",
    "DnsFault",
    "DownFault",
    "DropFault",
    "EditFault",
    "Fault",
    "FloodStatistics",
    "GarbageFault",
    "GroupStatistics",
    "HalfFault",
    "HangFault",
    "LatencyFault",
    "ResetFault",
    "ScriptedTrade",
    "SimConfig",
    "SimExchange",
    "SimReply",
    "SimRequest",
    "SimStatistics",
    "SimTransport",
    "Simulator",
    "SpawnedSimulator",
    "StatusFault",
    "StreamStatistics",
    "World",
    "WrongTypeFault",
    "WsCloseFault",
    "WsDownFault",
    "WsDripFault",
    "WsDropFault",
    "WsDuplicateFault",
    "WsFault",
    "WsGarbageFault",
    "WsHalfFault",
    "WsMuteFault",
    "WsRefuseFault",
    "WsReorderFault",
    "WsStallFault",
    "memory_dial",
    "open_simulator",
    "run_simulator",
    "spawn_simulator",
]
