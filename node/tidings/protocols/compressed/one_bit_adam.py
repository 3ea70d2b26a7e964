"""1-bit Adam: Adam whose all-reduce carries one bit a coordinate once the variance is frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch

from tidings.api import (
    By,
    Compressed,
    Compressor,
    GraphFacts,
    Message,
    Node,
    Packed,
    Part,
    Protocol,
    Vector,
    protocols,
)
from tidings.compressors.bitpacking import FLOAT32_MAX, pack_scale, pack_uints
from tidings.protocols.all_reduce import (
    Average,
    Share,
    average,
    check_complete,
    cut,
    join,
    mean,
)


class Signs(Message):
    """The receiver's part of the sender's momentum, one bit a coordinate and the scale."""

    q: Annotated[Compressed, By("signs"), Part()]


class AverageSigns(Message):
    """The sender's part of the average momentum, one bit a coordinate and the scale."""

    q: Annotated[Compressed, By("signs"), Part()]


class Common(Message):
    """What all nodes have alike, after so many ``rounds``: for one that comes back."""

    x: Vector
    m: Vector
    v: Vector
    rounds: int


@dataclass
class State:
    """Model, moments, errors; (d,) float32 but for the server error, which is a part long."""

    #: these are the same on every node
    x: torch.Tensor
    m: torch.Tensor
    v: torch.Tensor
    error: torch.Tensor
    server_error: torch.Tensor
    #: how many rounds are in it
    rounds: int = 0
    #: whether somebody is back in this round
    back: bool = False


@protocols.register("one_bit_adam")
@dataclass(frozen=True)
class OneBitAdam(Protocol):
    """1-bit Adam (Tang et al., ICML 2021, Algorithm 1), on the complete graph.

    Every node averages gradients with all others and steps alike. For ``warm_up`` rounds this is
    Adam without bias correction; then v is frozen, and momenta are averaged by their signs::

        g = (1/n) sum_i g_i(x)                                 in the warm-up
        m <- beta1 m + (1 - beta1) g,      v <- beta2 v + (1 - beta2) g^2
        m <- 1-bit average of beta1 m + (1 - beta1) g_i(x)     afterwards, v as it is
        x <- x - lr m / (sqrt(v) + epsilon)

    Both averages are an all-reduce in two phases: node r gets the r-th of n parts of everyone's
    vector, averages and gives the part of the average to all. The one of 1 bit compresses both
    times, each time with what the last compression left out: p = u + error,
    C(p) = |p|_2 / sqrt(d) sgn(p), error = p - C(p). So nothing is lost, only late: the sum over
    rounds of the averages plus the errors is the sum of the exact averages.

    A coordinate whose v is 0 at the freeze (no gradient ever) cannot be told by a sign: it is left
    out and does not move. ``warm_up: null`` is Adam throughout.

    A share that is lost is left out of its average. An average that is lost sets its receiver apart
    from the others for good, as models are not sent. The part of a node that has died is averaged
    by nobody: its momentum fades, and it stays as it is. A node that comes back takes x, m and v of
    another one, and in that round all average theirs in full (6 n (n - 1) more messages): so all
    are alike again, bit by bit. Its errors are those of its checkpoint, or 0: once, what they held
    since is lost, and what they held then counts again.

    On the wire, L = ceil(d / n) coordinates a part: 4 L bytes a message in the warm-up, then
    ceil(L / 8) of signs and 4 of scale. Cost per round: 2 n (n - 1) such messages, about 2 d bits
    a node, 32 times fewer than in the warm-up.
    """

    lr: float
    #: rounds of Adam before the variance is frozen; None (null) for Adam throughout
    warm_up: int | None = 100
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    #: how signs travel; the scale is that of the whole vector, so packing is done here
    signs: Compressor = field(init=False, default_factory=lambda: Compressor.parse("sign"))

    messages = (Share, Average, Signs, AverageSigns, Common)
    resyncs = Common
    synchronous = True
    static_graph = True
    _dense: ClassVar = (Share, Average)

    def __post_init__(self) -> None:
        """ValueError for decay rates outside of [0, 1) and a negative warm-up."""
        super().__post_init__()
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.epsilon > 0):
            raise ValueError("beta1 and beta2 must be in [0, 1), epsilon above 0")
        if self.warm_up is not None and self.warm_up < 1:
            raise ValueError(f"warm_up must be at least 1, got {self.warm_up}")

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """Everyone must reach everyone."""
        check_complete("one_bit_adam", in_degrees)

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """Of a round after the warm-up, or of Adam where there is no end of it."""
        each = graph.nodes * (graph.nodes - 1)
        first, second = self._dense if self.warm_up is None else (Signs, AverageSigns)
        return {first: each, second: each}

    async def run(self, node: Node) -> None:
        """The rounds; all nodes do the same."""
        kept = node.restore()
        state: State = self._start(node) if kept is None else kept["state"]
        node.model = state.x
        state = await node.rejoin(state, self)
        for round_ in node.rounds():
            state = await node.welcome(state, self)
            gradient = await node.gradient(state.x)
            if self.warm_up is None or round_ < self.warm_up:
                # as below: of a part that nobody averages there is no gradient, for all alike
                gradient = await average(gradient, node, otherwise=torch.zeros_like(gradient))
                state.m = self.beta1 * state.m + (1 - self.beta1) * gradient
                state.v = self.beta2 * state.v + (1 - self.beta2) * gradient**2
            else:
                momentum = self.beta1 * state.m + (1 - self.beta1) * gradient
                state.m = await self._average_signs(momentum, state, node)
            step = state.m / (state.v.sqrt() + self.epsilon)
            state.x = state.x - self.lr * step
            if state.back:
                await self._bring_together(state, node)
            node.model = state.x
            state.rounds += 1
            await node.report()
            await node.keep(state=state)

    def _start(self, node: Node) -> State:
        x = node.initial()
        size = Part.length(len(x), node.n)
        m, v, error = (torch.zeros_like(x) for _ in range(3))
        return State(x, m, v, error, torch.zeros_like(x)[node.id * size : (node.id + 1) * size])

    def resync_with(self, state: State, peer: int, node: Node) -> Common:
        """What a node must have to go on with the others."""
        return Common(state.x, state.m, state.v, state.rounds)

    def resync(self, state: State, peer: int, message: Common, node: Node) -> State:
        """Who has been through fewer rounds takes what the other has, and keeps its errors."""
        state.back = True
        if (message.rounds, -peer) > (state.rounds, -node.id):
            state.x, state.m, state.v = message.x, message.m, message.v
            state.rounds = message.rounds
        return state

    async def _bring_together(self, state: State, node: Node) -> None:
        """Average what is to be alike: who died has told some its last average and not others."""
        for name in ("x", "m", "v"):
            node.step += 1
            setattr(state, name, await average(getattr(state, name), node))
        state.back = False

    # -- the all-reduce ----------------------------------------------------------------------

    async def _average_signs(self, u: torch.Tensor, state: State, node: Node) -> torch.Tensor:
        """The average of everyone's (d,) vector by signs; what is left out goes into the errors."""
        live = state.v > 0
        p = torch.where(live, u + state.error, 0.0)
        packed = self._pack(p, live, node.n)
        parts = [self.signs.unpack(part, Part.length(len(u), node.n)) for part in packed]
        state.error = p - torch.where(live, join(parts, len(u)), 0.0)
        await node.send_all({r: Signs(Compressed(packed[r], parts[r])) for r in node.neighbors})
        signs = await node.gather(Signs)
        rows = {r: message.q.dense for r, message in signs.items()} | {node.id: parts[node.id]}

        size = Part.length(len(u), node.n)
        own = live[node.id * size : (node.id + 1) * size]
        c = torch.where(own, mean(rows)[: len(own)] + state.server_error, 0.0)
        mine = self._pack(c, own, 1, size)[0]
        dense = self.signs.unpack(mine, size)
        state.server_error = c - torch.where(own, dense[: len(own)], 0.0)
        await node.send_all(node.to_neighbors(AverageSigns(Compressed(mine, dense))))
        averages = await node.gather(AverageSigns, within_s=2 * node.wait_s)
        found = {r: message.q.dense for r, message in averages.items()} | {node.id: dense}
        # of a part that nobody gives an average of: no gradient, so that its momentum fades
        silent = cut(self.beta1 * state.m, node.n)
        joined = join([found.get(r, silent[r]) for r in range(node.n)], len(u))
        return torch.where(live, joined, 0.0)

    def _pack(
        self, p: torch.Tensor, live: torch.Tensor, parts: int, size: int | None = None
    ) -> list[Packed]:
        """Signs of every part of ``p``, all with the scale |p|_2 / sqrt(live coordinates)."""
        count = int(live.sum())
        scale = float(torch.linalg.vector_norm(p.double())) / math.sqrt(count) if count else 0.0
        if not scale <= FLOAT32_MAX:
            raise ValueError(f"one_bit_adam: momenta of norm {scale}; has the run diverged?")
        return [
            Packed(pack_uints((part < 0).numpy(), 1), pack_scale(scale))
            for part in cut(p, parts, size)
        ]
