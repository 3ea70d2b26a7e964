"""The manifests of a run: pure functions from a Release to Kubernetes objects."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import yaml

from tidings_coordinator.kubernetes import pods
from tidings_coordinator.kubernetes.release import METRICS_PORT, Object, Release

_KILLED, _TERMINATED = 137, 143
#: Prometheus, wherever it runs in the cluster
_PROMETHEUS = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
}


def render(release: Release) -> list[Object]:
    """Every object of the run; the first owns the others where a launcher applies them."""
    workloads = {"jobs": _jobs, "jobset": _jobset, "mpi": _mpi_job}[release.workload](release)
    rest = [_experiment(release), *_services(release), *_policies(release)]
    return [workloads[0], *_secrets(release), *rest, *workloads[1:]]


def as_yaml(objects: Iterable[Object]) -> str:
    """Objects as one YAML stream."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _object(release: Release, version: str, kind: str, name: str, **rest: Any) -> Object:
    metadata = {"name": name, "labels": release.labels()}
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | rest


# -- what surrounds the pods -----------------------------------------------------------------------


def _experiment(release: Release) -> Object:
    return _object(release, "v1", "ConfigMap", f"{release.name}-experiment", data=release.files())


def _secrets(release: Release) -> list[Object]:
    return [
        _object(
            release, "v1", "Secret", f"{release.name}-{name}", type="Opaque", immutable=True,
            data={key: base64.b64encode(text.encode()).decode() for key, text in values.items()},
        )
        for name, values in release.secrets.items()
    ]  # fmt: skip


def _services(release: Release) -> list[Object]:
    """A virtual address for the coordinator, which can be dialled before its pod is there, and
    names for the nodes, which are known before they are ready."""
    names = _object(
        release, "v1", "Service", release.name,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": release.selector("node"),
            "ports": [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"}],
        },
    )  # fmt: skip
    coordinator = _object(
        release, "v1", "Service", f"{release.name}-coordinator",
        spec={
            "selector": release.selector("coordinator"),
            "ports": [
                {"name": name, "port": port, "targetPort": name}
                for name, port in release.control_ports.items()
            ],
        },
    )  # fmt: skip
    # the operators make the names of their pods themselves
    return {"jobs": [coordinator, names], "jobset": [coordinator], "mpi": []}[release.workload]


def _policies(release: Release) -> list[Object]:
    """Nodes talk to nodes and to the coordinator, Prometheus scrapes nodes, names are resolved;
    nothing else. Under MPI the coordinator is a rank, and ranks talk to each other."""
    nodes = [{"podSelector": {"matchLabels": release.selector("node")}}]
    coordinator = [{"podSelector": {"matchLabels": release.selector("coordinator")}}]
    control = [{"protocol": "TCP", "port": port} for port in release.control_ports.values()]
    names = {"ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]}
    scrape = {"from": [_PROMETHEUS], "ports": [{"protocol": "TCP", "port": METRICS_PORT}]}
    if release.workload == "mpi":
        ranks = nodes + coordinator
        return [_policy(release, None, [{"from": ranks}], [{"to": ranks}, names])]
    dial = {"to": coordinator, "ports": control}
    return [
        _policy(release, "coordinator", [{"from": nodes, "ports": control}], [names]),
        _policy(release, "node", [{"from": nodes}, scrape], [{"to": nodes}, dial, names]),
    ]


def _policy(
    release: Release, component: str | None, ingress: list[Object], egress: list[Object]
) -> Object:
    name = release.name if component is None else f"{release.name}-{component}"
    return _object(
        release, "networking.k8s.io/v1", "NetworkPolicy", name,
        spec={
            "podSelector": {"matchLabels": release.selector(component)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )  # fmt: skip


# -- workloads -------------------------------------------------------------------------------------


def _jobs(release: Release) -> list[Object]:
    name = release.name
    coordinator = _coordinator_job(release) | {"ttlSecondsAfterFinished": release.ttl_s}
    nodes = _node_job(release, f"{name}-node") | {"ttlSecondsAfterFinished": release.ttl_s}
    return [
        _object(release, "batch/v1", "Job", f"{name}-coordinator", spec=coordinator),
        _object(release, "batch/v1", "Job", f"{name}-node", spec=nodes),
    ]


def _coordinator_job(release: Release) -> Object:
    return {
        "backoffLimit": 0,
        "activeDeadlineSeconds": release.deadline_s,
        "template": pods.coordinator(release),
    }


def _node_job(release: Release, job: str) -> Object:
    """One pod a node. A node that dies fails its index, and no more: whether its death was asked
    for is for the coordinator to judge, and neither the other nodes nor a second pod with the same
    number may come of it. There is a second pod for one that was evicted."""
    killed = {
        "containerName": "node",
        "operator": "In",
        "values": [_KILLED, _TERMINATED],
    }
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    return {
        "completionMode": "Indexed",
        "completions": release.nodes,
        "parallelism": release.nodes,
        "backoffLimitPerIndex": 0,
        "maxFailedIndexes": release.nodes,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [disrupted]},
                {"action": "FailIndex", "onExitCodes": killed},
            ]
        },
        "activeDeadlineSeconds": release.deadline_s,
        "template": pods.node(release, job),
    }


def _jobset(release: Release) -> list[Object]:
    """Both Jobs under one roof; the coordinator's success is the set's."""
    replicated = [
        {"name": "coordinator", "replicas": 1, "template": {"spec": _coordinator_job(release)}},
        {
            "name": "node",
            "replicas": 1,
            "template": {"spec": _node_job(release, f"{release.name}-node-0")},
        },
    ]
    spec = {
        "network": {
            "enableDNSHostnames": True,
            "subdomain": release.name,
            "publishNotReadyAddresses": True,
        },
        "coordinator": {"replicatedJob": "coordinator", "jobIndex": 0, "podIndex": 0},
        "successPolicy": {"operator": "All", "targetReplicatedJobs": ["coordinator"]},
        "failurePolicy": {"maxRestarts": 0},
        "ttlSecondsAfterFinished": release.ttl_s,
        "replicatedJobs": replicated,
    }
    return [_object(release, "jobset.x-k8s.io/v1alpha2", "JobSet", release.name, spec=spec)]


def _mpi_job(release: Release) -> list[Object]:
    """Ranks by the MPI Operator: the launcher holds rank 0, each worker one node."""
    spec = {
        "slotsPerWorker": 1,
        "mpiImplementation": "MPICH",
        "sshAuthMountPath": pods.SSH_DIRECTORY,
        # or it would try, and fail, to log in to pods that are not there yet
        "launcherCreationPolicy": "WaitForWorkersReady",
        "runLauncherAsWorker": True,
        "runPolicy": {
            "cleanPodPolicy": "Running",
            "backoffLimit": 0,
            "activeDeadlineSeconds": release.deadline_s,
            "ttlSecondsAfterFinished": release.ttl_s,
        },
        "mpiReplicaSpecs": {
            "Launcher": {
                "replicas": 1,
                "restartPolicy": "Never",
                "template": pods.mpi_launcher(release),
            },
            "Worker": {
                "replicas": release.nodes,
                "restartPolicy": "Never",
                "template": pods.mpi_worker(release),
            },
        },
    }
    return [_object(release, "kubeflow.org/v2beta1", "MPIJob", release.name, spec=spec)]
