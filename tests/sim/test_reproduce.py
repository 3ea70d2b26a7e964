"""``tidings reproduce``: from the claim to the verdict, and the page that is made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.runs import tidings

from tidings_coordinator.reproducing.carrying_out import declared, names
from tidings_coordinator.reproducing.page import page

pytestmark = pytest.mark.sim

ROOT = Path(__file__).parents[2] / "reproductions"
QUICKEST = "heterogeneous-error-feedback"


def copy_of(name: str, tmp_path: Path) -> Path:
    """A copy of one reproduction, without what it wrote; its folder."""
    folder = tmp_path / "reproductions" / name
    shutil.copytree(ROOT / name, folder, ignore=shutil.ignore_patterns("measured.json", "*.svg"))
    return folder


def test_a_claim_is_reproduced(tmp_path: Path) -> None:
    folder = copy_of(QUICKEST, tmp_path)
    done = tidings("reproduce", QUICKEST, "--quiet", "--out", "out", cwd=tmp_path, deadline_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "claim: With full gradients" in done.stdout
    assert done.stdout.endswith("verdict: reproduced\n")
    measured = json.loads((folder / "measured.json").read_text())
    stored = json.loads((ROOT / QUICKEST / "measured.json").read_text())
    assert measured["reproduced"] is True
    assert measured["launcher"] == "simulator"
    assert measured["checks"] == stored["checks"]
    assert [row["method"] for row in measured["rows"]] == [row["method"] for row in stored["rows"]]
    drawn = (folder / "figure.svg").read_text()
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "EControl" in drawn
    assert len(list((tmp_path / "out").glob("*/result.json"))) == len(measured["runs"])


def test_a_claim_that_does_not_hold_is_an_error(tmp_path: Path) -> None:
    folder = copy_of(QUICKEST, tmp_path)
    experiment = folder / "experiment.yaml"
    experiment.write_text(experiment.read_text().replace("rounds: 160", "rounds: 10"))
    done = tidings("reproduce", QUICKEST, "--quiet", "--out", "out", cwd=tmp_path, deadline_s=280)
    assert done.returncode == 1
    assert "[NO] EF21 comes below" in done.stdout
    assert done.stdout.endswith("verdict: NOT reproduced\n")
    assert json.loads((folder / "measured.json").read_text())["reproduced"] is False


def test_what_cannot_be_reproduced_is_said(tmp_path: Path) -> None:
    listed = tidings("reproduce", "--list", "--root", str(ROOT))
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == names(ROOT)
    typo = tidings("reproduce", "heterogenous-error-feedback", "--root", str(ROOT))
    assert typo.returncode == 2
    assert f"did you mean '{QUICKEST}'?" in typo.stderr
    nowhere = tidings("reproduce", QUICKEST, cwd=tmp_path)
    assert nowhere.returncode == 2
    assert "give --root" in nowhere.stderr
    folder = copy_of(QUICKEST, tmp_path)
    (folder / "claim.py").write_text("REPRODUCTION = 1\n")
    empty = tidings("reproduce", QUICKEST, cwd=tmp_path)
    assert empty.returncode == 2
    assert "declares no REPRODUCTION" in empty.stderr


def test_the_page_is_up_to_date() -> None:
    stored = (ROOT.parent / "docs" / "reproductions.md").read_text("utf-8")
    assert stored == page(ROOT), "make reference"


@pytest.mark.parametrize("name", names(ROOT))
def test_what_is_stored_of_each(name: str) -> None:
    declared(ROOT, name)
    measured = json.loads((ROOT / name / "measured.json").read_text("utf-8"))
    assert measured["rows"]
    assert measured["checks"]
    assert (ROOT / name / "figure.svg").is_file()
