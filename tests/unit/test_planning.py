"""What a whole experiment cannot have is said before anything is started."""

from __future__ import annotations

import pytest

from tidings.errors import UserError
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.planning import RunPlan, plan

pytestmark = pytest.mark.unit

CHANGING = [
    "{kind: erdos_renyi, p: 60%, resample: 1}",
    "{kind: sequence, of: [ring, complete]}",
    "one_peer_exponential",
]
ONE_WAY = ["exponential", "{kind: ring, directed: true, mixing: uniform}"]


def planned(protocol: str, topology: str, more: str = "") -> RunPlan:
    text = f"nodes: 8\ntopology: {topology}\nprotocol: {protocol}\nproblem: quadratic\n"
    return plan(loads(f"{text}stop: {{rounds: 5}}\n{more}"), "test")


@pytest.mark.parametrize("topology", CHANGING)
@pytest.mark.parametrize(
    "protocol", ["{kind: choco_sgd, lr: 1}", "{kind: ad_psgd, lr: 1}", "dadao"]
)
def test_protocols_that_need_one_graph_refuse_a_changing_one(protocol: str, topology: str) -> None:
    with pytest.raises(UserError, match="topology: .* needs one graph for the whole run"):
        planned(protocol, topology)


@pytest.mark.parametrize("topology", ONE_WAY)
@pytest.mark.parametrize("protocol", ["{kind: ad_psgd, lr: 1}", "dadao"])
def test_pairwise_protocols_refuse_one_way_links(protocol: str, topology: str) -> None:
    with pytest.raises(UserError, match="topology: .* needs every link in both directions"):
        planned(protocol, topology)


@pytest.mark.parametrize("protocol", ["choco_sgd", "gradient_tracking"])
def test_protocols_that_keep_the_mean_refuse_weights_that_do_not(protocol: str) -> None:
    with pytest.raises(UserError, match=r"topology\.mixing: .* rows and columns"):
        planned(f"{{kind: {protocol}, lr: 1}}", "{kind: star, mixing: uniform}")


@pytest.mark.parametrize("topology", ["complete", "ring", "{kind: sequence, of: [star, complete]}"])
def test_a_protocol_with_a_server_refuses_graphs_without(topology: str) -> None:
    with pytest.raises(UserError, match="topology: fed_avg needs a server and clients: use star"):
        planned("{kind: fed_avg, lr: 1}", topology)


@pytest.mark.parametrize(
    ("protocol", "topology"),
    [("d_psgd", topology) for topology in CHANGING + ONE_WAY]
    + [("choco_sgd", topology) for topology in ONE_WAY]
    + [(kind, "torus") for kind in ("choco_sgd", "ad_psgd", "gradient_tracking")]
    + [("fed_avg", "star")],
)
def test_what_works_is_not_refused(protocol: str, topology: str) -> None:
    assert len(planned(f"{{kind: {protocol}, lr: 1}}", topology).nodes) == 8
