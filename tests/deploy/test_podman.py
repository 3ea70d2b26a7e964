"""The pods of the manifests as real containers: ``podman kube play`` of what the Jobs would make.

What podman leaves to a cluster is done here: the pods of a Job, the address of a pod and references
between variables in its environment, and the names of services (as hostAliases). All else of the
Pod specs is podman's to obey: user, read-only root, capabilities, seccomp, volumes, limits.
"""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import mpi_operator
from support.kube_jobs import pods_of
from support.kube_node import environment
from support.kube_schemas import Object, check
from support.podman import IMAGE, Podman, podman_or_skip
from support.runs import SMALL, result, tidings

from tidings_coordinator.experiment.load import loads
from tidings_coordinator.kubernetes.kustomize import manifests, only
from tidings_coordinator.records.shipping import Collector

pytestmark = [pytest.mark.daemons, pytest.mark.deploy, pytest.mark.timeout(900)]

_USER = 10001
DEADLINE_S = 400.0


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    engine = podman_or_skip(tmp_path_factory.mktemp("podman") / "engine")
    try:
        engine.build()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def net(podman: Podman) -> Iterator[str]:
    """The network `lab`, by the first three numbers of its addresses; what was in it goes."""
    found = f"10.{uuid.uuid4().int % 100 + 100}.{uuid.uuid4().int % 250}"
    podman("network", "create", "--subnet", f"{found}.0/24", "--disable-dns", "lab")
    yield found
    podman("pod", "rm", "--all", "--force", "--time", "0")
    podman("network", "rm", "lab")


def job_names(pod: Object) -> list[str]:
    """What a Job's pod is known by: the Service of the coordinator, and stable names of nodes."""
    spec = pod["spec"]
    if "subdomain" in spec:
        return [f"{spec['hostname']}.{spec['subdomain']}"]
    return [pod["metadata"]["labels"]["job-name"]]


def address(pods: list[Object], net: str, names: Callable[[Object], list[str]]) -> None:
    """Give each pod an address and the names of all."""
    for number, pod in enumerate(pods):
        pod["status"] = {"podIP": f"{net}.{10 + number}"}
    aliases = [{"ip": pod["status"]["podIP"], "hostnames": names(pod)} for pod in pods]
    for pod in pods:
        pod["spec"]["hostAliases"] = aliases
        for container in pod["spec"]["containers"]:
            values = environment(pod, container, {})
            # for people only; this podman would publish them on the host
            container.pop("ports", None)
            container["env"] = [{"name": key, "value": value} for key, value in values.items()]


def played(podman: Podman, pod: Object, configs: list[Object], directory: Path) -> str:
    """Start a pod; the name of its container."""
    ip = pod.pop("status")["podIP"]
    pod["metadata"].pop("ownerReferences", None)
    check(pod)
    for where in (pod["spec"]["volumes"], pod["spec"]["containers"][0]["volumeMounts"]):
        for named in where:
            # volumes of one name are one to this podman, whatever pod they are in
            named["name"] = f"{pod['metadata']['name']}-{named['name']}"
    file = directory / f"{pod['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump_all([*configs, pod]))
    podman("kube", "play", "--network", "lab", "--ip", ip, str(file))
    return f"{pod['metadata']['name']}-{pod['spec']['containers'][0]['name']}"


def collected(log: str, directory: Path) -> dict[str, Any]:
    """The result of the run that is in the log, unpacked."""
    collector = Collector()
    for line in log.splitlines():
        collector.feed(line)
    collector.unpack(directory)
    return result(directory)


def equals_the_simulator(found: dict[str, Any], directory: Path) -> None:
    """Whether a run of SMALL came to the simulator's weights and bytes."""
    (directory / "small.yaml").write_text(SMALL)
    out = directory / "simulated"
    done = tidings("simulate", str(directory / "small.yaml"), "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stderr
    assert found["weights_sha256"] == result(out)["weights_sha256"]
    assert found["bytes"] == result(out)["bytes"]


def test_the_pods_as_containers_give_the_weights_of_the_simulator(
    podman: Podman, net: str, tmp_path: Path
) -> None:
    settings = ["launcher=kubernetes", f"launcher.image={IMAGE}", "launcher.pull=Never"]
    # five containers start at once on what cores there are
    slow = ["network.tolerance.delay=200ms", "network.tolerance.rate=50%"]
    objects = manifests(loads(SMALL, overrides=settings + slow), "podman")
    [config] = only("ConfigMap", objects)
    for secret in only("Secret", objects):
        check(secret)
        # what this podman makes of a Secret's manifest it does not understand in a pod's
        (tmp_path / "secret.json").write_text(json.dumps(secret["data"]))
        podman("secret", "create", secret["metadata"]["name"], str(tmp_path / "secret.json"))
    jobs = [manifest for manifest in objects if manifest["kind"] == "Job"]
    pods = [pod for job in jobs for pod in pods_of(job)]
    address(pods, net, job_names)
    coordinator, *nodes = [played(podman, pod, [config], tmp_path) for pod in pods]
    assert len(nodes) == 4
    _obeys_its_security_context(podman, coordinator)
    _obeys_its_security_context(podman, nodes[0])

    codes = podman("wait", coordinator, *nodes).split()
    log = podman("logs", coordinator)
    assert codes == ["0"] * 5, log[-3000:]
    found = collected(log, tmp_path / "run")
    assert (found["run"], found["rounds"]) == ("completed", 12)
    assert found["security"] == {"tls": True, "refused": {}}
    equals_the_simulator(found, tmp_path)


def test_the_pods_of_an_mpi_job_as_containers_give_the_weights_of_the_simulator(
    podman: Podman, net: str, tmp_path: Path
) -> None:
    """mpiexec in the launcher's pod logs in to sshd in the workers' pods, as not root."""
    image = podman.build_mpi()
    settings = ["launcher=kubernetes", f"launcher.image={image}", "launcher.pull=Never"]
    settings.append("launcher.workload=mpi")
    slow = ["network.tolerance.delay=200ms", "network.tolerance.rate=50%"]
    objects = manifests(loads(SMALL, overrides=settings + slow), "podman")
    [config], [job] = only("ConfigMap", objects), only("MPIJob", objects)
    launcher, workers = mpi_operator.launcher_of(job), mpi_operator.workers_of(job)
    with_keys([launcher, *workers], tmp_path / "keys")
    address([launcher, *workers], net, mpi_operator.names_of)
    configs = [config, mpi_operator.hosts_of(job)]

    ready = [worker["status"]["podIP"] for worker in workers]
    nodes = [played(podman, worker, [config], tmp_path) for worker in workers]
    assert len(nodes) == 4
    for ip in ready:
        answers(ip, workers[0]["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"])
    coordinator = played(podman, launcher, configs, tmp_path)
    code = podman("wait", coordinator).strip()
    log = podman("logs", coordinator)
    assert code == "0", log[-3000:] + podman("logs", nodes[0])[-2000:]
    found = collected(log, tmp_path / "run")
    assert (found["run"], found["rounds"]) == ("completed", 12)
    assert found["security"] == {"tls": True, "refused": {}}
    equals_the_simulator(found, tmp_path)
    # they wait to be deleted
    states = podman("inspect", "--format", "{{.State.Status}}", *nodes).split()
    assert states == ["running"] * 4


def with_keys(pods: list[Object], directory: Path) -> None:
    """The volume of keys as a cluster makes it of the Secret: root's files, for all to read."""
    directory.mkdir(mode=0o755)
    for name, content in mpi_operator.keys().items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o644)
    for pod in pods:
        [volume] = [v for v in pod["spec"]["volumes"] if v["name"] == mpi_operator.SSH_VOLUME]
        del volume["secret"]
        volume["hostPath"] = {"path": str(directory)}


def answers(ip: str, port: int) -> None:
    """Wait until a port answers."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            socket.create_connection((ip, port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _obeys_its_security_context(podman: Podman, container: str) -> None:
    """What the kernel says of the process, and podman of its file system."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        [seen] = json.loads(podman("inspect", container))
        if pid := seen["State"]["Pid"]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == [str(_USER)] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert seen["HostConfig"]["ReadonlyRootfs"] is True
    assert seen["HostConfig"]["Memory"] == 1 << 30
    mounts = {mount["Destination"]: mount["RW"] for mount in seen["Mounts"]}
    assert mounts == {"/experiment": False, "/work": True, "/tmp": True}
