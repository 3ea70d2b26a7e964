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
PAIRWISE = "{kind: ad_psgd, lr: 1}"


def planned(protocol: str, topology: str, more: str = "") -> RunPlan:
    text = f"nodes: 8\ntopology: {topology}\nprotocol: {protocol}\nproblem: quadratic\n"
    return plan(loads(f"{text}stop: {{rounds: 5}}\n{more}"), "test")


@pytest.mark.parametrize("topology", CHANGING)
@pytest.mark.parametrize("protocol", ["{kind: choco_sgd, lr: 1}", PAIRWISE])
def test_protocols_that_need_one_graph_refuse_a_changing_one(protocol: str, topology: str) -> None:
    with pytest.raises(UserError, match=r"topology: .* needs one graph for the whole run"):
        planned(protocol, topology)


def test_dadao_asks_of_a_changing_graph_that_it_is_always_connected() -> None:
    assert planned("dadao", CHANGING[1]).nodes[0].graph.worst_chi[0] > 0
    line, rest = "{kind: custom, edges: ['0<->1']}", "line"
    with pytest.raises(UserError, match=r"protocol: dadao needs graphs that are each connected"):
        planned("dadao", f"{{kind: sequence, of: [{line}, {rest}]}}")
    rewire = "faults: [{id: a, fault: graph.rewire, with: {topology: {kind: sequence, of: [%s]}}}]"
    with pytest.raises(UserError, match=r"faults\.0\.with\.topology: dadao needs graphs that"):
        planned("dadao", "ring", rewire % f"{line}, {rest}")


@pytest.mark.parametrize("topology", ONE_WAY)
@pytest.mark.parametrize("protocol", [PAIRWISE, "dadao"])
def test_pairwise_protocols_refuse_one_way_links(protocol: str, topology: str) -> None:
    with pytest.raises(UserError, match=r"topology: .* needs every link in both directions"):
        planned(protocol, topology)


@pytest.mark.parametrize("protocol", ["choco_sgd", "gradient_tracking"])
def test_protocols_that_keep_the_mean_refuse_weights_that_do_not(protocol: str) -> None:
    with pytest.raises(UserError, match=r"topology\.mixing: .* rows and columns"):
        planned(f"{{kind: {protocol}, lr: 1}}", "{kind: star, mixing: uniform}")


@pytest.mark.parametrize("topology", ["complete", "ring", "{kind: sequence, of: [star, complete]}"])
def test_a_protocol_with_a_server_refuses_graphs_without(topology: str) -> None:
    with pytest.raises(UserError, match=r"topology: fed_avg needs a server and clients: use star"):
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


@pytest.mark.parametrize("links", ["0<->2", "5->1"])
def test_a_shape_for_a_link_that_is_not_there_is_refused(links: str) -> None:
    network = f"network: {{links: [{{on: 0<->1, rate: 1Mbit/s}}, {{on: {links}, rate: 1Mbit/s}}]}}"
    with pytest.raises(UserError, match=rf"network\.links\.1\.on: '{links}' selects no link"):
        planned("{kind: d_psgd, lr: 1}", "ring", network)


def test_data_that_does_not_suffice_is_a_mistake_of_the_file() -> None:
    text = """
nodes: 20
protocol: {kind: d_psgd, lr: 0.1}
problem: {kind: digits, partition: {kind: label_shards, shards_per_node: 90}}
stop: {rounds: 1}
"""
    with pytest.raises(UserError, match=r"problem: 'label_shards' .* needs 1800 samples"):
        plan(loads(text), "test")


def test_a_protocol_that_needs_constants_refuses_a_problem_without() -> None:
    text = "nodes: 4\nprotocol: dadao\nproblem: digits\nstop: {rounds: 1}\n"
    with pytest.raises(UserError, match=r"protocol: dadao: .* mu and smoothness; give both"):
        plan(loads(text), "test")
    plan(loads(text.replace("dadao", "{kind: dadao, mu: 1, smoothness: 10}")), "test")


FILE = """nodes: 8
topology: ring
network:
  rate: 1Mbit/s
  links:
    - {on: 0<->1, rate: 2Mbit/s}
    - {on: 0<->2, rate: 2Mbit/s}
problem: quadratic
protocol: {kind: d_psgd, lr: 1}
stop: {rounds: 5}
"""


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        plan(loads(text, "some/file.yaml", overrides), "test")
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "begins"),
    [
        ([], "some/file.yaml:7: network.links.1.on: '0<->2' selects no link"),
        (
            ["network.links=[{on: 1<->4, loss: 1%}]"],
            "--set network.links=[{on: 1<->4, loss: 1%}]: network.links.0.on:",
        ),
        (["protocol.kind=fed_avg"], "some/file.yaml:2: topology: fed_avg needs a server"),
        (
            ["protocol={kind: choco_sgd, lr: 1}", "topology={kind: star, mixing: uniform}"],
            "--set topology={kind: star, mixing: uniform}: topology.mixing: choco_sgd needs",
        ),
        (["network.links=[]", "topology=torus", "nodes=7"], "--set topology=torus: "),
        (
            ["network.links=[]", "protocol.kind=robust_d_psgd", "protocol.aggregator=krum"],
            "--set protocol.aggregator=krum: ",
        ),
        (
            ["network.links=[]", "network.enforce=kernel"],
            "--set network.enforce=kernel: the launcher 'local' cannot have the kernel impose",
        ),
        (["network.links=[]", "protocol=dadao", "problem=digits"], "--set protocol=dadao: dadao"),
    ],
)
def test_mistakes_that_planning_finds_name_file_line_and_key(
    overrides: list[str], begins: str
) -> None:
    assert complaint(FILE, *overrides).startswith(begins)


def test_rows_that_are_too_few_name_the_line_of_the_protocol() -> None:
    robust = "{kind: robust_d_psgd, lr: 1, aggregator: {kind: krum, f: 2}}"
    text = FILE.replace("{kind: d_psgd, lr: 1}", robust).replace("0<->2", "1<->2")
    assert complaint(text).startswith("some/file.yaml:9: protocol: ")


@pytest.mark.parametrize(
    ("wait", "said"),
    [
        ("{suspect_after: 1s}", "suspect_after needs heartbeat"),
        ("{heartbeat: 100ms, suspect_after: 150ms}", "must be at least twice heartbeat"),
        # a message at 2 kbit/s and the delay
        ("{heartbeat: 100ms}", r"takes \d\S* s from node 0 to node 1 .* must be above"),
    ],
)
def test_a_silence_that_would_condemn_the_living_is_refused(wait: str, said: str) -> None:
    network = "network: {rate: 2kbit/s, delay: 100ms}\n"
    with pytest.raises(UserError, match=said):
        planned("{kind: d_psgd, lr: 1}", "ring", f"{network}wait: {wait}\n")


def test_where_it_is_written_is_no_part_of_an_experiment() -> None:
    assert loads(FILE, "a/x.yaml") == loads(f"# a comment\n{FILE}", "b/x.yaml")


BYZANTINE = "byzantine: {{on: [1], attack: {}}}"


def test_an_omniscient_attack_needs_the_simulator() -> None:
    attack = BYZANTINE.format("{kind: alie, knowledge: omniscient}")
    with pytest.raises(UserError, match=r"byzantine\.attack: .*launchers that can: simulator"):
        planned("{kind: d_psgd, lr: 1}", "ring", attack)
    planned("{kind: d_psgd, lr: 1}", "ring", f"{attack}\nlauncher: simulator")
    wrapped = BYZANTINE.format("{kind: equivocation, attack: {kind: mimic, knowledge: omniscient}}")
    with pytest.raises(UserError, match=r"byzantine\.attack: .* show an attacker"):
        planned("{kind: d_psgd, lr: 1}", "ring", wrapped)


def test_labels_cannot_be_flipped_where_there_are_none() -> None:
    with pytest.raises(UserError, match=r"byzantine\.attack: .* has no classes"):
        planned("{kind: d_psgd, lr: 1}", "ring", BYZANTINE.format("label_flip"))
