"""Faults that begin and end with a round strike the same messages on every transport.

Where nothing is lost the models are the same bit for bit too. Where a message is missing its
receiver waits for a deadline, and whether its neighbours then wait long enough for it is a race.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.grpc_cluster import run_over_grpc
from support.plans import plans
from support.recording import Recorder, models

from tidings.links.shape import LinkShape
from tidings.runtime.plan import ArmedFault, NodePlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.conformance

Run = Callable[[Sequence[NodePlan], Recorder], Simulated]

FAST = LinkShape(rate_bit_per_s=200e6, delay_ns=1_000_000)
DIGITS: dict[str, Any] = {"kind": "digits", "partition": "iid", "hidden": 16}

#: (fault, whether it hits links: those of nodes 0 and 3 to all their neighbours)
FAULTS: list[tuple[dict[str, Any], bool]] = [
    ({"kind": "net.partition", "groups": [[0]]}, True),
    ({"kind": "link.cut", "mode": "reject"}, True),
    ({"kind": "link.loss", "p": 0.5}, True),
    ({"kind": "link.duplicate", "p": 0.5}, True),
    ({"kind": "link.corrupt", "p": 0.5, "bits": 3}, True),
    ({"kind": "link.shape", "delay": "5ms", "jitter": "2ms"}, True),
    ({"kind": "link.scale"}, True),
    ({"kind": "msg.drop", "message": "Weights", "round": 4}, True),
    ({"kind": "msg.truncate", "p": 0.5}, True),
    ({"kind": "msg.replay"}, True),
    ({"kind": "node.slow", "factor": 3.0}, False),
    ({"kind": "node.clock", "offset": "2s", "drift_ppm": 1000.0}, False),
    ({"kind": "data.label_noise", "fraction": "30%"}, False),
    ({"kind": "data.shift"}, False),
    ({"kind": "byz.sign_flip"}, False),
]


@pytest.fixture(params=["grpc", "mpich", "openmpi"])
def real(request: pytest.FixtureRequest) -> Run:
    """A way to run plans over a real transport."""
    if request.param in ("mpich", "openmpi"):
        return request.getfixturevalue(request.param).run
    return run_over_grpc


def armed(fault: dict[str, Any], linked: bool, node: int, ring: int) -> tuple[ArmedFault, ...]:
    """What nodes 0 and 3 of a ring bring upon themselves in rounds 2 to 5."""
    targets = ((node - 1) % ring, (node + 1) % ring) if linked else (0, 3)
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
    given = plans(6, "ring", protocol, DIGITS, 8, link=FAST, per_node=hit, wait_s=0.3)
    expected, found = simulate(given, Recorder()), real(given, Recorder())
    if fault["kind"] not in LOSSY:
        assert (models(found) == models(expected)).all()
    for mine, theirs in zip(found.finals, expected.finals, strict=True):
        for one, other in zip(mine.links, theirs.links, strict=True):
            assert (one.messages, one.bytes) == (other.messages, other.bytes)
            assert dict(one.faulted) == dict(other.faulted)
            assert one.duplicated == other.duplicated
    # and it has an effect at all, but for what only takes time
    clean = simulate(plans(6, "ring", protocol, DIGITS, 8, link=FAST, wait_s=0.3), Recorder())
    changed = (models(clean) != models(expected)).any()
    assert changed == (fault["kind"] not in TIMELY)


#: faults by which messages are missing
LOSSY = ("net.partition", "link.cut", "link.loss", "link.corrupt", "msg.drop", "msg.truncate")
#: faults that change when things happen, and not what
TIMELY = ("link.shape", "link.scale", "link.duplicate", "msg.replay", "node.slow", "node.clock")
