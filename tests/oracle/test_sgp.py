"""Stochastic gradient push against its matrix form, its invariant, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans
from support.recording import Recorder, history, models, refused

from tidings.api import Inbox, Node
from tidings.links.shape import LinkShape
from tidings.protocols.decentralized.sgp import SGP, Mass, State
from tidings.runtime.plan import CheckpointPlan
from tidings.runtime.simulation import Restart, simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls()
NODES = 5
#: strongly connected, neither the in- nor the out-degrees alike
ARCS = ("0->1", "1->2", "2->3", "3->4", "4->0", "0->2", "0->3", "1->4", "3->1")


@dataclass(frozen=True)
class Traced(SGP):
    """Writes down model and weight after every round."""

    def receive(self, state: State, inbox: Inbox[Mass], node: Node) -> State:
        state = super().receive(state, inbox, node)
        node.log("z", x=self.model(state).tolist())
        node.log("w", x=[state.w])
        return state


def directed(mixing: str = "column") -> dict[str, Any]:
    return {"kind": "custom", "edges": list(ARCS), "mixing": mixing}


def column() -> Matrix:
    """Everyone splits what it has equally."""
    heard = np.eye(NODES)
    for arc in ARCS:
        source, target = map(int, arc.split("->"))
        heard[target, source] = 1
    shares: Matrix = heard / heard.sum(axis=0)
    return shares


def matrix_form(w: Matrix, lr: float, rounds: int) -> tuple[Matrix, Matrix]:
    x, weight = np.zeros((len(w), BOWLS.dim)), np.ones((len(w), 1))
    models, weights = [], []
    for _ in range(rounds):
        x = w @ (x - lr * BOWLS.gradients(x / weight))
        weight = w @ weight
        models.append(x / weight)
        weights.append(weight)
    return np.array(models), np.array(weights)


def test_every_round() -> None:
    recorder = Recorder()
    simulate(plans(NODES, directed(), Traced(0.05), BOWLS, 40, link=IDEAL), recorder)
    models, weights = matrix_form(column(), 0.05, 40)
    np.testing.assert_allclose(history(recorder, "z", NODES), models, rtol=1e-4, atol=1e-5)
    found = history(recorder, "w", NODES)
    np.testing.assert_allclose(found, weights, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), NODES, rtol=1e-12)
    # else it would be plain averaging
    assert found[-1].max() / found[-1].min() > 1.5


def test_it_ends_at_the_optimum_of_all_where_other_averaging_is_biased() -> None:
    """Small steps: sgp's fixed point is that of the plain mean, D-PSGD's one of a weighted mean."""
    ends: dict[str, Matrix] = {}
    for kind, mixing in (("sgp", "column"), ("d_psgd", "uniform")):
        protocol = {"kind": kind, "lr": 0.006}
        made = plans(NODES, directed(mixing), protocol, BOWLS, 600, link=IDEAL)
        ends[kind] = models(simulate(made)).mean(axis=0)
    optimum = BOWLS.optimum(NODES)
    off = {kind: float(np.linalg.norm(end - optimum)) for kind, end in ends.items()}
    assert off["sgp"] < 0.02
    assert off["d_psgd"] > 10 * off["sgp"]


# -- losses and deaths -----------------------------------------------------------------------------

VICTIM = 1


def total(recorder: Recorder, nodes: int = NODES) -> float:
    """The sum of the weights at the end, of those that have any."""
    ends = [recorder.series("weight", node) for node in range(nodes)]
    return sum(end[-1] for end in ends if end)


def test_lost_messages_neither_end_the_weights_nor_move_the_end() -> None:
    recorder = Recorder()
    lossy = LinkShape(rate_bit_per_s=1e9, loss=0.01)
    made = plans(NODES, directed(), SGP(0.005), BOWLS, 600, wait_s=0.05, link=lossy)
    found = simulate(made, recorder)
    assert refused(found)["missing"] > 50
    assert total(recorder) > 0.5 * NODES
    off = models(found).mean(axis=0) - BOWLS.optimum(NODES)
    assert np.linalg.norm(off) < 0.1


def test_a_neighbour_thought_dead_is_given_nothing() -> None:
    recorder = Recorder()
    made = plans(NODES, "complete", SGP(0.01), BOWLS, 300, wait_for="live", wait_s=0.05, link=IDEAL)
    found = simulate(made, recorder, crash_before_send={VICTIM: 101})
    living = [node for node in range(NODES) if node != VICTIM]
    ends = [recorder.series("weight", node)[-1] for node in living]
    assert sum(ends) == pytest.approx(NODES - 1)
    assert all(torch.isfinite(found.nodes[node].model).all() for node in living)


@pytest.mark.parametrize("lose_state", [False, True])
def test_the_weights_sum_to_n_again_when_a_dead_node_is_back(lose_state: bool) -> None:
    recorder = Recorder()
    checkpoint = CheckpointPlan(every_rounds=5)
    made = plans(
        NODES, "ring", SGP(0.02), BOWLS, 100, wait_s=0.2, link=IDEAL, checkpoint=checkpoint
    )
    simulate(
        made,
        recorder,
        crash_before_send={VICTIM: 121},
        restarts={VICTIM: Restart(0.4, lose_state)},
    )
    assert recorder.named("rejoined")
    assert total(recorder) == pytest.approx(NODES, rel=1e-9)
