"""One suite over every transport: what a protocol may rely on, whatever carries its messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.grpc_cluster import links_of, run_over_grpc
from support.plans import plans
from support.recording import Recorder, counters, models, refused

from tidings.api import (
    Message,
    Node,
    Outcome,
    Protocol,
    Vector,
    Weights,
    aggregators,
    protocols,
)
from tidings.links.shape import LinkShape
from tidings.runtime.plan import ComputePlan, NodePlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.conformance

Run = Callable[[Sequence[NodePlan], Recorder], Simulated]

FAST = LinkShape(rate_bit_per_s=200e6, delay_ns=1_000_000)
SMALL: dict[str, Any] = {"kind": "quadratic", "dim": 300, "structure": "diagonal"}
DIGITS: dict[str, Any] = {"kind": "digits", "partition": "iid", "hidden": 16}
#: for those that cannot do with digits
PROBLEMS: dict[str, dict[str, Any]] = {
    # its weights are made of smoothness constants, and these differ from node to node
    "ef21_w": {"kind": "least_squares", "dim": 100, "samples": 40},
    # these need minimisers
    "msda": SMALL,
    "network_lasso": {"kind": "clustered_regression", "dim": 40},
}

#: every synchronous protocol, each with what it needs
SYNCHRONOUS: dict[str, tuple[str, dict[str, Any]]] = {
    "d_psgd": ("ring", {"kind": "d_psgd", "lr": 0.05}),
    "sgp": ("one_peer_exponential", {"kind": "sgp", "lr": 0.05}),
    "gradient_tracking": ("ring", {"kind": "gradient_tracking", "lr": 0.02}),
    "choco top_k": ("ring", {"kind": "choco_sgd", "lr": 0.05, "compressor": "top_k"}),
    "choco rand_k": (
        "ring",
        {"kind": "choco_sgd", "lr": 0.05, "compressor": {"kind": "rand_k", "ratio": "10%"}},
    ),
    "choco qsgd": ("ring", {"kind": "choco_sgd", "lr": 0.05, "gamma": 0.1, "compressor": "qsgd"}),
    "choco sign": ("ring", {"kind": "choco_sgd", "lr": 0.05, "gamma": 0.1, "compressor": "sign"}),
    "ec": ("star", {"kind": "ec", "lr": 0.05}),
    "d_ec": ("star", {"kind": "d_ec", "lr": 0.05, "compressor": "sign"}),
    "econtrol": ("star", {"kind": "econtrol", "lr": 0.05, "eta": 0.05}),
    "ef21": (
        "star",
        {
            "kind": "ef21",
            "lr": 0.05,
            "participation": "60%",
            "compressor": {"kind": "contraction", "of": "qsgd"},
        },
    ),
    "ef21_w": ("star", {"kind": "ef21_w", "compressor": "natural"}),
    "fed_avg": ("star", {"kind": "fed_avg", "lr": 0.05, "participation": "60%"}),
    "byz_vr_marina": (
        "star",
        {"kind": "byz_vr_marina", "lr": 0.05, "p": 0.3, "compressor": "qsgd"},
    ),
    "byz_vr_marina_pp": (
        "star",
        {
            "kind": "byz_vr_marina_pp",
            "lr": 0.05,
            "p": 0.3,
            "participation": "60%",
            "compressor": {"kind": "rand_k", "ratio": "20%"},
            "aggregator": {"kind": "bucketing", "f": 1, "then": "median"},
        },
    ),
    "one_bit_adam": ("complete", {"kind": "one_bit_adam", "lr": 0.01, "warm_up": 4}),
    "co2": ("complete", {"kind": "co2", "lr": 0.05, "local_steps": 3}),
    "msda": ("ring", {"kind": "msda"}),
    "network_lasso": ("ring", {"kind": "network_lasso", "penalty": 0.2}),
    "fed_au": (
        "star",
        {"kind": "fed_au", "lr": 0.05, "participation": {"kind": "bernoulli", "mean": "60%"}},
    ),
    "dfedavgm": ("ring", {"kind": "dfedavgm", "lr": 0.02, "local_steps": 3}),
    "dfedsam": ("ring", {"kind": "dfedsam", "lr": 0.05, "local_steps": 3, "gossips": 3}),
    "time-varying": ("one_peer_exponential", {"kind": "d_psgd", "lr": 0.05}),
}


@pytest.fixture(params=["memory", "grpc", "mpich", "openmpi"])
def run(request: pytest.FixtureRequest) -> Run:
    """A way to run plans over the transport under test."""
    if request.param in ("mpich", "openmpi"):
        return request.getfixturevalue(request.param).run
    return simulate if request.param == "memory" else run_over_grpc


# -- bit-identity ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_synchronous_protocols_end_with_the_same_bits_and_bytes(name: str, real: Run) -> None:
    topology, protocol = SYNCHRONOUS[name]
    problem = PROBLEMS.get(name, DIGITS)
    same_everywhere(plans(6, topology, protocol, problem, 8, link=FAST, evaluate_rounds=4), real)


@pytest.mark.parametrize("name", sorted(aggregators))
def test_every_aggregator_ends_with_the_same_bits_and_bytes(name: str, real: Run) -> None:
    withstands = {"f": 1} if "f" in aggregators.get(name).schema()["properties"] else {}
    rule = {"kind": name, **withstands}
    protocol = {"kind": "robust_d_psgd", "lr": 0.05, "aggregator": rule}
    # one looks at what a convolution sees
    problem = DIGITS | {"model": "cnn"} if name == "agrxai" else SMALL
    same_everywhere(plans(6, "complete", protocol, problem, 5, link=FAST, attackers=(1,)), real)


def same_everywhere(given: Sequence[NodePlan], real: Run) -> None:
    """The same final weights and the same counts per link, over the network and simulated."""
    memory, network = simulate(given), real(given, Recorder())
    assert [f.weights_sha256 for f in memory.finals] == [f.weights_sha256 for f in network.finals]
    assert links_of(memory) == links_of(network)
    assert refused(memory) == refused(network) == {}


ASYNCHRONOUS_SERVERS = ("fed_async", "fed_buff", "fed_fix")


@pytest.mark.parametrize("kind", ASYNCHRONOUS_SERVERS)
def test_a_server_that_waits_for_nobody(kind: str, run: Run) -> None:
    paced = {"fed_buff": {"buffer": 3}, "fed_fix": {"window": "20ms"}}.get(kind, {})
    protocol = {"kind": kind, "lr": 0.05, **paced}
    slow = {1: {"compute": ComputePlan(time_s=0.002, factor=10)}}
    quick = ComputePlan(time_s=0.002)
    given = plans(5, "star", protocol, SMALL, 25, link=FAST, compute=quick, per_node=slow)
    result = run(given, Recorder())
    x = models(result)
    assert (x == x[0]).all()
    assert np.isfinite(x).all()
    assert np.abs(x).max() > 0.1
    # in FedFix's windows of time a busy machine gets less done
    assert sum(final.gradients for final in result.finals) >= (25 if kind == "fed_fix" else 125)
    assert refused(result) == {}


PAIRWISE: dict[str, dict[str, Any]] = {
    "ad_psgd": {"lr": 0.05},
    "a2cid2": {"lr": 0.05, "unit": "20ms"},
    "dadao": {"unit": "100ms"},
}


@pytest.mark.parametrize("kind", PAIRWISE)
def test_protocols_of_exchanges(kind: str, run: Run) -> None:
    """Who meets whom depends on time, so only what must hold of it is compared."""
    paced = ComputePlan(time_s=0.005)
    protocol = {"kind": kind, **PAIRWISE[kind]}
    result = run(plans(4, "ring", protocol, SMALL, 20, link=FAST, compute=paced), Recorder())
    assert np.isfinite(models(result)).all()
    assert sum(final.gradients for final in result.finals) == 80
    assert sum(counters(result, "exchange_committed")) >= 20
    assert refused(result) == {}


def test_every_protocol_is_tried_over_every_transport() -> None:
    tried = {protocol["kind"] for _, protocol in SYNCHRONOUS.values()}
    # with every aggregator
    tried.add("robust_d_psgd")
    assert tried | set(PAIRWISE) | set(ASYNCHRONOUS_SERVERS) == set(protocols)


def test_evaluations_are_the_same_too(real: Run) -> None:
    topology, protocol = SYNCHRONOUS["d_psgd"]
    given = plans(4, topology, protocol, DIGITS, 6, link=FAST, evaluate_rounds=2)
    seen = []
    for way in (simulate, real):
        recorder = Recorder()
        way(given, recorder)
        seen.append(
            sorted(
                (
                    row.node,
                    row.round,
                    dict(row.metrics),
                    row.sketch,
                    row.bytes.payload,
                    row.messages,
                )
                for row in recorder.rows
            )
        )
    assert seen[0] == seen[1]
    assert {row[1] for row in seen[0]} == {0, 2, 4, 6}


# -- links -------------------------------------------------------------------------------------


class Numbered(Message):
    number: int
    x: Vector


@dataclass(frozen=True)
class Counting(Protocol):
    """Node 0 sends numbers, the others log what they get until nothing comes for a while."""

    count: int
    quiet_s: float = 0.3

    messages = (Numbered,)

    async def run(self, node: Node) -> None:
        if node.id == 0:
            for number in range(self.count):
                await node.send_all(node.to_neighbors(Numbered(number, node.model)))
            node.log("sent")
            return
        while (arrival := await node.recv(Numbered, self.quiet_s)) is not None:
            node.log("got", number=arrival.message.number)


def numbers(recorder: Recorder, node: int) -> list[int]:
    return [event["number"] for event in recorder.named("got", node)]


def test_a_link_delivers_in_order_at_most_once(run: Run) -> None:
    recorder = Recorder()
    jittery = LinkShape(rate_bit_per_s=100e6, delay_ns=3_000_000, jitter_ns=3_000_000)
    run(plans(3, "line", Counting(60), SMALL, link=jittery), recorder)
    assert numbers(recorder, 1) == list(range(60))
    assert numbers(recorder, 2) == []


def test_the_same_messages_are_lost_everywhere(real: Run) -> None:
    lossy = LinkShape(rate_bit_per_s=100e6, loss=0.3)
    given = plans(4, "star", Counting(80), SMALL, link=lossy)
    arrived = []
    for way in (simulate, real):
        recorder = Recorder()
        result = way(given, recorder)
        arrived.append({node: numbers(recorder, node) for node in (1, 2, 3)})
        lost = {link: counts["lost"] for link, counts in links_of(result).items() if link[0] == 0}
        assert lost == {(0, node): 80 - len(arrived[-1][node]) for node in (1, 2, 3)}
    assert arrived[0] == arrived[1]
    assert len({tuple(got) for got in arrived[0].values()}) == 3
    assert all(40 < len(got) < 72 for got in arrived[0].values())


def test_a_slow_link_holds_a_fast_sender_back(run: Run) -> None:
    slow = LinkShape(rate_bit_per_s=2e6, queue_bytes=4_000)
    recorder = Recorder()
    result = run(plans(2, "line", Counting(30), SMALL, link=slow), recorder)
    assert numbers(recorder, 1) == list(range(30))
    size_bits = 8 * result.finals[0].links[0].bytes.payload
    # all but what fits into the queue had to pass before the last send returned
    assert recorder.named("sent")[0]["time_s"] > (size_bits - 8 * 4_000) / 2e6
    assert result.finals[0].links[0].blocked_s > 0.5 * size_bits / 2e6


def test_no_byte_crosses_a_non_edge(run: Run) -> None:
    given = plans(6, "ring", {"kind": "d_psgd", "lr": 0.05}, SMALL, 5, link=FAST)
    edges = {(i, j) for i in range(6) for j in ((i + 1) % 6, (i - 1) % 6)}
    result = run(given, Recorder())
    carried = {link for link, counts in links_of(result).items() if counts["messages"]}
    heard = {
        (arrival.source, final.node) for final in result.finals for arrival in final.reception.links
    }
    assert carried == heard == edges


@dataclass(frozen=True)
class Trespassing(Protocol):
    """Sends to everyone, neighbour or not."""

    async def run(self, node: Node) -> None:
        for _ in node.rounds():
            outcomes = [
                await node.send(j, Weights(node.model)) for j in range(node.n) if j != node.id
            ]
            node.log("outcomes", refused=outcomes.count(Outcome.REFUSED))
            await node.gather(Weights)


def test_a_send_to_a_stranger_is_refused(run: Run) -> None:
    recorder = Recorder()
    result = run(plans(5, "ring", Trespassing(), SMALL, 1, link=FAST), recorder)
    assert [event["refused"] for event in recorder.named("outcomes")] == [2] * 5
    assert refused(result) == {"not_a_neighbor": 10}


# -- waiting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Silent(Protocol):
    """Node 0 says nothing; the others gather with a deadline and mix what there is."""

    within_s: float

    synchronous = True

    async def run(self, node: Node) -> None:
        for _ in node.rounds():
            if node.id != 0:
                await node.send_all(node.to_neighbors(Weights(node.model + node.id)))
            inbox = await node.gather(Weights, within_s=self.within_s)
            node.log("missing", of=list(inbox.missing), mixed=float(node.mix(node.model, inbox)[0]))


def test_a_gather_ends_at_its_deadline_and_the_weight_goes_to_self(run: Run) -> None:
    recorder = Recorder()
    result = run(plans(4, "ring", Silent(0.2), SMALL, 1, link=FAST), recorder)
    for event in recorder.named("missing"):
        absent = {0: [], 1: [0], 2: [], 3: [0]}[event["node"]]
        assert event["of"] == absent
        # ring weights are 1/3, the model is zero, neighbour j sends j
        present = {0: 1 + 3, 1: 2, 2: 1 + 3, 3: 2}[event["node"]]
        assert event["mixed"] == pytest.approx(present / 3)
    assert refused(result) == {"missing": 2}
    assert 0.2 <= result.time_s < 1.5


# -- exchange ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Averaging(Protocol):
    """Everyone averages with random neighbours, all at once."""

    times: int

    async def run(self, node: Node) -> None:
        x = node.model
        x.fill_(float(node.id))
        node.on_exchange(
            lambda peer, seen: Weights(x.clone()),
            lambda peer, mine, theirs: x.add_(theirs.x - mine.x, alpha=0.5),
        )
        done = 0
        while done < self.times:
            peer = int(node.rng("peer").choice(node.neighbors))
            done += await node.exchange(peer) is Outcome.DELIVERED
            await node.sleep(0.002 * node.rng("pause").random())


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_an_exchange_conserves_the_sum(run: Run, loss: float) -> None:
    link = LinkShape(rate_bit_per_s=200e6, delay_ns=500_000, loss=loss)
    times = 12 if loss == 0 else 3
    result = run(plans(6, "ring", Averaging(times), SMALL, link=link, wait_s=20.0), Recorder())
    x = models(result)
    assert x.sum(axis=0) == pytest.approx(15.0, abs=1e-4)
    # a commit counts on both sides, so the sides must have counted equally
    committed = counters(result, "exchange_committed")
    assert sum(committed) % 2 == 0
    assert min(committed) >= times
    assert counters(result, "exchange_in_doubt") == [0] * 6
    if times == 12:
        assert x.std() < 1.0
