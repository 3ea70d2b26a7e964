"""The parts that a plan names, built on the machine where the node runs."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.api.problems import LocalProblem, Problem
from tidings.api.protocol import Protocol
from tidings.runtime.plan import NodePlan
from tidings.wire.codec import Codec


@dataclass(frozen=True)
class Parts:
    """What a plan names, built."""

    protocol: Protocol
    problem: LocalProblem
    codec: Codec

    @classmethod
    def of(cls, plan: NodePlan) -> Parts:
        """Build the parts; UserError for what the plan names and this machine does not have."""
        protocol = Protocol.parse(plan.protocol)
        problem = Problem.parse(plan.problem).local(plan.node, plan.nodes, plan.seed)
        codec = Codec(protocol, problem.dim, plan.chunk_bytes, plan.nodes, plan.incarnation)
        return cls(protocol, problem, codec)
