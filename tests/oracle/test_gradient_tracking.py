"""Gradient tracking (DIGing) against its matrix form, its invariant and its exactness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support.bowls import Bowls, Matrix, line, ring
from support.plans import IDEAL, plans
from support.recording import Recorder, history, models

from tidings.api import Inbox, Node
from tidings.links.shape import LinkShape
from tidings.protocols.decentralized.gradient_tracking import GradientTracking, State, Tracked
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls()


@dataclass(frozen=True)
class Traced(GradientTracking):
    """Writes down model, tracker and gradient of every round before they are mixed."""

    def receive(self, state: State, inbox: Inbox[Tracked], node: Node) -> State:
        for name in ("x", "y", "gradient"):
            node.log(name, x=getattr(state, name).tolist())
        return super().receive(state, inbox, node)


def run(topology: str, nodes: int, lr: float, rounds: int) -> Recorder:
    recorder = Recorder()
    simulate(plans(nodes, topology, Traced(lr), BOWLS, rounds, link=IDEAL), recorder)
    return recorder


def matrix_form(w: Matrix, lr: float, rounds: int) -> tuple[Matrix, Matrix]:
    x = np.zeros((len(w), BOWLS.dim))
    gradient = BOWLS.gradients(x)
    y = gradient
    xs, ys = [x], [y]
    for _ in range(rounds - 1):
        x = w @ x - lr * y
        y, gradient = w @ y + BOWLS.gradients(x) - gradient, BOWLS.gradients(x)
        xs.append(x)
        ys.append(y)
    return np.array(xs), np.array(ys)


@pytest.mark.parametrize(("topology", "w"), [("ring", ring(8)), ("line", line(5))])
def test_every_round(topology: str, w: Matrix) -> None:
    recorder = run(topology, len(w), 0.02, 60)
    xs, ys = matrix_form(w, 0.02, 60)
    np.testing.assert_allclose(history(recorder, "x", len(w)), xs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history(recorder, "y", len(w)), ys, rtol=1e-4, atol=1e-4)


def test_the_mean_tracker_is_the_mean_gradient_at_every_round() -> None:
    recorder = run("ring", 8, 0.02, 100)
    y, gradient = history(recorder, "y", 8), history(recorder, "gradient", 8)
    np.testing.assert_allclose(y.mean(axis=1), gradient.mean(axis=1), atol=1e-5)
    assert np.abs(gradient.mean(axis=1)[0]).max() > 0.1


def error(protocol: dict[str, object], rounds: int) -> float:
    """Largest squared distance of a node from the optimum."""
    got = models(simulate(plans(8, "ring", protocol, BOWLS, rounds, link=IDEAL)))
    return float(((got - BOWLS.optimum(8)) ** 2).sum(axis=1).max())


def test_it_converges_linearly_to_the_optimum_where_d_psgd_stalls() -> None:
    errors = [error({"kind": "gradient_tracking", "lr": 0.02}, k) for k in (25, 50, 75)]
    first, second = errors[1] / errors[0], errors[2] / errors[1]
    assert first < 0.2
    assert second == pytest.approx(first, rel=0.5)  # the same factor again: linear
    stalled = [error({"kind": "d_psgd", "lr": 0.02}, k) for k in (300, 350)]
    assert stalled[1] == pytest.approx(stalled[0], rel=1e-3)
    assert stalled[1] > 100 * errors[2]


def test_a_lost_message_breaks_the_invariant_for_good() -> None:
    """As documented, and the reason why it needs a network that loses nothing."""
    recorder = Recorder()
    lossy = LinkShape(loss=0.02)
    made = plans(8, "ring", Traced(0.02), BOWLS, 60, link=lossy, wait_s=0.01)
    simulate(made, recorder)
    y, gradient = history(recorder, "y", 8), history(recorder, "gradient", 8)
    apart = np.abs(y.mean(axis=1) - gradient.mean(axis=1)).max(axis=1)
    lost = int(np.argmax(apart > 1e-3))
    assert 0 < lost < 50
    assert (apart[lost:] > 1e-4).all()
