"""A whole run on virtual time: reproducible, with exact times and exact bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from support.plans import IDEAL, LINK, QUADRATIC, plans
from support.recording import Recorder, models, refused

from tidings.api import Message, Node, Outcome, Protocol, Weights
from tidings.links.shape import LinkShape, NicShape, serialization_ns
from tidings.runtime.plan import ComputePlan, NodePlan
from tidings.runtime.simulation import simulate
from tidings.wire.codec import Codec
from tidings.wire.frame import ByteCount

pytestmark = pytest.mark.sim

FAST = ComputePlan(time_s=0.01)
NOISY = QUADRATIC | {"noise": 0.5}
SYNCHRONOUS: list[tuple[str, dict[str, Any]]] = [
    ("ring", {"kind": "d_psgd", "lr": 0.05}),
    ("ring", {"kind": "gradient_tracking", "lr": 0.02}),
    ("one_peer_exponential", {"kind": "sgp", "lr": 0.05}),
    ("ring", {"kind": "choco_sgd", "lr": 0.05, "compressor": {"kind": "rand_k", "ratio": 0.3}}),
    ("ring", {"kind": "robust_d_psgd", "lr": 0.05}),
    ("star", {"kind": "fed_avg", "lr": 0.05, "participation": 0.5}),
    ("one_peer_exponential", {"kind": "d_psgd", "lr": 0.05}),
]
ASYNCHRONOUS: list[tuple[str, dict[str, Any]]] = [
    ("ring", {"kind": "ad_psgd", "lr": 0.05}),
    ("ring", {"kind": "dadao", "unit": "100ms"}),
]


# -- reproducible ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("topology", "protocol"), SYNCHRONOUS + ASYNCHRONOUS)
def test_the_same_seed_gives_the_same_run(topology: str, protocol: dict[str, Any]) -> None:
    lossless = protocol["kind"] in ("choco_sgd", "fed_avg")
    link = LinkShape(5e6, 10_000_000, 3_000_000, loss=0.0 if lossless else 0.1)

    def outcome(seed: int) -> tuple[str, float, bytes]:
        made = plans(6, topology, protocol, NOISY, 8, link=link, seed=seed, wait_s=2.0)
        result = simulate(made)
        return result.trace_hash, result.time_s, models(result).tobytes()

    assert outcome(1) == outcome(1)
    assert outcome(1)[0] != outcome(2)[0]
    assert outcome(1)[2] != outcome(2)[2]


@pytest.mark.parametrize(("topology", "protocol"), SYNCHRONOUS)
def test_synchronous_protocols_do_not_depend_on_the_order_of_arrivals(
    topology: str, protocol: dict[str, Any]
) -> None:
    made = plans(6, topology, protocol, NOISY, 8)
    plain = simulate(made)
    traces = {plain.trace_hash}
    for tie_seed in range(5):
        result = simulate(made, tie_seed=tie_seed)
        traces.add(result.trace_hash)
        assert models(result).tobytes() == models(plain).tobytes()
        assert [f.weights_sha256 for f in result.finals] == [f.weights_sha256 for f in plain.finals]
        assert result.time_s == plain.time_s
    assert len(traces) > 3  # the orders really were different ones


# -- exact times -----------------------------------------------------------------------------------


def frame_counts(plan: NodePlan, message: Message, round_: int) -> ByteCount:
    """What a frame of that message takes, by kind."""
    codec = Codec(Protocol.parse(plan.protocol), plan.problem["dim"])
    return codec.encode(message, round_).counts


def round_ns(plan: NodePlan, shape: LinkShape, round_: int) -> int:
    """A round on a ring: compute, then the frame's way over one link (both at once)."""
    compute_ns = round(plan.compute.simulated_s * 1e9)
    size_bytes = frame_counts(plan, Weights(weights(plan)), round_).total
    return compute_ns + serialization_ns(size_bytes, shape.rate_bit_per_s) + shape.delay_ns


def weights(plan: NodePlan) -> torch.Tensor:
    """Any model of the right size."""
    return torch.zeros(plan.problem["dim"])


@pytest.mark.parametrize("shape", [LINK, LinkShape(1e5, 1), LinkShape(math.inf, 5_000_000), IDEAL])
def test_a_round_takes_computing_and_the_way(shape: LinkShape) -> None:
    rounds = 150  # beyond 127, where the round number takes a byte more
    made = plans(5, "ring", {"kind": "d_psgd", "lr": 0.05}, rounds=rounds, link=shape)
    total_ns = sum(round_ns(made[0], shape, k) for k in range(rounds))
    assert round(simulate(made).time_s * 1e9) == total_ns


def test_the_slowest_node_sets_the_pace() -> None:
    def time_s(factor: float) -> float:
        slow = {2: {"compute": ComputePlan(time_s=0.01, factor=factor)}}
        protocol = {"kind": "d_psgd", "lr": 0.05}
        made = plans(4, "complete", protocol, link=IDEAL, compute=FAST, per_node=slow)
        return simulate(made).time_s

    assert time_s(1.0) == pytest.approx(0.1, abs=1e-9)
    assert time_s(5.0) == pytest.approx(0.5, abs=1e-9)


def test_computing_times_can_be_random_and_are_reproducible() -> None:
    spread = ComputePlan(time_s=0.01, spread=0.5)
    made = plans(2, "line", {"kind": "d_psgd", "lr": 0.05}, rounds=400, link=IDEAL, compute=spread)
    finals = simulate(made).finals
    # 800 draws of exp(N(0, 0.5)); mean exp(1/8), deviation 0.604 times that / sqrt(400)
    for final in finals:
        assert final.compute_s / 400 == pytest.approx(0.01 * math.exp(0.125), rel=0.12)
    assert finals[0].compute_s != finals[1].compute_s
    assert [f.compute_s for f in simulate(made).finals] == [f.compute_s for f in finals]


def test_incast_is_real() -> None:
    """Eight updates at once share the server's card: they take eight times as long as one."""
    dim, rate = 2000, 1e6
    problem = {"kind": "quadratic", "dim": dim, "structure": "diagonal"}
    protocol = {"kind": "fed_avg", "lr": 0.01, "local_steps": 1}
    limited = NicShape(ingress_bit_per_s=rate)

    def one_round_s(nic: NicShape) -> float:
        made = plans(
            9, "star", protocol, problem, 1, link=IDEAL, nic=lambda i: nic if i == 0 else NicShape()
        )
        recorder = Recorder()
        simulate(made, recorder)
        return max(row.time_s for row in recorder.rows if row.node == 0)

    frame_s = 8 * (4 * dim) / rate
    assert one_round_s(NicShape()) < 0.01
    assert one_round_s(limited) == pytest.approx(8 * frame_s, rel=0.02)


# -- exact bytes -----------------------------------------------------------------------------------


def test_bytes_by_kind_are_the_codecs() -> None:
    made = plans(5, "ring", {"kind": "d_psgd", "lr": 0.05}, rounds=140)
    want = ByteCount()
    for k in range(140):
        for _ in range(2):
            want.add(frame_counts(made[0], Weights(weights(made[0])), k))
    for final in simulate(made).finals:
        for counts in (total(final.links), final.reception.bytes):
            assert (counts.payload, counts.metadata) == (want.payload, want.metadata)
            assert (counts.header, counts.control) == (want.header, want.control)
        assert sum(link.messages for link in final.links) == 280
        assert final.reception.messages == 280


def total(links: Sequence[Any]) -> ByteCount:
    summed = ByteCount()
    for link in links:
        parts = link.bytes
        summed.add(ByteCount(parts.payload, parts.metadata, parts.header, parts.control))
    return summed


@pytest.mark.parametrize(("topology", "protocol"), SYNCHRONOUS + ASYNCHRONOUS)
def test_what_is_sent_is_received_lost_or_still_under_way(
    topology: str, protocol: dict[str, Any]
) -> None:
    reliable = protocol["kind"] in ("choco_sgd", "fed_avg")
    link = LinkShape(5e6, 10_000_000, loss=0.0 if reliable else 0.2)
    made = plans(6, topology, protocol, NOISY, 20, link=link, wait_s=1.0)
    result = simulate(made)
    heard = {
        (link.source, final.node): (link.bytes, link.messages)
        for final in result.finals
        for link in final.reception.links
    }
    for final in result.finals:
        for link in final.links:
            size, messages = heard.get((final.node, link.target), (0, 0))
            sent = link.bytes.payload + link.bytes.metadata + link.bytes.header + link.bytes.control
            under_way = link.messages - link.lost_messages - messages
            assert 0 <= under_way <= 3
            assert (sent - link.lost_bytes - size == 0) == (under_way == 0)
    lost = sum(link.lost_messages for final in result.finals for link in final.links)
    assert (lost == 0) == reliable
    assert result.deliveries == sum(messages for _, messages in heard.values())


def test_no_frame_crosses_a_non_edge() -> None:
    result = simulate(plans(7, "line", {"kind": "d_psgd", "lr": 0.05}))
    for final in result.finals:
        assert {link.source for link in final.reception.links} <= {final.node - 1, final.node + 1}


# -- queues ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flood(Protocol):
    """Node 0 sends as fast as it can and notes when each send was accepted."""

    messages_sent: int = 10
    accepted_s: list[float] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        if node.id == 0:
            for _ in range(self.messages_sent):
                outcome = await node.send(1, Weights(node.model))
                assert outcome is Outcome.UNKNOWN
                self.accepted_s.append(node.clock.now_s)
        else:
            for _ in range(self.messages_sent):
                await node.recv(Weights)


@pytest.mark.parametrize("nic", [NicShape(), NicShape(egress_bit_per_s=1e6)])
def test_a_fast_sender_is_held_back_by_a_slow_link(nic: NicShape) -> None:
    protocol = Flood()
    problem = {"kind": "quadratic", "dim": 250, "structure": "diagonal"}
    slow = LinkShape(80_000.0, queue_bytes=3100)  # 10 kB/s, room for three frames of 1 kB
    result = simulate(plans(2, "line", protocol, problem, link=slow, nic=nic))
    frame_s = result.finals[0].links[0].bytes.payload / 10 / 10_000
    assert result.finals[0].links[0].blocked_s == pytest.approx(7 * frame_s, rel=0.05)
    assert protocol.accepted_s[2] == 0.0
    waits = np.diff(protocol.accepted_s[2:])
    assert waits == pytest.approx(np.full(7, frame_s), rel=0.15)
    assert result.finals[1].reception.messages == 10


# -- time-varying graphs ---------------------------------------------------------------------------


def test_one_peer_exponential_graphs_average_exactly_in_one_period() -> None:
    """Ying et al. (NeurIPS 2021): exact after log2(n) rounds where n is a power of two."""

    @dataclass(frozen=True)
    class Average(Protocol):
        """Plain gossip from the node's own number."""

        async def run(self, node: Node) -> None:
            node.model.fill_(float(node.id))
            for _ in node.rounds():
                assert len(node.out_neighbors) == len(node.in_neighbors) == 1
                await node.send_all(node.to_neighbors(Weights(node.model)))
                node.model = node.mix(node.model, await node.gather(Weights))

    result = simulate(plans(8, "one_peer_exponential", Average(), rounds=3))
    assert (models(result) == 3.5).all()
    assert refused(result) == {}
    assert result.deliveries == 8 * 3
