"""Stochastic gradient push: SGD with push-sum, for directed graphs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.api import Inbox, Message, Node, Outgoing, Rounds, Vector, protocols


class Mass(Message):
    """A share of the sender's sum and of its weight, pushed since a round."""

    x: Vector
    w: float
    since: int


@dataclass(frozen=True)
class State:
    """Sum x ((d,) float32) and weight w; the model is x / w.

    ``since`` is the round in which the weights were all 1, ``absent`` are those of whom nothing is
    expected in this round.
    """

    x: torch.Tensor
    w: float = 1.0
    since: int = 0
    absent: tuple[int, ...] = ()


@protocols.register("sgp")
@dataclass(frozen=True)
class SGP(Rounds):
    """Stochastic gradient push (Assran, Loizou, Ballas & Rabbat, ICML 2019, Algorithm 1).

    SGD over push-sum (Kempe, Dobra & Gehrke, FOCS 2003). Nobody needs to know who hears whom: every
    node splits a sum x_i and a weight w_i among itself and its out-neighbours, w_i(0) = 1::

        z_i = x_i / w_i                                    the model
        x_i <- x_i - lr g_i(z_i)
        x_i <- sum_j W_ij x_j,      w_i <- sum_j W_ij w_j

    W needs columns that sum to 1 only (``mixing: column``): on a directed graph no other averaging
    ends at the plain mean. The sum of the w_i is n at every round; each is reported as ``weight``,
    for the check ``{check: conservation, of: weight}``.

    What is lost takes its share of both along, and would make each later step longer for it.
    So who misses a message begins anew in the next round, with x = z and w = 1; messages say since
    when, and whoever hears of a later beginning begins anew too. Then the weights sum to n again.
    So do both ends when a dead node comes back. Who is suspected dead is given nothing meanwhile.

    On the wire: x, and w and the beginning. Cost per round: a message of d floats an arc.
    """

    lr: float

    messages = (Mass,)
    stochastic = "column"

    def start(self, x: torch.Tensor, node: Node) -> State:
        """Weight 1."""
        return State(x)

    def model(self, state: State) -> torch.Tensor:
        """z = x / w."""
        return state.x / state.w

    def metrics(self, state: State) -> dict[str, float]:
        """The weight, whose sum is n."""
        return {"weight": state.w}

    def send(self, state: State, gradient: torch.Tensor, node: Node) -> tuple[State, Outgoing]:
        """Step, then give every out-neighbour its share; the state is what is left."""
        x, w = state.x - self.lr * gradient, state.w
        shares = {j: node.share(j) for j in node.live_neighbors}
        left = 1 - sum(shares.values())
        pushed: Outgoing = {j: Mass(p * x, p * w, state.since) for j, p in shares.items()}
        return State(left * x, left * w, state.since, tuple(node.suspected)), pushed

    def receive(self, state: State, inbox: Inbox[Mass], node: Node) -> State:
        """Add up what was pushed since the latest beginning; begin anew where some is missing."""
        absent = set(state.absent)
        latest = max([state.since, *(mass.since for mass in inbox.values())])
        if latest > state.since:
            state = self._anew(state, latest)
        x, w = state.x.clone(), state.w
        for mass in inbox.values():
            if mass.since == latest:
                x += mass.x
                w += mass.w
        state = State(x, w, latest)
        lost = set(inbox.missing) - absent
        return self._anew(state, node.round + 1) if lost else state

    def resync(self, state: State, peer: int, message: None, node: Node) -> State:
        """A death has taken a sum and a weight along: begin anew with this round."""
        return self._anew(state, node.round)

    def _anew(self, state: State, since: int) -> State:
        return State(self.model(state), 1.0, since)
