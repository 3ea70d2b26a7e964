"""The tutorial: its pages quote its files, and its commands do what the pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.runs import lines, result, tidings

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
CHAPTERS = sorted(TUTORIAL.glob("0*.md"))
#: a fenced block that names a file
QUOTE = re.compile(r"```(?:python|yaml) (\S+)\n(.*?)```", re.DOTALL)


def run(command: str, chapter: str, out: Path, *settings: str) -> None:
    """A chapter's experiment, from another directory."""
    file = TUTORIAL / f"{chapter}.yaml"
    chosen = [part for setting in settings for part in ("--set", setting)]
    done = tidings(command, str(file), "--quiet", "--out", str(out), *chosen)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.unit
@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_pages_quote_their_files(page: Path) -> None:
    quotes = QUOTE.findall(page.read_text(encoding="utf-8"))
    assert {Path(name).suffix for name, _ in quotes} == {".py", ".yaml"}
    for name, quoted in quotes:
        assert quoted in (TUTORIAL / name).read_text(encoding="utf-8"), f"{page.name}: {name}"


@pytest.mark.unit
def test_every_file_has_its_page() -> None:
    quoted = {name for page in CHAPTERS for name, _ in QUOTE.findall(page.read_text("utf-8"))}
    assert quoted == {file.name for file in TUTORIAL.iterdir() if file.suffix in (".py", ".yaml")}
    index = (TUTORIAL / "README.md").read_text("utf-8")
    assert all(f"]({page.name})" in index for page in CHAPTERS)


@pytest.mark.sim
def test_the_echo_takes_the_way_there_and_back(tmp_path: Path) -> None:
    run("simulate", "echo", tmp_path / "run")
    found = result(tmp_path / "run")
    assert found["bytes"]["total"] == found["bytes"]["header"] == 2048
    assert found["messages"] == 160
    assert found["metrics"]["echo_s"] == pytest.approx(0.04002, abs=1e-5)
    assert found["metrics"]["heard"] == 2


@pytest.mark.sim
def test_gossip_is_d_psgd_to_the_bit(tmp_path: Path) -> None:
    run("simulate", "gossip", tmp_path / "own", "stop.rounds=30")
    run("simulate", "gossip", tmp_path / "known", "stop.rounds=30", "protocol.kind=d_psgd")
    own, known = result(tmp_path / "own"), result(tmp_path / "known")
    assert own["weights_sha256"] == known["weights_sha256"]
    assert own["accuracy"] > 0.5


@pytest.mark.sim
def test_halves_cost_half(tmp_path: Path) -> None:
    run("simulate", "half", tmp_path / "half", "stop.rounds=30")
    run("simulate", "gossip", tmp_path / "full", "stop.rounds=30")
    half, full = result(tmp_path / "half"), result(tmp_path / "full")
    assert 2 * half["bytes"]["payload"] == full["bytes"]["payload"]
    assert half["accuracy"] == pytest.approx(full["accuracy"], abs=0.02)


@pytest.mark.sim
def test_the_median_withstands_what_the_mean_does_not(tmp_path: Path) -> None:
    run("simulate", "guarded", tmp_path / "median", "stop.rounds=45")
    mean = "protocol.aggregator={kind: mean}"
    run("simulate", "guarded", tmp_path / "mean", "stop.rounds=45", mean)
    assert result(tmp_path / "median")["accuracy"] > 0.75
    assert result(tmp_path / "mean")["accuracy"] < 0.4


@pytest.mark.sim
def test_nobody_waits_for_the_slow_node(tmp_path: Path) -> None:
    steps = {}
    for kind in ("push.py:Push", "push.py:Pairwise", "gossip.py:Gossip"):
        out = tmp_path / kind.partition(":")[2]
        run("simulate", "push", out, "stop.time=3s", f"protocol.kind={kind}")
        steps[kind] = result(out)["rounds"]
    # in step, 200 ms each; on their own, seven nodes of 20 ms and one of 200 ms
    assert 14 <= steps["gossip.py:Gossip"] <= 16
    assert steps["push.py:Push"] == pytest.approx((7 * 150 + 15) / 8, rel=0.02)
    assert steps["gossip.py:Gossip"] < 2 * steps["push.py:Pairwise"] < 2 * steps["push.py:Push"]


@pytest.mark.process
@pytest.mark.parametrize("chapter", ["echo", "half"])
def test_processes_and_simulator_agree_bit_for_bit(chapter: str, tmp_path: Path) -> None:
    found = []
    for command in ("run", "simulate"):
        run(command, chapter, tmp_path / command, "stop.rounds=10", "network.tolerance.delay=1s")
        found.append(result(tmp_path / command))
    real, simulated = found
    assert real["weights_sha256"] == simulated["weights_sha256"]
    assert real["bytes"] == simulated["bytes"]
    assert len(lines(tmp_path / "run", "nodes")) == real["nodes"]
