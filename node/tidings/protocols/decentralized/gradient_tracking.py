"""Gradient tracking (DIGing)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.api import Inbox, Message, Node, Outgoing, Rounds, Vector, protocols


class Tracked(Message):
    """A model and the sender's estimate of the average gradient, tracked since a round."""

    x: Vector
    y: Vector
    since: int


@dataclass(frozen=True)
class State:
    """Model, tracker, and the gradient at the model of the round before: each (d,) float32.

    ``since`` is the round in which the tracker began.
    """

    x: torch.Tensor
    y: torch.Tensor
    gradient: torch.Tensor
    since: int = 0


@protocols.register("gradient_tracking")
@dataclass(frozen=True)
class GradientTracking(Rounds):
    """DIGing (Nedic, Olshevsky & Shi, SIAM J. Optim. 2017, Algorithm 1).

    Every node tracks the average gradient beside the model::

        x_i(t+1) = sum_j W_ij x_j(t) - lr y_i(t)
        y_i(t+1) = sum_j W_ij y_j(t) + g_i(x_i(t+1)) - g_i(x_i(t)),      y_i(0) = g_i(x_i(0))

    With full gradients it converges linearly to the exact optimum, however different the nodes'
    data; the mean of the y_i equals the mean of the gradients at every round. A lost y breaks that
    equality for good; so does a crash, whose tracker is lost. When the node is back in round t, it
    and its neighbours begin new trackers, y_i(t) = g_i(x_i(t)), and each message says since when
    its y is tracked: whoever hears of a later beginning begins anew, and until then trackers of
    different beginnings are not mixed. So the sums are equal again over all that have begun anew
    (where the weights are symmetric), and the limit is the exact optimum as before.

    On the wire: x and y. Cost per round and node: deg(i) messages of 2 d floats.
    """

    lr: float

    messages = (Tracked,)
    stochastic = "doubly"

    def start(self, x: torch.Tensor, node: Node) -> State:
        """Tracker and last gradient start at zero, so that y(0) = g(x(0))."""
        return State(x, torch.zeros_like(x), torch.zeros_like(x))

    def send(self, state: State, gradient: torch.Tensor, node: Node) -> tuple[State, Outgoing]:
        """Bring the tracker up to date with the gradient at the new model."""
        y = state.y + gradient - state.gradient
        sent = State(state.x, y, gradient, state.since)
        return sent, node.to_neighbors(Tracked(state.x, y, state.since))

    def receive(self, state: State, inbox: Inbox[Tracked], node: Node) -> State:
        """Average both, step along the tracker; begin a new one where others have."""
        x = node.mix(state.x, inbox, "x") - self.lr * state.y
        latest = max([state.since, *(message.since for message in inbox.values())])
        if latest > state.since:
            return self._anew(x, latest)
        peers = Inbox({j: m for j, m in inbox.items() if m.since == state.since})
        return State(x, node.mix(state.y, peers, "y"), state.gradient, state.since)

    def resync(self, state: State, peer: int, message: None, node: Node) -> State:
        """A crash has cost a tracker: begin a new one with this round."""
        return self._anew(state.x, node.round)

    def _anew(self, x: torch.Tensor, since: int) -> State:
        return State(x, torch.zeros_like(x), torch.zeros_like(x), since)
