"""Who is let in over MPI, and what is taken from those who are."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.mpi_cluster import DEADLINE_S, FLAVORS, bin_of, environment, mpiexec
from support.plans import plans

from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.conformance

SMALL: dict[str, Any] = {"kind": "quadratic", "dim": 300, "structure": "diagonal"}
DPSGD: dict[str, Any] = {"kind": "d_psgd", "lr": 0.05}


@pytest.mark.parametrize("flavor", FLAVORS)
def test_strangers_and_oversized_messages_are_refused_counted_and_harmless(
    flavor: str, tmp_path: Path
) -> None:
    given = plans(2, "line", DPSGD, SMALL, 3, wait_s=20.0)
    (tmp_path / "plans").write_bytes(pickle.dumps(given))
    script = Path(__file__).parents[1] / "support" / "mpi_strangers.py"
    done = subprocess.run(
        [*mpiexec(flavor, 3), str(bin_of(flavor) / "python"), str(script), str(tmp_path)],
        env=environment(flavor),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, heard = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)
    )
    assert heard == [
        "that is no hello",
        "rank 2 is not node 1",
        f"this is run {given[0].run}, not another",
        "node 2 is not an in-neighbour of 0",
    ]
    # four that were told why, and three messages of somebody who was not in
    assert first["refused"] == {"not_admitted": 7, "oversized": 2}
    assert second["refused"] == {}
    expected = [node.model.tolist() for node in simulate(given).nodes]
    assert [first["model"], second["model"]] == expected


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_skips_the_io_thread_does_not_overtake(flavor: str) -> None:
    script = Path(__file__).parents[1] / "support" / "mpi_order.py"
    done = subprocess.run(
        [*mpiexec(flavor, 2), str(bin_of(flavor) / "python"), str(script)],
        env=environment(flavor),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == list(range(36))
