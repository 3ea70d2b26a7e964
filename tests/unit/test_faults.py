"""Faults before anything runs: how they are written, whom they mean, when, and how they add up."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.faults import BASE, fired, planned, refusal

from tidings.faults.base import Fault, faults
from tidings.faults.link_trace import LinkTrace
from tidings.links.layers import Layer, compose
from tidings.links.shape import LinkShape
from tidings.runtime.clocks import SkewedClock
from tidings.wire.damage import flipped, truncated
from tidings.wire.frame import PREFIX, ByteCount, Frame, cut
from tidings_coordinator.experiment.dump import dump
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.faults.choosing import Chooser
from tidings_coordinator.planning import plan
from tidings_coordinator.topology.base import Topology

pytestmark = pytest.mark.unit

# -- how they are written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("{id: a, fault: link.lss, on: all}", "faults.0.fault: unknown fault 'link.lss'; did you"),
        ("{id: a, fault: link.loss, on: all}", "faults.0.with: 'link.loss' needs 'p'"),
        ("{id: a, fault: link.loss, on: all, with: {q: 1}}", "faults.0.with.q: 'link.loss' has no"),
        ("{id: a, fault: link.loss, on: all, with: {p: 2.0}}", "p must be above 0 and at most 1"),
        ("{id: a, fault: link.loss, with: {p: 0.5}}", "needs 'on': the links that it hits"),
        ("{id: a, fault: mark, on: all}", "faults.0.on: 'mark' takes no 'on'"),
        ("{id: a, fault: link.cut, on: 0<->3}", "selects no link of the topology"),
        ("{id: a, fault: link.cut, on: 0<->9}", "there is no node 9"),
        ("{id: a, fault: node.crash, on: hbu}", "unknown choice 'hbu'; did you mean 'hub'"),
        ("{id: a, fault: node.crash, on: 1, for: 2s}", "'node.crash' has no duration"),
        ("{id: a, fault: node.slow, on: 1, with: {factor: 0.5}}", "factor must be at least 1"),
        ("{id: a, fault: node.pause, on: 1, at: 5}", "duration needs a unit"),
        (
            "{id: a, fault: node.pause, on: 1, at: 5s, after: {event: b}}",
            "give only one of at, ",
        ),
        ("{id: a, fault: mark, after: {event: b}}", "faults.0.after.event: no event 'b'"),
        ("{id: a, fault: node.pause, on: 1, at: {round: 2, bytes: 3MB}}", "give exactly one of"),
        ("{id: a, fault: node.pause, on: 1, from: 5s, to: 3s}", "must be later than 'from'"),
        ("{id: a, fault: net.partition}", "give exactly one of shape, groups"),
        ("{id: a, fault: msg.drop, on: all, with: {message: Wights}}", "did you mean 'Weights'"),
        ("{id: a, fault: node.join, on: 3, at: {round: 5}}", "'node.join' comes at a time, once"),
        ("{id: a, fault: node.join, on: 3}", "'node.join' comes at a time, once"),
        ("{id: a, fault: coord.crash, at: 5s}", "restart_after"),
        ("{id: a, fault: coord.isolate, at: 5s}", "say for how long, as a time"),
        ("{id: a, fault: coord.isolate, for: {rounds: 5}}", "say for how long, as a time"),
        ("{id: a b, fault: mark}", "'a b' is no name for an event"),
        ("{id: a, fault: link.trace, on: all, with: {file: nowhere.csv}}", "there is no file"),
        ("{id: a, fault: node.pause, on: 1, every: 3s, at: {round: 2}}", "the same kind"),
    ],
)
def test_mistakes_are_named(event: str, said: str) -> None:
    text = refusal(event)
    assert said in text
    assert text.startswith("f.yaml:")


def test_a_graph_that_cannot_take_the_place_of_this_one() -> None:
    def said(topology: str, base: str = BASE) -> str:
        return refusal(f"{{id: a, fault: graph.rewire, with: {{topology: {topology}}}}}", base=base)

    assert "faults.0.with.topology.kind: unknown topology 'rin'; did you mean 'ring'" in said("rin")
    edges = "{kind: custom, edges: ['0<->1']}"
    assert "faults.0.with.topology: the graph of 'custom' is not connected" in said(edges)
    static = BASE.replace("{kind: d_psgd, lr: 0.1}", "{kind: choco_sgd, lr: 0.1}")
    assert "faults.0.fault: choco_sgd needs one graph for the whole run" in said("star", static)


def test_the_links_of_another_graph_are_there_from_the_start() -> None:
    run = planned("{id: a, fault: graph.rewire, with: {topology: complete}, at: {round: 3}}")
    assert all(set(plan.links) == set(range(8)) - {plan.node} for plan in run.nodes)
    assert run.nodes[0].phases[0].out_neighbors == (1, 7)
    assert run.nodes[0].graphs["a"].phases[0].out_neighbors == tuple(range(1, 8))
    assert run.nodes[0].graph.edges == 8


def test_the_next_coordinator_must_be_found() -> None:
    event = "{id: a, fault: coord.crash, at: 5s, with: {restart_after: 2s}}"
    base = BASE.replace("{kind: simulator}", "{kind: local}")
    run = planned(event, base=base)
    # longer than it takes
    assert run.grace_s == run.nodes[0].grace_s == 62.0
    assert "launcher.port: 'coord.crash' with TLS needs a port" in refusal(
        event, base=base + "security: {tls: always}\n"
    )
    netns = BASE.replace("{kind: simulator}", "{kind: mpi}")
    assert "cannot let its nodes outlive their coordinator" in refusal(event, base=netns)
    isolated = planned("{id: a, fault: coord.isolate, at: 5s, for: 2s}", base=netns)
    assert (isolated.grace_s, isolated.nodes[0].grace_s) == (0.0, 62.0)


def test_two_events_of_one_name() -> None:
    assert "two events are called 'a'" in refusal("{id: a, fault: mark}", "{id: a, fault: mark}")


def test_what_was_resolved_replays() -> None:
    run = planned(
        "{id: a, fault: node.slow, on: random(50%), with: {factor: 2}, at: {round: 3}, for: 2s}",
        "{id: b, fault: link.cut, on: random(3), from: 2s, to: 4s}",
        "{id: c, fault: net.partition, with: {shape: halves}, when: {metric: loss, '<=': 0.5}}",
        "{id: d, fault: byz.alie, on: 3, after: {event: c, state: recovered, delay: 1s}}",
        "{id: e, fault: node.pause, on: one, every: 5s, times: 3, for: 1s, resample: true}",
    )
    written = dump(run.experiment)
    again = plan(loads(written, "again.yaml"), "test")
    assert [f.targets for f in again.firings] == [f.targets for f in run.firings]
    assert [f.trigger for f in again.firings] == [f.trigger for f in run.firings]
    assert dump(again.experiment) == written
    on = {event.id: event.on for event in run.experiment.faults}
    assert all(isinstance(node, int) for node in on["a"] or ())
    assert len(on["b"] or ()) == 3


def test_every_fault_can_be_written_down_and_read_again() -> None:
    required: dict[str, dict[str, Any]] = {
        "link.shape": {"rate": "1Mbit/s"},
        "link.loss": {"p": 0.5},
        "link.duplicate": {"p": 0.5},
        "link.reorder": {"p": 0.5},
        "link.corrupt": {"p": 0.5},
        "link.flap": {"period": "1s"},
        "graph.rewire": {"topology": {"kind": "custom", "edges": ["0<->1"]}},
        "net.partition": {"groups": [[0, 1], [2, "left"]]},
        "node.slow": {"factor": 2.0},
        "node.clock": {"offset": "1s"},
        "node.churn": {"per_minute": "20%"},
        "data.label_noise": {"fraction": "20%"},
        "coord.crash": {"restart_after": "5s"},
    }
    for name in faults:
        if name == "link.trace":
            continue
        fault = Fault.parse({"kind": name} | required.get(name, {}))
        assert Fault.parse(fault.config()) == fault
        assert fault.scope in ("link", "node", "run")


# -- whom they mean --------------------------------------------------------------------------------


def chooser(topology: str = "ring", n: int = 9, seed: int = 0) -> Chooser:
    graph = Topology.parse(topology).schedule(n, np.random.default_rng(0)).union
    return Chooser(graph, {"left": (0, 1, 2)}, (4,), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("on", "nodes"),
    [
        ([3], {3}),
        (["2..4", 7], {2, 3, 4, 7}),
        (["left"], {0, 1, 2}),
        (["all", "except(left)"], {3, 4, 5, 6, 7, 8}),
        (["except(8)"], set(range(8))),
        (["byzantine"], {4}),
        (["honest"], set(range(9)) - {4}),
    ],
)
def test_named_nodes(on: list[int | str], nodes: set[int]) -> None:
    assert set(chooser().nodes(on)) == nodes


@pytest.mark.parametrize(
    ("on", "count"),
    [
        ("random(2)", 2),
        ("random(20%)", 2),
        ("one", 1),
        ("minority", 4),
        ("majority", 5),
        ("minority_third", 2),
        ("random(100%)", 9),
    ],
)
def test_random_nodes_are_as_many_as_asked_for_and_depend_on_the_seed(on: str, count: int) -> None:
    found = [chooser(seed=seed).nodes([on]) for seed in range(20)]
    assert {len(nodes) for nodes in found} == {count}
    assert found[3] == chooser(seed=3).nodes([on])
    assert count == 9 or len(set(found)) > 3


def test_hubs_and_leaves() -> None:
    assert chooser("star").nodes(["hub"]) == (0,)
    assert chooser("star").nodes(["leaf(2)"]) == (1, 2)


def test_links() -> None:
    choose = chooser()
    assert choose.arcs(["0->1"]) == ((0, 1),)
    assert choose.arcs(["0<->1", "8->0"]) == ((0, 1), (1, 0), (8, 0))
    assert len(choose.arcs(["random(50%)"])) == 9
    assert len(choose.arcs(["all"])) == 18
    cutset = choose.arcs(["cutset"])
    # a ring is cut in two places
    assert len(cutset) == 4
    assert all((j, i) in cutset for i, j in cutset)


@pytest.mark.parametrize("n", [4, 5, 8, 9])
@pytest.mark.parametrize("seed", range(5))
def test_partitions_cut_what_they_say(n: int, seed: int) -> None:
    complete = chooser("complete", n, seed)
    halves = complete.partition("halves", (), False)
    assert len(halves) == 2 * (n // 2) * (n - n // 2)
    assert len(chooser("complete", n, seed).partition("one", (), True)) == n - 1
    bridge = set(chooser("complete", n, seed).partition("bridge", (), False))
    untouched = [i for i in range(n) if not any(i in arc for arc in bridge)]
    assert len(untouched) == 1
    ring = (
        set(chooser("complete", n, seed).partition("majorities_ring", (), False))
        if n > 4
        else set()
    )
    for i in range(n if n > 4 else 0):
        kept = frozenset(j for j in range(n) if j == i or (i, j) not in ring)
        assert len(kept) > n / 2


def test_groups_that_overlap() -> None:
    with pytest.raises(ValueError, match="more than one group"):
        chooser().partition(None, [["left"], [2, 3]], False)


# -- when ------------------------------------------------------------------------------------------


def test_repeated_events_end_with_the_run_or_when_they_are_told() -> None:
    run = planned(
        "{id: a, fault: node.pause, on: 1, at: 10s, every: 20s, for: 1s}",
        "{id: b, fault: node.pause, on: 1, every: 10s, times: 2, for: 1s}",
        "{id: c, fault: msg.drop, on: all, from: {round: 10}, to: {round: 30}, every: 10}",
    )
    moments = {event: [] for event in "abc"}
    for firing in run.firings:
        moments[firing.event].append(firing.trigger.time_s or firing.trigger.round or 0)
    assert moments == {"a": [10, 30, 50], "b": [0, 10], "c": [10, 20, 30]}


def test_churn_is_drawn_beforehand_and_nobody_dies_twice_at_once() -> None:
    base = BASE.replace("time: 60s", "time: 605s")
    event = "{id: a, fault: node.churn, on: all, with: {per_minute: 50%, downtime: 9s}, from: 5s}"
    firings = fired(event, base=base)
    assert firings == fired(event, base=base)
    # 8 nodes, half a crash a minute each, over 10 minutes: 40, less those that hit who is down
    assert 20 <= len(firings) <= 55
    down_until = dict.fromkeys(range(8), 0.0)
    for firing in firings:
        (node,) = firing.nodes
        assert firing.trigger.time_s is not None
        assert 5 <= firing.trigger.time_s < 605
        assert firing.trigger.time_s > down_until[node]
        down_until[node] = firing.trigger.time_s + 9


def test_who_sees_to_it() -> None:
    run = planned(
        "{id: a, fault: link.loss, on: all, with: {p: 0.1}, at: {round: 3}}",
        "{id: b, fault: link.loss, on: all, with: {p: 0.1}, at: {round: 3, of: median}}",
        "{id: c, fault: node.crash, on: 2, at: {round: 3}}",
        "{id: d, fault: node.crash, on: 2, at: 3s}",
        "{id: e, fault: link.loss, on: 0->1, with: {p: 0.1}, at: 3s, for: {bytes: 1MB}}",
    )
    sees = {f.event: (f.armed, f.awaited) for f in run.firings}
    assert sees == {
        "a": (True, False),
        "b": (False, False),
        "c": (False, True),
        "d": (False, False),
        "e": (False, False),
    }
    armed = [[fault.event for fault in node.faults] for node in run.nodes]
    assert armed[0] == ["a"]
    assert armed[2] == ["a", "c"]
    # a node is told of its own links only
    assert all(set(node.faults[0].targets) == set(node.links) for node in run.nodes)


# -- how they add up -------------------------------------------------------------------------------

layers = st.builds(
    Layer,
    rate_bit_per_s=st.none() | st.floats(1e3, 1e9),
    delay_ns=st.integers(0, 10**9),
    jitter_ns=st.integers(0, 10**8),
    rate_factor=st.floats(0.01, 1.0),
    delay_factor=st.floats(0.0, 10.0),
)


@given(st.lists(layers, max_size=4), st.randoms())
def test_layers_do_not_depend_on_their_order(over: list[Layer], random: Any) -> None:
    base = LinkShape(rate_bit_per_s=1e7, delay_ns=20_000_000, jitter_ns=1_000_000)
    shuffled = list(over)
    random.shuffle(shuffled)
    found, other = compose(base, over), compose(base, shuffled)
    assert math.isclose(found.rate_bit_per_s, other.rate_bit_per_s, rel_tol=1e-12)
    assert abs(found.delay_ns - other.delay_ns) <= 1
    assert abs(found.jitter_ns - other.jitter_ns) <= 1
    assert found.rate_bit_per_s <= base.rate_bit_per_s
    assert compose(base, []) == base


def test_layers_by_hand() -> None:
    base = LinkShape(rate_bit_per_s=1e7, delay_ns=20, jitter_ns=3)
    both = [
        Layer(rate_bit_per_s=4e6, delay_ns=5, jitter_ns=4),
        Layer(rate_factor=0.5, delay_factor=2),
    ]
    assert compose(base, both) == LinkShape(rate_bit_per_s=4e6, delay_ns=45, jitter_ns=5)


def test_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("time,rate,delay\n0s,5Mbit/s,\n2s,,30ms\n")
    assert LinkTrace(str(file)).steps() == [(0.0, Layer(5e6)), (2.0, Layer(None, 30_000_000))]
    file.write_text("time,rate,delay\n0s,5Mfoo,\n")
    with pytest.raises(ValueError, match=r"t\.csv:2: '5Mfoo' is not a rate"):
        LinkTrace(str(file))
    file.write_text("time,rate\n1s,5Mbit/s\n")
    with pytest.raises(ValueError, match="must begin with 0s"):
        LinkTrace(str(file))


# -- damage ----------------------------------------------------------------------------------------


def frame(body: bytes) -> Frame:
    data = PREFIX.pack(PREFIX.size - 4 + len(body), 2) + body
    return Frame(cut([data], 7), ByteCount(payload=len(body) - 2, header=PREFIX.size + 2))


@given(st.binary(min_size=3, max_size=60), st.floats(0, 1, exclude_max=True))
def test_one_flipped_bit_and_the_framing_stays(body: bytes, place: float) -> None:
    before = frame(body)
    after = flipped(before, [place])
    wrong = [a ^ b for a, b in zip(before.joined(), after.joined(), strict=True)]
    assert sum(bin(bits).count("1") for bits in wrong) == 1
    assert not any(wrong[: PREFIX.size])
    assert after.counts == before.counts


@given(st.binary(min_size=3, max_size=60), st.floats(0, 1, exclude_max=True))
def test_a_truncated_frame_says_its_new_length(body: bytes, share: float) -> None:
    after = truncated(frame(body), share)
    data = bytes(after.joined())
    assert struct.unpack_from("<I", data)[0] + 4 == len(data) == after.counts.total
    assert len(data) == PREFIX.size + int(share * len(body))
    assert data[PREFIX.size :] == body[: len(data) - PREFIX.size]


# -- clocks ----------------------------------------------------------------------------------------


class Hand:
    now_ns = 0
    now_s = 0.0


def test_a_skewed_clock() -> None:
    true = Hand()
    clock = SkewedClock(true)
    clock.skew("a", 2.0, 0.0)
    clock.skew("b", 0.0, 0.5)
    true.now_ns = 10**9
    assert clock.now_s == 3.5
    assert clock.rate == 1.5
    clock.mend("a")
    assert clock.now_s == 1.5
    clock.mend("b")
    assert clock.now_ns == true.now_ns
