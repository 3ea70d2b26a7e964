"""Whole runs through the Kubernetes API: the test's server runs the pods' containers for real."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.kube_api import KubeApi
from support.runs import (
    SMALL,
    command,
    lines,
    restored,
    result,
    send,
    started,
    tidings,
    wait_until_gone,
)
from support.warm import Command

from tidings_coordinator.kubernetes.api import Api
from tidings_coordinator.kubernetes.config import find_cluster
from tidings_coordinator.kubernetes.objects import delete

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

#: six processes start at once, two cores share them
DEADLINE_S = 400.0
#: never over by itself
LONG = ["--set", "stop.rounds=100000"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as server:
        yield server


def arguments(api: KubeApi, tmp_path: Path, *settings: str) -> list[str]:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    place = ["--launcher", "kubernetes", "--set", f"launcher.kubeconfig={api.kubeconfig}"]
    return ["run", str(file), *place, *settings, "--out", str(tmp_path / "run")]


@contextmanager
def working(api: KubeApi, tmp_path: Path, *settings: str) -> Iterator[Command]:
    """A long run, from when its nodes are working."""
    with started(*arguments(api, tmp_path, *LONG, *settings)) as run:
        until(lambda: api.machine.has_said('"phase":"running"'), run)
        yield run


def until(condition: Callable[[], bool], run: Command) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(run: Command) -> tuple[int, str]:
    """Exit code of a run, and all that it said."""
    out, err = run.communicate(timeout=DEADLINE_S)
    return run.wait(), out + err


def everything_is_gone(api: KubeApi) -> None:
    assert api.objects() == []
    wait_until_gone(api.machine.pids())


@pytest.mark.parametrize("workload", ["jobs", "jobset"])
def test_a_run_on_kubernetes_gives_the_weights_of_the_simulator(
    workload: str, api: KubeApi, tmp_path: Path
) -> None:
    with started(*arguments(api, tmp_path, "--set", f"launcher.workload={workload}")) as run:
        until(lambda: api.machine.has_said('"phase":"running"'), run)
        # a watch that is too old to go on, and a log that breaks off
        api.store.forget()
        code, text = ended(run)
    assert code == 0, text
    out = tmp_path / "run"
    found = result(out)
    assert (found["run"], found["launcher"], found["rounds"]) == ("completed", "kubernetes", 12)
    assert found["security"] == {"tls": True, "refused": {}}
    simulated = tidings(
        "simulate", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "simulated"), "--quiet"
    )
    assert simulated.returncode == 0, simulated.stderr
    assert found["weights_sha256"] == result(tmp_path / "simulated")["weights_sha256"]
    assert found["bytes"] == result(tmp_path / "simulated")["bytes"]
    # everything that a run on this machine leaves, and what happened to the pods
    assert "kind: kubernetes" in (out / "resolved.yaml").read_text()
    assert (out / "experiment.yaml").read_text() == SMALL
    assert {path.name for path in (out / "logs").iterdir()} >= {"node-0000.log", "node-0003.log"}
    assert {row["node"] for row in lines(out, "series")} == {0, 1, 2, 3}
    states = lines(out, "cluster")
    assert len({line["pod"] for line in states if line["is"] == "Running"}) == 5
    assert {line["code"] for line in states if line["is"] == "ended"} == {0}
    assert (out / "report.html").exists()
    assert "12 rounds" in text
    assert "created in namespace lab: Job" in text or workload == "jobset"
    everything_is_gone(api)


def test_ctrl_c_brings_back_what_there_is_and_deletes_everything(
    api: KubeApi, tmp_path: Path
) -> None:
    with working(api, tmp_path) as run:
        send(run.pid, signal.SIGINT)
        code, text = ended(run)
    assert code == 130, text
    out = tmp_path / "run"
    # the coordinator was told to end, and its run directory still came
    assert result(out)["run"] == "aborted"
    assert result(out)["reason"] == "aborted by SIGTERM"
    # and it let the nodes end in order
    assert None not in result(out)["weights_sha256"]
    assert lines(out, "events")[-1]["event"] == "over"
    everything_is_gone(api)


def test_the_death_of_a_node_is_for_the_coordinator_to_judge(api: KubeApi, tmp_path: Path) -> None:
    with working(api, tmp_path) as run:
        api.machine.kill("node", 2)
        code, text = ended(run)
    assert code == 1
    assert "lost contact with node 2" in text
    assert "the pod of node 2 ended: exit code 137 (Error)" in text
    out = tmp_path / "run"
    assert result(out)["run"] == "failed"
    # the Job did not end the others for it: they left when the coordinator told them to
    assert api.machine.job_endings["node"] == {"failed": 1, "succeeded": 3}
    everything_is_gone(api)


def with_faults(api: KubeApi, tmp_path: Path, events: str, *settings: str) -> list[str]:
    """The arguments of a run whose nodes go on without each other."""
    command = arguments(api, tmp_path, "--set", "network.tolerance.delay=200ms", *settings)
    more = "compute: {time: 50ms}\nwait: {for: live, timeout: 5s}\n"
    (tmp_path / "small.yaml").write_text(SMALL + more + f"faults:\n  - {events}\n")
    return command


@pytest.mark.parametrize("workload", ["jobs", "jobset"])
def test_a_crash_that_was_asked_for_is_no_failure(
    workload: str, api: KubeApi, tmp_path: Path
) -> None:
    event = "{id: dead, fault: node.crash, on: 2, at: {round: 20}}"
    settings = ["--set", f"launcher.workload={workload}", "--set", "stop.rounds=60"]
    done = tidings(*with_faults(api, tmp_path, event, *settings), deadline_s=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "run"
    found = result(out)
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert [digest is None for digest in found["weights_sha256"]] == [False, False, True, False]
    # by the API, for no node is a child of the coordinator's; and its Job makes no other one
    [name] = [name for verb, plural, name in api.requests
              if (verb, plural) == ("delete", "pods")][:1]  # fmt: skip
    assert api.machine.pods_made(2) == [name]
    (killed,) = [line for line in lines(out, "cluster") if line["is"] == "killed"]
    assert (killed["pod"], killed["comes_back"]) == (name, False)
    assert (out / "logs" / "node-0002.log").exists()
    everything_is_gone(api)


CRASH = "{id: dead, fault: node.crash, on: 2, at: {round: 20}, with: {restart_after: 1s}}"
#: two crashes fall into that time with this seed
CHURN = "{id: churn, fault: node.churn, on: all, from: 500ms, to: 5s, with: {per_minute: 100%}}"


@pytest.mark.parametrize(
    ("workload", "event", "victims", "tls"),
    [
        ("jobs", CRASH, [2], "auto"),
        ("jobset", CRASH, [2], "never"),
        ("jobs", CHURN.replace("100%", "100%, downtime: 500ms"), [3, 1], "auto"),
    ],
    ids=["crash", "crash in the clear, jobset", "churn"],
)
def test_a_pod_that_was_evicted_comes_back(
    workload: str, event: str, victims: list[int], tls: str, api: KubeApi, tmp_path: Path
) -> None:
    settings = [f"launcher.workload={workload}", f"security.tls={tls}", "seed=58"]
    settings += ["stop={time: 10s}", "checkpoint={every: 5}", "launcher.claim=shared"]
    command = with_faults(api, tmp_path, event, *[f for s in settings for f in ("--set", s)])
    done = tidings(*command, deadline_s=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "run"
    found = result(out)
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert found["security"] == {"tls": tls == "auto", "refused": {}}
    assert None not in found["weights_sha256"]
    events = lines(out, "events")
    assert [e["node"] for e in events if e["event"] == "restarting"] == victims
    assert {e["node"] for e in events if e["event"] == "returned"} == set(victims)
    # the pods of this cluster see each other's files, so that its checkpoint is there
    assert restored(out) == set(victims)
    evicted = [name for verb, _, name in api.requests if verb == "evict"]
    assert evicted == [api.machine.pods_made(victim)[0] for victim in victims]
    made = [len(api.machine.pods_made(node)) for node in range(4)]
    assert made == [2 if node in victims else 1 for node in range(4)]
    everything_is_gone(api)


def test_a_crash_that_may_not_be_brought_about_fails_the_run(api: KubeApi, tmp_path: Path) -> None:
    api.forbidden.add(("evict", "pods"))
    done = tidings(*with_faults(api, tmp_path, CRASH, "--set", "stop={time: 300s}"),
                   deadline_s=DEADLINE_S)  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cannot kill node 2: Kubernetes does not let us" in done.stdout + done.stderr
    assert "node 2 was to die, and did not in 20 s" in result(tmp_path / "run")["reason"]
    everything_is_gone(api)


def test_what_pods_cannot_come_back_to_is_refused(api: KubeApi, tmp_path: Path) -> None:
    def said(*settings: str, event: str = CRASH) -> str:
        done = tidings(*with_faults(api, tmp_path, event, *settings))
        assert done.returncode == 2
        return done.stderr

    text = said("--set", "checkpoint={every: 5}")
    assert "faults.0.fault: a pod's checkpoints are lost with it: set launcher.claim" in text
    text = said("--set", "launcher.workload=mpi")
    assert "with launcher.workload: mpi all ranks die with one" in text
    text = said("--set", "launcher.workload=mpi", event="{id: rst, fault: link.reset, on: 0->1}")
    assert "the launcher 'kubernetes' cannot bring about 'link.reset'" in text
    everything_is_gone(api)


def test_a_coordinator_that_is_killed(api: KubeApi, tmp_path: Path) -> None:
    with working(api, tmp_path) as run:
        api.machine.kill("coordinator")
        code, text = ended(run)
    assert code == 1
    reason = result(tmp_path / "run")["reason"]
    assert reason.startswith(
        "the coordinator ended, exit code 137 (Error), and the coordinator's log holds no finished"
    )
    assert reason in text
    assert (tmp_path / "run" / "report.html").exists()
    everything_is_gone(api)


def test_a_coordinator_whose_pod_is_deleted(api: KubeApi, tmp_path: Path) -> None:
    with working(api, tmp_path) as run:
        [name] = [n for kind, n in api.store.names() if kind == "Pod" and "coordinator" in n]
        api.store.delete("pods", name, 0)
        code, text = ended(run)
    assert code == 1
    reason = result(tmp_path / "run")["reason"]
    assert "the coordinator ended, exit code 137" in reason or "was deleted while it ran" in reason
    assert reason in text
    everything_is_gone(api)


def test_an_image_that_cannot_be_pulled(api: KubeApi, tmp_path: Path) -> None:
    settings = ["--set", "launcher.image=nowhere/none:1", "--set", "launcher.pending=1s"]
    done = tidings(*arguments(api, tmp_path, *settings))
    assert done.returncode == 1
    assert "has not started within 1 s: ImagePullBackOff: Back-off pulling image" in done.stdout
    assert "nowhere/none:1" in done.stdout
    everything_is_gone(api)


def test_a_quota_that_is_used_up(api: KubeApi, tmp_path: Path) -> None:
    api.machine.quota_is_used_up = True
    done = tidings(*arguments(api, tmp_path, "--set", "launcher.pending=1s"))
    assert done.returncode == 1
    assert "no pod of the coordinator was made within 1 s; a quota" in done.stdout
    everything_is_gone(api)


@pytest.mark.parametrize(("verb", "plural"), [("create", "networkpolicies"), ("create", "jobs")])
def test_what_the_user_may_not_do_is_refused_before_anything_is_left(
    verb: str, plural: str, api: KubeApi, tmp_path: Path
) -> None:
    api.forbidden.add((verb, plural))
    done = tidings(*arguments(api, tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: Kubernetes does not let us create lab/{plural}: 403 {plural} is forbidden: "
        f'User "me" cannot create resource "{plural}"'
    )
    assert not (tmp_path / "run").exists()
    everything_is_gone(api)


def test_pods_that_we_may_not_watch(api: KubeApi, tmp_path: Path) -> None:
    api.forbidden.add(("watch", "pods"))
    done = tidings(*arguments(api, tmp_path))
    assert done.returncode == 1
    assert 'User "me" cannot watch resource "pods"' in done.stdout
    everything_is_gone(api)


def test_objects_that_are_invalid_are_refused_with_the_servers_words(
    api: KubeApi, tmp_path: Path
) -> None:
    done = tidings(*arguments(api, tmp_path, "--set", "launcher.memory=a lot"))
    assert done.returncode == 2
    assert "create lab/jobs: 422 Job" in done.stderr
    assert "resources.memory: 'a lot' is no quantity" in done.stderr
    everything_is_gone(api)


def test_an_api_server_that_is_not_there(api: KubeApi, tmp_path: Path) -> None:
    api.stop()
    done = tidings(*arguments(api, tmp_path))
    assert done.returncode == 2
    assert f"cannot reach the Kubernetes API at http://127.0.0.1:{api.port}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_is_killed_leaves_nothing_for_longer_than_its_time_to_live(
    api: KubeApi, tmp_path: Path
) -> None:
    with working(api, tmp_path, "--set", "stop.rounds=60") as run:
        run.kill()
        run.communicate()
        deadline = time.monotonic() + DEADLINE_S
        while "coordinator" not in api.machine.job_endings:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        api.store.expire()
        while api.objects():
            assert time.monotonic() < deadline, api.objects()
            time.sleep(0.01)
        wait_until_gone(api.machine.pids())


def test_manifests_for_those_who_apply_them_themselves(api: KubeApi, tmp_path: Path) -> None:
    """Render, create, take the log, collect: no launcher."""
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    rendered = tidings("render", str(file), "--instance", "byhand")
    assert rendered.returncode == 0, rendered.stderr
    server = Api(find_cluster(str(api.kubeconfig)))
    objects = list(yaml.safe_load_all(rendered.stdout))
    for manifest in objects:
        server.create(manifest)
    [pod] = [n for kind, n in api.store.names() if kind == "Pod" and "coordinator" in n]
    deadline = time.monotonic() + DEADLINE_S
    while "coordinator" not in api.machine.job_endings:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log = server.read_log(pod, "coordinator", 1 << 24)
    collected = subprocess.run(
        command("collect", str(tmp_path / "run")), input=log, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert collected.returncode == 0, collected.stderr
    assert result(tmp_path / "run")["run_id"] == "small-byhand"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["run"] == "completed"
    assert (tmp_path / "run" / "report.html").exists()
    names = {f"{manifest['kind']}/{manifest['metadata']['name']}" for manifest in objects}
    assert names <= set(delete(server, "byhand"))
    everything_is_gone(api)
