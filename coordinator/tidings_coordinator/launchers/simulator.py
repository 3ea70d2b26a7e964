"""The simulator as a launcher."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.launchers.base import Launcher, launchers
from tidings_coordinator.launchers.capabilities import Capabilities, Shown

_FAULTS = "tests/sim/test_node_faults.py::"


@launchers.register("simulator")
@dataclass(frozen=True)
class Simulator(Launcher):
    """All nodes in one process on virtual time: same protocols, codec and links, no network."""

    #: draws the order of simultaneous events from this seed; null: first come, first served
    tie_seed: int | None = None

    can = Capabilities(
        transport="memory",
        runs=Shown("tests/sim/test_examples.py::test_example"),
        abilities={
            "kill": Shown(_FAULTS + "test_a_crash_in_a_round_and_the_others_go_on"),
            "pause": Shown(_FAULTS + "test_a_pause_holds_a_node_still_for_as_long_as_asked"),
            "kernel_links": Shown(
                "tests/deploy/test_netns.py::test_the_kernel_imposes_the_rate_that_was_asked_for",
                "its links are the model of both kinds",
            ),
            "omniscience": Shown(
                "tests/sim/test_byzantine.py"
                "::test_the_omniscient_see_those_that_they_have_no_link_to"
            ),
            "outlive": Shown(_FAULTS + "test_a_coordinator_that_dies_is_succeeded_by_its_records"),
            "restart": Shown(
                "tests/sim/test_restart.py"
                "::test_replicas_agree_again_wherever_in_a_broadcast_it_crashed"
            ),
        },
    )
