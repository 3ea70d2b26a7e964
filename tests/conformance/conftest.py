"""The ways to run nodes for real that the suite goes through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.grpc_cluster import run_over_grpc
from support.mpi_cluster import MpiCluster

#: the largest case of the suite
_RANKS = 6


@pytest.fixture(scope="module")
def mpich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MpiCluster]:
    """Ranks under MPICH."""
    yield from _cluster("mpich", tmp_path_factory)


@pytest.fixture(scope="module")
def openmpi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MpiCluster]:
    """Ranks under Open MPI."""
    yield from _cluster("openmpi", tmp_path_factory)


def _cluster(flavor: str, factory: pytest.TempPathFactory) -> Iterator[MpiCluster]:
    cluster = MpiCluster(flavor, _RANKS, factory.mktemp(flavor))
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(params=["grpc", "mpich", "openmpi"])
def real(request: pytest.FixtureRequest) -> object:
    """A way to run plans over a network."""
    if request.param == "grpc":
        return run_over_grpc
    return request.getfixturevalue(request.param).run
