"""Topologies: which graphs they give, for which numbers of nodes, and what they say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.errors import ConfigError
from tidings_coordinator.topology import Graph, Schedule, Topology, topologies

pytestmark = pytest.mark.unit

#: every registered topology with at least one way to write it, and numbers of nodes that it takes
CASES: list[tuple[Any, tuple[int, ...]]] = [
    ("ring", (3, 8, 17)),
    ({"kind": "ring", "directed": True, "mixing": "uniform"}, (3, 8)),
    ("line", (1, 2, 9)),
    ("star", (2, 3, 12)),
    ("complete", (1, 2, 9)),
    ("grid", (4, 6, 12, 25)),
    ({"kind": "grid", "rows": 2}, (6, 10)),
    ("torus", (4, 6, 9, 20)),
    ({"kind": "torus", "cols": 3}, (9, 12)),
    ("hypercube", (2, 4, 16)),
    ("exponential", (2, 6, 13, 16)),
    ("one_peer_exponential", (2, 6, 13, 16)),
    ({"kind": "erdos_renyi", "p": "50%"}, (2, 10, 20)),
    ({"kind": "erdos_renyi", "p": 0.5, "directed": True, "mixing": "column"}, (10, 20)),
    ({"kind": "erdos_renyi", "p": "20%", "resample": 5, "period": 7}, (10, 20)),
    ({"kind": "random_regular", "degree": 3}, (4, 10, 20)),
    ({"kind": "random_regular", "degree": 1, "resample": 1}, (2, 10)),
    ("small_world", (5, 10, 21)),
    ({"kind": "small_world", "k": 2, "p": 0.3, "resample": 2}, (5, 12)),
    ("barabasi_albert", (3, 10, 21)),
    ("barbell", (4, 7, 16)),
    ("binary_tree", (1, 2, 7, 12)),
    ({"kind": "custom", "edges": ["0<->1", "1<->2", "2<->3"]}, (4,)),
    ({"kind": "custom", "edges": ["0->1", "1->2", "2->0"], "mixing": "uniform"}, (3,)),
    ({"kind": "sequence", "of": ["ring", "star"], "every": 4}, (3, 8)),
]
SIZED = [pytest.param(spec, n, id=f"{spec}-{n}") for spec, sizes in CASES for n in sizes]


def build(spec: Any, nodes: int, seed: int = 0) -> Schedule:
    return Topology.parse(spec).schedule(nodes, np.random.default_rng(seed))


def graph(spec: Any, nodes: int, seed: int = 0) -> Graph:
    return build(spec, nodes, seed).union


def kinds() -> set[str]:
    return {Topology.parse(spec).kind for spec, _ in CASES}


def test_every_topology_is_covered_here() -> None:
    assert kinds() == set(topologies)


@pytest.mark.parametrize(("spec", "nodes"), SIZED)
def test_a_schedule_is_connected_and_consistent(spec: Any, nodes: int) -> None:
    schedule = build(spec, nodes)
    assert schedule.nodes == nodes
    assert schedule.union.connected
    for phase in schedule.phases:
        g = phase.graph
        assert g.nodes == nodes
        assert all(0 <= i < nodes and 0 <= j < nodes and i != j for i, j in g.arcs)
        assert g.directed or {(j, i) for i, j in g.arcs} == g.arcs
        assert {(i, j) for i in range(nodes) for j in g.out_neighbors(i)} == g.arcs
        assert {(j, i) for i in range(nodes) for j in g.in_neighbors(i)} == g.arcs
        assert all(list(g.in_neighbors(i)) == sorted(g.in_neighbors(i)) for i in range(nodes))
        assert len(g.edges) == (len(g.arcs) if g.directed else len(g.arcs) // 2)


@pytest.mark.parametrize(("spec", "nodes"), SIZED)
def test_config_parses_back_to_an_equal_topology(spec: Any, nodes: int) -> None:
    topology = Topology.parse(spec)
    assert Topology.parse(topology.config()) == topology


@pytest.mark.parametrize(("spec", "nodes"), SIZED)
def test_layout_puts_nodes_apart_in_the_unit_square_and_repeats(spec: Any, nodes: int) -> None:
    topology, g = Topology.parse(spec), graph(spec, nodes)
    place = topology.layout(g)
    assert place.shape == (nodes, 2)
    assert place.min() >= 0
    assert place.max() <= 1
    assert len({(round(x, 6), round(y, 6)) for x, y in place.tolist()}) == nodes
    assert np.array_equal(place, topology.layout(g))


def test_springs_draw_the_two_ends_of_a_barbell_apart() -> None:
    place = Topology.parse("barbell").layout(graph("barbell", 16))
    assert np.ptp(place, axis=0).max() == pytest.approx(1)
    ends = place[:8].mean(axis=0), place[8:].mean(axis=0)
    spread = max(np.linalg.norm(place[:8] - ends[0], axis=1))
    assert np.linalg.norm(ends[0] - ends[1]) > 2 * spread


@pytest.mark.parametrize(("spec", "nodes"), SIZED)
def test_the_same_seed_gives_the_same_schedule(spec: Any, nodes: int) -> None:
    first, again = build(spec, nodes, seed=5), build(spec, nodes, seed=5)
    for one, other in zip(first.phases, again.phases, strict=True):
        assert one.graph == other.graph
        assert np.array_equal(one.weights, other.weights)


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "erdos_renyi", "p": "30%"},
        {"kind": "random_regular", "degree": 3},
        "small_world",
        "barabasi_albert",
    ],
)
def test_another_seed_gives_another_random_graph(spec: Any) -> None:
    assert graph(spec, 20, seed=1) != graph(spec, 20, seed=2)


def test_every_schema_is_finite() -> None:
    names = {schema["properties"]["kind"]["const"] for schema in _member_schemas()}
    assert names == set(topologies)


def _member_schemas() -> list[dict[str, Any]]:
    return [s for s in Topology.family_schema()["anyOf"] if "const" in str(s.get("properties"))]


# -- degrees and edges -------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [3, 8, 17])
def test_ring_has_two_neighbors_and_n_edges(nodes: int) -> None:
    g = graph("ring", nodes)
    assert set(g.out_degrees) == {2}
    assert len(g.edges) == nodes


def test_directed_ring_sends_onwards_only() -> None:
    g = graph({"kind": "ring", "directed": True, "mixing": "uniform"}, 5)
    assert g.directed
    assert [g.out_neighbors(i) for i in range(5)] == [(1,), (2,), (3,), (4,), (0,)]
    assert g.in_neighbors(0) == (4,)


@pytest.mark.parametrize("kind", ["line", "star", "binary_tree"])
@pytest.mark.parametrize("nodes", [2, 9, 20])
def test_trees_have_one_edge_less_than_nodes(kind: str, nodes: int) -> None:
    assert len(graph(kind, nodes).edges) == nodes - 1


def test_line_star_and_tree_edges() -> None:
    assert graph("line", 4).edges == ((0, 1), (1, 2), (2, 3))
    assert graph("star", 4).edges == ((0, 1), (0, 2), (0, 3))
    assert graph("binary_tree", 6).edges == ((0, 1), (0, 2), (1, 3), (1, 4), (2, 5))


def test_complete_has_all_edges() -> None:
    assert len(graph("complete", 9).edges) == 9 * 8 // 2


@pytest.mark.parametrize(("nodes", "rows", "cols"), [(12, 3, 4), (25, 5, 5), (10, 2, 5)])
def test_grid_and_torus_are_as_square_as_they_can_be(nodes: int, rows: int, cols: int) -> None:
    g = graph("grid", nodes)
    assert len(g.edges) == rows * (cols - 1) + cols * (rows - 1)
    assert g.out_neighbors(0) == (1, cols)
    degree = 4 if min(rows, cols) > 2 else 3
    assert set(graph("torus", nodes).out_degrees) == {degree}


def test_grid_takes_the_side_that_is_given() -> None:
    assert graph({"kind": "grid", "rows": 2}, 12).out_neighbors(0) == (1, 6)
    assert graph({"kind": "grid", "cols": 2}, 12).out_neighbors(0) == (1, 2)


@pytest.mark.parametrize("digits", [1, 3, 5])
def test_hypercube_neighbors_differ_in_one_digit(digits: int) -> None:
    g = graph("hypercube", 2**digits)
    assert set(g.out_degrees) == {digits}
    assert all((i ^ j).bit_count() == 1 for i, j in g.arcs)


@pytest.mark.parametrize(("nodes", "degree"), [(2, 1), (6, 3), (8, 3), (9, 4), (16, 4)])
def test_exponential_sends_by_powers_of_two(nodes: int, degree: int) -> None:
    g = graph("exponential", nodes)
    assert set(g.out_degrees) == set(g.in_degrees) == {degree}
    assert set(g.out_neighbors(0)) == {2**k for k in range(degree)}
    one_peer = build("one_peer_exponential", nodes)
    assert len(one_peer.phases) == degree
    assert one_peer.union == g
    assert all(set(phase.graph.out_degrees) == {1} for phase in one_peer.phases)


def test_erdos_renyi_has_p_of_all_edges() -> None:
    """Binomial(19900, 0.3): 5970, standard deviation 65; the bound is five of them."""
    assert abs(len(graph({"kind": "erdos_renyi", "p": "30%"}, 200).edges) - 5970) < 325


def test_erdos_renyi_extremes() -> None:
    assert graph({"kind": "erdos_renyi", "p": "100%"}, 7) == graph("complete", 7)
    directed = {"kind": "erdos_renyi", "p": "100%", "directed": True, "mixing": "uniform"}
    assert len(graph(directed, 7).edges) == 42


@pytest.mark.parametrize(("nodes", "degree"), [(10, 3), (9, 4), (30, 5)])
def test_random_regular_is_regular(nodes: int, degree: int) -> None:
    assert set(graph({"kind": "random_regular", "degree": degree}, nodes).out_degrees) == {degree}


def test_small_world_moves_edges_but_keeps_their_number() -> None:
    lattice = graph({"kind": "small_world", "k": 4, "p": 0}, 20)
    assert lattice.out_neighbors(0) == (1, 2, 18, 19)
    moved = graph({"kind": "small_world", "k": 4, "p": "30%"}, 20)
    assert len(moved.edges) == len(lattice.edges) == 40
    assert moved != lattice


def test_barabasi_albert_adds_m_edges_per_node() -> None:
    """A star of m + 1 nodes, then m edges for each of the others."""
    assert len(graph({"kind": "barabasi_albert", "m": 3}, 20).edges) == 3 + 3 * 16


def test_barbell_is_two_cliques_and_a_bridge() -> None:
    even = graph("barbell", 16)
    assert len(even.edges) == 2 * 28 + 1
    assert (7, 8) in even.edges
    odd = graph("barbell", 9)
    assert len(odd.edges) == 2 * 6 + 2
    assert odd.out_neighbors(4) == (3, 5)


def test_only_a_star_has_a_server() -> None:
    assert Topology.parse("star").roles(3) == ("server", "client", "client")
    for spec, sizes in CASES:
        topology = Topology.parse(spec)
        if topology.kind != "star":
            assert set(topology.roles(sizes[0])) == {"peer"}


# -- time-varying ------------------------------------------------------------------------------


def test_resample_draws_anew_and_repeats_after_a_period() -> None:
    schedule = build({"kind": "erdos_renyi", "p": "20%", "resample": 5, "period": 7}, 12)
    assert (schedule.every, len(schedule.phases), schedule.rounds) == (5, 7, 35)
    assert not schedule.static
    assert schedule.at(0) is schedule.at(4) is schedule.at(35)
    assert schedule.at(4) is not schedule.at(5)
    assert len({phase.graph for phase in schedule.phases}) > 1


def test_random_matchings_mix_though_no_single_one_is_connected() -> None:
    schedule = build({"kind": "random_regular", "degree": 1, "resample": 1}, 10)
    assert not any(phase.graph.connected for phase in schedule.phases)
    assert 0 < schedule.facts().spectral_gap < 1


def test_sequence_takes_turns_with_each_part_s_own_weights() -> None:
    parts = ["ring", {"kind": "star", "mixing": "lazy"}]
    schedule = build({"kind": "sequence", "of": parts, "every": 4}, 6)
    assert [schedule.at(t).graph for t in (0, 3, 4, 7, 8)] == [
        graph(kind, 6) for kind in ("ring", "ring", "star", "star", "ring")
    ]
    assert np.array_equal(schedule.at(4).weights, build(parts[1], 6).phases[0].weights)
    assert schedule.union.edges == tuple(sorted({*graph("ring", 6).edges, *graph("star", 6).edges}))


def test_sequence_of_matchings_need_only_be_connected_together() -> None:
    matching = {"kind": "custom", "edges": ["0<->1", "2<->3"]}
    other = {"kind": "custom", "edges": ["1<->2", "3<->0"]}
    assert build({"kind": "sequence", "of": [matching, other]}, 4).union == graph("ring", 4)
    with pytest.raises(ValueError, match=r"union of all 2 graphs .* node 0 and nodes 2, 3"):
        build({"kind": "sequence", "of": [matching, matching]}, 4)


# -- custom graphs -----------------------------------------------------------------------------


def test_one_arrow_makes_a_custom_graph_directed() -> None:
    mixed = {"kind": "custom", "edges": ["0 <-> 1", "1->2", "2->0"], "mixing": "column"}
    g = graph(mixed, 3)
    assert g.directed
    assert g.edges == ((0, 1), (1, 0), (1, 2), (2, 0))


def test_a_custom_graph_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "edges.txt"
    file.write_text("# a square\n0 1\n1 2  # side\n\n2<->3\n3 0\n")
    assert graph({"kind": "custom", "file": str(file)}, 4) == graph("ring", 4)
    file.write_text("0 1\n1 to 2\n")
    with pytest.raises(ValueError, match=r"edges.txt:2: '1 to 2' is not an edge"):
        build({"kind": "custom", "file": str(file)}, 3)
    with pytest.raises(ConfigError, match="there is no file"):
        build({"kind": "custom", "file": str(tmp_path / "absent")}, 3)


# -- graphs ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.floats(0, 1), st.booleans(), st.integers(0, 2**32))
def test_connectivity_is_what_matrix_powers_say(
    nodes: int, p: float, directed: bool, seed: int
) -> None:
    present = np.random.default_rng(seed).random((nodes, nodes)) < p
    pairs = [(i, j) for i, j in np.argwhere(present).tolist() if i != j]
    g = Graph.from_edges(nodes, pairs, directed)
    step = np.eye(nodes) + g.adjacency
    everywhere = np.linalg.matrix_power(step, nodes) > 0
    assert g.connected == bool(everywhere.all())
    both = everywhere[0] & everywhere[:, 0]
    assert g.cut_off == tuple(np.flatnonzero(~both).tolist())


def test_an_undirected_graph_must_have_both_arcs() -> None:
    with pytest.raises(ValueError, match="0->1 has no way back"):
        Graph(2, frozenset({(0, 1)}), directed=False)
    assert Graph(2, frozenset({(0, 1)}), directed=True).edges == ((0, 1),)


def test_graphs_are_values() -> None:
    assert graph("ring", 5) == Graph.from_edges(5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
    assert hash(graph("ring", 5)) == hash(graph("ring", 5))
    with pytest.raises(ValueError, match="read-only"):
        graph("ring", 5).adjacency[0, 0] = True
