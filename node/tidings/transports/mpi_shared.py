"""What MPICH leaves in shared memory, taken away as soon as nobody needs its name any more."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

_SEGMENT = "/dev/shm/mpich_shm_"


def forget_segments(mpi: Any) -> None:
    """Unlink the segments that ranks on one machine share; collective, right after MPI has begun.

    MPICH 5 names them after the job, and takes the names away when MPI ends in order only. After a
    kill they would stay, and a requeued Slurm job, whose steps have the names of those before,
    would wait for ever in what the dead have left. Whoever has mapped one keeps it.
    """
    if not mpi.Get_library_version().startswith("MPICH"):
        return
    # all ranks of this machine have them
    mpi.COMM_WORLD.Barrier()
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, found, name = line.partition(_SEGMENT)
        if found and not name.endswith("(deleted)"):
            with contextlib.suppress(FileNotFoundError):
                Path(_SEGMENT + name).unlink()
