"""The end of an MPI job: ranks that are slow to end are not killed for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.mpi_cluster import DEADLINE_S, FLAVORS, bin_of, environment, mpiexec

pytestmark = pytest.mark.process

#: rank 0 ends at once; rank 1 once that has been noticed
RANK = """
import contextlib, os, sys, time
from pathlib import Path
from tidings.transports.mpi_exit import end
from tidings.transports.mpi_thread import world

job, note = world(), Path(sys.argv[1])
if job.rank == 0:
    note.write_text(str(os.getpid()))
assert job.stop()
if job.rank == 1:
    state = Path("/proc", note.read_text(), "stat")
    with contextlib.suppress(FileNotFoundError):
        while ") Z" not in state.read_text():
            time.sleep(0.001)
    # nobody says that mpiexec does not mind; where it does, it does so at once
    for _ in range(50):
        time.sleep(0.01)
    print("rank 1 ends", flush=True)
end(0)
"""


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_rank_may_end_long_before_another(flavor: str, tmp_path: Path) -> None:
    python = str(bin_of(flavor) / "python")
    done = subprocess.run(
        [*mpiexec(flavor, 2), python, "-c", RANK, str(tmp_path / "rank 0")],
        env=environment(flavor),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout) == (0, "rank 1 ends\n"), done.stderr
