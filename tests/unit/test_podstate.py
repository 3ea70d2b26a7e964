"""Which node a pod is."""

from __future__ import annotations

from support import mpi_operator
from support.kube_node import pods_of
from support.kube_schemas import Object
from support.runs import SMALL

from tidings_coordinator.experiment.load import loads
from tidings_coordinator.kubernetes.kustomize import manifests, only
from tidings_coordinator.kubernetes.podstate import pod_state


def made(workload: str) -> list[Object]:
    settings = ["launcher=kubernetes", f"launcher.workload={workload}"]
    return manifests(loads(SMALL, overrides=settings), "podstate")


def test_nodes_are_told_by_the_number_that_their_job_gives_them() -> None:
    pods = [pod for job in only("Job", made("jobs")) for pod in pods_of(job)]
    assert [pod_state(pod).node for pod in pods] == [None, 0, 1, 2, 3]


def test_nodes_of_an_mpi_job_are_told_by_name_for_its_labels_count_from_one() -> None:
    [job] = only("MPIJob", made("mpi"))
    pods = [mpi_operator.launcher_of(job), *mpi_operator.workers_of(job)]
    assert [pod_state(pod).node for pod in pods] == [None, 0, 1, 2, 3]
