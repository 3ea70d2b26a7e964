"""The constants of the theory (spectral gap, chi_1, chi_2) against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings_coordinator.topology import Graph, Mixing, Schedule, Topology

pytestmark = pytest.mark.unit


def build(spec: Any, nodes: int, seed: int = 0) -> Schedule:
    return Topology.parse(spec).schedule(nodes, np.random.default_rng(seed))


def gap(spec: Any, nodes: int) -> float:
    return build(spec, nodes).facts().spectral_gap


@st.composite
def random_graphs(draw: st.DrawFn) -> Graph:
    nodes, seed = draw(st.integers(1, 15)), draw(st.integers(0, 2**32))
    present = np.random.default_rng(seed).random((nodes, nodes)) < draw(st.floats(0, 1))
    return Graph.from_edges(nodes, [(i, j) for i, j in np.argwhere(present).tolist() if i < j])


# -- spectral gaps -----------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [5, 8, 16, 33])
def test_gaps_in_closed_form(nodes: int) -> None:
    """Eigenvalues of circulants, paths, stars with Metropolis-Hastings weights."""
    assert gap("ring", nodes) == pytest.approx(2 / 3 * (1 - math.cos(2 * math.pi / nodes)))
    assert gap("line", nodes) == pytest.approx(2 / 3 * (1 - math.cos(math.pi / nodes)))
    assert gap("star", nodes) == pytest.approx(1 / nodes)
    assert gap("complete", nodes) == pytest.approx(1)


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (4, 5), (3, 7)])
def test_gap_of_the_torus(rows: int, cols: int) -> None:
    """Weights 1/5: eigenvalues (1 + 2 cos a + 2 cos b) / 5."""
    spec = {"kind": "torus", "rows": rows, "cols": cols}
    expected = 2 / 5 * (1 - math.cos(2 * math.pi / max(rows, cols)))
    assert gap(spec, rows * cols) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [1, 2, 4])
def test_gap_of_the_hypercube(digits: int) -> None:
    """Weights 1/(k+1): eigenvalues 1 - 2 j / (k+1), j = 0 .. k."""
    assert gap("hypercube", 2**digits) == pytest.approx(2 / (digits + 1))


@pytest.mark.parametrize("nodes", [4, 6, 8, 12, 16, 32])
def test_gap_of_the_exponential_graph(nodes: int) -> None:
    """2 / (1 + ceil(log2 n)) for even n, more for odd n (Ying et al., NeurIPS 2021)."""
    assert gap("exponential", nodes) == pytest.approx(2 / (1 + math.ceil(math.log2(nodes))))
    odd = nodes + 1
    assert gap("exponential", odd) > 2 / (1 + math.ceil(math.log2(odd)))
    if nodes > 4:
        assert gap("exponential", nodes) > gap("ring", nodes)


@pytest.mark.parametrize("nodes", [3, 4, 9])
def test_gap_counts_complex_and_negative_eigenvalues_by_their_modulus(nodes: int) -> None:
    """Directed ring: eigenvalues (1 + w) / 2 over the roots of unity w; two nodes: 1 and -0.8."""
    ring = {"kind": "ring", "directed": True, "mixing": "uniform"}
    assert gap(ring, nodes) == pytest.approx(1 - math.cos(math.pi / nodes))
    swap = {"kind": "custom", "matrix": [[0.1, 0.9], [0.9, 0.1]]}
    assert gap({"kind": "line", "mixing": swap}, 2) == pytest.approx(0.2)


@pytest.mark.parametrize("nodes", [1, 2])
def test_gap_of_the_smallest_graphs(nodes: int) -> None:
    assert gap("complete", nodes) == 1.0


def test_gap_of_a_static_graph_does_not_depend_on_the_length_of_a_phase() -> None:
    """A period of 20,000 rounds: the product itself would be zero in float64."""
    repeated = {"kind": "sequence", "of": ["ring", "ring"], "every": 10_000}
    assert gap(repeated, 8) == pytest.approx(gap("ring", 8))


@pytest.mark.parametrize("nodes", [2, 4, 8, 16, 64])
def test_one_peer_exponential_averages_exactly_in_log2_n_rounds(nodes: int) -> None:
    """Powers of two only (Ying et al., NeurIPS 2021)."""
    schedule = build("one_peer_exponential", nodes)
    product = np.eye(nodes)
    for phase in schedule.phases:
        assert set(np.unique(phase.weights)) <= {0, 0.5}
        product = phase.weights @ product
    assert len(schedule.phases) == math.log2(nodes)
    assert np.array_equal(product, np.full((nodes, nodes), 1 / nodes))
    assert schedule.facts().spectral_gap == 1.0


def test_one_peer_exponential_is_not_exact_otherwise() -> None:
    assert 0 < gap("one_peer_exponential", 6) < 1


def test_gap_of_a_period_that_contains_exact_averaging_is_one() -> None:
    assert gap({"kind": "sequence", "of": ["ring", "complete"], "every": 3}, 7) == 1.0


@settings(deadline=None, max_examples=20)
@given(st.integers(3, 9), st.integers(0, 2**32), st.integers(1, 3), st.integers(2, 5))
def test_gap_of_a_period_is_its_definition(n: int, seed: int, every: int, period: int) -> None:
    spec = {"kind": "erdos_renyi", "p": "70%", "resample": every, "period": period}
    schedule = build(spec, n, seed)
    product = np.eye(n)
    for t in range(schedule.rounds):
        product = schedule.at(t).weights @ product
    left = float(np.linalg.norm(product - 1 / n, 2))
    shrinks_by = 1 - schedule.facts().spectral_gap
    if left > 1e-9:
        assert shrinks_by == pytest.approx(left ** (1 / schedule.rounds), abs=1e-7)
    else:  # what is left is rounding, here and in the definition
        assert shrinks_by**schedule.rounds < 1e-9


@pytest.mark.parametrize("mixing", ["uniform", "column"])
def test_gap_of_a_period_that_agrees_on_another_mean(mixing: str) -> None:
    """There the product tends to a matrix of rank one that is not 11^T / n; 1 - |lambda_2|."""
    parts = [{"kind": kind, "mixing": mixing} for kind in ("star", "line", "barbell")]
    schedule = build({"kind": "sequence", "of": parts, "every": 2}, 6)
    product = np.eye(6)
    for t in range(schedule.rounds):
        product = schedule.at(t).weights @ product
    second = np.sort(np.abs(np.linalg.eigvals(product)))[-2]
    assert schedule.stochastic == {"uniform": "row"}.get(mixing, mixing)
    assert schedule.facts().spectral_gap == pytest.approx(1 - second ** (1 / 6))


# -- chi_1 and chi_2 ---------------------------------------------------------------------------


def chis(spec: Any, nodes: int) -> tuple[float, float]:
    facts = build(spec, nodes).facts()
    return facts.chi_1, facts.chi_2


def test_chi_of_the_ring_with_eight_nodes() -> None:
    chi_1, chi_2 = chis("ring", 8)
    assert chi_1 == pytest.approx(13.657, abs=5e-4)
    assert chi_2 == pytest.approx(3.5)
    assert math.sqrt(2 * chi_1 * chi_2) == pytest.approx(9.777, abs=5e-4)


@pytest.mark.parametrize("nodes", [5, 8, 20])
def test_chi_in_closed_form(nodes: int) -> None:
    """With Laplacian / |E|: eigenvalues known, and resistance 1 over the edge of a tree."""
    half = (nodes - 1) / 2
    ring = nodes / (2 * (1 - math.cos(2 * math.pi / nodes)))
    assert chis("star", nodes) == pytest.approx((nodes - 1, half))
    assert chis("ring", nodes) == pytest.approx((ring, half))
    assert chis("complete", nodes) == pytest.approx((half, half))
    path = (nodes - 1) / (2 - 2 * math.cos(math.pi / nodes))
    assert chis("line", nodes) == pytest.approx((path, half))
    assert chis("binary_tree", nodes)[1] == pytest.approx(half)


def test_uniform_gossip_on_a_barbell_of_two_k8() -> None:
    """126.1 gossips per unit of time, sqrt(2 chi_1 chi_2)."""
    chi_1, chi_2 = chis("barbell", 16)
    assert math.sqrt(2 * chi_1 * chi_2) == pytest.approx(126.1, abs=0.05)


@settings(deadline=None, max_examples=30)
@given(random_graphs())
def test_chi_is_its_definition_on_any_connected_graph(graph: Graph) -> None:
    facts = Schedule((Mixing.parse("metropolis_hastings").phase(graph),)).facts()
    if not graph.connected or graph.nodes == 1:
        assert math.isnan(facts.chi_1)
        assert math.isnan(facts.chi_2)
        return
    laplacian = (np.diag(graph.in_degrees) - graph.adjacency) / len(graph.edges)
    inverse = np.linalg.pinv(laplacian)
    resistances = [
        inverse[i, i] + inverse[j, j] - inverse[i, j] - inverse[j, i] for i, j in graph.edges
    ]
    assert facts.chi_1 == pytest.approx(1 / np.linalg.eigvalsh(laplacian)[1])
    assert facts.chi_2 == pytest.approx(max(resistances) / 2)
    assert facts.chi_2 <= facts.chi_1 * (1 + 1e-9)


def test_chi_belongs_to_undirected_graphs() -> None:
    assert all(math.isnan(chi) for chi in chis("exponential", 8))


def test_chi_of_a_sequence_is_that_of_the_union() -> None:
    matchings = [
        {"kind": "custom", "edges": edges} for edges in (["0<->1", "2<->3"], ["1<->2", "0<->3"])
    ]
    assert chis({"kind": "sequence", "of": matchings}, 4) == pytest.approx(chis("ring", 4))


@pytest.mark.timeout(30)
def test_facts_of_a_thousand_nodes() -> None:
    facts = build("ring", 1000).facts()
    angle = 2 * math.pi / 1000
    assert facts.spectral_gap == pytest.approx(2 / 3 * (1 - math.cos(angle)), rel=1e-6)
    assert facts.chi_1 == pytest.approx(1000 / (2 * (1 - math.cos(angle))), rel=1e-6)
    assert facts.chi_2 == pytest.approx(499.5, rel=1e-6)
    assert (facts.nodes, facts.edges, facts.directed) == (1000, 1000, False)
