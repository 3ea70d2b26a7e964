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
    restored,
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


#: (id, fault, from, to, bit/s that are meant); of a link of 20 Mbit/s
WINDOWS = (
    ("half", "link.scale, with: {rate: 0.5, delay: 1}", 1.0, 2.5, 10e6),
    # the smaller one of two, and then half again
    ("least", "link.shape, with: {rate: 4Mbit/s}", 2.5, 5.0, 4e6),
    ("again", "link.scale, with: {rate: 0.5, delay: 1}", 2.5, 6.5, (4e6 * 2.5 + 10e6 * 1.5) / 4),
    ("steps", "link.trace, with: {file: TRACE}", 7.0, 10.0, (8e6 * 1.5 + 2e6 * 1.5) / 3),
    # changes nothing, so what passes is what passes without faults
    ("plain", "link.scale, with: {rate: 1, delay: 1}", 10.5, 13.0, 20e6),
)
#: packets of 1514 bytes carry 1448 of a frame
WIRE = 1514 / 1448


def test_faults_change_what_the_kernel_imposes(tmp_path: Path) -> None:
    need_namespaces()
    trace = tmp_path / "trace.csv"
    trace.write_text("time,rate,delay\n0s,8Mbit/s,\n1.5s,2Mbit/s,\n")
    file, out = tmp_path / "reshaped.yaml", tmp_path / "run"
    text = SMALL.replace("nodes: 4", "nodes: 2\ntopology: {kind: complete}")
    text = text.replace("rate: 50Mbit/s, delay: 2ms", "rate: 20Mbit/s, enforce: kernel")
    text = text.replace("hidden: 16", "hidden: 2000").replace("{rounds: 12}", "{time: 14s}")
    events = [
        f"  - {{id: {event}, fault: {fault}, on: 0->1, from: {start}s, to: {end}s}}\n"
        for event, fault, start, end, _ in WINDOWS
    ]
    file.write_text(text + "faults:\n" + "".join(events).replace("TRACE", str(trace)))
    done = tidings("run", str(file), "--out", str(out), *NETNS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(out)["faults"] == "all"
    by = {(line["event"], line["state"]): line for line in lines(out, "faults")}
    for event, _, start, end, meant in WINDOWS:
        begun, over = by[event, "active"], by[event, "recovered"]
        assert begun["time_s"] == pytest.approx(start, abs=0.3)
        assert over["time_s"] == pytest.approx(end, abs=0.3)
        achieved = over["detail"]["wire_bytes"] * 8 / (over["time_s"] - begun["time_s"]) / WIRE
        # the link has nothing to do while both nodes compute, and never does more than it may
        assert 0.7 < achieved / meant < 1.05, event


def test_a_killed_node_comes_back_behind_its_kernel_links(file: Path, tmp_path: Path) -> None:
    """From its checkpoint, into its namespace; what holds for its links holds again."""
    out = tmp_path / "run"
    text = SMALL.replace("{rounds: 12}", "{time: 12s}").replace("hidden: 16", "hidden: 500")
    events = (
        "{id: slow, fault: link.shape, on: 2->3, at: 500ms, with: {rate: 2Mbit/s}}",
        "{id: dead, fault: node.crash, on: 2, at: 3s, with: {restart_after: 300ms}}",
        # measures what passes
        "{id: then, fault: link.scale, on: 2->3, from: 8s, to: 11s, with: {rate: 1, delay: 1}}",
    )
    more = "wait: {for: live, timeout: 5s}\ncheckpoint: {every: 2}\nfaults:\n"
    file.write_text(text + more + "".join(f"  - {event}\n" for event in events))
    done = tidings("run", str(file), "--out", str(out), *NETNS, *KERNEL)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(out)
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert None not in found["weights_sha256"]
    assert restored(out) == {2}
    states = [line["state"] for line in lines(out, "faults") if line["event"] == "slow"]
    assert states == ["active", "recovered", "active", "recovered"]
    by = {(line["event"], line["state"]): line for line in lines(out, "faults")}
    took_s = by["then", "recovered"]["time_s"] - by["then", "active"]["time_s"]
    achieved = by["then", "recovered"]["detail"]["wire_bytes"] * 8 / took_s / WIRE
    assert 0.7 < achieved / 2e6 < 1.05
    assert parts(found["run_id"]) == set()


def test_another_graph_behind_links_that_the_kernel_imposes(file: Path, tmp_path: Path) -> None:
    """The links of both are there from the start; those of the second are used, and shaped."""
    setting = [*KERNEL, "--set", "nodes=6", "--set", "topology=ring", "--set", "stop.rounds=20"]
    # about other things than the rate before the run, which a busy machine disturbs
    setting += ["--set", "network.tolerance.rate=50%"]
    events = (
        "{id: all, fault: graph.rewire, at: {round: 5}, for: {rounds: 10}, "
        "with: {topology: complete}}",
        # of a link that only the second graph has; measures
        "{id: far, fault: link.shape, on: 0->3, at: {round: 6}, for: {rounds: 8}, "
        "with: {rate: 5Mbit/s}}",
    )
    file.write_text(SMALL + "faults:\n" + "".join(f"  - {event}\n" for event in events))
    for command in (["run", *NETNS], ["simulate", "--quiet"]):
        out = tmp_path / command[0]
        done = tidings(*command, str(file), "--out", str(out), *setting)
        assert done.returncode == 0, done.stdout + done.stderr
        assert result(out)["faults"] == "all"
    real, simulated = (result(tmp_path / name) for name in ("run", "simulate"))
    assert real["weights_sha256"] == simulated["weights_sha256"]
    assert real["bytes"] == simulated["bytes"]
    by = {(line["event"], line["state"]): line for line in lines(tmp_path / "run", "faults")}
    (link,) = [one for one in lines(tmp_path / "run", "links")
               if (one["source"], one["target"]) == (0, 3)]  # fmt: skip
    passed = by["far", "recovered"]["detail"]["wire_bytes"]
    assert passed > 0.7 * link["bytes"]["total"] * 8 / link["messages"]


def test_what_the_kernel_refuses_a_fault_is_recorded_as_failed(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    text = SMALL.replace("{rounds: 12}", "{time: 4s}")
    events = "faults:\n  - {id: slow, fault: link.shape, on: 0->1, from: 3s, to: 3500ms, "
    file.write_text(text + events + "with: {rate: 1Mbit/s}}\n")
    with started("run", str(file), "--out", str(out), *NETNS, *KERNEL) as run:
        key = wait_for_event(out, "launching")[0]["run"].rpartition("-")[2]
        wait_for_event(out, "started")
        # somebody takes away what is to be changed
        away = ["ip", "netns", "exec", f"tidings-{key}-0", "tc", "qdisc", "del", "dev", "eth0"]
        subprocess.run([*away, "root"], check=True, capture_output=True)
        code, text, _ = finish(run)
    assert code == 4, text
    (line,) = lines(out, "faults")
    assert (line["event"], line["target"], line["state"]) == ("slow", "0->1", "failed")
    assert "tc" in line["detail"]["reason"]
    assert result(out)["faults"] == "none"


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


def test_a_faults_delay_is_imposed_where_the_kernel_can_and_refused_where_not(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    event = "{id: far, fault: link.shape, on: 0->1, at: {round: 4}, with: {delay: 20ms}}"
    file.write_text(SMALL + f"faults:\n  - {event}\n")
    done = tidings("run", str(file), "--out", str(out), *NETNS, *KERNEL)
    if has_netem():
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line["state"] for line in lines(out, "faults")] == ["active", "recovered"]
    else:
        assert done.returncode == 2
        said = "faults.0.fault: 'link.shape': this machine's kernel has no sch_netem"
        assert said in done.stderr
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
