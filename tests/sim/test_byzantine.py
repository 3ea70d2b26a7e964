"""Byzantine nodes: only what they send is a lie, a lie to each, and nobody gets stuck."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.plans import IDEAL, LINK, QUADRATIC, plans
from support.recording import Recorder, counters, refused

from tidings.api import Attack, Node, Problem, Protocol, View, Weights
from tidings.api.plugins import Knowledge
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.sim

ALIKE = QUADRATIC | {"heterogeneity": 0.1}


@dataclass(frozen=True)
class Gossip(Protocol):
    """Two rounds in which all say their number plus ten; notes what was heard, and from whom."""

    heard: dict[tuple[int, int], dict[int, float]] = field(default_factory=dict, init=False)

    async def run(self, node: Node) -> None:
        for k in node.rounds():
            node.model.fill_(10.0 + node.id)
            await node.send_all(node.to_neighbors(Weights(node.model)))
            inbox = await node.gather(Weights)
            self.heard[k, node.id] = {j: float(m.x[0]) for j, m in inbox.items()}


@dataclass(frozen=True)
class Equivocate(Attack):
    """Tells each receiver minus its number; notes every view."""

    views: list[View] = field(default_factory=list)

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        self.views.append(view)
        return torch.full_like(honest, -float(view.receiver))


@dataclass(frozen=True)
class Informed(Equivocate):
    """The same, of one who first waits for what the honest neighbours say."""

    knowledge: ClassVar[Knowledge] = "neighbors"


@dataclass(frozen=True)
class NotANumber(Attack):
    """Sends what breaks every mean."""

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        return torch.full_like(honest, math.nan)


# -- what is rewritten -----------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [Equivocate(), Informed()])
def test_every_receiver_is_told_something_else_and_the_honest_are_left_alone(
    attack: Equivocate,
) -> None:
    protocol = Gossip()
    made = plans(5, "complete", protocol, rounds=2, attackers=(1, 3), attack=attack)
    result = simulate(made)
    for (_, node), heard in protocol.heard.items():
        assert heard == {j: -node if j in (1, 3) else 10 + j for j in range(5) if j != node}
    # the attackers' own models are those of honest nodes
    assert [float(node.model[0]) for node in result.nodes] == [10, 11, 12, 13, 14]
    assert refused(result) == {}


@pytest.mark.parametrize(
    ("attack", "topology", "rows"),
    [
        (Equivocate(), "complete", [[11.0], [13.0]]),
        (Informed(), "complete", [[11.0, 10.0, 12.0, 14.0], [13.0, 10.0, 12.0, 14.0]]),
        (Informed(), "ring", [[11.0, 10.0, 12.0], [13.0, 12.0, 14.0]]),
    ],
)
def test_an_attacker_sees_what_its_knowledge_allows(
    attack: Equivocate, topology: str, rows: list[list[float]]
) -> None:
    attack.views.clear()
    simulate(plans(5, topology, Gossip(), rounds=2, attackers=(1, 3), attack=attack))
    seen = {tuple(view.honest[:, 0].tolist()) for view in attack.views}
    assert seen == set(map(tuple, rows))
    neighbourhood = 5 if topology == "complete" else 3
    attackers = 2 if topology == "complete" else 1
    assert {view.nodes for view in attack.views} == {neighbourhood}
    assert {view.attackers for view in attack.views} == {attackers}


def test_an_attacker_draws_from_a_stream_of_its_own() -> None:
    """A batch drawn by an honest node does not depend on who attacks."""
    noisy = ALIKE | {"noise": 1.0}

    def gradients(attackers: tuple[int, ...]) -> list[float]:
        protocol = {"kind": "d_psgd", "lr": 0.05}
        made = plans(4, "ring", protocol, noisy, 1, attackers=attackers)
        return [float(node.rng("batch").random()) for node in simulate(made).nodes]

    assert gradients(()) == gradients((2,))


# -- the omniscient --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Omniscient(Equivocate):
    """The same, of one who sees everybody."""

    knowledge: ClassVar[Knowledge] = "omniscient"


@dataclass(frozen=True)
class Together(Gossip):
    """The same; nobody is a round ahead."""

    synchronous = True


def test_the_omniscient_see_those_that_they_have_no_link_to() -> None:
    attack = Omniscient()
    result = simulate(plans(6, "ring", Together(), rounds=3, attackers=(1, 3), attack=attack))
    for view in attack.views:
        assert view.sources[1:] == (0, 2, 4, 5)
        assert view.honest[1:, 0].tolist() == [10, 12, 14, 15]
        assert (view.nodes, view.attackers) == (6, 2)
    assert {view.round for view in attack.views} == {0, 1, 2}
    assert refused(result) == {}


def test_the_omniscient_among_clients_see_those_that_were_drawn() -> None:
    attack = Omniscient()
    protocol = {"kind": "fed_avg", "lr": 0.05, "participation": "50%"}
    result = simulate(plans(9, "star", protocol, ALIKE, 20, attackers=(2, 5), attack=attack))
    assert result.time_s < 10.0
    assert {view.nodes for view in attack.views} == {4}
    for view in attack.views:
        drawn = set(view.sources)
        assert len(drawn) == 4 - view.attackers + 1
        assert drawn & {0, 2, 5} == {view.sources[0]}
    assert {view.attackers for view in attack.views} == {1, 2}


def test_an_omniscient_attacker_does_not_wait_for_the_dead() -> None:
    protocol = {"kind": "d_psgd", "lr": 0.05}
    attack = {"kind": "alie", "knowledge": "omniscient"}
    made = plans(
        6, "ring", protocol, ALIKE, 6, attackers=(1,), attack=attack, wait_s=5.0, wait_for="live"
    )
    result = simulate(made, crash_before_send={4: 0}, suspect_after_s=1.0)
    assert result.time_s < 4.0


def test_an_omniscient_attacker_in_an_asynchronous_run_takes_what_there_is() -> None:
    protocol = {"kind": "ad_psgd", "lr": 0.05}
    attack = {"kind": "ipm", "knowledge": "omniscient"}
    made = plans(5, "ring", protocol, ALIKE, rounds=20, attackers=(1,), attack=attack)
    assert simulate(made).time_s < 10.0


# -- poisoned data ---------------------------------------------------------------------------------


def test_label_flip_is_honest_work_on_wrong_classes() -> None:
    digits: dict[str, Any] = {"kind": "digits", "hidden": 8, "batch_size": None}
    protocol = {"kind": "d_psgd", "lr": 0.1}
    options: dict[str, Any] = {"attackers": (1,), "attack": "label_flip", "link": IDEAL}
    result = simulate(plans(3, "complete", protocol, digits, 1, **options))
    locals_ = [Problem.parse(digits).local(node, 3, 1) for node in range(3)]
    x = locals_[0].initial()
    flipped = locals_[1].relabelled(lambda classes, count: count - 1 - classes)
    gradients = [problem.full_gradient(x) for problem in (locals_[0], flipped, locals_[2])]
    assert not torch.allclose(gradients[1], locals_[1].full_gradient(x), atol=1e-3)
    want = x - 0.1 * sum(gradients, start=torch.zeros_like(x)) / 3
    for node in result.nodes:
        torch.testing.assert_close(node.model, want, atol=1e-5, rtol=1e-4)
    # what is measured is what the others measure
    assert flipped.evaluate(x) == locals_[1].evaluate(x)


def test_only_the_source_class_is_changed() -> None:
    local = Problem.parse({"kind": "digits", "hidden": 8}).local(0, 2, 1)
    attack = Attack.parse({"kind": "label_flip", "source": 3, "target": 8})
    poisoned = attack.poison(local)
    before, after = (p.data.targets[torch.from_numpy(p.rows)] for p in (local, poisoned))  # type: ignore[attr-defined]
    assert (before[before != after] == 3).all()
    assert (after[before == 3] == 8).all()
    assert int((before == 3).sum()) > 0
    with pytest.raises(ValueError, match="must be classes: 0 to 9"):
        Attack.parse({"kind": "label_flip", "source": 3, "target": 10}).poison(local)
    with pytest.raises(ValueError, match="no classes"):
        attack.poison(Problem.parse(QUADRATIC).local(0, 2, 1))


# -- nobody gets stuck -----------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["alie", "ipm"])
@pytest.mark.parametrize("attackers", [(1, 2), (1, 2, 3), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_informed_attackers_side_by_side_do_not_wait_for_each_other(
    attack: str, attackers: tuple[int, ...]
) -> None:
    protocol = {"kind": "d_psgd", "lr": 0.05}
    made = plans(6, "ring", protocol, ALIKE, rounds=10, attackers=attackers, attack=attack)
    result = simulate(made)
    # a round has two ways in turn: first the honest speak, then the attackers
    assert result.time_s <= 10 * (2 * 0.0201 + 0.002)
    assert refused(result) == {}


def test_an_informed_attacker_beside_a_dead_node_waits_for_one_deadline_a_round() -> None:
    protocol = {"kind": "d_psgd", "lr": 0.05}
    options: dict[str, Any] = {"attackers": (1,), "attack": "alie", "wait_s": 5.0, "link": IDEAL}

    def time_s(wait_for: str) -> float:
        made = plans(5, "complete", protocol, ALIKE, rounds=6, wait_for=wait_for, **options)
        return simulate(made, crash_before_send={4: 0}, suspect_after_s=1.0).time_s

    # it waits for the dead node first, and for nothing twice
    assert time_s("all") <= 6 * 2 * 5.0 + 1
    assert time_s("live") < 2.0


def test_an_informed_attacker_among_the_clients_of_a_server() -> None:
    protocol = {"kind": "fed_avg", "lr": 0.05}
    result = simulate(plans(5, "star", protocol, ALIKE, 5, attackers=(2,), attack="alie"))
    assert result.time_s < 5.0
    assert refused(result) == {}


def test_attacks_on_exchanges_need_no_waiting_and_stay_atomic() -> None:
    protocol = {"kind": "ad_psgd", "lr": 0.05}
    for attack in ("alie", {"kind": "sign_flip", "scale": 2.0}):
        made = plans(5, "ring", protocol, ALIKE, rounds=20, attackers=(1, 2), attack=attack)
        result = simulate(made)
        assert result.time_s < 10.0
        assert sum(counters(result, "exchange_committed")) % 2 == 0
        assert counters(result, "exchange_in_doubt") == [0] * 5


# -- compressed messages ---------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", ["top_k", "rand_k", "qsgd", "sign", "identity"])
@pytest.mark.parametrize("attack", ["sign_flip", "alie", {"kind": "ipm", "epsilon": 3.0}])
def test_lies_are_compressed_like_the_truth(compressor: str, attack: Any) -> None:
    protocol = {"kind": "choco_sgd", "lr": 0.02, "gamma": 0.1, "compressor": compressor}
    made = plans(5, "ring", protocol, ALIKE, rounds=10, attackers=(2,), attack=attack)
    lied, honest = simulate(made), simulate(plans(5, "ring", protocol, ALIKE, rounds=10))
    assert refused(lied) == {}
    assert lied.trace_hash != honest.trace_hash
    # the first lie reaches the neighbours in the first round, the others later
    for node in (1, 3):
        assert not torch.equal(lied.nodes[node].model, honest.nodes[node].model)
    assert math.isfinite(float(sum(node.model.sum() for node in lied.nodes)))


# -- robust rules ----------------------------------------------------------------------------------

ATTACKERS = (3, 7)
STRONG: list[Any] = [{"kind": "sign_flip", "scale": 3.0}, {"kind": "ipm", "epsilon": 5.0}]


def worst_distance(aggregator: Any, attack: Any) -> float:
    """The largest |x_i - x*|^2 of an honest node after 40 rounds; 11 at the start."""
    recorder = Recorder()
    protocol = {"kind": "robust_d_psgd", "lr": 0.05, "aggregator": aggregator}
    options: dict[str, Any] = {"attackers": ATTACKERS, "attack": attack, "link": LINK}
    simulate(plans(10, "complete", protocol, ALIKE, 40, **options), recorder)
    rows = [row for row in recorder.rows if row.final and row.node not in ATTACKERS]
    assert len(rows) == 8
    distances = [row.metrics["distance"] for row in rows]
    return math.inf if any(map(math.isnan, distances)) else max(distances)


@pytest.mark.parametrize("attack", STRONG)
def test_the_mean_fails(attack: Any) -> None:
    assert worst_distance("mean", attack) > 5.0


@pytest.mark.parametrize("attack", STRONG)
@pytest.mark.parametrize(
    "aggregator",
    [{"kind": kind, "f": 2} for kind in ("median", "trimmed_mean", "krum")],
)
def test_robust_rules_survive(aggregator: Any, attack: Any) -> None:
    # the honest optima lie about 0.1 sqrt(d) apart, d = 12: squared 0.12
    assert worst_distance(aggregator, attack) < 0.12


def test_what_is_not_a_number_breaks_the_mean_and_no_robust_rule() -> None:
    assert worst_distance("mean", NotANumber()) == math.inf
    assert worst_distance({"kind": "median", "f": 2}, NotANumber()) < 0.12


def test_attackers_are_measured_like_the_others() -> None:
    recorder = Recorder()
    protocol = {"kind": "d_psgd", "lr": 0.05}
    simulate(plans(4, "ring", protocol, ALIKE, 3, attackers=(1,)), recorder)
    assert Counter(row.node for row in recorder.rows if row.final) == dict.fromkeys(range(4), 1)
