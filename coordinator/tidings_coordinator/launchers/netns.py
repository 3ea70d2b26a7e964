"""Node processes on this machine, each in a network namespace of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidings.errors import ConfigError, RunError, UserError
from tidings_coordinator import enforcing
from tidings_coordinator.launchers.base import Launcher, Order, check_port, launchers
from tidings_coordinator.launchers.capabilities import Capabilities, Shown
from tidings_coordinator.launchers.local import LocalNodes
from tidings_coordinator.launchers.namespaces import Namespaces, free_subnet

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan


_RUNS = "tests/deploy/test_netns.py::test_sixty_four_nodes_agree_with_the_simulator_bit_for_bit"
_SIGNALS = "tests/process/test_signals.py::test_nodes_in_namespaces_are_frozen_thawed_and_killed"


@launchers.register("netns")
@dataclass(frozen=True)
class NetworkNamespaces(Launcher):
    """One process a node in its own network namespace, with its own address, behind one bridge.

    Needs root. The coordinator stays outside, at the bridge's address.
    """

    #: the coordinator's port; 0 for any free one
    port: int = 0

    own_network = True
    can = Capabilities(
        runs=Shown(_RUNS),
        abilities={
            "kernel_links": Shown(
                "tests/deploy/test_netns.py::test_the_kernel_imposes_the_rate_that_was_asked_for"
            ),
            "tls": Shown(_RUNS),
            "kill": Shown(_SIGNALS),
            "pause": Shown(_SIGNALS),
            "restart": Shown(
                "tests/deploy/test_netns.py::test_a_killed_node_comes_back_behind_its_kernel_links"
            ),
        },
    )

    def __post_init__(self) -> None:
        check_port(self.port)

    def check(self, run: RunPlan) -> None:
        """Root, iproute2, and what the kernel must have to impose the links."""
        if os.geteuid() != 0:
            raise ConfigError("'netns' makes network namespaces, which needs root", ("launcher",))
        if shutil.which("ip") is None:
            raise ConfigError("'netns' needs the program ip (iproute2)", ("launcher",))
        enforcing.check_here(run)

    def group(self) -> LocalNodes:
        """A fork server whose children each enter their namespace."""
        return NamespacedNodes()


class NamespacedNodes(LocalNodes):
    """As local nodes, but each behind its own network device."""

    def __init__(self) -> None:
        super().__init__("")
        self._namespaces: Namespaces | None = None

    async def prepare(self, run: str, nodes: int) -> str:
        """Make the bridge; its address."""
        try:
            self._namespaces = Namespaces(run, free_subnet(nodes))
            await asyncio.to_thread(self._namespaces.make_bridge)
        except RunError as error:
            raise UserError(str(error)) from error
        return self._namespaces.gateway

    async def start(self, order: Order) -> None:
        """Make the namespaces, then start the nodes in them."""
        assert self._namespaces is not None
        making = asyncio.create_task(
            asyncio.to_thread(self._namespaces.make_namespaces, order.nodes)
        )
        # to the end, also when we are cancelled: what is half made cannot be removed
        try:
            await asyncio.shield(making)
        finally:
            await asyncio.wait([making])
        await super().start(order)

    def _child(self, node: int, order: Order) -> dict[str, Any]:
        assert self._namespaces is not None
        return super()._child(node, order) | {
            "host": self._namespaces.address(node),
            "netns": str(self._namespaces.file(node)),
        }

    async def stop(self) -> None:
        """End the nodes, then take down namespaces and bridge."""
        await super().stop()
        if self._namespaces is not None:
            await asyncio.to_thread(self._namespaces.remove)
            self._namespaces = None
