"""Nodes in containers on this machine, by Docker Compose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tidings
from tidings.errors import ConfigError, RunError
from tidings.runtime.checkpoint import folder_of
from tidings_coordinator import enforcing
from tidings_coordinator.launchers.base import (
    Exit,
    Launcher,
    NodeGroup,
    Order,
    check_port,
    launchers,
)
from tidings_coordinator.launchers.capabilities import Capabilities, Shown
from tidings_coordinator.launchers.compose_render import (
    NODE_LABEL,
    OWNER_LABEL,
    RUN_LABEL,
    Stack,
    data_name,
    files_of,
    prometheus_config,
    render,
    service,
)
from tidings_coordinator.launchers.docker_parts import client, compose_command, project_of, remove
from tidings_coordinator.launchers.owner import Owner

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan

#: Docker's way to say "killed by a signal"
_SIGNALLED = 128
_DOWN_S = 60.0
#: how long freezing a container is tried
_FREEZE_S = 20.0
#: containers that are made at a time
_AT_ONCE = 8
#: Prometheus and Grafana
_WATCHERS = 2


_TESTS = "tests/deploy/test_compose.py"
_RUNS = f"{_TESTS}::test_the_quickstart_reaches_its_accuracy_as_the_simulator_says"
_KILLED = f"{_TESTS}::test_a_killed_node_fails_the_run_and_says_how_it_ended"


@launchers.register("compose")
@dataclass(frozen=True)
class Compose(Launcher):
    """One container a node on this machine; the coordinator stays outside.

    Nodes run without rights, on a network of their own with no way out. Where the kernel imposes
    the links, they may change their own network devices.
    """

    #: what the nodes run; made by deploy/docker
    image: str = f"tidings:{tidings.__version__}"
    #: the coordinator's port on the control network; 0 for any free one
    port: int = 0
    #: whether Prometheus and Grafana run beside the nodes
    watch: bool = False
    #: what watches, where something does
    prometheus_image: str = "prom/prometheus:v2.55.1"
    #: what shows it
    grafana_image: str = "grafana/grafana-oss:11.4.0"

    own_network = True
    can = Capabilities(
        runs=Shown(_RUNS),
        abilities={
            "kernel_links": Shown(
                f"{_TESTS}::test_the_kernel_imposes_the_rate_inside_the_containers"
            ),
            "tls": Shown(_RUNS),
            "kill": Shown(_KILLED),
            "pause": Shown(f"{_TESTS}::test_a_paused_node_stands_still_and_goes_on"),
            "restart": Shown(f"{_TESTS}::test_a_killed_container_is_started_again"),
            "isolate": Shown(
                f"{_TESTS}::test_an_isolated_node_is_off_the_data_network_and_comes_back"
            ),
        },
    )

    def __post_init__(self) -> None:
        check_port(self.port)

    @property
    def join_s(self) -> float:
        """Every container imports torch for itself."""
        return 300.0

    def check(self, run: RunPlan) -> None:
        """Docker, Compose, the image, and what the kernel must have to impose the links."""
        monitor = run.experiment.monitor
        if self.watch and not (monitor.serve and monitor.host == "0.0.0.0"):
            raise ConfigError(
                "Prometheus in a container cannot reach the coordinator's service discovery on "
                "this machine's loopback; set monitor.host: 0.0.0.0",
                ("launcher", "watch"),
            )
        docker = client()
        try:
            compose_command()
            keys = ["image", *(["prometheus_image", "grafana_image"] if self.watch else [])]
            present = {tag for image in docker.images.list() for tag in image.tags}
            for key in keys:
                image = getattr(self, key)
                if image not in present:
                    hint = "make it by deploy/docker" if key == "image" else "pull it"
                    message = f"Docker has no image '{image}'; {hint}"
                    raise ConfigError(message, ("launcher", key))
        finally:
            docker.close()
        if os.geteuid() == 0:
            # containers have this machine's kernel; who is not root finds out from the nodes
            enforcing.check_here(run)

    def group(self) -> NodeGroup:
        """Containers, not made yet."""
        return ComposeNodes(self)


class ComposeNodes(NodeGroup):
    """A Compose project and its control network."""

    def __init__(self, launcher: Compose) -> None:
        self._launcher = launcher
        self._run = ""
        self._order: Order | None = None
        self._docker: Any = None
        self._control: Any = None
        self._events: Any = None
        self._listener: threading.Thread | None = None
        self._up: asyncio.subprocess.Process | None = None
        self.exits = asyncio.Queue()

    # -- life ----------------------------------------------------------------------------------

    async def prepare(self, run: str, nodes: int) -> str:
        """Make the control network; the address that this machine has on it."""
        self._run = run
        self._docker = client()
        self._control = await asyncio.to_thread(
            self._docker.networks.create,
            f"{project_of(run)}-control",
            driver="bridge",
            internal=True,
            labels={RUN_LABEL: run, OWNER_LABEL: Owner.me().text(run)},
            # containers see the coordinator on it, not each other
            options={"com.docker.network.bridge.enable_icc": "false"},
        )
        await asyncio.to_thread(self._control.reload)
        gateway: str = self._control.attrs["IPAM"]["Config"][0]["Gateway"]
        return gateway

    async def start(self, order: Order) -> None:
        """Render the file into the run directory, listen for deaths, bring everything up."""
        self._order = order
        if order.checkpoints is not None:
            for node in range(order.nodes):
                _make_for_anybody(folder_of(order.checkpoints, node).path)
        file = order.directory / "compose.yaml"
        file.write_text(self._render(order))
        self._listen()
        found = compose_command()
        command = [*found, "-p", project_of(order.run), "-f", str(file)]
        # of version 1 each service holds one of them while it waits for another, so that it would
        # wait for ever with as many services as that
        services = 0 if found[0] == "docker" else order.nodes + _WATCHERS
        with (order.logs / "compose.log").open("ab") as log:
            self._up = await asyncio.create_subprocess_exec(
                *command, "up", "-d", "--no-build",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ
                | {"COMPOSE_PARALLEL_LIMIT": str(services + _AT_ONCE)}
                | dict(order.join),
            )  # fmt: skip
        if await self._up.wait():
            raise RunError(f"docker compose could not start the nodes; see {log.name}")

    def _render(self, order: Order) -> str:
        launcher = self._launcher
        watch = order.discovery if launcher.watch else ""
        if launcher.watch:
            (order.directory / "prometheus.yml").write_text(prometheus_config(watch))
        return render(
            Stack(
                order.run,
                Owner.me().text(order.run),
                launcher.image,
                order.nodes,
                order.coordinator,
                self._control.name,
                order.kernel,
                order.checkpoints,
                files_of(order.protocol, order.problem, order.attack),
                watch,
                tuple(order.join),
                launcher.prometheus_image,
                launcher.grafana_image,
                order.directory.resolve(),
            )
        )

    async def stop(self) -> None:
        """Keep the nodes' logs, then take down containers and networks."""
        if self._docker is None:
            return
        docker, self._docker = self._docker, None
        if self._up is not None and self._up.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._up.pid, signal.SIGKILL)
            await self._up.wait()
        if self._events is not None:
            self._events.close()
        try:
            await asyncio.to_thread(self._keep_logs, docker)
        finally:
            # by label: also what a compose that was broken off has made
            await asyncio.to_thread(remove, self._run)
            if self._listener is not None:
                await asyncio.to_thread(self._listener.join, _DOWN_S)
            docker.close()

    # -- faults ----------------------------------------------------------------------------------

    async def signal(self, node: int, number: int) -> None:
        """Signal the node's process; a stop freezes its whole container, a continue thaws it."""
        container = await asyncio.to_thread(self._container, node)
        if number == signal.SIGSTOP:
            await asyncio.to_thread(_pause, container)
        elif number == signal.SIGCONT:
            await asyncio.to_thread(container.unpause)
        else:
            await asyncio.to_thread(container.kill, number)

    async def restart(self, node: int) -> None:
        """Start the node's container again, as it was made, once its process has ended."""
        container = await asyncio.to_thread(self._container, node)
        await asyncio.to_thread(container.wait, timeout=_DOWN_S)
        await asyncio.to_thread(container.start)

    async def isolate(self, node: int, cut: bool) -> None:
        """Take a node off the data network, or put it back under its name."""
        await asyncio.to_thread(self._isolate, node, cut)

    def _isolate(self, node: int, cut: bool) -> None:
        (data,) = self._docker.networks.list(names=[f"{project_of(self._run)}_data"])
        container = self._container(node)
        if cut:
            data.disconnect(container)
        else:
            data.connect(container, aliases=[service(node), data_name(node)])

    # -- in threads --------------------------------------------------------------------------------

    def _container(self, node: int) -> Any:
        label = [f"{RUN_LABEL}={self._run}", f"{NODE_LABEL}={node}"]
        found = self._docker.containers.list(all=True, filters={"label": label})
        if not found:
            raise RunError(f"node {node} has no container")
        return found[0]

    def _keep_logs(self, docker: Any) -> None:
        if self._order is None:
            return
        label = {"label": [f"{RUN_LABEL}={self._run}", NODE_LABEL]}
        for container in docker.containers.list(all=True, filters=label):
            node = int(container.labels[NODE_LABEL])
            with contextlib.suppress(OSError):
                path = self._order.logs / f"node-{node:04d}.log"
                Path(path).write_bytes(container.logs())

    def _listen(self) -> None:
        """Take down the deaths of containers, in a thread, until the stream is closed."""
        loop, exits = asyncio.get_running_loop(), self.exits
        filters = {"label": [f"{RUN_LABEL}={self._run}", NODE_LABEL], "event": "die"}
        self._events = events = self._docker.events(decode=True, filters=filters)

        def listen() -> None:
            with contextlib.suppress(Exception):
                for event in events:
                    attributes = event["Actor"]["Attributes"]
                    code = int(attributes["exitCode"])
                    code = _SIGNALLED - code if code > _SIGNALLED else code
                    died = Exit(int(attributes[NODE_LABEL]), code)
                    loop.call_soon_threadsafe(exits.put_nowait, died)

        self._listener = threading.Thread(target=listen, name="tidings-docker", daemon=True)
        self._listener.start()


def _make_for_anybody(folder: Path) -> None:
    """A folder into which a container's user can write, whoever that is here."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o777)


def _pause(container: Any) -> None:
    """Freeze a container; RunError where it cannot be frozen."""
    import docker as sdk

    deadline = time.monotonic() + _FREEZE_S
    while True:
        try:
            container.pause()
            return
        except sdk.errors.APIError as error:
            # runc gives up soon where a busy kernel takes its time to stop all threads
            if "unable to freeze" not in str(error) or time.monotonic() > deadline:
                raise RunError(f"Docker does not pause {container.name}: {error}") from error
