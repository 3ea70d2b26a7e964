"""Runs on a Kubernetes cluster: coordinator and nodes as pods, followed and collected from here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import tidings
from tidings.errors import ConfigError
from tidings.faults.node_churn import NodeChurn
from tidings.units import Duration
from tidings_coordinator.launchers.base import Delegate, Launcher, launchers
from tidings_coordinator.launchers.capabilities import Ability, Capabilities, Shown

if TYPE_CHECKING:
    from tidings_coordinator.kubernetes.release import Release
    from tidings_coordinator.planning import RunPlan


_TESTS = "tests/process/test_kubernetes.py"
_PODS = "not with `workload: mpi`; a stand-in for the API server"


@launchers.register("kubernetes")
@dataclass(frozen=True)
class Kubernetes(Launcher):
    """The coordinator as a Job, the nodes as an Indexed Job, on the cluster of a kubeconfig."""

    #: what coordinator and nodes run; it has ``tidings`` and ``tidings-node``
    image: str = f"tidings:{tidings.__version__}"
    pull: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    #: name of a Secret that lets the cluster pull the image
    pull_secret: str = ""
    #: what the pods are made of: plain Jobs, a JobSet, or an MPIJob (their operators must be there)
    workload: Literal["jobs", "jobset", "mpi"] = "jobs"
    #: what a pod asks for, and the most memory that it gets
    cpu: str = "500m"
    memory: str = "1Gi"
    #: empty: as kubectl would choose them
    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    #: name of a PersistentVolumeClaim for the nodes' checkpoints, which all nodes can write to
    #: (ReadWriteMany); empty: they are in the pods, and lost with them
    claim: str = ""
    #: how long a pod may fail to start
    pending: Duration = Duration(300.0)
    #: how long the coordinator waits for the nodes
    join: Duration = Duration(600.0)
    #: how long finished Jobs are kept if nobody deletes them
    ttl: Duration = Duration(3600.0)
    #: whether everything stays on the cluster afterwards
    keep: bool = False

    own_network = True

    can = Capabilities(
        runs=Shown(
            f"{_TESTS}::test_a_run_on_kubernetes_gives_the_weights_of_the_simulator",
            "a stand-in for the API server; pods were run by podman, never yet by a cluster. "
            "MPI with `workload: mpi`",
        ),
        abilities={
            "tls": Shown(
                f"{_TESTS}::test_a_run_on_kubernetes_gives_the_weights_of_the_simulator",
                "with `workload: mpi` the control plane only",
            ),
            "kill": Shown(f"{_TESTS}::test_a_crash_that_was_asked_for_is_no_failure", _PODS),
            "restart": Shown(f"{_TESTS}::test_a_pod_that_was_evicted_comes_back", _PODS),
        },
    )

    @property
    def as_set(self) -> Capabilities:
        """Under the MPI Operator messages go over MPI."""
        return replace(self.can, transport="mpi") if self.workload == "mpi" else self.can

    def lacks(self, ability: Ability) -> str:
        """MPI does without none of its ranks."""
        if self.workload == "mpi" and ability in ("kill", "restart"):
            return "with launcher.workload: mpi all ranks die with one"
        return ""

    def check(self, run: RunPlan) -> None:
        """What comes back from checkpoints must find them."""
        experiment = run.experiment
        if self.claim or experiment.checkpoint.every is None:
            return
        for index, event in enumerate(experiment.faults):
            fault = event.fault
            back = isinstance(fault, NodeChurn) or getattr(fault, "restart_after", None) is not None
            if back and not getattr(fault, "lose_state", False):
                message = (
                    "a pod's checkpoints are lost with it: set launcher.claim, or lose_state: true"
                )
                raise ConfigError(message, ("faults", index, "fault"))

    def delegate(self) -> Delegate:
        """The coordinator is a pod: apply, follow, collect, delete."""
        from tidings_coordinator.kubernetes.carry_out import carry_out

        return lambda commission: carry_out(self, commission)

    def release(self, run: RunPlan, instance: str) -> Release:
        """What the manifests of a run are made from."""
        from tidings_coordinator.control.authority import Authority
        from tidings_coordinator.control.entrance import uses_tls
        from tidings_coordinator.kubernetes.release import Release

        # made here, for nodes are started beside the coordinator
        authority = Authority() if uses_tls(run.experiment) else None
        return Release(
            experiment=run.experiment,
            run=run.run,
            instance=instance,
            image=self.image,
            pull=self.pull,
            pull_secret=self.pull_secret,
            cpu=self.cpu,
            memory=self.memory,
            workload=self.workload,
            ttl_s=int(self.ttl),
            join_s=int(self.join),
            claim=self.claim,
            join=authority.for_nodes if authority else {},
            authority=authority.for_coordinator if authority else {},
        )
