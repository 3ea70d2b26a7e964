"""Faults that begin and end with a round strike the same messages on every transport.

Where nothing is lost the models are the same bit for bit too. Where a message is missing its
receiver waits for a deadline, and whether its neighbours then wait long enough for it is a race.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.grpc_cluster import run_over_grpc
from support.plans import phases_of, plans, schedule_of
from support.recording import Recorder, models

from tidings.api import attacks
from tidings.faults.base import Fault
from tidings.links.shape import LinkShape
from tidings.runtime.plan import ArmedFault, CheckpointPlan, ComputePlan, NodePlan, Rewired
from tidings.runtime.simulation import Simulated, simulate
from tidings.v1 import records_pb2 as records

pytestmark = pytest.mark.conformance

Run = Callable[[Sequence[NodePlan], Recorder], Simulated]

FAST = LinkShape(rate_bit_per_s=200e6, delay_ns=1_000_000)
DIGITS: dict[str, Any] = {"kind": "digits", "partition": "iid", "hidden": 16}

TRACE = Path(__file__).parents[1] / "support" / "links.csv"

#: (fault, whether it hits links: those of nodes 0 and 3 to all their neighbours)
FAULTS: list[tuple[dict[str, Any], bool]] = [
    ({"kind": "net.partition", "groups": [[0]]}, True),
    ({"kind": "node.isolate"}, True),
    ({"kind": "link.cut", "mode": "reject"}, True),
    ({"kind": "link.loss", "p": 0.5}, True),
    ({"kind": "link.duplicate", "p": 0.5}, True),
    ({"kind": "link.corrupt", "p": 0.5, "bits": 3}, True),
    ({"kind": "link.shape", "delay": "5ms", "jitter": "2ms"}, True),
    ({"kind": "link.scale"}, True),
    ({"kind": "link.trace", "file": str(TRACE)}, True),
    ({"kind": "link.reorder", "p": 0.5, "by": "20ms"}, True),
    ({"kind": "msg.drop", "message": "Weights", "round": 4}, True),
    ({"kind": "msg.truncate", "p": 0.5}, True),
    ({"kind": "msg.replay"}, True),
    ({"kind": "msg.delay", "p": 0.5, "by": "20ms"}, True),
    ({"kind": "msg.duplicate", "p": 0.5}, True),
    ({"kind": "msg.bitflip", "p": 0.5, "bits": 3}, True),
    ({"kind": "node.slow", "factor": 3.0}, False),
    ({"kind": "node.clock", "offset": "2s", "drift_ppm": 1000.0}, False),
    ({"kind": "data.label_noise", "fraction": "30%"}, False),
    ({"kind": "data.shift"}, False),
    *(({"kind": f"byz.{attack}"}, False) for attack in attacks),
]


@pytest.fixture(params=["grpc", "mpich", "openmpi"])
def real(request: pytest.FixtureRequest) -> Run:
    """A way to run plans over a real transport."""
    if request.param in ("mpich", "openmpi"):
        return request.getfixturevalue(request.param).run
    return run_over_grpc


def armed(fault: dict[str, Any], linked: bool, node: int, ring: int) -> tuple[ArmedFault, ...]:
    """What nodes 0 and 3 of a ring bring upon themselves in rounds 2 to 5.

    Where nodes are hit they believe that 1 and 4 are too, the majority that one attack waits for.
    """
    targets = ((node - 1) % ring, (node + 1) % ring) if linked else (0, 1, 3, 4)
    return (
        ArmedFault(
            event="f", fault=fault, targets=tuple(sorted(targets)), at_round=2, for_rounds=4
        ),
    )


@pytest.mark.parametrize(("fault", "linked"), FAULTS, ids=[fault["kind"] for fault, _ in FAULTS])
def test_a_fault_of_rounds_has_the_same_effect_everywhere(
    fault: dict[str, Any], linked: bool, real: Run
) -> None:
    hit = {node: {"faults": armed(fault, linked, node, 6)} for node in (0, 3)}
    protocol = {"kind": "d_psgd", "lr": 0.05}
    # where nothing is missing nobody waits in vain, however busy the machine is
    wait_s = 0.3 if fault["kind"] in LOSSY else 20.0
    given = plans(6, "ring", protocol, DIGITS, 8, link=FAST, per_node=hit, wait_s=wait_s)
    expected, found = simulate(given, Recorder()), real(given, Recorder())
    if fault["kind"] not in LOSSY:
        assert (models(found) == models(expected)).all()
    for mine, theirs in zip(found.finals, expected.finals, strict=True):
        for one, other in zip(mine.links, theirs.links, strict=True):
            assert (one.messages, one.bytes) == (other.messages, other.bytes)
            assert dict(one.faulted) == dict(other.faulted)
            assert one.duplicated == other.duplicated
    # and it has an effect at all, but for what only takes time
    clean = simulate(plans(6, "ring", protocol, DIGITS, 8, link=FAST), Recorder())
    changed = (models(clean) != models(expected)).any()
    assert changed == (fault["kind"] not in TIMELY)


#: faults by which messages are missing
LOSSY = ("net.partition", "link.cut", "link.loss", "link.corrupt", "msg.drop", "msg.truncate")
LOSSY += ("node.isolate", "msg.bitflip")
#: faults that change when things happen, and not what
TIMELY = ("link.shape", "link.scale", "link.duplicate", "msg.replay", "node.slow", "node.clock")
TIMELY += ("link.trace", "link.reorder", "msg.delay", "msg.duplicate")


def test_another_graph_has_the_same_effect_everywhere(real: Run) -> None:
    """Bit for bit, and as if it had been planned so."""
    ring, complete = (schedule_of(6, kind) for kind in ("ring", "complete"))
    fault = {"kind": "graph.rewire", "topology": "complete"}
    hit = ArmedFault(event="f", fault=fault, at_round=4, for_rounds=4)
    per_node = {
        node: {
            "phases": phases_of(ring, node),
            "graphs": {"f": Rewired(phases=phases_of(complete, node))},
            "faults": (hit,),
        }
        for node in range(6)
    }
    protocol = {"kind": "d_psgd", "lr": 0.05}
    # the links are those of both
    given = plans(6, "complete", protocol, DIGITS, 12, link=FAST, per_node=per_node)
    found, expected = real(given, Recorder()), simulate(given, Recorder())
    sequence = {"kind": "sequence", "of": ["ring", "complete"], "every": 4}
    planned = simulate(plans(6, sequence, protocol, DIGITS, 12, link=FAST), Recorder())
    assert (models(found) == models(expected)).all()
    assert (models(found) == models(planned)).all()
    for result in (found, expected):
        for final in result.finals:
            near = {(final.node + 1) % 6, (final.node - 1) % 6}
            for link in final.links:
                assert link.messages == (12 if link.target in near else 4)


# -- faults of time ----------------------------------------------------------------------------


@dataclass
class Ended:
    """What a run left."""

    result: Simulated
    recorder: Recorder

    def detail(self, node: int) -> dict[str, Any]:
        """What is recorded of the fault's end at a node."""
        return next(
            json.loads(change.detail)
            for change in self.recorder.faults
            if change.node == node and change.state == "recovered"
        )

    def links(self, node: int) -> Sequence[records.LinkRecord]:
        """A node's outgoing links."""
        return self.result.finals[node].links


def flapped(ended: Ended) -> None:
    """Some messages were lost, and others were not."""
    for link in ended.links(0):
        assert 0 < link.faulted["f"].messages < link.messages


def left(ended: Ended) -> None:
    """What came meanwhile was not heard."""
    assert ended.result.finals[0].reception.refused["away"] > 0


def loaded(ended: Ended) -> None:
    """A process beside the node has used a processor."""
    assert ended.detail(0)["processes"] == 1


def failed_to_store(ended: Ended) -> None:
    """Checkpoints could not be written, and later ones could."""
    counters = ended.result.finals[0].counters
    assert ended.detail(0)["checkpoints"] == counters["checkpoints_failed"] > 0
    assert counters["checkpoints_written"] > 0


def broken(ended: Ended) -> None:
    """The connections came back."""
    assert all(link.reconnects for link in ended.links(0))


#: (fault, whether it hits links, where it can be, what it leaves)
TIMED: list[tuple[dict[str, Any], bool, tuple[str, ...], Callable[[Ended], None]]] = [
    ({"kind": "link.flap", "period": "40ms"}, True, ("memory", "grpc", "mpi"), flapped),
    ({"kind": "node.leave"}, False, ("memory", "grpc", "mpi"), left),
    ({"kind": "node.join"}, False, ("memory", "grpc", "mpi"), left),
    ({"kind": "node.stress"}, False, ("grpc", "mpi"), loaded),
    ({"kind": "store.fail"}, False, ("memory", "grpc", "mpi"), failed_to_store),
    ({"kind": "link.reset"}, True, ("grpc",), broken),
]


@pytest.mark.parametrize("way", ["memory", "grpc", "mpich", "openmpi"])
@pytest.mark.parametrize(
    ("fault", "linked", "where", "leaves"), TIMED, ids=[fault["kind"] for fault, *_ in TIMED]
)
def test_a_fault_of_time_comes_and_goes_everywhere(
    fault: dict[str, Any],
    linked: bool,
    where: tuple[str, ...],
    leaves: Callable[[Ended], None],
    way: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    lasting = Fault.parse(fault).lasting
    at_s = 0.0 if fault["kind"] == "node.join" else 0.1
    hit = ArmedFault(
        event="f",
        fault=fault,
        targets=(1, 5) if linked else (0,),
        at_s=at_s,
        for_s=0.6 if lasting else None,
    )
    protocol = {"kind": "d_psgd", "lr": 0.05}
    given = plans(
        6, "ring", protocol, DIGITS, 120, link=FAST, per_node={0: {"faults": (hit,)}}, wait_s=0.05,
        compute=ComputePlan(time_s=0.01), wait_for="live",
        checkpoint=CheckpointPlan(every_rounds=2, directory=str(tmp_path)),
    )  # fmt: skip
    recorder = Recorder()
    if way in ("mpich", "openmpi"):
        result = request.getfixturevalue(way).run(given, recorder)
    else:
        result = {"memory": simulate, "grpc": run_over_grpc}[way](given, recorder)
    states = [change.state for change in recorder.faults]
    targets = 2 if linked else 1
    if {"mpich": "mpi", "openmpi": "mpi"}.get(way, way) not in where:
        assert states == ["failed"] * targets
        return
    assert sorted(states) == ["active"] * targets + ["recovered"] * targets * lasting
    times = {change.state: change.time_s for change in recorder.faults}
    # never early; how late is up to how busy the machine is
    assert at_s <= times["active"] < 1
    assert not lasting or at_s + 0.6 <= times["recovered"] < 2
    leaves(Ended(result, recorder))
