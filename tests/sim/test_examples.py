"""Every experiment file in examples/ runs, shortened, in the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import EXAMPLES, result, tidings

from tidings.api import protocols
from tidings_coordinator.experiment.load import load
from tidings_coordinator.launchers.simulator import Simulator

pytestmark = pytest.mark.sim

FILES = sorted(EXAMPLES.glob("*.yaml"))
#: what shortens those that take long, and the least accuracy, or the most loss, that they come to
SHORT: dict[str, tuple[list[str], float]] = {
    "a2cid2-ring": (["stop.time=2s"], 0.3),
    "asynchronous-straggler": (["stop.time=5s"], 0.65),
    "byzantine-regular": (["stop.rounds=50"], 0.8),
    "byz-vr-marina-pp": (["stop.rounds=60"], 0.9),
    "byz-vr-marina": (["stop.rounds=100"], 0.9),
    "co2": (["stop.rounds=15"], 0.85),
    "compressed-ring": (["stop.rounds=40"], 0.4),
    "error-feedback-star": (["stop.rounds=30"], 0.75),
    "d-ec": (["stop.rounds=120"], 320),
    "dadao-changing-graph": ([], 69.83),
    "dadao-ring": ([], 69.83),
    "dfedavgm": (["stop.rounds=15"], 0.5),
    "ec": (["stop.rounds=120"], 320),
    "econtrol": (["stop.rounds=120"], 320),
    "ef21-w": (["stop.rounds=120"], 325),
    "fault-byzantine-turn": ([], 0.9),
    "fault-choco-crash": ([], 0.85),
    "fault-churn": ([], 0.95),
    "fault-coordinator": ([], 0.85),
    "fault-partition": ([], 0.92),
    "fault-rewire": (["stop.rounds=110"], 0.88),
    "fault-straggler": ([], 0.9),
    "federated-asynchronous": (["stop.time=4s"], 0.75),
    "federated-buffer": (["stop.time=2500ms"], 0.7),
    "federated-participation": (["stop.rounds=60"], 0.5),
    "federated-star": (["stop.rounds=10"], 0.8),
    "federated-staleness": (["stop.time=2500ms"], 0.4),
    "gossip-steps": (["stop.rounds=15"], 0.5),
    "gradient-tracking": (["stop.rounds=200"], 70.5),
    "lossy-wan": (["stop.rounds=50"], 0.8),
    "msda-ring": ([], 69.83),
    "network-lasso": (["stop.rounds=60"], 0.1),
    "network-lasso-wine": (["stop.rounds=90"], 0.07),
    "one-bit-adam": (["stop.rounds=60"], 0.9),
    "one-peer-exponential": (["stop.rounds=60"], 0.75),
    "quickstart": (["stop.rounds=40"], 0.75),
    "ring-128": (["stop.rounds=5"], 0.1),
    "sgp": ([], 64.6),
    "text": (["stop.rounds=30"], 0.1),
}


def test_every_example_says_what_one_sees() -> None:
    assert len(FILES) >= 10
    for file in FILES:
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "# yaml-language-server: $schema=../docs/experiment.schema.json"
        comment = [line for line in lines if line.startswith("#")]
        assert len(comment) >= 4, file
        assert 10 <= len(lines) - len(comment) <= 40, file


def test_every_fault_has_a_page_with_a_figure() -> None:
    pages = EXAMPLES.parent / "docs" / "examples"
    index = (pages / "README.md").read_text(encoding="utf-8")
    for name in (file.stem for file in FILES if file.stem.startswith("fault-")):
        page = (pages / f"{name}.md").read_text(encoding="utf-8")
        assert f"`examples/{name}.yaml`" in page
        assert f"]({name}.svg)" in page
        assert (pages / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")
        assert f"]({name}.md)" in index


def test_every_protocol_has_one() -> None:
    assert {load(file).protocol.kind for file in FILES} == set(protocols)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_example(file: Path, tmp_path: Path) -> None:
    settings, bound = SHORT.get(file.stem, ([], 0.0))
    load(file)
    shortened = [part for setting in settings for part in ("--set", setting)]
    done = tidings("simulate", str(file), "--quiet", "--out", str(tmp_path / "run"), *shortened)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path / "run")
    assert found["launcher"] == Simulator.kind
    assert found["run"] == "completed"
    assert found["bytes"]["total"] > 0
    if found["accuracy"] is None:
        assert found["loss"] <= bound
    else:
        assert found["accuracy"] >= bound
