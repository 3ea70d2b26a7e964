"""What whoever starts the processes of an MPI job tells each of them, before MPI is there."""

from __future__ import annotations

import os

#: PMIx (Open MPI, Slurm), Open MPI, PMI (MPICH's mpiexec, Slurm), Slurm
RANK_VARIABLES = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


def rank_of_environment() -> int | None:
    """The rank that this process was given, if any."""
    for name in RANK_VARIABLES:
        if (text := os.environ.get(name, "")).isdecimal():
            return int(text)
    return None
