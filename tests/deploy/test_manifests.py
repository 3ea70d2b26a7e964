"""Kubernetes manifests: valid, as they were reviewed, and the same by launcher and by kustomize.

TIDINGS_REWRITE_GOLDEN=1 rewrites tests/deploy/golden and what is generated in deploy/kubernetes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kube_schemas import VERSIONS, Invalid, Object, check
from support.runs import SMALL

from tidings.errors import UserError
from tidings_coordinator.experiment.load import load, loads
from tidings_coordinator.kubernetes.kustomize import file_name, manifests, only, write
from tidings_coordinator.kubernetes.release import Release
from tidings_coordinator.kubernetes.render import as_yaml, render

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
DEPLOY, GOLDEN = ROOT / "deploy" / "kubernetes", Path(__file__).parent / "golden"
QUICKSTART = ROOT / "examples" / "quickstart.yaml"
REWRITE = bool(os.environ.get("TIDINGS_REWRITE_GOLDEN"))
WORKLOADS = ("jobs", "jobset", "mpi")


def quickstart(workload: str) -> list[Object]:
    settings = ["launcher=kubernetes", f"launcher.workload={workload}"]
    found = manifests(load(QUICKSTART, settings), "tidings")
    # made anew every time, and never kept
    return [manifest for manifest in found if manifest["kind"] != "Secret"]


def everything(workload: Any) -> list[Object]:
    """A run that uses all that there is to be set."""
    return render(
        Release(
            experiment=loads(SMALL, overrides=["launcher=kubernetes"]),
            run="small-0badcafe",
            instance="0badcafe",
            image="registry.example/tidings:1",
            pull="Always",
            pull_secret="registry-login",
            cpu="2",
            memory="4Gi",
            workload=workload,
            claim="shared-disk",
            join={"TIDINGS_TOKEN": "t0ken", "TIDINGS_CA": "-----BEGIN CERTIFICATE-----"},
            authority={"TIDINGS_CA_KEY": "k3y"},
        )
    )


def by_name(objects: list[Object]) -> dict[str, Object]:
    found = {f"{o['kind']}/{o['metadata']['name']}": o for o in objects}
    assert len(found) == len(objects)
    return found


def kustomized(overlay: str) -> list[Object]:
    """What ``kubectl kustomize`` makes of a folder."""
    beside = Path(sys.executable).parent / "kubectl"
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def generated() -> dict[Path, str]:
    """The files of deploy/kubernetes that come from the renderer."""
    jobs = quickstart("jobs")
    files = {DEPLOY / "base" / f"{file_name(o)}.yaml": as_yaml([o]) for o in jobs}
    for workload in ("jobset", "mpi"):
        for manifest in quickstart(workload):
            if by_name(jobs).get(f"{manifest['kind']}/{manifest['metadata']['name']}") != manifest:
                place = DEPLOY / "overlays" / workload / f"{file_name(manifest)}.yaml"
                files[place] = as_yaml([manifest])
    return files


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_the_launcher_renders_is_valid(workload: str, version: str) -> None:
    for manifest in everything(workload):
        check(manifest, version)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_manifests_are_as_they_were_reviewed(workload: str) -> None:
    golden, text = GOLDEN / f"{workload}.yaml", as_yaml(everything(workload))
    if REWRITE:
        golden.write_text(text)
    assert golden.read_text() == text


def test_the_folder_for_kustomize_is_what_the_renderer_writes(tmp_path: Path) -> None:
    if REWRITE:
        shutil.rmtree(DEPLOY / "base", ignore_errors=True)
        write(quickstart("jobs"), DEPLOY / "base")
        for file, text in generated().items():
            file.write_text(text)
    write(quickstart("jobs"), tmp_path / "base")
    made = {path.name: path.read_text() for path in (tmp_path / "base").iterdir()}
    assert {p.name: p.read_text() for p in (DEPLOY / "base").iterdir()} == made
    for file, text in generated().items():
        assert file.read_text() == text
    with pytest.raises(UserError, match="cannot write manifests"):
        write(quickstart("jobs"), tmp_path / "base")


@pytest.mark.parametrize(
    ("folder", "workload"),
    [("base", "jobs"), ("overlays/jobset", "jobset"), ("overlays/mpi", "mpi")],
)
def test_kustomize_and_launcher_make_the_same_objects(folder: str, workload: str) -> None:
    found = kustomized(folder)
    for manifest in found:
        check(manifest)
    assert by_name(found) == by_name(quickstart(workload))


def test_the_monitoring_overlay_selects_the_node_pods_and_a_port_that_they_have() -> None:
    found = by_name(kustomized("overlays/monitoring"))
    monitor = found.pop("PodMonitor/tidings")
    check(monitor)
    assert found == by_name(quickstart("jobs"))
    template = found["Job/tidings-node"]["spec"]["template"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in _containers(template)[0]["ports"]}
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports[endpoint["port"]])
    # every label that is made from an annotation is made from one that the pods have
    prefix = "__meta_kubernetes_pod_annotation_"
    known = {prefix + key.translate(str.maketrans("-./", "___")) for key in annotations}
    known.add(prefix + "batch_kubernetes_io_job_completion_index")
    sources = {label for rule in endpoint["relabelings"] for label in rule["sourceLabels"]}
    assert sources <= known


def _containers(template: Object) -> list[Object]:
    return list(template["spec"]["containers"])


def _templates(workload: str) -> Iterator[Object]:
    for manifest in everything(workload):
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Job":
            yield spec["template"]
        for job in spec.get("replicatedJobs", ()):
            yield job["template"]["spec"]["template"]
        for replica in spec.get("mpiReplicaSpecs", {}).values():
            yield replica["template"]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_pods_meet_the_restricted_pod_security_standard(workload: str) -> None:
    templates = list(_templates(workload))
    assert len(templates) == 2
    for template in templates:
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        kinds = {kind for volume in spec["volumes"] for kind in volume} - {"name"}
        assert kinds - {"persistentVolumeClaim"} == {"configMap", "emptyDir"}
        for container in _containers(template):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert "privileged" not in context
            assert {"cpu", "memory"} == container["resources"]["requests"].keys()


@pytest.mark.parametrize("workload", ["jobs", "jobset"])
def test_secrets_are_in_secrets_and_the_authoritys_key_is_the_coordinators(workload: str) -> None:
    objects = everything(workload)
    join, authority = (o for o in objects if o["kind"] == "Secret")
    assert join["data"].keys() == {"TIDINGS_TOKEN", "TIDINGS_CA"}
    assert authority["data"].keys() == {"TIDINGS_CA_KEY"}
    others = as_yaml(o for o in objects if o["kind"] != "Secret")
    assert "t0ken" not in others
    assert "k3y" not in others
    for template in _templates(workload):
        [container] = _containers(template)
        names = [source["secretRef"]["name"] for source in container["envFrom"]]
        own = [authority] if container["name"] == "coordinator" else []
        # not optional: a pod waits for them rather than be in the clear
        assert names == [o["metadata"]["name"] for o in (join, *own)]


@pytest.mark.parametrize(
    "settings", [["security.tls=never"], ["launcher.workload=mpi"]], ids=["never", "mpi"]
)
def test_runs_that_need_no_secrets_have_none(settings: list[str]) -> None:
    experiment = loads(SMALL, overrides=["launcher=kubernetes", *settings])
    objects = manifests(experiment, "a1")
    assert not [o for o in objects if o["kind"] == "Secret"]
    assert "secretRef" not in as_yaml(objects)


def test_kept_manifests_get_new_secrets(tmp_path: Path) -> None:
    experiment = loads(SMALL, overrides=["launcher=kubernetes"])
    first, second = (only("Secret", manifests(experiment, "a1")) for _ in range(2))
    assert [o["metadata"]["name"] for o in first] == ["tidings-a1-join", "tidings-a1-authority"]
    assert first != second
    write(first, tmp_path / "secrets")
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "secrets").glob("secret-*")}
    assert modes == {"secret-join.yaml": 0o600, "secret-authority.yaml": 0o600}
    with pytest.raises(UserError, match="no 'Sercet'; it has Job, Secret"):
        only("Sercet", manifests(experiment, "a1"))


def allowed(policies: list[Object], source: Object, target: Object, port: int) -> bool:
    """Whether a pod with labels may open a connection, by the rules of NetworkPolicy."""

    def matches(selector: Object, labels: Object) -> bool:
        return bool(selector.get("matchLabels", {}).items() <= labels.items())

    def passes(pod: Object, other: Object, direction: str, peers: str) -> bool:
        own = [
            p["spec"]
            for p in policies
            if matches(p["spec"]["podSelector"], pod)
            and direction.capitalize() in p["spec"]["policyTypes"]
        ]
        rules = [rule for spec in own for rule in spec[direction]]
        return not own or any(
            (peers not in rule or any(matches(peer["podSelector"], other) for peer in rule[peers]))
            and ("ports" not in rule or any(p["port"] == port for p in rule["ports"]))
            for rule in rules
        )

    return passes(source, target, "egress", "to") and passes(target, source, "ingress", "from")


def test_policies_let_through_what_a_run_needs_and_nothing_else() -> None:
    objects = everything("jobs")
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    release_labels = {
        template["spec"]["containers"][0]["name"]: template["metadata"]["labels"]
        for template in _templates("jobs")
    }
    node, coordinator = release_labels["node"], release_labels["coordinator"]
    stranger = {"app.kubernetes.io/name": "something"}
    neighbour_run = node | {"app.kubernetes.io/instance": "other"}
    prometheus = {"app.kubernetes.io/name": "prometheus"}

    assert allowed(policies, node, node, 40123)
    assert allowed(policies, node, coordinator, 7600)
    assert allowed(policies, node, coordinator, 7601)
    assert allowed(policies, prometheus, node, 7602)
    assert allowed(policies, node, stranger, 53)
    for source, target, port in (
        (stranger, node, 40123),
        (stranger, node, 7602),
        (stranger, coordinator, 7600),
        (stranger, coordinator, 7601),
        (neighbour_run, node, 40123),
        (neighbour_run, coordinator, 7600),
        (prometheus, node, 40123),
        (prometheus, coordinator, 7600),
        (coordinator, node, 40123),
        (node, coordinator, 22),
        (node, stranger, 443),
    ):
        assert not allowed(policies, source, target, port), (source, target, port)


def test_services_lead_to_the_pods_and_ports_that_they_name() -> None:
    found = by_name(everything("jobs"))
    for service, job in (
        ("tidings-0badcafe", "tidings-0badcafe-node"),
        ("tidings-0badcafe-coordinator", "tidings-0badcafe-coordinator"),
    ):
        spec = found[f"Service/{service}"]["spec"]
        template = found[f"Job/{job}"]["spec"]["template"]
        assert spec["selector"].items() <= template["metadata"]["labels"].items()
        names = {port["name"] for port in _containers(template)[0]["ports"]}
        assert {port["targetPort"] for port in spec["ports"]} <= names
    assert found["Job/tidings-0badcafe-node"]["spec"]["template"]["spec"]["subdomain"] == (
        "tidings-0badcafe"
    )


def test_plugin_files_travel_with_the_experiment(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from tidings.protocols.decentralized.d_psgd import DPSGD\n"
        "@dataclass(frozen=True)\nclass Mine(DPSGD):\n    pass\n"
    )
    text = SMALL.replace("kind: d_psgd", f"kind: '{plugin}:Mine'")
    experiment = loads(text, overrides=["launcher=kubernetes"])
    config = by_name(manifests(experiment, "a1"))["ConfigMap/tidings-a1-experiment"]["data"]
    assert config["0-mine.py"] == plugin.read_text()
    assert yaml.safe_load(config["experiment.yaml"])["protocol"]["kind"] == (
        "/experiment/0-mine.py:Mine"
    )


def test_checkpoints_outlive_their_pod_where_there_is_a_claim_and_no_others() -> None:
    node = by_name(everything("jobs"))["Job/tidings-0badcafe-node"]["spec"]["template"]
    coordinator = by_name(everything("jobs"))["Job/tidings-0badcafe-coordinator"]["spec"]
    [mount] = [m for m in _containers(node)[0]["volumeMounts"] if m["name"] == "checkpoints"]
    # below the run directory of `tidings coordinate`, apart from those of other runs
    assert mount["mountPath"] == "/work/run/checkpoints"
    assert mount["subPath"] == "small-0badcafe"
    assert "shared-disk" in as_yaml([node])
    assert "shared-disk" not in as_yaml([coordinator])


@pytest.mark.parametrize("faulty", [True, False])
def test_the_coordinator_asks_for_deaths_only_where_some_are_to_be(faulty: bool) -> None:
    events = "faults:\n  - {id: a, fault: node.crash, on: 1}\n" if faulty else ""
    experiment = loads(SMALL + events, overrides=["launcher=kubernetes"])
    config = by_name(manifests(experiment, "a1"))["ConfigMap/tidings-a1-experiment"]["data"]
    launcher = yaml.safe_load(config["experiment.yaml"])["launcher"]
    assert launcher.get("followed", False) is faulty


def test_the_check_itself_refuses_what_is_wrong() -> None:
    job, jobset = everything("jobs")[0], everything("jobset")[0]
    for manifest, field, value in (
        (job, "replicas", 3),
        (job, "backoffLimit", "none"),
        (job, "template", {"spec": {"containers": "none"}}),
        (jobset, "surprise", 1),
        (jobset, "replicatedJobs", []),
    ):
        with pytest.raises(Invalid):
            check(manifest | {"spec": manifest["spec"] | {field: value}})


def test_names_that_cannot_be_labels_are_refused() -> None:
    experiment = loads(SMALL, overrides=["launcher=kubernetes"])
    for instance in ("", "Big", "a/b", "x" * 21):
        with pytest.raises(UserError, match="instance"):
            manifests(experiment, instance)
    with pytest.raises(UserError, match="only 'kubernetes' has manifests"):
        manifests(loads(SMALL), "a")
