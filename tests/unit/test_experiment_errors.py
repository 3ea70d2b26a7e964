"""What is said about experiment files that cannot be read: file, line, key, nearest choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidings_coordinator.experiment import ExperimentError, load, loads

pytestmark = pytest.mark.unit

BASE = """\
nodes: 8
problem: mnist_5k
protocol: {kind: d_psgd, lr: 0.1}
stop: {rounds: 3}
"""

#: what is added to BASE from line 5 on, and the beginning of each line that is said about it
SECTIONS = [
    # keys
    ("fualts: []", ["q.yaml:5: fualts: unknown key; did you mean 'faults'?"]),
    (
        "network:\n  rate: 1Mbit/s\n  rat: 20ms",
        ["q.yaml:7: network.rat: unknown key; did you mean 'rate'? (valid: delay, enforce, "],
    ),
    (
        "network:\n  links:\n    - {on: 0<->1, rate: 1Mbit/s}\n    - on: 1<->2\n      dely: 3ms",
        ["q.yaml:9: network.links.1.dely: unknown key; did you mean 'delay'?"],
    ),
    ("wait: {fro: all}", ["q.yaml:5: wait.fro: unknown key; did you mean 'for'?"]),
    ("stop: {time: 5s}", ["q.yaml:5: stop: this key is here twice, first on line 4"]),
    ("byzantine:\n  on: [1]", ["q.yaml:5: byzantine.attack: this key is missing"]),
    ("compute: {slow: [{on: [1]}]}", ["q.yaml:5: compute.slow.0.factor: this key is missing"]),
    ("network:", ["q.yaml:5: network: nothing is given here"]),
    ("byzantine:", ["q.yaml:5: byzantine: nothing is given here; leave the key out"]),
    ("wait:\n  timeout: 1s\n  heartbeat:", ["q.yaml:7: wait.heartbeat: nothing is given here"]),
    (
        "network: {links: [{on: 0<->1}]}",
        ["q.yaml:5: network.links.0: changes nothing: give at least one of rate, delay"],
    ),
    ("records: [trace]", ["q.yaml:5: records: expected keys with values, got ['trace']"]),
    ("compute:\n  slow: {on: [1], factor: 2}", ["q.yaml:6: compute.slow: expected a list, got "]),
    ("1: 2", ["q.yaml:5: a key must be text; put it in quotes"]),
    # checks
    ("expect:\n  - {check: acuracy}", ["q.yaml:6: expect.0.check: unknown check 'acuracy'; did y"]),
    ("expect: [{chek: loss}]", ["q.yaml:5: expect.0: name a check; (valid: accounting, accuracy"]),
    ("expect: [{check: accuracy}]", ["q.yaml:5: expect.0: 'accuracy': give at least one of '>='"]),
    (
        "expect:\n- check: accuracy\n  '>=': 85",
        ["q.yaml:6: expect.0: 'accuracy': an accuracy lies between 0% and 100%, got 85"],
    ),
    (
        "expect:\n- {check: loss, '<': 1}\n- check: loss\n  '=>': 3",
        ["q.yaml:8: expect.1.=>: 'loss' has no '=>'; did you mean"],
    ),
    (
        "expect:\n- check: loss\n  '<': yes",
        ["q.yaml:7: expect.0.<: 'yes' is not a ratio; write for example '5%'"],
    ),
    (
        "expect: [{check: loss, '<': 1, at: {rond: 3}}]",
        ["q.yaml:5: expect.0.at: write 'end', a time such as '20s' or {round: 50}, got"],
    ),
    (
        "expect: [{check: final_state, is: ded}]",
        ["q.yaml:5: expect.0.is: input should be 'finished', 'dead' or 'left', got 'ded'"],
    ),
    (
        "expect:\n- check: final_state\n  is: dead\n  nodes: [0, 8]",
        ["q.yaml:8: expect.0.nodes.1: there is no node 8; nodes are 0 to 7"],
    ),
    (
        "expect: [{check: recovered, after: splt, within: 10s}]",
        ["q.yaml:5: expect.0.after: there is no fault event 'splt'; (valid: none)"],
    ),
    ("expect: [{check: fidelity}]", ["q.yaml:5: expect.0: 'fidelity': give at least one of rate"]),
    (
        "expect: [{check: conservation, equals: 3}]",
        ["q.yaml:5: expect.0: 'conservation': 'equals' is for the sum of a metric"],
    ),
    # units
    (
        "network:\n  rate: 20\n  delay: 5\n  queue: 64",
        [
            "q.yaml:6: network.rate: rate needs a unit, for example '20Mbit/s'; got 20",
            "q.yaml:7: network.delay: duration needs a unit, for example '20ms'; got 5",
            "q.yaml:8: network.queue: size needs a unit, for example '64KiB'; got 64",
        ],
    ),
    ("network: {rate: 20Mbps}", ["q.yaml:5: network.rate: '20Mbps' is not a rate; write for"]),
    ("network: {nic: {egress: 0bit/s}}", ["q.yaml:5: network.nic.egress: a rate must be above"]),
    ("network: {loss: 120%}", ["q.yaml:5: network.loss: a ratio lies between 0% and 100%"]),
    ("network: {queue: 0B}", ["q.yaml:5: network.queue: must be above zero, got '0B'"]),
    ("wait: {timeout: 0s}", ["q.yaml:5: wait.timeout: must be above zero, got '0s'"]),
    ("evaluate: {every: 5.5}", ["q.yaml:5: evaluate.every: write a number of rounds such as 10"]),
    ("evaluate: {every: 0}", ["q.yaml:5: evaluate.every: must be above zero"]),
    ("evaluate: {every: 0s}", ["q.yaml:5: evaluate.every: must be above zero"]),
    ("evaluate: {every: true}", ["q.yaml:5: evaluate.every: write a number of rounds"]),
    ("compute: {time: nativ}", ["q.yaml:5: compute.time: 'nativ' is not a duration; write"]),
    ("metrics: {linger: 3}", ["q.yaml:5: metrics.linger: duration needs a unit"]),
    # plain values
    ("metrics: {serve: yes}", ["q.yaml:5: metrics.serve: expected true or false, got 'yes'"]),
    ("records: {trace: 1}", ["q.yaml:5: records.trace: expected true or false, got 1"]),
    ("seed: -1", ["q.yaml:5: seed: must be at least 0, got -1"]),
    ("seed: true", ["q.yaml:5: seed: expected a whole number, got true"]),
    ("seed: 0x1F", ["q.yaml:5: seed: expected a whole number, got '0x1F'"]),
    ("name: a/b", ["q.yaml:5: name: 'a/b' is no name for a run"]),
    ("network: {time_scale: 0}", ["q.yaml:5: network.time_scale: must be above 0, got 0"]),
    ("network: {time_scale: .inf}", ["q.yaml:5: network.time_scale: expected a finite number"]),
    ("network: {time_scale: '2'}", ["q.yaml:5: network.time_scale: expected a number, got '2'"]),
    (
        "network: {jitter_kind: normall}",
        ["q.yaml:5: network.jitter_kind: unknown choice 'normall'; did you mean 'normal'?"],
    ),
    ("compute: {spread: -1}", ["q.yaml:5: compute.spread: must be at least 0, got -1"]),
    ("compute: {slow: [{on: 1, factor: 0.5}]}", ["q.yaml:5: compute.slow.0.factor: must be at le"]),
    (
        "wait: {for: al}",
        ["q.yaml:5: wait.for: write 'all', 'live' or a number from 1 on, not 'al'"],
    ),
    ("wait: {for: 0}", ["q.yaml:5: wait.for: write 'all', 'live' or a number from 1 on, not 0"]),
    ("wait: {for: true}", ["q.yaml:5: wait.for: write 'all', 'live' or a number from 1 on"]),
    ("wait: {for: 8}", ["q.yaml:5: wait.for: a node has at most 7 others to wait for, got 8"]),
    # exactly so many of several
    ("target: {}", ["q.yaml:5: target: give exactly one of accuracy, loss"]),
    ("target: {accuracy: 9%, loss: 1}", ["q.yaml:5: target: give exactly one of accuracy, loss"]),
    # plug-ins
    ("topology: rng", ["q.yaml:5: topology.kind: unknown topology 'rng'; did you mean 'ring'?"]),
    (
        "topology:\n  kind: ring\n  mixing:\n    kind: metropolis",
        ["q.yaml:8: topology.mixing.kind: unknown mixing 'metropolis'; did you mean 'metropolis_"],
    ),
    (
        "topology:\n  kind: sequence\n  of:\n    - ring\n    - kind: grid\n      rows: 1",
        ["q.yaml:9: topology.of.1: 'grid': rows must be at least 2, got 1"],
    ),
    ("topology: {kind: custom, file: no.txt}", ["q.yaml:5: topology.file: there is no file /"]),
    ("launcher: docker", ["q.yaml:5: launcher.kind: unknown launcher 'docker'; "]),
    ("launcher: [local]", ["q.yaml:5: launcher: a launcher is written as {kind: NAME, ...}, got"]),
    # nodes, groups and links
    (
        "byzantine:\n  attack: sign_flip\n  on: [0, 9, slw, 6..8]\nnetwork: {groups: {slow: [1]}}",
        [
            "q.yaml:7: byzantine.on.1: there is no node 9; nodes are 0 to 7",
            "q.yaml:7: byzantine.on.2: unknown group 'slw'; did you mean 'slow'? (valid: all, ",
            "q.yaml:7: byzantine.on.3: there is no node 8; nodes are 0 to 7",
        ],
    ),
    (
        "byzantine: {attack: alie, on: [0..4, 5, 6..7]}",
        ["q.yaml:5: byzantine.on: every node is an attacker; at least one must be honest"],
    ),
    ("byzantine: {attack: alie, on: []}", ["q.yaml:5: byzantine.on: name at least one node"]),
    ("byzantine: {attack: alie, on: 3..1}", ["q.yaml:5: byzantine.on: write a node such as 0"]),
    ("byzantine: {attack: alie, on: -1}", ["q.yaml:5: byzantine.on: write a node such as 0"]),
    ("compute: {slow: [{on: x, factor: 2}]}", ["q.yaml:5: compute.slow.0.on.0: unknown group 'x'"]),
    (
        "network: {nics: [{on: 8, egress: 1Mbit/s}]}",
        ["q.yaml:5: network.nics.0.on.0: there is no node 8"],
    ),
    (
        "network: {groups: {a: b, b: [1, a]}}",
        [
            "q.yaml:5: network.groups.a.0: the group 'b' contains itself",
            "q.yaml:5: network.groups.b.1: the group 'a' contains itself",
        ],
    ),
    ("network: {groups: {a: 8}}", ["q.yaml:5: network.groups.a.0: there is no node 8"]),
    ("network: {groups: {all: 1}}", ["q.yaml:5: network.groups.all: 'all' cannot be the name"]),
    (
        "network: {groups: {1: 1}}",
        ["q.yaml:5: network.groups: a key must be text; put it in quotes"],
    ),
    ("network: {groups: {'1': 1}}", ["q.yaml:5: network.groups.1: '1' cannot be the name"]),
    (
        "network:\n  groups: {a: 1}\n  links:\n"
        "    - {on: 0->8, loss: 1%}\n    - {on: a<->c, loss: 1%}\n"
        "    - {on: 2<->2, loss: 1%}\n    - {on: a, loss: 1%}",
        [
            "q.yaml:8: network.links.0.on: there is no node 8",
            "q.yaml:9: network.links.1.on: unknown group 'c'; ",
            "q.yaml:10: network.links.2.on: '2<->2' is no link",
            "q.yaml:11: network.links.3.on: 'a' is no link",
        ],
    ),
    ("network: {links: [{on: 0-1}]}", ["q.yaml:5: network.links.0.on: write a node such as 0"]),
    ("network: {links: [{on: '3'}]}", ["q.yaml:5: network.links.0.on: write links as '0<->1'"]),
    ("network: {links: [{on: 0->1->2}]}", ["q.yaml:5: network.links.0.on: write links as '0<->1'"]),
    # syntax
    (
        "network: {rate: 1",
        ["q.yaml:5: not valid YAML: while parsing a flow mapping, expected ',' or"],
    ),
]


def said_of(text: str) -> list[str]:
    """The lines of the error that reading ``text`` raises."""
    with pytest.raises(ExperimentError) as caught:
        loads(text, "q.yaml")
    return str(caught.value).splitlines()


def assert_said(text: str, beginnings: list[str]) -> None:
    lines = said_of(text)
    assert len(lines) == len(beginnings), lines
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(beginning)


def test_the_base_of_all_these_is_good() -> None:
    assert loads(BASE, "q.yaml").nodes == 8


@pytest.mark.parametrize(("section", "beginnings"), SECTIONS, ids=[s for s, _ in SECTIONS])
def test_sections(section: str, beginnings: list[str]) -> None:
    assert_said(BASE + section, beginnings)


@pytest.mark.parametrize(
    ("text", "beginnings"),
    [
        (
            "",
            [
                "q.yaml: nodes: this key is missing",
                "q.yaml: problem: this key is missing",
                "q.yaml: protocol: this key is missing",
                "q.yaml: stop: this key is missing",
            ],
        ),
        ("[nodes, 8]", ["q.yaml: expected keys with values, got ['nodes', 8]"]),
        (
            "nodes: 1\nstop:\nprotocol:\nproblem:\n  kind: mnist_5k\n  modl: mlp",
            [
                "q.yaml:1: nodes: must be at least 2, got 1",
                "q.yaml:2: stop: nothing is given here",
                "q.yaml:3: protocol: a protocol is written as {kind: NAME, ...}",
                "q.yaml:6: problem.modl: 'mnist_5k' has no 'modl'; did you mean 'model'?",
            ],
        ),
        (
            "nodes: 4.0\nstop: {}\nprotocol:\n  kind: d_psg\n  lr: 1\nproblem: {model: mlp}",
            [
                "q.yaml:1: nodes: expected a whole number, got 4.0",
                "q.yaml:2: stop: give at least one of rounds, time, bytes, accuracy",
                "q.yaml:4: protocol.kind: unknown protocol 'd_psg'; did you mean 'd_psgd'?",
                "q.yaml:6: problem: a problem needs a kind",
            ],
        ),
        (
            "nodes: '4'\nstop: {rounds: 0, bytes: 0B}\nprotocol: {kind: d_psgd}\n"
            "problem:\n  kind: mnist_5k\n  partition:\n    kind: dirichlet\n    alpha: 0",
            [
                "q.yaml:1: nodes: expected a whole number, got '4'",
                "q.yaml:2: stop.rounds: must be at least 1, got 0",
                "q.yaml:2: stop.bytes: must be above zero, got '0B'",
                "q.yaml:3: protocol: 'd_psgd' needs 'lr'",
                "q.yaml:6: problem.partition: 'dirichlet': alpha must be positive",
            ],
        ),
        (
            "nodes: 4\nstop: {rounds: 1}\nproblem: mnist_5k\n"
            "protocol: {kind: choco_sgd, lr: '0.1', compressor: {kind: top_k, ratio: 7}}",
            ["q.yaml:4: protocol.lr: input should be a valid number, got '0.1'"],
        ),
        (
            "nodes: 4\nstop: {rounds: 1}\nproblem: mnist_5k\n"
            "protocol:\n  kind: choco_sgd\n  lr: 0.1\n  compressor:\n    kind: top_k\n    ratio: 7",
            ["q.yaml:9: protocol.compressor.ratio: a ratio lies between 0% and 100%, got '7'"],
        ),
    ],
)
def test_whole_files(text: str, beginnings: list[str]) -> None:
    assert_said(text, beginnings)


def test_a_value_that_is_long_is_cut() -> None:
    (line,) = said_of(BASE + f"seed: {'x' * 1000}")
    assert len(line) < 150
    assert line.endswith("...")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"no\.yaml: cannot be read: No such file"):
        load(tmp_path / "no.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_bytes(b"nodes: \xff")
    with pytest.raises(ExperimentError, match=r"q\.yaml: is not text in UTF-8"):
        load(tmp_path / "q.yaml")


def test_a_users_class_that_is_no_plug_in(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n")
    (tmp_path / "q.yaml").write_text(BASE.replace("kind: d_psgd", "kind: mine.py:Mine"))
    with pytest.raises(ExperimentError, match=r"q\.yaml:3: protocol\.kind: .* is not a protocol"):
        load(tmp_path / "q.yaml")


def test_a_users_protocol_that_is_no_dataclass(tmp_path: Path) -> None:
    code = "from tidings.api import Protocol\n\nclass Mine(Protocol):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "q.yaml").write_text(BASE.replace("kind: d_psgd", "kind: mine.py:Mine"))
    with pytest.raises(ExperimentError, match=r"q\.yaml:\d+: protocol\.kind: .*a dataclass"):
        load(tmp_path / "q.yaml")


def test_more_nodes_than_can_be_planned_are_refused() -> None:
    with pytest.raises(ExperimentError, match="nodes: must be at most 10000, got 10000001"):
        loads("nodes: 10000001\n")
