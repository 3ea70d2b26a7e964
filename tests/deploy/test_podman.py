"""The pods of the manifests as real containers: ``podman kube play`` of what the Jobs would make.

What podman leaves to a cluster is done here: the pods of a Job, the address of a pod and references
between variables in its environment, and the names of services (as hostAliases). All else of the
Pod specs is podman's to obey: user, read-only root, capabilities, seccomp, volumes, limits.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.kube_node import environment, pods_of
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


def addressed(objects: list[Object], net: str) -> list[Object]:
    """The pods of all Jobs, coordinator first, each with an address and the names of all."""
    jobs = [manifest for manifest in objects if manifest["kind"] == "Job"]
    pods = [pod for job in jobs for pod in pods_of(job)]
    aliases = []
    for number, pod in enumerate(pods):
        address = f"{net}.{10 + number}"
        pod["status"] = {"podIP": address}
        spec = pod["spec"]
        name = (
            f"{spec['hostname']}.{spec['subdomain']}"
            if "subdomain" in spec
            else pod["metadata"]["labels"]["job-name"]
        )
        aliases.append({"ip": address, "hostnames": [name]})
    for pod in pods:
        pod["spec"]["hostAliases"] = aliases
        for container in pod["spec"]["containers"]:
            values = environment(pod, container, {})
            # for people only; this podman would publish them on the host
            del container["ports"]
            container["env"] = [{"name": key, "value": value} for key, value in values.items()]
    return pods


def played(podman: Podman, pod: Object, config: Object, network: str, directory: Path) -> str:
    """Start a pod; the name of its container."""
    address = pod.pop("status")["podIP"]
    del pod["metadata"]["ownerReferences"]
    check(pod)
    file = directory / f"{pod['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump_all([config, pod]))
    podman("kube", "play", "--network", network, "--ip", address, str(file))
    return f"{pod['metadata']['name']}-{pod['spec']['containers'][0]['name']}"


def test_the_pods_as_containers_give_the_weights_of_the_simulator(
    podman: Podman, tmp_path: Path
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
    net = f"10.{uuid.uuid4().int % 100 + 100}.{uuid.uuid4().int % 250}"
    podman("network", "create", "--subnet", f"{net}.0/24", "--disable-dns", "lab")

    pods = addressed(objects, net)
    coordinator, *nodes = [played(podman, pod, config, "lab", tmp_path) for pod in pods]
    assert len(nodes) == 4
    _obeys_its_security_context(podman, coordinator)
    _obeys_its_security_context(podman, nodes[0])

    codes = podman("wait", coordinator, *nodes).split()
    log = podman("logs", coordinator)
    assert codes == ["0"] * 5, log[-3000:]
    collector = Collector()
    for line in log.splitlines():
        collector.feed(line)
    collector.unpack(tmp_path / "run")
    found = result(tmp_path / "run")
    assert (found["run"], found["rounds"]) == ("completed", 12)
    assert found["security"] == {"tls": True, "refused": {}}

    (tmp_path / "small.yaml").write_text(SMALL)
    simulated = tidings(
        "simulate", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "simulated"), "--quiet"
    )
    assert simulated.returncode == 0, simulated.stderr
    assert found["weights_sha256"] == result(tmp_path / "simulated")["weights_sha256"]
    assert found["bytes"] == result(tmp_path / "simulated")["bytes"]


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
