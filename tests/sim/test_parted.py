"""Nodes that lost each other, or were away, find back into step; in virtual time, many seeds."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from support.plans import plans
from support.recording import Recorder

from tidings.api import Compressor, Node, Outgoing
from tidings.links.shape import LinkShape
from tidings.protocols.compressed.choco_sgd import ChocoSGD, State
from tidings.runtime.plan import ArmedFault, ComputePlan, HeartbeatPlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = [pytest.mark.sim, pytest.mark.timeout(120)]

NODES, LEFT = 6, (0, 1, 2)
LINK = LinkShape(rate_bit_per_s=20e6, delay_ns=2_000_000)
BEAT = HeartbeatPlan(every_s=0.02, suspect_after_s=0.1)
CHOCO = {"kind": "choco_sgd", "lr": 0.05, "compressor": {"kind": "top_k", "ratio": "20%"}}
PROTOCOLS: list[dict[str, Any]] = [
    {"kind": "d_psgd", "lr": 0.05},
    {"kind": "gradient_tracking", "lr": 0.02},
    {"kind": "sgp", "lr": 0.02},
    CHOCO,
]
START_S, HEAL_S, END_S = 0.3, 1.2, 2.0


def halves(node: int) -> tuple[ArmedFault, ...]:
    """What a node does to its links across the ring 0 1 2 | 3 4 5 |."""
    across = [j for j in ((node + 1) % NODES, (node - 1) % NODES) if (j in LEFT) != (node in LEFT)]
    cut = {"kind": "link.cut"}
    for_s = HEAL_S - START_S
    return tuple(
        ArmedFault(event=f"to {j}", fault=cut, targets=(j,), at_s=START_S, for_s=for_s)
        for j in across
    )


def parted(protocol: Any, seed: int, **fields: Any) -> tuple[Simulated, Recorder]:
    """A run in which the right half is slower by a third and both lose each other for a while."""
    slow = ComputePlan(time_s=0.015)
    per_node = {
        node: {"faults": halves(node), **({} if node in LEFT else {"compute": slow})}
        for node in range(NODES)
    }
    made = plans(
        NODES,
        "ring",
        protocol,
        rounds=None,
        link=LINK,
        seed=seed,
        wait_for="live",
        wait_s=5.0,
        heartbeat=BEAT,
        compute=ComputePlan(time_s=0.01),
        evaluate_rounds=10,
        per_node=per_node,
        **fields,
    )
    recorder = Recorder()
    return simulate(made, recorder, stop_s=END_S, tie_seed=seed), recorder


def spread(result: Simulated) -> int:
    rounds = [node.round for node in result.nodes]
    return max(rounds) - min(rounds)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p["kind"])
@pytest.mark.parametrize("seed", range(8))
def test_halves_find_back_into_step(protocol: dict[str, Any], seed: int) -> None:
    result, recorder = parted(protocol, seed)
    # the slower half leaves out what is over: every node of it, and no other
    back = recorder.named("rejoined")
    assert {event["node"] for event in back} == set(range(NODES)) - set(LEFT)
    assert all(HEAL_S <= event["time_s"] <= HEAL_S + 0.2 for event in back)
    assert all(event["round"] - event["was"] > 10 for event in back)
    assert spread(result) <= NODES // 2
    # from then on nobody is done without
    assert not [e for e in recorder.named("suspected") if e["time_s"] > HEAL_S + 0.1]
    # rows of the rounds that were left out are there, for means over nodes
    for node in range(NODES):
        rounds = [row.round for row in recorder.rows if row.node == node and not row.final]
        assert rounds == list(range(0, max(rounds) + 1, 10))


class Watched(ChocoSGD):
    """CHOCO-SGD that writes down, at the start of every round, what it knows of whom."""

    #: (round, owner, holder) -> a public copy, or the replica of it that the holder has
    copies: ClassVar[dict[tuple[int, int, int], torch.Tensor]] = {}

    def send(self, state: State, gradient: torch.Tensor, node: Node) -> tuple[State, Outgoing]:
        for owner, copy in {node.id: state.public, **state.replicas}.items():
            self.copies[node.round, owner, node.id] = copy.clone()
        return super().send(state, gradient, node)


def test_replicas_across_the_cut_are_their_originals_again() -> None:
    Watched.copies = {}
    watched = Watched(0.05, compressor=Compressor.parse(CHOCO["compressor"]))
    _, recorder = parted(watched, 1)
    first = max(event["round"] for event in recorder.named("rejoined"))
    checked = [key for key in Watched.copies if key[0] >= first and key[1] != key[2]]
    assert {(owner, holder) for _, owner, holder in checked} >= {(2, 3), (3, 2), (0, 5), (5, 0)}
    for round_, owner, holder in checked:
        if (round_, owner, owner) in Watched.copies:
            original = Watched.copies[round_, owner, owner]
            assert torch.equal(Watched.copies[round_, owner, holder], original)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p["kind"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wait_for", ["live", "all"])
def test_a_node_that_was_away_goes_on_where_the_others_are(
    protocol: dict[str, Any], seed: int, wait_for: str
) -> None:
    leave = ArmedFault(event="away", fault={"kind": "node.leave"}, at_s=0.2, for_s=0.6)
    made = plans(
        4,
        "ring",
        protocol,
        rounds=120,
        link=LINK,
        seed=seed,
        wait_for=wait_for,
        wait_s=0.05,
        compute=ComputePlan(time_s=0.01),
        per_node={2: {"faults": (leave,)}},
    )
    recorder = Recorder()
    result = simulate(made, recorder, tie_seed=seed)
    (back,) = recorder.named("rejoined")
    assert back["node"] == 2
    assert back["agrees_with"] == [1, 3]
    assert back["round"] > back["was"] + 5
    assert 0.8 <= back["time_s"] <= 0.9
    assert [node.ledger.completed for node in result.nodes] == [120] * 4
    # in step to the end: nobody ends much later than the others
    assert result.time_s < 3.0


def test_who_is_back_after_the_last_round_takes_part_in_the_last() -> None:
    leave = ArmedFault(event="away", fault={"kind": "node.leave"}, at_s=0.1, for_s=3.0)
    made = plans(
        4,
        "ring",
        PROTOCOLS[0],
        rounds=20,
        link=LINK,
        wait_for="live",
        wait_s=0.05,
        compute=ComputePlan(time_s=0.01),
        per_node={2: {"faults": (leave,)}},
    )
    recorder = Recorder()
    result = simulate(made, recorder)
    assert [node.ledger.completed for node in result.nodes] == [20] * 4
    assert recorder.named("rejoined", 2)
    assert result.time_s < 3.5
