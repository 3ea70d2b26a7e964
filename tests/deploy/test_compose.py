"""Runs in containers: as the simulator says, without rights, gone without a trace."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.containers import (
    MAKE_S,
    answers,
    attached,
    container,
    cpu_ticks,
    files_of,
    goes_on,
    id_of,
    networks_of,
    round_s,
    rounds_of,
    until,
    wait_until_running,
)
from support.dockerd import (
    IMAGE,
    ROOT,
    build_image,
    compose,
    compose_v2,
    docker,
    dockerd,
    parts,
    prometheus_image,
)
from support.prometheus import Prometheus
from support.runs import (
    EXAMPLES,
    SMALL,
    finish,
    free_ports,
    lines,
    restored,
    result,
    send,
    started,
    tidings,
)

from tidings_coordinator.launchers.docker_parts import compose_command

# the first test makes the image
pytestmark = [pytest.mark.daemons, pytest.mark.deploy, pytest.mark.timeout(1500)]

COMPOSE = ["--launcher", "compose", "--quiet"]
KERNEL = ["--set", "network.enforce=kernel", "--set", "network.delay=0ms"]
#: for what is about other things than the links: they are as asked where the machine is not busy
SLOW = ["--set", "network.tolerance.delay=200ms", "--set", "network.tolerance.rate=50%"]
#: of nodes, while one of them is isolated
_PATIENCE_S = 4
ENDLESS = ["--set", "stop.rounds=100000", "--set", "evaluate.every=1"]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with dockerd():
        yield build_image()
        left = parts()
        tidings("reap")
        assert left == []


@pytest.fixture
def version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose in its version 2; Debian 12 has version 1, which is what other tests run."""
    monkeypatch.setenv("DOCKER_CONFIG", str(compose_v2()))
    assert compose_command() == ["docker", "compose"]


@pytest.fixture
def file(image: str, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_the_quickstart_reaches_its_accuracy_as_the_simulator_says(
    image: str, tmp_path: Path
) -> None:
    quickstart = str(EXAMPLES / "quickstart.yaml")
    for command in (["run", *COMPOSE, *SLOW], ["simulate", "--quiet"]):
        out = str(tmp_path / command[0])
        done = tidings(*command, quickstart, "--out", out, deadline_s=MAKE_S)
        assert done.returncode == 0, done.stdout + done.stderr
    real, simulated = (result(tmp_path / name) for name in ("run", "simulate"))
    assert real["accuracy"] >= 0.85
    assert real["to_target"] is not None
    assert len(real["weights_sha256"]) == 8
    assert real["weights_sha256"] == simulated["weights_sha256"]
    assert real["bytes"] == simulated["bytes"]
    assert len(list((tmp_path / "run" / "logs").glob("node-*.log"))) == 8
    assert parts(id_of(tmp_path / "run")) == []


@pytest.mark.usefixtures("version_2")
def test_version_2_of_compose_runs_it_as_well(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = tidings("run", str(file), "--out", str(out), *COMPOSE, *SLOW, deadline_s=MAKE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    simulated = tmp_path / "simulated"
    tidings("simulate", str(file), "--out", str(simulated), "--quiet")
    assert result(out)["weights_sha256"] == result(simulated)["weights_sha256"]
    assert parts(id_of(out)) == []
    # the stack of deploy/compose, whose images are not all to be had here
    stack = str(ROOT / "deploy" / "compose" / "docker-compose.yml")
    assert yaml.safe_load(compose("-f", stack, "config"))["services"].keys() >= {"grafana"}


@pytest.mark.usefixtures("version_2")
def test_version_2_gives_the_data_network_its_name(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        run_id = wait_until_running(out)
        asyncio.run(attached(run_id).isolate(1, cut=True))
        assert [name.endswith("control") for name in networks_of(run_id, 1)] == [True]
        send(run.pid, signal.SIGINT)
        assert finish(run)[0] == 130
    assert parts(run_id) == []


def test_a_container_may_nothing_and_sees_its_neighbours_only(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        run_id = wait_until_running(out)
        found = container(run_id, 1)
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["Privileged"]) == (True, False)
        assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert found["Config"]["User"] == "10001:10001"
        assert found["Mounts"] == []
        status = docker("exec", found["Id"], "cat", "/proc/1/status")
        caps = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
        assert set(caps) == {"0" * 16}
        networks = {name.rpartition("-")[2].rpartition("_")[2]: network["IPAddress"]
                    for name, network in found["NetworkSettings"]["Networks"].items()}  # fmt: skip
        assert set(networks) == {"control", "data"}
        other = container(run_id, 2)["NetworkSettings"]["Networks"]
        # no way out, by neither network
        kinds = docker("network", "inspect", "--format={{.Internal}}", *parts(run_id)[-2:])
        assert kinds.split() == ["true", "true"]
        resolve = "import socket; print(socket.gethostbyname('node-2.data'))"
        seen = docker("exec", found["Id"], "python", "-S", "-c", resolve).strip()
        assert seen == next(n["IPAddress"] for name, n in other.items() if name.endswith("data"))
        # TLS is the default here, and the port that the node was given is for enrolment only
        until(lambda: container(run_id, 1)["State"]["Health"]["Status"] == "healthy")
        send(run.pid, signal.SIGINT)
        assert finish(run)[0] == 130
    assert result(out)["security"]["tls"] is True
    assert parts(run_id) == []


@pytest.mark.parametrize("rate", ["5Mbit/s", "50Mbit/s"])
def test_the_kernel_imposes_the_rate_inside_the_containers(
    file: Path, tmp_path: Path, rate: str
) -> None:
    out = tmp_path / "run"
    setting = [*KERNEL, "--set", f"network.rate={rate}"]
    done = tidings("run", str(file), "--out", str(out), *COMPOSE, *setting, deadline_s=MAKE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    (probe,) = json.loads((out / "fidelity.json").read_text())["probes"]
    assert abs(probe["rate_error"]) < 0.05
    rendered = (out / "compose.yaml").read_text()
    assert rendered.count("NET_ADMIN") == 4
    simulated = tmp_path / "simulated"
    tidings("simulate", str(file), "--out", str(simulated), "--quiet", *setting)
    assert result(out)["weights_sha256"] == result(simulated)["weights_sha256"]


def test_faults_change_what_the_kernel_imposes_in_containers(image: str, tmp_path: Path) -> None:
    file, out = tmp_path / "reshaped.yaml", tmp_path / "run"
    text = SMALL.replace("nodes: 4", "nodes: 2\ntopology: {kind: complete}")
    text = text.replace("hidden: 16", "hidden: 2000").replace("rounds: 12", "time: 10s")
    # the second one changes nothing, and so measures
    events = (
        "{id: slow, fault: link.shape, on: 0->1, from: 1s, to: 4s, with: {rate: 4Mbit/s}}",
        "{id: fast, fault: link.scale, on: 0->1, from: 5s, to: 8s, with: {rate: 1, delay: 1}}",
    )
    file.write_text(text + "faults:\n" + "".join(f"  - {event}\n" for event in events))
    setting = [*COMPOSE, *KERNEL, *SLOW, "--set", "network.rate=20Mbit/s"]
    done = tidings("run", str(file), "--out", str(out), *setting, deadline_s=MAKE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(out)["faults"] == "all"
    by = {(line["event"], line["state"]): line for line in lines(out, "faults")}
    for event, meant in (("slow", 4e6), ("fast", 20e6)):
        took_s = by[event, "recovered"]["time_s"] - by[event, "active"]["time_s"]
        achieved = by[event, "recovered"]["detail"]["wire_bytes"] * 8 / took_s * 1448 / 1514
        assert 0.6 < achieved / meant < 1.05, event


def test_ctrl_c_takes_everything_down(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        run_id = wait_until_running(out)
        # four containers, two networks
        assert len(parts(run_id)) == 6
        send(run.pid, signal.SIGINT)
        code, _, err = finish(run)
    assert code == 130, err
    assert all(result(out)["weights_sha256"])
    assert parts(id_of(out)) == []


def test_ctrl_c_while_containers_are_being_made_leaves_none(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        run_id = id_of(out)
        until(lambda: len(parts(run_id)) >= 3)
        send(run.pid, signal.SIGINT)
        code, _, err = finish(run)
    assert code == 130, err
    assert parts(id_of(out)) == []


def test_a_killed_node_fails_the_run_and_says_how_it_ended(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        docker("kill", container(wait_until_running(out), 2)["Id"])
        code, text, _ = finish(run)
    assert code == 1
    assert "run failed (node 2 died in round" in text
    assert "killed by SIGKILL" in text
    assert parts(id_of(out)) == []


def test_a_paused_node_stands_still_and_goes_on(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        run_id = wait_until_running(out)
        group = attached(run_id)
        asyncio.run(group.signal(1, signal.SIGSTOP))
        assert container(run_id, 1)["State"]["Status"] == "paused"
        pid = container(run_id, 1)["State"]["Pid"]
        used = cpu_ticks(pid)
        # its neighbours wait for it
        until(lambda: rounds_of(out, 0) >= rounds_of(out, 1))
        assert rounds_of(out, 0) <= rounds_of(out, 1) + 2
        assert cpu_ticks(pid) == used
        asyncio.run(group.signal(1, signal.SIGCONT))
        assert container(run_id, 1)["State"]["Status"] == "running"
        goes_on(out, 0)
        goes_on(out, 1)
        send(run.pid, signal.SIGINT)
        assert finish(run)[0] == 130
    assert parts(run_id) == []


def test_faults_freeze_and_kill_containers(image: str, tmp_path: Path) -> None:
    file, out = tmp_path / "faults.yaml", tmp_path / "run"
    file.write_text(
        SMALL.replace("rounds: 12", "rounds: 60")
        + "compute: {time: 20ms}\n"
        + "wait: {for: live, timeout: 5s}\n"
        + "faults:\n"
        + "  - {id: ice, fault: node.pause, on: 1, at: {round: 10}, for: 1s}\n"
        + "  - {id: dead, fault: node.crash, on: 2, at: {round: 30}}\n"
    )
    done = tidings("run", str(file), "--out", str(out), *COMPOSE, *SLOW, deadline_s=MAKE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(out)
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert [digest is None for digest in found["weights_sha256"]] == [False, False, True, False]
    by = {(line["event"], line["state"]): line for line in lines(out, "faults")}
    assert by["ice", "recovered"]["time_s"] - by["ice", "active"]["time_s"] >= 1
    assert by["dead", "active"]["round"] == 30
    (death,) = [event for event in lines(out, "events") if event["event"] == "died"]
    assert death["how"] == "killed by SIGKILL"
    assert parts(id_of(out)) == []


@pytest.mark.parametrize(
    ("event", "victims"),
    [
        ("fault: node.crash, on: 2, at: {round: 30}, with: {restart_after: 1s}", [2]),
        (
            "fault: node.churn, on: all, from: 500ms, to: 5s, "
            "with: {per_minute: 100%, downtime: 500ms}",
            [3, 1],
        ),
    ],
    ids=["crash", "churn"],
)
def test_a_killed_container_is_started_again(
    event: str, victims: list[int], image: str, tmp_path: Path
) -> None:
    file, out = tmp_path / "restart.yaml", tmp_path / "run"
    file.write_text(
        SMALL.replace("rounds: 12", "time: 40s").replace("every: 4", "every: 2s")
        + "seed: 58\n"
        + "compute: {time: 20ms}\n"
        + "wait: {for: live, timeout: 5s}\n"
        + "checkpoint: {every: 5}\n"
        + f"faults:\n  - {{id: churn, {event}}}\n"
    )
    done = tidings("run", str(file), "--out", str(out), *COMPOSE, *SLOW, deadline_s=MAKE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(out)
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert None not in found["weights_sha256"]
    events = lines(out, "events")
    died = [event for event in events if event["event"] == "died"]
    assert [death["node"] for death in died] == victims
    assert all(death["how"] == "killed by SIGKILL" for death in died)
    # what it had written was still there
    assert restored(out) == set(victims)
    assert list((out / "checkpoints" / f"node-{victims[0]:04d}").glob("round-*"))
    assert parts(id_of(out)) == []


def test_an_isolated_node_is_off_the_data_network_and_comes_back(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    patience = ["--set", f"wait.timeout={_PATIENCE_S}s"]
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS, *patience) as run:
        run_id = wait_until_running(out)
        group = attached(run_id)
        asyncio.run(group.isolate(1, cut=True))
        assert [name.endswith("control") for name in networks_of(run_id, 1)] == [True]
        # it hears from no neighbour, but keeps its line to the coordinator
        until(lambda: round_s(out, 1) > 0.9 * _PATIENCE_S)
        asyncio.run(group.isolate(1, cut=False))
        assert len(networks_of(run_id, 1)) == 2
        # messages go both ways again
        until(lambda: max(round_s(out, node) for node in range(4)) < 0.3 * _PATIENCE_S)
        send(run.pid, signal.SIGINT)
        assert finish(run)[0] == 130
    assert parts(run_id) == []


def test_what_a_killed_run_leaves_is_reaped(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *COMPOSE, *ENDLESS) as run:
        run_id = wait_until_running(out)
        kept = tidings("reap")
        assert f"kept: run {run_id} is still going on" in kept.stdout
        send(run.pid, signal.SIGKILL)
        finish(run)
    left = parts(run_id)
    assert len(left) == 6
    done = tidings("reap")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in left)
    assert parts(id_of(out)) == []


def test_an_image_that_is_not_there_is_named(file: Path, tmp_path: Path) -> None:
    setting = ["--set", "launcher.image=nobody/nothing:1"]
    done = tidings("run", str(file), "--out", str(tmp_path / "run"), *COMPOSE, *setting)
    assert done.returncode == 2
    assert "Docker has no image 'nobody/nothing:1'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_image_is_small_and_not_root(image: str) -> None:
    (found,) = json.loads(docker("inspect", image))
    assert found["Config"]["User"] == "10001:10001"
    assert "health.py" in found["Config"]["Healthcheck"]["Test"][-1]
    assert found["Size"] < 1.6e9
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE)
    assert "wheelhouse" not in history
    inside = ["docker", "run", "--rm", "--network=none", image, "sh", "-c"]
    listed = subprocess.run([*inside, "id -u; ls /wheelhouse"], capture_output=True, text=True)
    assert (listed.stdout, listed.returncode != 0) == ("10001\n", True)


def test_the_image_is_made_the_same_again(image: str) -> None:
    """Without the builder's cache: what every file holds, its mode, its owner and its time."""
    again = build_image("tidings:again", "--no-cache")
    layers, layers_again = (
        docker("inspect", "--format={{json .RootFS.Layers}}", tag) for tag in (image, again)
    )
    assert layers == layers_again, files_of(image) ^ files_of(again)


def test_the_whole_stack_of_deploy_compose(image: str, tmp_path: Path) -> None:
    """Coordinator, eight nodes and Prometheus, all in containers. No image of Grafana is to be had
    here."""
    place = ROOT / "deploy" / "compose" / "docker-compose.yml"
    stack = yaml.safe_load(place.read_text())
    tag = stack["services"]["prometheus"]["image"].partition(":-")[2].rstrip("}")
    prometheus_image(tag, tmp_path)
    project = ["-p", "tidings-static", "-f", str(place)]
    names = ("MONITOR_PORT", "PROMETHEUS_PORT")
    seen = {name: str(port) for name, port in zip(names, free_ports(2), strict=True)}
    services = sorted(stack["services"].keys() - {"grafana"})
    assert len(services) == 10
    try:
        # not over before it has been scraped
        extra = " ".join(["--set metrics.linger=60s", *SLOW])
        compose(*project, "up", "-d", "--no-build", *services, EXTRA=extra, **seen)
        prometheus = Prometheus(f"http://127.0.0.1:{seen['PROMETHEUS_PORT']}")
        query = "count(count by (node) (tidings_rounds_completed))"
        until(lambda: answers(prometheus, query) == 8.0)
        coordinator = compose(*project, "ps", "-q", "coordinator").strip()
        assert docker("wait", coordinator).strip() == "0", docker("logs", coordinator)
        docker("cp", f"{coordinator}:/runs/quickstart", str(tmp_path / "run"))
        found = result(tmp_path / "run")
        assert (found["run"], found["security"]["tls"]) == ("completed", False)
        assert found["accuracy"] >= 0.85
    finally:
        compose(*project, "down", "-v", "--timeout", "1")
    assert docker("ps", "-aq", "--filter=name=tidings-static") == ""
    quickstart = str(EXAMPLES / "quickstart.yaml")
    simulated = tmp_path / "simulated"
    tidings("simulate", quickstart, "--out", str(simulated), "--quiet", deadline_s=MAKE_S)
    assert found["weights_sha256"] == result(simulated)["weights_sha256"]
