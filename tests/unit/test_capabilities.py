"""What launchers claim is shown by tests that exist; what they cannot do is refused up front."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tidings.errors import UserError
from tidings.faults.base import faults
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.launchers.base import launchers
from tidings_coordinator.launchers.capabilities import ABILITIES, FAULTS, FEATURES
from tidings_coordinator.launchers_reference import TRANSPORT, capability_table, rows
from tidings_coordinator.planning import plan

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
CLAIMS = [(title, name, s) for title, row in rows() for name, s in row.items() if s is not None]

#: what has no meaning over some transport
SOME_TRANSPORTS = ("link.reset", "node.stress")

FILE = """\
nodes: 4
network:
  delay: 20ms
  jitter: 1ms
  enforce: kernel
  links:
    - {on: 0<->1, rate: 2Mbit/s}
    - {on: 1<->2, jitter_kind: exponential}
problem: quadratic
protocol: {kind: d_psgd, lr: 1}
stop: {rounds: 5}
security: {tls: always}
launcher: netns
"""


def functions_of(path: str) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions)}


@pytest.mark.parametrize("test", sorted({shown.test for _, _, shown in CLAIMS}))
def test_what_is_claimed_is_shown_by_a_test(test: str) -> None:
    path, _, name = test.partition("::")
    assert name.partition("[")[0] in functions_of(path)
    assert name.startswith("test_")


def test_every_launcher_runs_and_nodes_can_do_everywhere_what_they_do_themselves() -> None:
    said = {(row, name) for row, name, _ in CLAIMS}
    own = [f for f in FEATURES if f.needs is None and f.key not in SOME_TRANSPORTS]
    rows = [TRANSPORT, *(f"`{feature.key}`" for feature in own)]
    assert {(row, name) for row in rows for name in launchers} <= said


def test_every_fault_is_a_row_and_what_a_launcher_is_able_to_do_is_shown_of_each() -> None:
    assert set(FAULTS) == set(faults)
    for name, feature in FAULTS.items():
        can = {launcher: launchers.get(launcher).can for launcher in launchers}
        able = {launcher for launcher in can if feature.needs in can[launcher].abilities}
        shown = {launcher for launcher in can if feature.shown(launcher, can[launcher])}
        assert shown, name
        assert feature.needs is None or able == shown, name
        # no test of a launcher that cannot
        assert set(feature.tests) <= {*launchers, "memory", "grpc", "mpi"}


def test_the_table_says_yes_to_what_is_claimed_and_no_to_the_rest() -> None:
    cells = {
        (row[0].strip(), name): cell.strip()
        for line in capability_table().splitlines()
        if line.startswith("| ") and len(row := line[2:-2].split(" | ")) == len(list(launchers)) + 1
        for name, cell in zip(launchers, row[1:], strict=True)
    }
    able = {(words, name) for words, name, _ in CLAIMS}
    assert len(able) == len(CLAIMS)
    for words in ABILITIES.values():
        for name in launchers:
            cell = cells[words, name]
            assert cell.startswith("yes <sup>") if (words, name) in able else cell == "no"


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        plan(loads(text, "some/file.yaml", overrides), "test")
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "begins", "says"),
    [
        (
            ["launcher=local"],
            "some/file.yaml:5: network.enforce: the launcher 'local' cannot have the kernel impose",
            "write user, or choose another launcher (launchers that can: compose, netns, simulator",
        ),
        # the line of the links that ask for it, not that of the others
        ([], "some/file.yaml:8: network.links.1.jitter_kind: the kernel has no 'exponential'", ""),
        (
            ["network.jitter_kind=exponential", "network.links=[]"],
            "--set network.jitter_kind=exponential: the kernel has no 'exponential' jitter (valid",
            "",
        ),
    ],
)
def test_what_a_launcher_cannot_do_is_refused_with_line_key_and_choice(
    overrides: list[str], begins: str, says: str
) -> None:
    found = complaint(FILE, *overrides)
    assert found.startswith(begins)
    assert says in found
    assert "\n" not in found


EVENT = """\
nodes: 4
problem: quadratic
protocol: {{kind: d_psgd, lr: 1}}
stop: {{rounds: 5}}
faults:
  - {{id: a, {}}}
"""
RESET = "fault: link.reset, on: 0->1"
RESTART = "fault: node.crash, on: 1, with: {restart_after: 1s}"


@pytest.mark.parametrize(
    ("event", "launcher", "says"),
    [
        (RESTART, "{kind: mpi, ulfm: true}", "'mpi' cannot start a node again during the run; wri"),
        (RESTART, "external", "launcher 'external' cannot kill a node from outside: nodes are out"),
        (RESTART, "{kind: external, followed: true}", ""),
        (RESTART, "{kind: kubernetes, workload: mpi}", "with launcher.workload: mpi all ranks die"),
        # over MPI there are no connections to be broken, whoever starts the ranks
        (RESET, "{kind: kubernetes, workload: mpi}", "'kubernetes' cannot bring about 'link.reset"),
        (RESET, "{kind: kubernetes, workload: jobset}", ""),
    ],
)
def test_what_a_launcher_can_depends_on_how_it_is_set(event: str, launcher: str, says: str) -> None:
    text = EVENT.format(event)
    if says:
        found = complaint(text, f"launcher={launcher}")
        assert found.startswith("some/file.yaml:6: faults.0.fault: the launcher ")
        assert says in found
    else:
        assert plan(loads(text, overrides=[f"launcher={launcher}"]), "test").firings


def test_nothing_is_there_to_protect_in_the_simulator() -> None:
    setting = ["launcher=simulator", "network.links=[]"]
    assert len(plan(loads(FILE, overrides=setting), "test").nodes) == 4
