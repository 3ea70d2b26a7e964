"""What the MPI Operator (v2beta1, 0.6) makes of an MPIJob: its pods, its keys and its host file.

As in ``newWorker``, ``newLauncherPodTemplate``, ``newConfigMap`` and ``newSSHAuthSecret`` of
pkg/controller/mpi_job_controller.go, for MPICH with the launcher as a worker.
"""

from __future__ import annotations

import copy
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.kube_schemas import Object

_CONFIG = "mpi-job-config"
SSH_VOLUME = "ssh-auth"
_ENVIRONMENT = {
    "HYDRA_HOST_FILE": "/etc/mpi/hostfile",
    "HYDRA_LAUNCH_EXTRA_ARGS": "-o ConnectionAttempts=10",
}


def launcher_of(job: Object) -> Object:
    """The launcher's pod."""
    name = job["metadata"]["name"]
    pod = _pod(job, "Launcher", f"{name}-launcher", _ENVIRONMENT)
    items = [{"key": "hostfile", "path": "hostfile", "mode": 0o444}]
    volume = {"name": _CONFIG, "configMap": {"name": f"{name}-config", "items": items}}
    pod["spec"]["volumes"].append(volume)
    mount = {"name": _CONFIG, "mountPath": "/etc/mpi"}
    pod["spec"]["containers"][0]["volumeMounts"].append(mount)
    return pod


def workers_of(job: Object) -> list[Object]:
    """The workers' pods."""
    name, count = job["metadata"]["name"], job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
    pods = [_pod(job, "Worker", f"{name}-worker-{number}", {}) for number in range(count)]
    for number, pod in enumerate(pods):
        # the launcher is 0
        pod["metadata"]["labels"]["training.kubeflow.org/replica-index"] = str(number + 1)
    return pods


def hosts_of(job: Object) -> Object:
    """The ConfigMap with the host file."""
    name = job["metadata"]["name"]
    pods = [launcher_of(job), *workers_of(job)]
    lines = [f"{names_of(pod)[-1]}:{job['spec']['slotsPerWorker']}\n" for pod in pods]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-config"},
        "data": {"hostfile": "".join(lines)},
    }


def names_of(pod: Object) -> list[str]:
    """What a pod can be dialled by: by its search domain, and in full."""
    host, subdomain = pod["spec"]["hostname"], pod["spec"]["subdomain"]
    return [host, f"{host}.{subdomain}.default.svc"]


def keys() -> dict[str, bytes]:
    """The files that all pods have in their volume of keys."""
    key = ec.generate_private_key(ec.SECP521R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    public += b"\n"
    return {"id_rsa": private, "id_rsa.pub": public, "authorized_keys": public}


def _pod(job: Object, role: str, name: str, environment: dict[str, str]) -> Object:
    template: dict[str, Any] = copy.deepcopy(job["spec"]["mpiReplicaSpecs"][role]["template"])
    spec = template["spec"] | {"hostname": name, "subdomain": job["metadata"]["name"]}
    container = spec["containers"][0]
    added = {"K_MPI_JOB_ROLE": role.lower()} | environment
    container["env"] += [{"name": key, "value": value} for key, value in added.items()]
    secret = {"secretName": f"{job['metadata']['name']}-ssh"}
    spec["volumes"].append({"name": SSH_VOLUME, "secret": secret})
    container["volumeMounts"].append(
        {"name": SSH_VOLUME, "mountPath": job["spec"]["sshAuthMountPath"]}
    )
    metadata = template["metadata"] | {"name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
