"""What one node is told: its own share of the experiment and nothing of anyone else's."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tidings.api.graph import GraphFacts
from tidings.api.node import WaitFor
from tidings.links.shape import LinkShape, NicShape

TransportKind = Literal["memory", "grpc", "mpi"]


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Phase(_Plan):
    """This node's place in one phase of a (possibly time-varying) graph."""

    out_neighbors: tuple[int, ...]
    #: in-neighbours with the weight given to each; what is missing to 1 is the node's own
    weights: dict[int, float]
    self_weight: float
    #: out-neighbours with the weight that each of them gives to this node
    shares: dict[int, float] = {}


class Rewired(_Plan):
    """This node's place in a graph that a fault puts in the place of the run's own."""

    phases: tuple[Phase, ...]
    #: rounds after which the next phase begins
    phase_rounds: int = 1


class ComputePlan(_Plan):
    """How long a gradient takes in emulated time."""

    #: None: as long as it really takes (in virtual time: ``simulated_s``)
    time_s: float | None = None
    simulated_s: float = 0.002
    #: this node's slowdown
    factor: float = 1.0
    #: standard deviation of the logarithm of a random factor
    spread: float = 0.0

    def cost_s(self, gradients: float, native: bool, rng: np.random.Generator) -> float | None:
        """Emulated seconds of that many gradients; None for as long as it takes (if ``native``)."""
        time_s = self.time_s
        if time_s is None:
            if native:
                return None
            time_s = self.simulated_s
        luck = math.exp(self.spread * rng.standard_normal()) if self.spread else 1.0
        return time_s * self.factor * luck * gradients


class AttackPlan(_Plan):
    """Only attackers have one; they know each other."""

    config: dict[str, Any]
    attackers: tuple[int, ...]


class HeartbeatPlan(_Plan):
    """How neighbours know that a node is there while it has nothing to say."""

    #: emulated seconds between two signs of life on a link
    every_s: float = Field(gt=0)
    #: emulated seconds of silence after which a neighbour is suspected
    suspect_after_s: float = Field(gt=0)


class CheckpointPlan(_Plan):
    """When a node writes down what it would need to go on, and where."""

    every_rounds: int | None = None
    every_s: float | None = None
    #: how many of the last ones stay
    keep: int = Field(default=4, ge=1)
    #: the nodes' folders are in it; empty in a simulation that leaves nothing behind
    directory: str = ""


class ArmedFault(_Plan):
    """A fault that a node brings upon itself: at a time, in a round of its own, or on command."""

    event: str
    #: which of the event's repetitions
    occurrence: int = 0
    #: ``{kind: NAME, ...}``; what is brought about from outside only makes the node wait for it
    fault: dict[str, Any]
    #: the peers whose links are hit; of faults of nodes, all nodes that are hit
    targets: tuple[int, ...] = ()
    #: when it begins: emulated seconds, or the node's own round; neither: now
    at_s: float | None = None
    at_round: int | None = None
    #: when it ends; neither: with the run
    for_s: float | None = None
    for_rounds: int | None = None


class Turn(_Plan):
    """One point at which a node's protocol goes on, see tidings.runtime.turns."""

    #: the method that returns, or what has come from outside
    what: str
    #: which of the protocol's calls it is that goes on; None: from outside
    call: int | None = None
    #: what the node's clock shows
    now_ns: int
    #: of a gather: the type that was wanted, and where it belongs
    kind: str = ""
    round: int = 0
    step: int = 0
    #: of a gather all that were there; else one, or none at the deadline
    sources: tuple[int, ...] = ()
    #: of the frame that was taken, where that was one
    digest: str = ""
    #: of an exchange, and of a suspicion: with whom
    peer: int = -1
    id: int = 0
    outcome: str = ""


class NodePlan(_Plan):
    """Everything a node needs to take its part."""

    run: str
    seed: int
    node: int
    nodes: int
    role: str = "peer"
    protocol: dict[str, Any]
    problem: dict[str, Any]
    phases: tuple[Phase, ...]
    #: rounds after which the next phase begins
    phase_rounds: int = 1
    #: by event, the graphs that faults put in the place of this one
    graphs: dict[str, Rewired] = {}
    graph: GraphFacts
    #: outgoing links, those of all graphs
    links: dict[int, LinkShape]
    nic: NicShape = NicShape()
    #: what carries messages between nodes
    transport: TransportKind = "grpc"
    #: who imposes rates and delays: the node's own pacer, or the kernel
    enforce: Literal["user", "kernel"] = "user"
    attack: AttackPlan | None = None
    #: what the node is to bring upon itself
    faults: tuple[ArmedFault, ...] = ()
    #: "all", "live" or a number
    wait_for: WaitFor = "all"
    wait_s: float = 30.0
    #: rounds (or local steps) after which the node is finished; None: until it is told
    stop_rounds: int | None = None
    evaluate_rounds: int | None = None
    evaluate_s: float | None = None
    compute: ComputePlan = ComputePlan()
    #: wall seconds per emulated second
    time_scale: float = 1.0
    #: messages of one type from one sender that wait before further ones are dropped
    mailbox_messages: int = Field(default=256, ge=1)
    chunk_bytes: int = 1 << 20
    #: whether every received frame is written to the event log
    trace: bool = False
    #: whether it is written to the event log in which order the node goes on
    order: bool = False
    #: that order, in a run that is replayed, where nothing depends on time
    script: tuple[Turn, ...] | None = None
    #: spans of what it does when; 0 for none
    timeline: int = 0
    #: wall seconds between two reports to the coordinator
    heartbeat_s: float = 0.5
    #: rounds that it reports at once when it comes to them: something waits for them there
    report_rounds: tuple[int, ...] = ()
    #: wall seconds for which it goes on without a coordinator
    grace_s: float = 0.0
    #: between neighbours; None: they are silent unless they have something to say
    heartbeat: HeartbeatPlan | None = None
    #: whether the node serves Prometheus metrics, and how long it stays for a last scrape
    metrics: bool = False
    #: where they are served; empty: where the node listens
    metrics_host: str = "127.0.0.1"
    linger_s: float = 0.0
    checkpoint: CheckpointPlan | None = None
    #: how often the node was started before; what it sends says so, see docs/restart.md
    incarnation: int = Field(default=0, ge=0)
    #: where it goes on: after a round, after the last one of which there is a sound checkpoint, or
    #: (None) from the beginning
    restore: int | Literal["last"] | None = None
    #: whether all nodes go on together, so that nobody has to be found again
    resumed: bool = False

    @property
    def link_seed(self) -> int:
        """Where the fates of its messages come from: other ones after each restart.

        How many messages a killed process had sent nobody knows, so its links cannot go on where
        they were; counted from zero with a seed of its own they are the same on every transport.
        """
        return self.seed + (self.incarnation << 64)

    @property
    def paced_links(self) -> dict[int, LinkShape]:
        """What of the links is left to the node's own pacer; losses always are."""
        if self.enforce == "user":
            return self.links
        ideal = LinkShape()
        return {
            target: replace(ideal, loss=shape.loss, queue_bytes=shape.queue_bytes)
            for target, shape in self.links.items()
        }

    @property
    def paced_nic(self) -> NicShape:
        """What of the network card is left to the node's own pacer."""
        return self.nic if self.enforce == "user" else NicShape()

    @property
    def neighbors(self) -> tuple[int, ...]:
        """Everyone this node sends to or hears in any phase of any graph."""
        return tuple(sorted({*self.in_neighbors, *self.links}))

    @property
    def in_neighbors(self) -> tuple[int, ...]:
        """Everyone this node hears in any phase of any graph."""
        others = (phase for graph in self.graphs.values() for phase in graph.phases)
        return tuple(sorted({j for phase in (*self.phases, *others) for j in phase.weights}))


def derive_rng(seed: int, *names: object) -> np.random.Generator:
    """A random stream for (run seed, names...): the same everywhere, independent of all others."""
    text = ":".join([str(seed), *map(str, names)])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
