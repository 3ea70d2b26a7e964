"""How nodes get into a run: in the clear on loopback, by enrolment and mutual TLS elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tidings.errors import RecordError, UserError
from tidings_coordinator.control.authority import Authority
from tidings_coordinator.control.enrolment import Enrolment
from tidings_coordinator.control.refusals import Refusals
from tidings_coordinator.control.server import ControlServer
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.security import on_loopback
from tidings_coordinator.planning import RunPlan

_MAX_PORT = 65535


def uses_tls(experiment: Experiment) -> bool:
    """Whether the run's connections are protected; virtual nodes have none."""
    launcher = experiment.launcher
    host = "" if launcher.own_network else launcher.host
    return not launcher.virtual and experiment.security.on(host)


class Entrance:
    """The coordinator's doors, and what a node needs to pass them.

    With TLS, nodes dial the enrolment (``launcher.port``); the control plane is on the port after
    it, or on any free one.
    """

    def __init__(
        self, run: RunPlan, server: ControlServer, refusals: Refusals, directory: Path
    ) -> None:
        self._experiment = run.experiment
        self._nodes = len(run.nodes)
        self._outlived = run.grace_s > 0
        self._server = server
        self._refusals = refusals
        self.enrolment: Enrolment | None = None
        #: of every node's environment
        self.join: Mapping[str, str] = {}
        #: the same as a file, with the coordinator's address, while the run lasts
        self.invitation = directory / "join.env"
        #: the authority's key, as long as the run, where nodes outlive their coordinator
        self._authority = directory / "authority.env"

    async def open(self, host: str, watcher: Watcher) -> str:
        """Listen on ``host``; the address for nodes. UserError where that cannot be."""
        launcher = self._experiment.launcher
        port = launcher.port
        if uses_tls(self._experiment):
            address = await self._open_protected(host, port)
        else:
            if not on_loopback(host):
                watcher.say(
                    f"security.tls is off: whoever reaches {host} can read, and take part in, "
                    "this run"
                )
            address = await self._server.listen(host, port)
        if self.join or launcher.anonymous:
            self._write_invitation(address)
        return address

    async def _open_protected(self, host: str, port: int) -> str:
        if port == _MAX_PORT:
            raise UserError(f"with TLS, launcher.port needs a port after it; {port} is the last")
        # somebody else has made it where nodes are started beside the coordinator
        authority = self._kept() or Authority.given(os.environ) or Authority()
        if self._outlived:
            self._keep(authority)
        own = authority.own()
        control = await self._server.listen(host, port + 1 if port else 0, own)
        self.enrolment = Enrolment(authority, self._nodes, self._refusals)
        self.join = authority.for_nodes
        control_port = int(control.rpartition(":")[2])
        try:
            return await self.enrolment.listen(host, port, control_port, own)
        except UserError:
            await self._server.close()
            raise

    def _write_invitation(self, address: str) -> None:
        """For whoever starts nodes elsewhere: KEY=value, one a line, as shells and Docker read."""
        _write_secret(self.invitation, {"TIDINGS_COORDINATOR": address} | dict(self.join))

    def _keep(self, authority: Authority) -> None:
        """For the coordinator that takes over if this one is killed."""
        _write_secret(self._authority, {**authority.for_nodes, **authority.for_coordinator})

    def _kept(self) -> Authority | None:
        """The authority of the coordinator that was killed; UserError where others can read it."""
        if not self._server.adopting:
            return None
        try:
            mode = self._authority.stat().st_mode
            text = self._authority.read_text(encoding="ascii")
        except OSError as error:
            raise UserError(
                f"{self._authority}, the authority that the nodes trust, cannot be read: "
                f"{error.strerror}"
            ) from error
        if mode & 0o077:
            raise UserError(f"{self._authority} is a secret and others may read it: chmod 600")
        return Authority.given(dict(line.split("=", 1) for line in text.splitlines()))

    async def close(self) -> None:
        """Hang up on everyone; nothing secret stays behind."""
        with contextlib.suppress(OSError):
            self.invitation.unlink(missing_ok=True)
            self._authority.unlink(missing_ok=True)
        if self.enrolment is not None:
            await self.enrolment.close()
        await self._server.close()

    def report(self) -> dict[str, object]:
        """For the run's result: whether it was protected, and who was refused how often."""
        gates = [self._server.gate]
        if self.enrolment is not None:
            gates.append(self.enrolment.gate)
        strangers = sum(gate.strangers for gate in gates)
        refused = self._refusals.counts + Counter(unauthenticated=strangers)
        return {
            "tls": self.enrolment is not None,
            "refused": dict(sorted(refused.items())),
        }


def _write_secret(path: Path, lines: Mapping[str, str]) -> None:
    """KEY=value, one a line, for this user only."""
    try:
        # of a coordinator that was killed
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.writelines(f"{key}={value}\n" for key, value in lines.items())
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error
