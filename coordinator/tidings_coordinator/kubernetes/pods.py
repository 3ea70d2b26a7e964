"""Pod templates of coordinator and nodes; the same under Jobs, JobSet and MPIJob."""

from __future__ import annotations

from typing import Any

from tidings.runtime.main import ONE_THREAD
from tidings_coordinator.kubernetes.release import (
    COORDINATOR_PORT,
    EXPERIMENT_DIRECTORY,
    METRICS_PORT,
    Object,
    Release,
)

#: any user but root; a number, for the kubelet cannot check what an image calls its user
_USER = 10001
_WORK, _TMP = "/work", "/tmp"
#: seconds that a coordinator may take to write down a run that is called off
_GRACE_S = 30
#: of MPI workers' sshd, which cannot listen below 1024
_SSH_PORT = 2222
#: where the MPI Operator is asked to mount the key pair that all pods of a run share
SSH_DIRECTORY = "/home/tidings/.ssh"


def coordinator(release: Release) -> Object:
    """Runs the experiment, then writes the run directory to its log."""
    command = [
        "tidings", "coordinate", f"{EXPERIMENT_DIRECTORY}/experiment.yaml",
        "--run", release.run, "--out", f"{_WORK}/run",
    ]  # fmt: skip
    container = _container(release, "coordinator", command, {})
    container["ports"] = [
        {"name": name, "containerPort": port} for name, port in release.control_ports.items()
    ]
    return _template(release, "coordinator", container)


def node(release: Release, job: str) -> Object:
    """A node of Job ``job``: it finds its number in the annotation that the Job controller writes,
    listens on its own address, and is known to the others by its stable name."""
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    environment = {
        "TIDINGS_NODE": {"fieldRef": {"fieldPath": index}},
        "TIDINGS_HOST": {"fieldRef": {"fieldPath": "status.podIP"}},
        "TIDINGS_ADVERTISE": f"{job}-$(TIDINGS_NODE).{release.name}",
        "TIDINGS_COORDINATOR": f"{release.name}-coordinator:{COORDINATOR_PORT}",
        "TIDINGS_RUN": release.run,
        "TIDINGS_METRICS_PORT": str(METRICS_PORT),
        "TIDINGS_PATIENCE": str(release.join_s),
    }
    container = _container(release, "node", ["tidings-node"], environment)
    container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT}]
    template = _template(release, "node", container)
    if release.claim and release.run:
        _keep_checkpoints(release, template["spec"])
    template["metadata"]["annotations"] = release.annotations()
    if release.workload == "jobs":
        # a JobSet sets it itself
        template["spec"]["subdomain"] = release.name
    return template


def _keep_checkpoints(release: Release, spec: Object) -> None:
    """Checkpoints where they outlive their pod, apart from those of other runs."""
    place = {"name": "checkpoints", "mountPath": f"{_WORK}/run/checkpoints"}
    spec["containers"][0]["volumeMounts"].append(place | {"subPath": release.run})
    claim = {"persistentVolumeClaim": {"claimName": release.claim}}
    spec["volumes"].append({"name": "checkpoints"} | claim)


def mpi_launcher(release: Release) -> Object:
    """Rank 0 is the coordinator, the others are the nodes; the run goes to the log as ever."""
    file, known = f"{EXPERIMENT_DIRECTORY}/experiment.yaml", f"{_WORK}/known_hosts"
    # workers show the run's own key, and nothing else is believed
    ssh = (
        f"-p {_SSH_PORT} -i {SSH_DIRECTORY}/id_rsa -oBatchMode=yes "
        f"-oUserKnownHostsFile={known} -oStrictHostKeyChecking=yes"
    )
    script = (
        f"{{ printf '* '; cat {SSH_DIRECTORY}/id_rsa.pub; }} >{known}; "
        # the operator's own, HYDRA_LAUNCH_..., MPICH does not know
        f'export HYDRA_LAUNCHER_EXTRA_ARGS="{ssh} $HYDRA_LAUNCH_EXTRA_ARGS"; '
        f"mpiexec -n {release.nodes + 1} tidings-node {file} --set launcher.host=$POD_IP --quiet "
        f"--out {_WORK}/run; code=$?; "
        f"tidings ship {_WORK}/run; exit $code"
    )
    address = {"POD_IP": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = _container(release, "coordinator", ["sh", "-c", script], address)
    template = _template(release, "coordinator", container)
    # the operator adds the host file and the keys
    template["spec"]["containers"][0]["env"].append({"name": "HOME", "value": "/home/tidings"})
    return template


def mpi_worker(release: Release) -> Object:
    """Waits for the launcher to log in; the image is that of deploy/docker/mpi.Dockerfile."""
    command = ["/usr/sbin/sshd", "-De", "-p", str(_SSH_PORT)]
    options = [
        f"HostKey={SSH_DIRECTORY}/id_rsa", "StrictModes=no", "PidFile=none", "UsePAM=no",
        f"AuthorizedKeysFile={SSH_DIRECTORY}/authorized_keys",
    ]  # fmt: skip
    container = _container(release, "node", command + [f"-o{o}" for o in options], {})
    container["ports"] = [{"name": "ssh", "containerPort": _SSH_PORT}]
    # the operator may start the launcher when all workers are ready
    container["readinessProbe"] = {"tcpSocket": {"port": _SSH_PORT}, "periodSeconds": 2}
    return _template(release, "node", container)


def _container(
    release: Release, name: str, command: list[str], environment: dict[str, Any]
) -> Object:
    variables = {"HOME": _TMP} | ONE_THREAD | {"PYTHONUNBUFFERED": "1"} | environment
    if release.workload == "mpi":
        del variables["HOME"]
    return {
        "name": name,
        "image": release.image,
        "imagePullPolicy": release.pull,
        "command": command,
        "env": [
            {"name": key, "value" if isinstance(value, str) else "valueFrom": value}
            for key, value in variables.items()
        ],
        **_secrets(release, name),
        "resources": {
            "requests": {"cpu": release.cpu, "memory": release.memory},
            "limits": {"memory": release.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "experiment", "mountPath": EXPERIMENT_DIRECTORY, "readOnly": True},
            {"name": "work", "mountPath": _WORK},
            {"name": "tmp", "mountPath": _TMP},
        ],
    }


def _secrets(release: Release, container: str) -> Object:
    """The key of the run's authority is for the coordinator's eyes only."""
    names = [name for name in release.secrets if name == "join" or container == "coordinator"]
    if not names:
        return {}
    return {"envFrom": [{"secretRef": {"name": f"{release.name}-{name}"}} for name in names]}


def _template(release: Release, component: str, container: Object) -> Object:
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "experiment", "configMap": {"name": f"{release.name}-experiment"}},
            {"name": "work", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
    }
    if release.pull_secret:
        spec["imagePullSecrets"] = [{"name": release.pull_secret}]
    return {"metadata": {"labels": release.labels(component)}, "spec": spec}
