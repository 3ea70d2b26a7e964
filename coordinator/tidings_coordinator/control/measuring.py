"""Whether the links are what was asked for, before the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from tidings.errors import BarrierTimeout
from tidings.v1 import control_pb2 as pb
from tidings_coordinator.control import fidelity
from tidings_coordinator.control.server import ControlServer, Session
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.planning import RunPlan

_CALIBRATED_AT_ONCE = 2
#: waits until that holds of some nodes
Barrier = Callable[[str, Callable[[Session], bool], Sequence[Session]], Awaitable[None]]


async def measure(run: RunPlan, server: ControlServer, barrier: Barrier) -> None:
    """Calibrate all links, then probe one of each class; few at a time, to be undisturbed."""

    async def probe(orders: Mapping[int, pb.ProbeOrder]) -> None:
        asked = [server.sessions[node] for node in orders]
        for session in asked:
            session.probed = None
            session.send(pb.CoordinatorMessage(probe=orders[session.node]))
        await barrier("probe their links", lambda s: s.probed is not None, asked)

    for first in range(0, len(run.nodes), _CALIBRATED_AT_ONCE):
        numbers = range(first, min(first + _CALIBRATED_AT_ONCE, len(run.nodes)))
        await probe({node: pb.ProbeOrder(calibrate=True) for node in numbers})
    for batch in fidelity.probe_order(run):
        await probe({s: pb.ProbeOrder(targets=[t]) for s, t in batch})


def judged(run: RunPlan, server: ControlServer, watcher: Watcher) -> list[fidelity.Measured]:
    """What all nodes have measured; the watcher is told what is not as it should be."""
    results = [result for session in server.sessions.values() for result in session.results]
    found = fidelity.judge(run, results, run.experiment.network.tolerance)
    for measured in found:
        if not measured.within_tolerance:
            watcher.say(
                f"link {measured.source}->{measured.target} is not what was asked for; "
                "the run will be marked invalid"
            )
    return found


def check_open(sessions: Iterable[Session]) -> None:
    """BarrierTimeout where nodes could not reach their neighbours."""
    broken = [
        f"{s.node} with {peer}: {reason}"
        for s in sessions
        if s.ready is not None
        for peer, reason in s.ready.unreachable.items()
    ]
    if broken:
        raise BarrierTimeout("these links could not be opened: " + "; ".join(sorted(broken)))
