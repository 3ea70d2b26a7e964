"""Whole runs of node processes from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import EXAMPLES, SMALL, lines, result, tidings

pytestmark = pytest.mark.process


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_processes_and_simulator_agree_bit_for_bit(file: Path, tmp_path: Path) -> None:
    found = []
    for command in ("run", "simulate"):
        done = tidings(command, str(file), "--out", str(tmp_path / command), "--quiet")
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(result(tmp_path / command))
    real, simulated = found
    assert real["weights_sha256"] == simulated["weights_sha256"]
    for key in ("bytes", "messages", "rounds", "accuracy", "loss", "consensus_distance"):
        assert real[key] == simulated[key], key
    assert real["to_target"]["rounds"] == simulated["to_target"]["rounds"]
    assert real["checks"] == "pass"
    assert real["fidelity"]["problems"] == []
    assert real["control_plane_bytes"] > 0
    links = [lines(tmp_path / command, "links") for command in ("run", "simulate")]
    assert [line["bytes"] for line in links[0]] == [line["bytes"] for line in links[1]]


def test_resolved_yaml_runs_again_to_the_same_result(file: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert tidings("simulate", str(file), "--out", str(first), "--quiet").returncode == 0
    resolved = str(first / "resolved.yaml")
    done = tidings("run", resolved, "--out", str(again), "--quiet")
    assert done.returncode == 0, done.stderr
    # the launcher was resolved too: it is the simulator again
    assert result(again)["trace_hash"] == result(first)["trace_hash"]
    assert result(again)["weights_sha256"] == result(first)["weights_sha256"]
    assert (again / "resolved.yaml").read_text() == (first / "resolved.yaml").read_text()


@pytest.mark.parametrize(
    ("protocol", "exchanged", "judged"),
    # how far DADAO's slowest node is depends on when it got its turn on a busy machine
    [("{kind: ad_psgd, lr: 0.05}", 4 * 30, max), ("{kind: dadao, unit: 20ms}", 40, min)],
)
def test_asynchronous_protocols_over_processes(
    file: Path, tmp_path: Path, protocol: str, exchanged: int, judged: Callable[..., float]
) -> None:
    out = tmp_path / "run"
    setting = ["--set", f"protocol={protocol}", "--set", "problem={kind: quadratic, dim: 50}"]
    setting += ["--set", "target={loss: 1000}", "--set", "evaluate.every=10"]
    setting += ["--set", "stop.rounds=30"]
    done = tidings("run", str(file), "--out", str(out), "--quiet", *setting)
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = lines(out, "nodes")
    committed = sum(node["counters"]["exchange_committed"] for node in nodes)
    # every exchange is committed on both sides
    assert committed % 2 == 0
    assert committed >= exchanged
    assert all(node["counters"].get("exchange_in_doubt", 0) == 0 for node in nodes)
    assert [node["gradients"] for node in nodes] == [30] * 4
    rows = lines(out, "series")
    start = [row["metrics"]["suboptimality"] for row in rows if row["round"] == 0]
    end = [row["metrics"]["suboptimality"] for row in rows if row["final"]]
    assert judged(end) < 0.5 * max(start)


def test_a_network_that_was_not_delivered_makes_the_run_invalid(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # 500 Gbit/s is more than a loopback can do
    setting = ["--set", "network.rate=500Gbit/s", "--set", "network.tolerance.rate=1%"]
    done = tidings("run", str(file), "--out", str(out), "--quiet", *setting)
    assert done.returncode == 1
    assert "network NOT as asked for" in done.stdout
    found = result(out)
    assert (found["run"], found["checks"]) == ("completed", "fail")
    assert any("is not what was asked" in problem for problem in found["fidelity"]["problems"])


def test_a_hundred_and_twenty_eight_nodes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    setting = ["--set", "stop.rounds=10", "--set", "network.tolerance.delay=20ms"]
    done = tidings("run", str(EXAMPLES / "ring-128.yaml"), "--out", str(out), "--quiet", *setting)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(out)
    assert (found["nodes"], found["rounds"], found["messages"]) == (128, 10, 2560)
    assert len({*found["weights_sha256"]}) == 128
    simulated = tmp_path / "simulated"
    tidings("simulate", str(EXAMPLES / "ring-128.yaml"), "--out", str(simulated), *setting)
    assert result(simulated)["weights_sha256"] == found["weights_sha256"]
    assert result(simulated)["bytes"] == found["bytes"]


def test_check_starts_nothing_and_predicts_the_bytes(file: Path, tmp_path: Path) -> None:
    done = tidings("check", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "spectral gap" in done.stdout
    assert "8 x 50Mbit/s, delay 2ms" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.yaml"]
    out = tmp_path / "run"
    tidings("simulate", str(file), "--out", str(out), "--quiet")
    sent = result(out)["bytes"]["total"] / 1000
    predicted = done.stdout.splitlines()[-1]
    assert predicted.endswith("in 12 rounds")
    value, unit = predicted.split()[:2]
    assert float(value) * {"kB": 1, "MB": 1000}[unit] == pytest.approx(sent, rel=0.01)


def test_a_sweep_runs_every_combination_and_compares(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    done = tidings(
        "sweep", str(file), "--simulate", "--quiet", "--seeds", "2", "--out", str(out),
        "--set", "protocol.kind=d_psgd,choco_sgd", "--set", "network.rate=10Mbit,100Mbit",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sorted(entry for entry in out.iterdir() if (entry / "result.json").exists())
    assert len(runs) == 8
    found = [(result(run)["protocol"], result(run)["seed"]) for run in runs]
    assert found == [(p, s) for p in ("d_psgd", "choco_sgd") for _ in range(2) for s in (0, 1)]
    assert (out / "comparison.html").exists()
    assert "choco_sgd" in done.stdout


def test_list_in_words_and_as_json() -> None:
    members = json.loads(tidings("list", "protocols", "--json").stdout)
    text = tidings("list", "protocols").stdout
    assert len(members) >= 7
    assert all(member["name"] in text for member in members)
    done = tidings("list", "protocol")
    assert done.returncode == 2
    assert "did you mean 'protocols'?" in done.stderr


def test_bad_input_says_file_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(SMALL.replace("lr: 0.1", "lrr: 0.1"))
    for command in ("run", "simulate", "check"):
        done = tidings(command, str(file), cwd=tmp_path)
        assert done.returncode == 2
        assert f"{file}:6: protocol.lrr: " in done.stderr
        assert "did you mean 'lr'?" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.yaml"]
