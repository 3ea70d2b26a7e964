"""What launchers can do, as data: what is refused up front, and the table in the docs.

A claim names the test that shows it (``path::name``, from the root of the repository); what no test
shows is not claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tidings.api import attacks
from tidings.faults.base import Needed, faults
from tidings.runtime.plan import TransportKind

Ability = Literal["kernel_links", "tls", "isolate", "omniscience"] | Needed

#: what a launcher with the ability can do, in the order of the table
ABILITIES: dict[Ability, str] = {
    "kernel_links": "have the kernel impose the links",
    "tls": "protect its connections by TLS",
    "kill": "kill a node from outside",
    "pause": "freeze and thaw a node from outside",
    "isolate": "take a node off its network from outside",
    "restart": "start a node again during the run",
    "outlive": "let its nodes outlive their coordinator",
    "omniscience": "show an attacker what nodes send that it has no link to",
}


@dataclass(frozen=True)
class Shown:
    """A claim with its proof."""

    #: the test that shows it
    test: str
    #: the condition under which it holds, where there is one
    note: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What one launcher can do. What nodes do to themselves they do everywhere."""

    #: what carries messages between its nodes; in memory, time is virtual
    transport: TransportKind = "grpc"
    #: that runs work at all over it, with links that the nodes impose themselves
    runs: Shown | None = None
    abilities: Mapping[Ability, Shown] = field(default_factory=dict)


@dataclass(frozen=True)
class Feature:
    """Something that a file can ask for: a row of the table."""

    #: as the file says it, such as "network.loss"
    key: str
    #: the tests that show it: by launcher or, where nodes do it themselves, by transport
    tests: Mapping[str, str]
    #: what the launcher must be able to do; None where nodes do it themselves
    needs: Ability | None = None

    def shown(self, kind: str, can: Capabilities) -> Shown | None:
        """Why the launcher called ``kind`` is said to be able to; None where it is not."""
        if self.needs is None:
            test = self.tests.get(kind) or self.tests.get(can.transport)
        else:
            test = self.tests.get(kind) if self.needs in can.abilities else None
        return Shown(test) if test else None


_TRANSPORTS = "tests/conformance/test_transports.py::"
_ROUNDS = "tests/conformance/test_faults.py::test_a_fault_of_rounds_has_the_same_effect_everywhere"
_TIMES = "tests/conformance/test_faults.py::test_a_fault_of_time_comes_and_goes_everywhere"
_REWIRED = "tests/conformance/test_faults.py::test_another_graph_has_the_same_effect_everywhere"
_COMPOSE = "tests/deploy/test_compose.py::test_faults_freeze_and_kill_containers"
_KUBERNETES = "tests/process/test_kubernetes.py::"
_SIMULATED, _REAL = "tests/sim/test_node_faults.py::", "tests/process/test_faults.py::"

_COORDINATOR = "tests/process/test_coordinator_faults.py::"


def _everywhere(test: str) -> dict[str, str]:
    return dict.fromkeys(("memory", "grpc", "mpi"), test)


#: every fault: where nodes do it to themselves, by transport, for no launcher has a part in it
_FAULTS: dict[str, Mapping[str, str]] = {
    "graph.rewire": _everywhere(_REWIRED),
    "net.partition": _everywhere(_ROUNDS),
    "link.shape": _everywhere(_ROUNDS),
    "link.scale": _everywhere(_ROUNDS),
    "link.trace": _everywhere(_ROUNDS),
    "link.loss": _everywhere(_ROUNDS),
    "link.duplicate": _everywhere(_ROUNDS),
    "link.reorder": _everywhere(_ROUNDS),
    "link.corrupt": _everywhere(_ROUNDS),
    "link.cut": _everywhere(_ROUNDS),
    "link.flap": _everywhere(_TIMES),
    # there are no connections to be broken over MPI and in memory
    "link.reset": {"grpc": _TIMES},
    "node.isolate": _everywhere(_ROUNDS),
    "node.slow": _everywhere(_ROUNDS),
    "node.clock": _everywhere(_ROUNDS),
    # there is no load in virtual time
    "node.stress": {"grpc": _TIMES, "mpi": _TIMES},
    "node.leave": _everywhere(_TIMES),
    "node.join": _everywhere(_TIMES),
    "node.pause": {
        "simulator": _SIMULATED + "test_a_pause_holds_a_node_still_for_as_long_as_asked",
        "local": _REAL + "test_a_frozen_node_goes_on_where_it_stood",
        "netns": _REAL + "test_nodes_in_namespaces_are_frozen_and_killed",
        "mpi": _REAL + "test_ranks_are_frozen_and_killed",
        "compose": _COMPOSE,
    },
    "node.crash": {
        "simulator": _SIMULATED + "test_a_crash_in_a_round_and_the_others_go_on",
        "local": _REAL + "test_a_killed_node_and_the_others_go_on",
        "netns": _REAL + "test_nodes_in_namespaces_are_frozen_and_killed",
        "mpi": _REAL + "test_ranks_are_frozen_and_killed",
        "compose": _COMPOSE,
        "kubernetes": _KUBERNETES + "test_a_crash_that_was_asked_for_is_no_failure",
        "external": _KUBERNETES + "test_a_crash_that_was_asked_for_is_no_failure",
    },
    "node.churn": {
        "simulator": _SIMULATED + "test_churn",
        "local": _REAL + "test_churn",
        "netns": _REAL + "test_churn",
        "compose": "tests/deploy/test_compose.py::test_a_killed_container_is_started_again",
        "kubernetes": _KUBERNETES + "test_a_pod_that_was_evicted_comes_back",
        "external": _KUBERNETES + "test_a_pod_that_was_evicted_comes_back",
    },
    "msg.drop": _everywhere(_ROUNDS),
    "msg.delay": _everywhere(_ROUNDS),
    "msg.duplicate": _everywhere(_ROUNDS),
    "msg.replay": _everywhere(_ROUNDS),
    "msg.truncate": _everywhere(_ROUNDS),
    "msg.bitflip": _everywhere(_ROUNDS),
    # the test goes through all attacks that there are
    **{f"byz.{attack}": _everywhere(_ROUNDS) for attack in attacks},
    "data.label_noise": _everywhere(_ROUNDS),
    "data.shift": _everywhere(_ROUNDS),
    "store.fail": _everywhere(_TIMES),
    "coord.isolate": {
        "memory": _SIMULATED + "test_an_isolated_coordinator_acts_late",
        "grpc": _COORDINATOR + "test_nodes_go_on_while_their_coordinator_cannot_be_reached",
        "mpi": _REAL + "test_ranks_are_frozen_and_killed",
    },
    "coord.crash": {
        "simulator": _SIMULATED + "test_a_coordinator_that_dies_is_succeeded_by_its_records",
        "local": _COORDINATOR + "test_a_coordinator_is_killed_and_another_one_takes_over",
        "external": _COORDINATOR + "test_nodes_that_others_have_started_are_taken_over",
    },
    "mark": {
        "memory": _SIMULATED + "test_marks_conditions_and_chains",
        "grpc": _REAL + "test_faults_that_only_the_coordinator_can_time",
        "mpi": _REAL + "test_ranks_are_frozen_and_killed",
    },
}

#: the faults, as rows of the table
FAULTS: dict[str, Feature] = {
    name: Feature(name, tests, faults.get(name).needs) for name, tests in _FAULTS.items()
}

_RESHAPED = "test_faults_change_what_the_kernel_imposes"
#: what faults that reshape links ask for besides, where the kernel imposes them
RESHAPED_BY_KERNEL = Feature(
    "link.shape, link.scale, link.trace under enforce: kernel",
    {
        "netns": f"tests/deploy/test_netns.py::{_RESHAPED}",
        "compose": f"tests/deploy/test_compose.py::{_RESHAPED}_in_containers",
        "simulator": f"tests/deploy/test_netns.py::{_RESHAPED}",
    },
    "kernel_links",
)

#: what nodes do to themselves without any event, and the faults
FEATURES: tuple[Feature, ...] = (
    Feature(
        "network.loss", _everywhere(_TRANSPORTS + "test_the_same_messages_are_lost_everywhere")
    ),
    Feature(
        "byzantine",
        _everywhere(_TRANSPORTS + "test_every_aggregator_ends_with_the_same_bits_and_bytes"),
    ),
    RESHAPED_BY_KERNEL,
    *FAULTS.values(),
)
