"""Runs in network namespaces: as the simulator says, shaped by the kernel, gone without a trace."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.netns import need_namespaces, parts
from support.runs import (
    SMALL,
    finish,
    lines,
    node_processes,
    result,
    send,
    started,
    tidings,
    wait_for_event,
    wait_until_gone,
)

from tidings.links.kernel import has_netem

pytestmark = pytest.mark.deploy

NETNS = ["--launcher", "netns", "--quiet"]
KERNEL = ["--set", "network.enforce=kernel", "--set", "network.delay=0ms"]
ENDLESS = ["--set", "stop.rounds=100000", "--set", "evaluate.every=1"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    need_namespaces()
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def measured(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((directory / "fidelity.json").read_text())["probes"]
    return found


def wait_until_running(directory: Path) -> str:
    """Wait until a run has evaluated its models; its id."""
    run_id: str = wait_for_event(directory, "launching")[0]["run"]
    while len(lines(directory, "series")) < 8:
        pass
    return run_id


def test_sixty_four_nodes_agree_with_the_simulator_bit_for_bit(file: Path, tmp_path: Path) -> None:
    setting = ["--set", "nodes=64", "--set", "network.rate=5Mbit/s", "--set", "network.delay=5ms"]
    setting += ["--set", "network.time_scale=4", "--set", "target={loss: 1000}"]
    for command in (["run", *NETNS], ["simulate", "--quiet"]):
        out = tmp_path / command[0]
        done = tidings(*command, str(file), "--out", str(out), *setting)
        assert done.returncode == 0, done.stdout + done.stderr
    real, simulated = (result(tmp_path / name) for name in ("run", "simulate"))
    assert real["weights_sha256"] == simulated["weights_sha256"]
    assert len(set(real["weights_sha256"])) == 64
    assert real["bytes"] == simulated["bytes"]
    assert real["security"]["tls"] is True
    assert parts(real["run_id"]) == set()


def test_every_node_has_an_address_and_a_namespace_of_its_own(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *NETNS, *ENDLESS) as run:
        wait_until_running(out)
        pids = node_processes(out)
        spaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in pids.values()}
        assert len(spaces) == 4
        assert Path("/proc/self/ns/net").readlink() not in spaces
        seen = set()
        for pid in pids.values():
            enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", "-4", "addr"]
            shown = json.loads(subprocess.run(enter, capture_output=True, check=True).stdout)
            seen |= {a["local"] for link in shown for a in link["addr_info"]} - {"127.0.0.1"}
        assert len(seen) == 4
        send(run.pid, signal.SIGINT)
        code, _, _ = finish(run)
    assert code == 130


@pytest.mark.parametrize("rate", ["2Mbit/s", "20Mbit/s", "100Mbit/s"])
def test_the_kernel_imposes_the_rate_that_was_asked_for(
    file: Path, tmp_path: Path, rate: str
) -> None:
    out = tmp_path / "run"
    setting = [*KERNEL, "--set", f"network.rate={rate}"]
    done = tidings("run", str(file), "--out", str(out), *NETNS, *setting)
    assert done.returncode == 0, done.stdout + done.stderr
    (probe,) = measured(out)
    assert abs(probe["rate_error"]) < 0.05
    simulated = tmp_path / "simulated"
    done = tidings("simulate", str(file), "--out", str(simulated), "--quiet", *setting)
    assert result(out)["weights_sha256"] == result(simulated)["weights_sha256"]
    assert result(out)["bytes"] == result(simulated)["bytes"]


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_the_kernel_imposes_the_cards_too(file: Path, tmp_path: Path, direction: str) -> None:
    out = tmp_path / "run"
    setting = [*KERNEL, "--set", f"network.nics=[{{on: 1, {direction}: 8Mbit/s}}]"]
    done = tidings("run", str(file), "--out", str(out), *NETNS, *setting)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = sorted(probe["rate_asked_bit_per_s"] for probe in measured(out))
    assert asked == [8e6, 50e6]
    assert all(abs(probe["rate_error"]) < 0.05 for probe in measured(out))


def test_a_rate_that_the_kernel_does_not_deliver_is_noticed(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *NETNS, *KERNEL, *ENDLESS[:2]) as run:
        # somebody slows down what everybody's traffic passes, before it is measured
        run_id = wait_for_event(out, "launching")[0]["run"]
        wait_for_event(out, "connected")
        key = run_id.rpartition("-")[2]
        for node in range(4):
            device = ["dev", f"t{key}-{node}", "root", "tbf", "rate", "20mbit"]
            slow = ["tc", "qdisc", "add", *device, "burst", "20kb", "latency", "1s"]
            subprocess.run(slow, check=True, capture_output=True)
        wait_for_event(out, "measured")
        send(run.pid, signal.SIGINT)
        finish(run)
    assert result(out)["fidelity"]["rate_error"] == pytest.approx(-0.6, abs=0.05)
    assert "rate off by -6" in result(out)["fidelity"]["problems"][0]


def test_what_the_kernel_or_the_launcher_cannot_do_is_refused(file: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    done = tidings("run", str(file), *out, *KERNEL)
    assert done.returncode == 2
    assert (
        "network.enforce=kernel: the launcher 'local' cannot have the kernel impose the links"
        in done.stderr
    )
    assert "netns" in done.stderr
    jitter = [*KERNEL, "--set", "network.jitter=1ms", "--set", "network.jitter_kind=exponential"]
    done = tidings("check", str(file), "--launcher", "netns", *jitter)
    assert done.returncode == 2
    assert "network.jitter_kind=exponential: the kernel has no 'exponential' jitter" in done.stderr
    assert not (tmp_path / "run").exists()


def test_delay_is_imposed_where_the_kernel_can_and_refused_where_not(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    setting = [*KERNEL, "--set", "network.delay=20ms"]
    done = tidings("run", str(file), "--out", str(out), *NETNS, *setting)
    if has_netem():
        assert done.returncode == 0, done.stdout + done.stderr
        assert abs(measured(out)[0]["delay_error_s"]) < 0.002
    else:
        assert done.returncode == 2
        assert "network.delay=20ms: this machine's kernel has no sch_netem" in done.stderr
        assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_everything_down(file: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *NETNS, *ENDLESS) as run:
        run_id = wait_until_running(out)
        # four namespaces, four devices, one bridge
        assert len(parts(run_id)) == 9
        send(run.pid, number)
        code, _, _ = finish(run)
    assert code == 130
    assert parts(run_id) == set()


def test_a_failure_takes_everything_down(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *NETNS, *ENDLESS) as run:
        run_id = wait_until_running(out)
        send(node_processes(out)[2], signal.SIGKILL)
        code, text, _ = finish(run)
    assert code == 1
    assert "killed by SIGKILL" in text
    assert parts(run_id) == set()


def test_what_a_killed_run_leaves_is_reaped_and_a_running_one_is_not(
    file: Path, tmp_path: Path
) -> None:
    dead, live = tmp_path / "dead", tmp_path / "live"
    with started("run", str(file), "--out", str(live), *NETNS, *ENDLESS) as running:
        living = wait_until_running(live)
        with started("run", str(file), "--out", str(dead), *NETNS, *ENDLESS) as run:
            run_id = wait_until_running(dead)
            pids = set(node_processes(dead).values())
            send(run.pid, signal.SIGKILL)
            wait_until_gone(pids)
        left = parts(run_id)
        assert len(left) == 9
        listed = tidings("reap", "--dry-run")
        assert all(f"would remove: {kind} {name}" in listed.stdout
                   for name in left
                   for kind in (("namespace" if name.startswith("tidings-") else "device"),)
                   )  # fmt: skip
        assert parts(run_id) == left
        done = tidings("reap")
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in left)
        assert f"kept: run {living} is still going on" in done.stdout
        assert parts(run_id) == set()
        assert len(parts(living)) == 9
        send(running.pid, signal.SIGINT)
        code, _, err = finish(running)
        assert code == 130, err
    assert parts(living) == set()
