"""Mixings and the constants of their theory, against closed forms."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plans import schedule_of

from tidings.errors import ConfigError, MissingExtra
from tidings_coordinator.topology import (
    Graph,
    Mixing,
    Phase,
    Schedule,
    Topology,
    describe,
    mixings,
)
from tidings_coordinator.topology.mixing.least_gossip import needed
from tidings_coordinator.topology.spectra import Matrix

pytestmark = pytest.mark.unit


def build(spec: Any, nodes: int, seed: int = 0) -> Schedule:
    return Topology.parse(spec).schedule(nodes, np.random.default_rng(seed))


def gap(spec: Any, nodes: int) -> float:
    return build(spec, nodes).facts().spectral_gap


def weights(kind: Any, topology: Any, nodes: int) -> Matrix:
    return Mixing.parse(kind).weights(build(topology, nodes).union)


@st.composite
def random_graphs(draw: st.DrawFn) -> Graph:
    nodes, seed = draw(st.integers(1, 15)), draw(st.integers(0, 2**32))
    present = np.random.default_rng(seed).random((nodes, nodes)) < draw(st.floats(0, 1))
    return Graph.from_edges(nodes, [(i, j) for i, j in np.argwhere(present).tolist() if i < j])


# -- the weights -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(random_graphs(), st.sampled_from(["metropolis_hastings", "max_degree", "lazy"]))
def test_simple_weights_are_symmetric_doubly_stochastic_and_on_the_graph(
    graph: Graph, kind: str
) -> None:
    w = Mixing.parse(kind).weights(graph)
    assert np.array_equal(w, w.T)
    assert np.abs(w.sum(axis=1) - 1).max() < 1e-12
    assert w.min() >= 0
    assert np.diag(w).min() > 0
    assert np.array_equal((w != 0) & ~np.eye(graph.nodes, dtype=bool), graph.adjacency)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32))
def test_uniform_and_column_split_equally_on_directed_graphs(n: int, p: float, seed: int) -> None:
    present = np.random.default_rng(seed).random((n, n)) < p
    pairs = [(i, j) for i, j in np.argwhere(present).tolist() if i != j]
    graph = Graph.from_edges(n, pairs, directed=True)
    rows, columns = (Mixing.parse(kind).phase(graph).weights for kind in ("uniform", "column"))
    for i in range(n):
        for j in {i, *graph.in_neighbors(i)}:
            assert rows[i, j] == pytest.approx(1 / (1 + len(graph.in_neighbors(i))))
            assert columns[i, j] == pytest.approx(1 / (1 + len(graph.out_neighbors(j))))
    assert np.allclose(rows.sum(axis=1), 1)
    assert np.allclose(columns.sum(axis=0), 1)


def test_metropolis_hastings_by_hand() -> None:
    """A triangle 0, 1, 2 with a tail 2 - 3: degrees 2, 2, 3, 1."""
    graph = Graph.from_edges(4, [(0, 1), (0, 2), (1, 2), (2, 3)])
    expected = [
        [5 / 12, 1 / 3, 1 / 4, 0],
        [1 / 3, 5 / 12, 1 / 4, 0],
        [1 / 4, 1 / 4, 1 / 4, 1 / 4],
        [0, 0, 1 / 4, 3 / 4],
    ]
    assert np.allclose(Mixing.parse("metropolis_hastings").weights(graph), expected)


def test_max_degree_gives_every_edge_the_same() -> None:
    w = weights("max_degree", "star", 5)
    assert np.allclose(w[0], 1 / 5)
    assert w[1, 1] == pytest.approx(4 / 5)


def test_lazy_is_half_way_to_the_identity() -> None:
    of_uniform = {"kind": "lazy", "of": "uniform"}
    w = weights(of_uniform, "star", 4)
    assert np.allclose(w, (np.eye(4) + weights("uniform", "star", 4)) / 2)
    assert build({"kind": "star", "mixing": of_uniform}, 4).stochastic == "row"
    eigenvalues = np.linalg.eigvalsh(weights("lazy", "barbell", 10))
    assert eigenvalues.min() >= 0


@pytest.mark.parametrize(
    ("kind", "topology", "expected"),
    [
        ("metropolis_hastings", "star", "doubly"),
        ("uniform", "star", "row"),
        ("uniform", "ring", "doubly"),
        ("column", "star", "column"),
        ("column", "ring", "doubly"),
    ],
)
def test_what_sums_to_one_is_said(kind: str, topology: str, expected: str) -> None:
    assert build({"kind": topology, "mixing": kind}, 5).stochastic == expected


@pytest.mark.parametrize("kind", ["metropolis_hastings", "max_degree", "fastest", "lazy"])
def test_symmetric_weights_on_a_directed_graph_name_those_that_fit(kind: str) -> None:
    with pytest.raises(ValueError, match=r"undirected graph; .* 'uniform' .* 'column' .* 'custom'"):
        build({"kind": "ring", "directed": True, "mixing": kind}, 4)


@pytest.mark.parametrize(
    "spec",
    [
        *[kind for kind in mixings if kind != "custom"],
        {"kind": "lazy", "of": {"kind": "lazy", "of": "uniform"}},
        {"kind": "custom", "matrix": [[0.5, 0.5], [0.5, 0.5]]},
        {"kind": "custom", "file": __file__},
    ],
)
def test_config_parses_back_to_an_equal_mixing(spec: Any) -> None:
    mixing = Mixing.parse(spec)
    assert Mixing.parse(mixing.config()) == mixing
    assert Topology.parse({"kind": "ring", "mixing": mixing.config()}).mixing == mixing


def test_every_schema_is_finite() -> None:
    assert Mixing.family_schema()["anyOf"][0] == {"enum": list(mixings)}


# -- given weights ----------------------------------------------------------------------------

PULL = [[0.75, 0.25, 0], [0.25, 0.5, 0.25], [0, 0.25, 0.75]]


def test_custom_weights_inline_and_from_a_file(tmp_path: Path) -> None:
    inline = build({"kind": "line", "mixing": {"kind": "custom", "matrix": PULL}}, 3)
    np.save(tmp_path / "w.npy", np.array(PULL))
    np.savetxt(tmp_path / "w.csv", PULL, delimiter=",")
    for name in ("w.npy", "w.csv"):
        mixing = {"kind": "custom", "file": str(tmp_path / name)}
        read = build({"kind": "line", "mixing": mixing}, 3)
        assert np.array_equal(read.phases[0].weights, inline.phases[0].weights)
    assert inline.stochastic == "doubly"


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.25, 0.25], *PULL[1:]], "node 0 gives weight 0.25 to node 2, which does not send"),
        ([[0.7, 0.25, 0], *PULL[1:]], "row 0 sums to 0.95, column 0 to 0.95"),
        ([[math.nan, 0.25, 0], *PULL[1:]], "finite"),
        ([[0.5, 0.5], [0.5, 0.5]], "weights for 3 nodes are 3 x 3, not 2 x 2"),
    ],
)
def test_custom_weights_are_checked(matrix: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build({"kind": "line", "mixing": {"kind": "custom", "matrix": matrix}}, 3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "either 'matrix' or 'file'"),
        ({"matrix": [[1]], "file": __file__}, "either 'matrix' or 'file'"),
        ({"matrix": [[0.5, 0.5], [1]]}, "as it has rows, 2; got 2, 1"),
    ],
)
def test_custom_weights_that_cannot_be_a_matrix(parameters: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixing.parse({"kind": "custom", **parameters})


def test_custom_weights_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("0.5,half\n")
    mixing = {"kind": "custom", "file": str(tmp_path / "w.csv")}
    with pytest.raises(ValueError, match=r"cannot be read from .*w\.csv"):
        build({"kind": "line", "mixing": mixing}, 2)
    mixing["file"] = str(tmp_path / "absent.npy")
    with pytest.raises(ConfigError, match=r"there is no file .*absent\.npy"):
        build({"kind": "line", "mixing": mixing}, 2)


def test_a_mixing_is_held_to_its_guarantee() -> None:
    class Claims(Mixing):
        kind = "claims"

        def weights(self, graph: Graph) -> Matrix:
            return Mixing.parse("uniform").weights(graph)

    with pytest.raises(ValueError, match="must be doubly-stochastic, but are only row-stochastic"):
        Claims().phase(build("star", 4).union)


# -- fastest weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(("topology", "nodes"), [("ring", 12), ("barbell", 16), ("grid", 16)])
def test_fastest_beats_metropolis_hastings(topology: str, nodes: int) -> None:
    assert gap({"kind": topology, "mixing": "fastest"}, nodes) > 1.2 * gap(topology, nodes)


@pytest.mark.parametrize(("topology", "nodes"), [("ring", 8), ("star", 8), ("complete", 32)])
def test_fastest_is_the_best_constant_weight_on_edge_transitive_graphs(
    topology: str, nodes: int
) -> None:
    """There all edges get the same weight, best 2 / (l_2 + l_n) for the Laplacian's eigenvalues l
    (Xiao & Boyd 2004), which leaves the rate (l_n - l_2) / (l_n + l_2): 0 on the complete graph."""
    graph = build(topology, nodes).union
    laplacian = np.diag(graph.in_degrees) - graph.adjacency
    low, high = np.linalg.eigvalsh(laplacian)[[1, -1]]
    expected = 1 - (high - low) / (high + low)
    assert gap({"kind": topology, "mixing": "fastest"}, nodes) == pytest.approx(expected, abs=1e-5)


def test_fastest_weights_are_symmetric_doubly_stochastic_and_on_the_graph() -> None:
    graph = build("barbell", 10).union
    w = Mixing.parse("fastest").phase(graph).weights
    assert np.array_equal(w, w.T)
    assert np.abs(w.sum(axis=0) - 1).max() < 1e-12


def test_fastest_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingExtra, match=r"tidings\[sdp\]"):
        gap({"kind": "ring", "mixing": "fastest"}, 4)


# -- schedules and their description -----------------------------------------------------------


def test_a_schedule_needs_phases_of_one_size() -> None:
    small, large = build("ring", 3).phases[0], build("ring", 4).phases[0]
    with pytest.raises(ValueError, match="same nodes"):
        Schedule((small, large))
    with pytest.raises(ValueError, match="at least one phase"):
        Schedule(())
    with pytest.raises(ValueError, match="at least one round"):
        Schedule((small,), every=0)


def test_weights_cannot_be_changed_afterwards() -> None:
    mine = np.full((2, 2), 0.5)
    phase = Phase(build("line", 2).union, mine)
    mine[0, 0] = 7
    assert phase.weights[0, 0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        phase.weights[0, 0] = 7


@pytest.mark.parametrize(
    ("topology", "nodes", "diameter"),
    [
        ("complete", 5, 1),
        ("star", 5, 2),
        ("line", 7, 6),
        ("ring", 9, 4),
        ({"kind": "ring", "directed": True, "mixing": "uniform"}, 9, 8),
        ("grid", 12, 5),
        ("torus", 12, 3),
        ("hypercube", 16, 4),
        ("barbell", 9, 4),
        ("ring", 257, None),
    ],
)
def test_diameter(topology: Any, nodes: int, diameter: int | None) -> None:
    assert describe(build(topology, nodes)).diameter == diameter


def test_description() -> None:
    text = str(describe(build("star", 5)))
    assert [line.split(maxsplit=1) for line in text.splitlines()[:3]] == [
        ["nodes", "5"],
        ["edges", "4"],
        ["degree", "1 to 4, mean 1.6"],
    ]
    assert "doubly stochastic" in text
    one_peer = describe(build("one_peer_exponential", 8))
    assert (one_peer.degree_min, one_peer.degree_max, one_peer.edges) == (1, 1, 24)
    assert "3, 1 round(s) each" in str(one_peer)
    assert "arcs" in str(one_peer)


# -- rates with the fewest gossips -----------------------------------------------------------------


@pytest.mark.parametrize(("topology", "nodes"), [("ring", 8), ("star", 6), ("complete", 5)])
def test_edges_that_look_alike_get_equal_rates(topology: str, nodes: int) -> None:
    graph = schedule_of(nodes, topology).union
    weights = Mixing.parse("least_gossip").phase(graph).weights
    rates = weights[graph.adjacency]
    np.testing.assert_allclose(rates, rates.mean(), rtol=1e-4)


def test_a_barbell_needs_its_bridge_most() -> None:
    """Two cliques of 8: 126.1 gossips a unit with equal rates, 38.5 with 9 on the bridge."""
    graph = schedule_of(16, "barbell").union
    equal = graph.adjacency.astype(np.float64)
    by_hand = equal.copy()
    (bridge,) = [edge for edge in graph.edges if edge[0] < 8 <= edge[1]]
    by_hand[bridge] = by_hand[bridge[::-1]] = 9.0
    assert needed(graph, equal) == pytest.approx(126.1, abs=0.1)
    assert needed(graph, by_hand) == pytest.approx(38.5, abs=0.1)
    solved = Mixing.parse("least_gossip").phase(graph).weights
    assert needed(graph, solved) < 33.5
    rates = solved[graph.adjacency]
    assert solved[bridge] == rates.max() > 20 * np.median(rates)


def test_least_gossip_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingExtra, match=r"'least_gossip' needs the extra 'sdp'"):
        Mixing.parse("least_gossip").phase(schedule_of(4, "ring").union)
