"""``--set key=value`` on the command line, and sweeps of several values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.protocols.compressed.choco_sgd import ChocoSGD
from tidings_coordinator.experiment import ExperimentError, dump, expand, loads
from tidings_coordinator.launchers.mpi import Mpi
from tidings_coordinator.launchers.simulator import Simulator

pytestmark = pytest.mark.unit

TEXT = """\
nodes: 8
network:
  rate: 1Mbit/s
  links: [{on: 0<->1, loss: 1%}, {on: 1<->2, loss: 2%}]
problem: mnist_5k
protocol: {kind: d_psgd, lr: 0.1}
stop: {rounds: 3}
"""


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=7", "seed: 7"),
        ("nodes = 9", "nodes: 9"),
        ("network.rate=20Mbit", "  rate: 20Mbit/s"),
        ("network.links.1.rate=3kbit/s", "    rate: 3kbit/s"),
        ("problem.model=cnn", "  model: cnn"),
        ("network.nic.egress=5Mbit/s", "    egress: 5Mbit/s"),
        ("wait={for: live}", "  for: live"),
        ("stop.time=1min", "  time: 60s"),
        ("network.links=[]", "  links: []"),
        ("launcher=simulator", "  kind: simulator"),
        ("name='1e3'", "name: '1e3'"),
    ],
)
def test_values_are_yaml(override: str, line: str) -> None:
    before = dump(loads(TEXT)).splitlines()
    after = dump(loads(TEXT, overrides=[override])).splitlines()
    assert line in after
    assert after.count(line) > before.count(line)


def test_a_kind_is_replaced_and_its_parameters_are_kept() -> None:
    found = loads(TEXT, overrides=["protocol.kind=choco_sgd"]).protocol
    assert found == ChocoSGD(lr=0.1)


def test_a_bare_kind_takes_parameters() -> None:
    overrides = ["launcher=simulator", "launcher.tie_seed=3"]
    assert loads(TEXT, overrides=overrides).launcher == Simulator(tie_seed=3)


def test_the_kind_that_is_there_keeps_its_parameters() -> None:
    text = f"{TEXT}launcher: {{kind: mpi, options: --oversubscribe}}\n"
    overrides = ["launcher=mpi", "launcher.flavor=openmpi"]
    wanted = Mpi(options="--oversubscribe", flavor="openmpi")
    assert loads(text, overrides=overrides).launcher == wanted
    assert loads(text, overrides=["launcher=simulator"]).launcher == Simulator()
    assert loads(text, overrides=["launcher={kind: mpi}"]).launcher == Mpi()


def test_the_last_one_wins() -> None:
    overrides = ["network.rate=2Mbit/s", "network={rate: 3Mbit/s}", "network.rate=4Mbit/s"]
    assert loads(TEXT, overrides=overrides).network.rate == 4e6
    assert loads(TEXT, overrides=overrides[:2]).network.rate == 3e6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["network.rate=20"],
            "--set network.rate=20: rate needs a unit, for example '20Mbit/s'; got 20",
        ),
        (["network.nic.egress=20"], "--set network.nic.egress=20: rate needs a unit"),
        (
            ["protocol.kind=choco"],
            "--set protocol.kind=choco: unknown protocol 'choco'; did you mean 'choco_sgd'?",
        ),
        (
            ["network={rat: 1}"],
            "--set network={rat: 1}: network.rat: unknown key; did you mean 'rate'?",
        ),
        (["byzantine.on=[0]"], "--set byzantine.on=[0]: byzantine.attack: this key is missing"),
        (["protocol={kind: d_psgd}"], "--set protocol={kind: d_psgd}: 'd_psgd' needs 'lr'"),
        (["compute.slow.0.factor=2"], "--set compute.slow.0.factor=2: compute.slow: expected a"),
        (
            ["network.links.2.rate=1"],
            "--set network.links.2.rate=1: network.links has entries 0 to",
        ),
        (["network.links.x=1"], "--set network.links.x=1: network.links has entries 0 to 1, not"),
        (
            ["network.links=[]", "network.links.0=1"],
            "--set network.links.0=1: network.links has no",
        ),
        (["nodes.x=1"], "--set nodes.x=1: nodes is 8, which has no 'x'"),
        (["nodes"], "--set nodes: write it as key=value"),
        (["=1"], "--set =1: write it as key=value"),
        (["a..b=1"], "--set a..b=1: write it as key=value"),
        (["nodes=[1"], "--set nodes=[1: not valid YAML"),
        (["nodes={a: 1, a: 2}"], "--set nodes={a: 1, a: 2}: this key is here twice"),
        (["seed="], "--set seed=: expected a whole number, got nothing"),
        # what the file says is still the file's fault, and a later override's is its own
        (["nodes=2"], "q.yaml:4: network.links.1.on: there is no node 2; nodes are 0 to 1"),
        (["network.rate=1", "network={loss: 2}"], "--set network={loss: 2}: network.loss: a ratio"),
    ],
)
def test_errors_name_the_override(overrides: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        loads(TEXT, "q.yaml", overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_expand_gives_the_product_and_the_last_changes_fastest() -> None:
    assert expand([]) == [[]]
    assert expand(["network.rate=10Mbit,100Mbit", "nodes=8", "seed=1,2"]) == [
        ["network.rate=10Mbit", "nodes=8", "seed=1"],
        ["network.rate=10Mbit", "nodes=8", "seed=2"],
        ["network.rate=100Mbit", "nodes=8", "seed=1"],
        ["network.rate=100Mbit", "nodes=8", "seed=2"],
    ]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ("[1, 2]", ["[1, 2]"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{a: [1, {b: 2, c: 3}]},x", ["{a: [1, {b: 2, c: 3}]}", "x"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("['],',1],2", ["['],',1]", "2"]),
        ("a=b,c", ["a=b", "c"]),
        ("", [""]),
    ],
)
def test_expand_separates_at_the_outermost_commas_only(values: str, parts: list[str]) -> None:
    assert expand([f"key={values}"]) == [[f"key={part}"] for part in parts]


@pytest.mark.parametrize("override", ["seed=1,", "seed=,1", "seed=1, ,2"])
def test_expand_refuses_a_comma_beside_nothing(override: str) -> None:
    with pytest.raises(ExperimentError, match=f"--set {override}: there is no value"):
        expand([override])


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=3))
@settings(deadline=None, max_examples=50)
def test_expand_leaves_out_nothing(choices: list[list[int]]) -> None:
    found = expand([f"k{i}=" + ",".join(map(str, values)) for i, values in enumerate(choices)])
    count = 1
    for values in choices:
        count *= len(values)
    assert len(found) == count
    for i, values in enumerate(choices):
        assert {setting[i] for setting in found} == {f"k{i}={value}" for value in values}
