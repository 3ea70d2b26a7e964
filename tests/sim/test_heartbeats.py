"""Heartbeats in virtual time: silence is noticed in time, and nothing else changes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from support.plans import IDEAL, LINK, plans
from support.recording import Recorder

from tidings.errors import Deadlock
from tidings.links.shape import LinkShape
from tidings.runtime.plan import ArmedFault, HeartbeatPlan, NodePlan
from tidings.runtime.simulation import Simulated, simulate
from tidings.v1 import records_pb2 as records

pytestmark = [pytest.mark.sim, pytest.mark.timeout(60)]

PROTOCOL = {"kind": "d_psgd", "lr": 0.05}
BEAT = HeartbeatPlan(every_s=0.05, suspect_after_s=0.25)
LOSSY = LinkShape(rate_bit_per_s=1e6, delay_ns=4_000_000, jitter_ns=2_000_000, loss=0.2)


def sent(result: Simulated) -> records.Bytes:
    """What all nodes have sent, by kind."""
    total = records.Bytes()
    for final, name in itertools.product(result.finals, records.Bytes.DESCRIPTOR.fields_by_name):
        for link in final.links:
            setattr(total, name, getattr(total, name) + getattr(link.bytes, name))
    return total


def made(rounds: int = 40, **fields: Any) -> list[NodePlan]:
    return plans(4, "ring", PROTOCOL, rounds=rounds, **({"link": LINK} | fields))


def digests(result: Simulated) -> list[bytes]:
    return [final.weights_sha256 for final in result.finals]


def cut(start_s: float, for_s: float) -> dict[int, dict[str, Any]]:
    """Node 0 and node 1 lose each other, silently, for a while."""
    armed = ArmedFault(event="cut", fault={"kind": "link.cut"}, at_s=start_s, for_s=for_s)
    return {
        node: {"faults": (armed.model_copy(update={"targets": (1 - node,)}),)} for node in (0, 1)
    }


@pytest.mark.parametrize("link", [LINK, LOSSY], ids=["sound", "lossy"])
def test_they_change_neither_the_models_nor_the_bytes_of_messages(link: LinkShape) -> None:
    """Not even which messages are lost: heartbeats have draws of their own."""
    fields: dict[str, Any] = {"link": link, "wait_s": 1.0, "compute": {"time_s": 0.2}}
    quiet = simulate(made(**fields))
    beating = simulate(made(**fields, heartbeat=BEAT))
    assert digests(beating) == digests(quiet)
    before, after = sent(quiet), sent(beating)
    assert before.heartbeat == 0
    assert after.heartbeat > 0
    after.heartbeat = 0
    assert after == before


def test_they_are_sent_only_where_nothing_else_is() -> None:
    """A round takes 22 ms, so every link has said something within 50 ms."""
    busy = simulate(made(heartbeat=BEAT))
    assert sent(busy).heartbeat == 0
    idle = simulate(made(rounds=4, heartbeat=BEAT, compute={"time_s": 1.0}))
    beats = sum(link.messages - 4 for final in idle.finals for link in final.links)
    # eight links, four seconds, twenty a second, less those next to a message
    assert 8 * 4 * 18 <= beats <= 8 * 4 * 20 + 8


def test_the_same_seed_beats_the_same_way() -> None:
    faults = cut(0.3, 0.5)
    once, twice = (
        simulate(made(link=LOSSY, heartbeat=BEAT, per_node=faults, wait_for="live", wait_s=0.5))
        for _ in range(2)
    )
    assert once.trace_hash == twice.trace_hash


def test_a_silent_cut_is_noticed_in_time_and_so_is_its_end() -> None:
    recorder = Recorder()
    simulate(
        made(rounds=200, heartbeat=BEAT, per_node=cut(0.5, 1.0), wait_for="live", wait_s=30.0),
        recorder,
    )
    for node, peer in ((0, 1), (1, 0)):
        (suspected,) = recorder.named("suspected", node)
        (trusted,) = recorder.named("trusted", node)
        assert suspected["peer"] == trusted["peer"] == peer
    times = {(e.name, e.node): e.time_s for e in recorder.events if e.name in _WORDS}
    delay_s = 0.02
    for node in (0, 1):
        # what was sent last before the cut may be a beat old by then
        assert 0.5 - 0.05 <= times["suspected", node] - 0.25 <= 0.5 + delay_s
        assert 1.5 <= times["trusted", node] <= 1.5 + 0.05 + delay_s + 0.01
    assert not recorder.named("suspected", 2)


_WORDS = ("suspected", "trusted")


def test_who_waits_for_the_living_goes_on_past_a_silent_one() -> None:
    """Without heartbeats the cut costs the wait time-out of half a minute."""
    fields = {"per_node": cut(0.2, math.inf), "wait_for": "live", "wait_s": 30.0}
    assert simulate(made(**fields)).time_s > 30
    assert simulate(made(**fields, heartbeat=BEAT)).time_s < 2


def test_a_node_that_stood_still_does_not_blame_the_others() -> None:
    paused = ArmedFault(event="nap", fault={"kind": "node.pause"}, at_s=0.3)
    recorder = _Waker()
    simulate(
        made(
            rounds=100,
            heartbeat=BEAT,
            per_node={2: {"faults": (paused,)}},
            wait_for="live",
            wait_s=30.0,
        ),
        recorder,
    )
    assert {e["peer"] for node in (1, 3) for e in recorder.named("suspected", node)} == {2}
    assert {e["peer"] for node in (1, 3) for e in recorder.named("trusted", node)} == {2}
    assert not recorder.named("suspected", 2)


class _Waker(Recorder):
    """Wakes node 2 after two seconds, as the director would."""

    def begun(self, controls: Any) -> None:
        controls.at(2.0, lambda: controls.heal(2, "nap", 0))


def test_a_deadlock_is_one_even_if_hearts_beat() -> None:
    with pytest.raises(Deadlock, match="node 0"):
        simulate(
            made(heartbeat=BEAT, link=IDEAL, per_node=cut(0.01, math.inf), wait_s=math.inf),
        )
