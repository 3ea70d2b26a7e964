"""A node that crashes and comes back: where it goes on, and that both ends agree again."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.bowls import Bowls
from support.plans import IDEAL, LINK, plans
from support.recording import Recorder, models, refused

from tidings.api import Compressor, Node, Outgoing
from tidings.links.shape import LinkShape
from tidings.protocols.compressed.choco_sgd import ChocoSGD, State
from tidings.runtime.plan import CheckpointPlan
from tidings.runtime.simulation import Restart, Simulated, simulate

pytestmark = [pytest.mark.sim, pytest.mark.timeout(60)]

VICTIM = 1
EVERY = CheckpointPlan(every_rounds=5)
CHOCO = {"kind": "choco_sgd", "lr": 0.05, "compressor": {"kind": "top_k", "ratio": "20%"}}
LOSSY = LinkShape(rate_bit_per_s=1e6, delay_ns=4_000_000, loss=0.2)


class Watched(ChocoSGD):
    """CHOCO-SGD that writes down, at the start of every round, what it knows of whom."""

    #: (round, owner, holder) -> a public copy, or the replica of it that the holder has
    copies: ClassVar[dict[tuple[int, int, int], torch.Tensor]] = {}

    def send(self, state: State, gradient: torch.Tensor, node: Node) -> tuple[State, Outgoing]:
        for owner, copy in {node.id: state.public, **state.replicas}.items():
            self.copies[node.round, owner, node.id] = copy.clone()
        return super().send(state, gradient, node)


def disagreements(copies: dict[tuple[int, int, int], torch.Tensor], first: int) -> list[Any]:
    """Replicas of round ``first`` and later that are not, bit by bit, what their owner has.

    The victim's, and those that it has of others.
    """
    return [
        place
        for place, replica in copies.items()
        if place[0] >= first
        and VICTIM in place[1:]
        and (place[0], place[1], place[1]) in copies
        and not torch.equal(replica, copies[place[0], place[1], place[1]])
    ]


def crashed(
    sends: int, lose_state: bool, wait_s: float = 0.5, **fields: Any
) -> tuple[Simulated, Recorder]:
    """A run in which the victim crashes before a send, and comes back."""
    made = plans(4, "complete", CHOCO, rounds=24, wait_s=wait_s, checkpoint=EVERY, **fields)
    watched = Watched(0.05, compressor=Compressor.parse(CHOCO["compressor"]))
    Watched.copies = {}
    made = [plan.model_copy(update={"protocol": watched}) for plan in made]
    recorder = Recorder()
    result = simulate(
        made,
        recorder,
        crash_before_send={VICTIM: sends},
        restarts={VICTIM: Restart(1.2, lose_state)},
    )
    return result, recorder


@pytest.mark.parametrize("lose_state", [False, True])
@pytest.mark.parametrize("sends", range(27, 34))
def test_replicas_agree_again_wherever_in_a_broadcast_it_crashed(
    sends: int, lose_state: bool
) -> None:
    result, recorder = crashed(sends, lose_state, link=IDEAL)
    (back,) = recorder.named("rejoined", VICTIM)
    assert back["agrees_with"] == [0, 2, 3]
    assert back["restored"] == (None if lose_state else sends // 3 // 5 * 5)
    in_round = sends // 3
    assert back["round"] > in_round
    copies = dict(Watched.copies)
    if sends % 3:
        # a broadcast that was cut: some have its q and others do not
        held = [copies[in_round + 1, VICTIM, holder] for holder in (0, 2, 3)]
        assert not all(torch.equal(held[0], replica) for replica in held)
    assert disagreements(copies, back["round"]) == []
    assert {key[0] for key in copies if key[1:] == (VICTIM, 0)} >= {back["round"], 23}
    assert [final.node for final in result.finals] == [0, 1, 2, 3]
    assert result.nodes[VICTIM].ledger.completed == 24


@pytest.mark.parametrize("seed", range(6))
def test_the_handshake_survives_losses(seed: int) -> None:
    """A fifth of all messages is lost: replicas drift apart, but not in the round of the return."""
    _, recorder = crashed(28, False, 2.0, link=LOSSY, seed=seed)
    (back,) = recorder.named("rejoined", VICTIM)
    assert back["agrees_with"] == [0, 2, 3]
    at = [key for key in Watched.copies if key[0] == back["round"] and VICTIM in key[1:]]
    assert len(at) == 7
    assert not set(disagreements(dict(Watched.copies), back["round"])) & set(at)


def test_it_ends_where_it_would_have_ended() -> None:
    problem = {"kind": "quadratic", "dim": 12, "structure": "diagonal"}
    made = plans(6, "ring", CHOCO, problem, 400, wait_s=0.2, checkpoint=EVERY, link=IDEAL)
    whole, broken = Recorder(), Recorder()
    simulate(made, whole)
    simulate(made, broken, crash_before_send={VICTIM: 101}, restarts={VICTIM: Restart(0.5)})
    want = np.mean([whole.series("loss", i)[-1] for i in range(6)])
    got = np.mean([broken.series("loss", i)[-1] for i in range(6)])
    assert broken.named("rejoined")
    assert got == pytest.approx(want, rel=0.02)


def test_nobody_waits_for_it_meanwhile() -> None:
    """Of the rounds without it none but the one it died in takes the wait time-out."""
    protocol = {"kind": "d_psgd", "lr": 0.05}
    made = plans(5, "ring", protocol, rounds=40, wait_s=30.0, link=LINK, checkpoint=EVERY)
    recorder = Recorder()
    result = simulate(
        made, recorder, crash_before_send={VICTIM: 20}, restarts={VICTIM: Restart(2.0)}
    )
    assert result.time_s < 5.0
    (back,) = recorder.named("rejoined")
    assert back["round"] == 11
    assert refused(result)["late"] == 0


def test_what_it_had_counted_goes_on() -> None:
    protocol = {"kind": "d_psgd", "lr": 0.05}
    made = plans(4, "complete", protocol, rounds=20, wait_s=1.0, link=IDEAL, checkpoint=EVERY)
    result = simulate(made, crash_before_send={VICTIM: 22}, restarts={VICTIM: Restart(0.5)})
    for final in result.finals:
        for link in final.links:
            arrived = result.finals[link.target].reception.links
            (there,) = (each for each in arrived if each.source == final.node)
            assert link.messages == there.messages + link.undeliverable_messages
            sent = link.bytes
            total = sent.payload + sent.metadata + sent.header + sent.control
            assert total == there.bytes + link.undeliverable_bytes


def test_frames_of_the_process_before_are_refused() -> None:
    """What had left before the crash and arrives after the return is of the past, and counted."""
    jittery = LinkShape(delay_ns=300_000_000, jitter_ns=290_000_000)
    protocol = {"kind": "d_psgd", "lr": 0.05}
    old = 0
    for seed in range(8):
        made = plans(3, "complete", protocol, rounds=6, wait_s=2.0, link=jittery, seed=seed)
        result = simulate(made, crash_before_send={VICTIM: 4}, restarts={VICTIM: Restart(0.001)})
        assert result.nodes[VICTIM].round == 5
        old += refused(result)["old_incarnation"]
    assert old > 0


@pytest.mark.parametrize("lose_state", [False, True])
def test_gradient_tracking_is_exact_again(lose_state: bool) -> None:
    bowls = Bowls(dim=6, apart=3.0)
    protocol = {"kind": "gradient_tracking", "lr": 0.02}
    made = plans(5, "ring", protocol, bowls, 900, wait_s=0.2, link=IDEAL, checkpoint=EVERY)
    recorder = Recorder()
    result = simulate(
        made,
        recorder,
        crash_before_send={VICTIM: 121},
        restarts={VICTIM: Restart(0.4, lose_state)},
    )
    assert recorder.named("rejoined")
    np.testing.assert_allclose(models(result), [bowls.optimum(5)] * 5, atol=1e-4)


def broken_and_whole(
    protocol: dict[str, Any], sends: int, lose_state: bool, topology: str = "ring"
) -> tuple[Simulated, Simulated]:
    """With a crash and a return, and without."""
    problem = {"kind": "quadratic", "dim": 6}
    made = plans(5, topology, protocol, problem, 300, wait_s=0.2, link=IDEAL, checkpoint=EVERY)
    recorder = Recorder()
    broken = simulate(
        made,
        recorder,
        crash_before_send={VICTIM: sends},
        restarts={VICTIM: Restart(0.4, lose_state)},
    )
    (back,) = recorder.named("rejoined")
    assert back["unheard"] == []
    assert back["round"] > sends // 20
    assert [node.ledger.completed for node in broken.nodes] == [300] * 5
    return broken, simulate(made)


@pytest.mark.parametrize("lose_state", [False, True])
@pytest.mark.parametrize(
    ("protocol", "topology"),
    [
        # its duals sum to zero again
        ({"kind": "msda"}, "ring"),
        # comes to the same point from anything
        ({"kind": "network_lasso", "penalty": 0.3}, "ring"),
        ({"kind": "dfedavgm", "lr": 0.02, "local_steps": 3}, "ring"),
        ({"kind": "dfedsam", "lr": 0.02, "local_steps": 3, "gossips": 3}, "ring"),
        # takes what the others have
        ({"kind": "co2", "lr": 0.01, "local_steps": 3}, "complete"),
    ],
    ids=lambda part: part["kind"] if isinstance(part, dict) else "",
)
def test_it_comes_to_where_it_would_have_come(
    protocol: dict[str, Any], topology: str, lose_state: bool
) -> None:
    broken, whole = broken_and_whole(protocol, 37, lose_state, topology)
    np.testing.assert_allclose(models(broken), models(whole), atol=1e-4)


@pytest.mark.parametrize("lose_state", [False, True])
def test_co2_takes_what_all_others_have(lose_state: bool) -> None:
    """Bit by bit, without the penalty that would draw them together; what it missed is not made up.

    While it is dead its part of the model, which nobody averages, stays the same on all others.
    """
    protocol = {"kind": "co2", "lr": 0.01, "local_steps": 3, "penalty": 1}
    broken, _ = broken_and_whole(protocol, 160, lose_state, "complete")
    got = models(broken)
    assert (got == got[0]).all()


@pytest.mark.parametrize("sends", [40, 41, 42, 43])
def test_exchanges_of_a_node_that_is_back_are_new_ones(sends: int) -> None:
    """Peers that were engaged with the dead process get free, and nothing is committed twice."""
    protocol = {"kind": "ad_psgd", "lr": 0.02}
    kept = CheckpointPlan(every_rounds=1)
    made = plans(4, "ring", protocol, rounds=60, wait_s=1.0, checkpoint=kept)
    recorder = Recorder()
    result = simulate(
        made, recorder, crash_before_send={VICTIM: sends}, restarts={VICTIM: Restart(0.5)}
    )
    (back,) = recorder.named("restored", VICTIM)
    assert back["round"] > 0
    assert [node.ledger.completed for node in result.nodes] == [60] * 4
    assert result.nodes[VICTIM]._exchanger._next_id > 1 << 32
