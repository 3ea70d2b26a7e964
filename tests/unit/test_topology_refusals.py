"""What a topology says of sizes and parameters that it cannot have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidings.errors import ConfigError
from tidings_coordinator.topology import Topology

pytestmark = pytest.mark.unit

STAR = {"kind": "star"}


@pytest.mark.parametrize(
    ("spec", "nodes", "message"),
    [
        ("ring", 2, "'ring' needs at least 3 nodes, got 2"),
        ("star", 1, "at least 2 nodes"),
        ("exponential", 1, "at least 2 nodes"),
        ("one_peer_exponential", 1, "at least 2 nodes"),
        ("barbell", 3, "at least 4 nodes"),
        ("complete", 0, "at least one node"),
        ("torus", 7, "a torus needs rows x cols = nodes, both at least 2; 7 is prime: use ring"),
        ("grid", 13, "13 is prime: use line"),
        ("grid", 1, "1 is too few"),
        ({"kind": "grid", "rows": 5}, 12, "5 x 2 does not make 12"),
        ({"kind": "torus", "rows": 3, "cols": 3}, 12, "3 x 3 does not make 12"),
        ("hypercube", 12, "got 12; the nearest are 8 and 16"),
        ({"kind": "random_regular", "degree": 3}, 5, "nodes x degree even; got degree 3 on 5"),
        ({"kind": "random_regular", "degree": 6}, 6, "degree < nodes"),
        ({"kind": "random_regular", "degree": 1}, 6, "raise 'degree'"),
        ({"kind": "erdos_renyi", "p": "1%"}, 30, "none of 100 .* was connected; raise 'p'"),
        ({"kind": "erdos_renyi", "p": 0, "resample": 1}, 3, "not connected: .*; raise 'p'"),
        ("small_world", 4, "k < nodes, got k = 4 on 4 nodes"),
        ({"kind": "barabasi_albert", "m": 5}, 5, "m < nodes, got m = 5 on 5 nodes"),
        ({"kind": "custom", "edges": ["0<->1"]}, 3, "node 0 and node 2; add edges"),
        ({"kind": "custom", "edges": ["0<->9"]}, 3, r"outside the nodes 0 \.\. 2"),
        ({"kind": "custom", "edges": ["0<->1", "1<->1"]}, 2, "node 1 sends to itself"),
        (
            {"kind": "custom", "edges": ["0->1", "1->2"], "mixing": "uniform"},
            3,
            "not strongly connected",
        ),
        ({"kind": "sequence", "of": ["one_peer_exponential"]}, 4, "part 1 .* changes over time"),
        (
            {
                "kind": "sequence",
                "of": [{"kind": "star", "mixing": m} for m in ["uniform", "column"]],
            },
            4,
            "row-stochastic and with column-stochastic",
        ),
    ],
)
def test_impossible_sizes_say_what_is_possible(spec: Any, nodes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Topology.parse(spec).schedule(nodes, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "grid", "rows": 1}, "rows must be at least 2, got 1"),
        ({"kind": "random_regular", "degree": 0}, "degree must be at least 1"),
        ({"kind": "random_regular"}, "'random_regular' needs 'degree'"),
        ({"kind": "erdos_renyi"}, "'erdos_renyi' needs 'p'"),
        ({"kind": "erdos_renyi", "p": "120%"}, "between 0% and 100%"),
        ({"kind": "erdos_renyi", "p": 0.5, "resample": 0}, "resample .* from 1 on, got 0"),
        ({"kind": "erdos_renyi", "p": 0.5, "period": 0}, "period .* from 1 on, got 0"),
        ({"kind": "small_world", "k": 3}, "even number"),
        ({"kind": "barabasi_albert", "m": 0}, "m must be at least 1"),
        ({"kind": "custom"}, "either 'edges' or 'file'"),
        ({"kind": "custom", "edges": ["0<->1", "1-2"]}, "edge 2: '1-2' is not an edge"),
        ({"kind": "sequence", "of": []}, "at least one topology"),
        ({"kind": "sequence", "of": ["ring"], "every": 0}, "from 1 on, got 0"),
        ({"kind": "sequence", "of": ["ring"], "mixing": "uniform"}, "has no 'mixing'"),
        ({"kind": "rings"}, "did you mean 'ring'"),
    ],
)
def test_impossible_parameters_are_refused_where_they_are_written(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Topology.parse(spec)
