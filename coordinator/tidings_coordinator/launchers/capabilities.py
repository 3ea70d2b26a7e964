"""What launchers can do, as data: what is refused up front, and the table in the docs.

A claim names the test that shows it (``path::name``, from the root of the repository); what no test
shows is not claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tidings.faults.base import Needed
from tidings.runtime.plan import TransportKind

Ability = Literal["kernel_links", "tls", "isolate", "join", "omniscience"] | Needed

#: what a launcher with the ability can do, in the order of the table
ABILITIES: dict[Ability, str] = {
    "kernel_links": "have the kernel impose the links",
    "tls": "protect its connections by TLS",
    "kill": "kill a node from outside",
    "pause": "freeze and thaw a node from outside",
    "isolate": "take a node off its network from outside",
    "restart": "start a node again during the run",
    "join": "let a node come later",
    "omniscience": "show an attacker what nodes send that it has no link to",
    "reset": "break connections that come back by themselves",
    "stress": "put load on the machines of nodes",
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
    #: what the launcher must be able to do; None where nodes do it themselves
    needs: Ability | None
    #: the test that shows it, by launcher or, where nodes do it themselves, by transport
    tests: Mapping[str, str]


#: what nodes do to themselves, and so under every launcher
FEATURES: tuple[Feature, ...] = (
    Feature(
        "network.loss",
        None,
        dict.fromkeys(
            ("memory", "grpc", "mpi"),
            "tests/conformance/test_transports.py::test_the_same_messages_are_lost_everywhere",
        ),
    ),
    Feature(
        "byzantine",
        None,
        dict.fromkeys(
            ("memory", "grpc", "mpi"),
            "tests/conformance/test_transports.py"
            "::test_every_aggregator_ends_with_the_same_bits_and_bytes",
        ),
    ),
    *(
        Feature(
            fault,
            None,
            dict.fromkeys(
                ("memory", "grpc", "mpi"),
                "tests/conformance/test_faults.py"
                "::test_a_fault_of_rounds_has_the_same_effect_everywhere",
            ),
        )
        for fault in (
            "net.partition",
            "link.cut",
            "link.loss",
            "link.duplicate",
            "link.corrupt",
            "link.shape",
            "link.scale",
            "msg.drop",
            "msg.truncate",
            "msg.replay",
            "node.slow",
            "node.clock",
            "data.label_noise",
            "data.shift",
            "byz.*",
        )
    ),
)
