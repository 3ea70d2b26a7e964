"""CO2: local steps while the all-reduce of the last ones is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tidings.api import GraphFacts, Message, Node, Protocol, Vector, protocols
from tidings.protocols.all_reduce import Average, Share, average, check_complete


class Common(Message):
    """What all nodes have alike, after so many ``rounds``: for one that comes back."""

    x: Vector
    before: Vector
    m: Vector
    rounds: int


@dataclass
class State:
    """Each vector (d,) float32; all but ``y`` is the same on every node."""

    #: x_{t,0}, where this round begins
    x: torch.Tensor
    #: x_{t-1,0}, where the last one began
    before: torch.Tensor
    #: x^i_{t-1,K}, where this node's local steps of the last round ended
    y: torch.Tensor
    #: the outer momentum
    m: torch.Tensor
    #: how many rounds are in it
    rounds: int = 0


@protocols.register("co2")
@dataclass(frozen=True, kw_only=True)
class CO2(Protocol):
    """CO2 (Sun et al., ICLR 2024, Algorithm 1), on the complete graph.

    In round t every node makes K = ``local_steps`` of SGD while the ends of the last round's are
    averaged by an all-reduce, which has so much time to hide in. Then the outer step is taken with
    that average, one round stale::

        x^i_{t,K}   by   y <- y - lr g_i(y)   K times from x_{t,0},   and meanwhile
        xbar_{t-1} = mean_i x^i_{t-1,K}
        m_t        = clip(outer_momentum m_{t-1} + (x_{t-1,0} - xbar_{t-1}) / Lambda_t)
        x_{t+1,0}  = x_{t,0} - outer_lr m_t

    ``clip`` bounds every coordinate of m (outer momentum clipping; None, null: no bound). Lambda_t,
    ``penalty``, is the staleness gap penalty: a number, or ``gap`` for how far the model has gone
    since the average's local steps began, in units of what they did::

        Lambda_t = 1 + |x_{t,0} - x_{t-1,0}| / |xbar_{t-1} - x_{t-1,0}|

    which every node can tell from what it has. With ``overlap: false`` a round waits for its own
    average and takes that: SlowMo (Wang et al., ICLR 2020) with a penalty of 1, and Local SGD where
    besides outer_momentum is 0 and outer_lr 1.

    A round lasts as long as the longer of local steps and all-reduce, not their sum. A share that
    does not come is left out of the average; an average that does not come is taken to be where
    the local steps began, so that its part goes on by momentum only. A node that comes back takes
    what the others have, as if it had made no local steps in the last round.

    On the wire: parts of L = ceil(d / n) floats. Cost per round: 2 n (n - 1) such messages.
    """

    lr: float
    local_steps: int = 12
    outer_lr: float = 1.0
    outer_momentum: float = 0.2
    penalty: float | Literal["gap"] = "gap"
    clip: float | None = None
    overlap: bool = True

    messages = (Share, Average, Common)
    resyncs = Common
    synchronous = True
    static_graph = True

    def __post_init__(self) -> None:
        """ValueError for counts and factors that make no sense."""
        super().__post_init__()
        if self.local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, got {self.local_steps}")
        if not 0 <= self.outer_momentum < 1:
            raise ValueError(f"outer_momentum must be in [0, 1), got {self.outer_momentum:g}")
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr must be above zero, got {self.outer_lr:g}")
        if self.penalty != "gap" and not self.penalty >= 1:
            raise ValueError(f"penalty must be gap or at least 1, got {self.penalty:g}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be above zero, got {self.clip:g}")

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """Everyone must reach everyone."""
        check_complete("co2", in_degrees)

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """One all-reduce."""
        each = graph.nodes * (graph.nodes - 1)
        return {Share: each, Average: each}

    async def run(self, node: Node) -> None:
        """The rounds; all nodes end each at the same point."""
        kept = node.restore()
        x = node.initial()
        state = State(x, x, x, torch.zeros_like(x)) if kept is None else kept["state"]
        state = await node.rejoin(state, self)
        for _ in node.rounds():
            state = await node.welcome(state, self)
            y, mean = await (
                self._beside(state, node) if self.overlap else self._after(state, node)
            )
            node.model = self._outer_step(state, y, mean)
            await node.report()
            await node.keep(state=state)

    def resync_with(self, state: State, peer: int, node: Node) -> Common:
        """What a node must have to go on with the others."""
        return Common(state.x, state.before, state.m, state.rounds)

    def resync(self, state: State, peer: int, message: Common, node: Node) -> State:
        """Who has been through fewer rounds takes what the other has."""
        if (message.rounds, -peer) <= (state.rounds, -node.id):
            return state
        return State(message.x, message.before, message.before, message.m, message.rounds)

    async def _beside(self, state: State, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
        """The local steps, and the average of the last round's, which comes meanwhile."""
        if node.round == 0:
            return await self._train(state.x, node), state.x
        async with node.tasks() as tasks:
            averaging = tasks.start(average(state.y, node, otherwise=state.before))
            return await self._train(state.x, node), await averaging

    async def _after(self, state: State, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
        """The local steps, and then their average."""
        y = await self._train(state.x, node)
        state.before = state.x
        return y, await average(y, node, otherwise=state.x)

    async def _train(self, x: torch.Tensor, node: Node) -> torch.Tensor:
        for _ in range(self.local_steps):
            x = x - self.lr * await node.gradient(x)
        return x

    def _outer_step(self, state: State, y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Brings the state into the next round; returns where it begins."""
        change = state.before - mean
        m = self.outer_momentum * state.m + change / self._penalty(state, change)
        state.m = m if self.clip is None else m.clamp(-self.clip, self.clip)
        state.before, state.y = state.x, y
        state.x = state.x - self.outer_lr * state.m
        state.rounds += 1
        return state.x

    def _penalty(self, state: State, change: torch.Tensor) -> float:
        """Lambda_t."""
        if self.penalty != "gap":
            return float(self.penalty)
        norm = float(change.double().norm())
        return 1 + float((state.x - state.before).double().norm()) / norm if norm > 0 else 1.0
