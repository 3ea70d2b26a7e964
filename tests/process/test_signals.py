"""Nodes that are frozen, thawed and killed from outside, by whatever launcher has started them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.interference import here, judge, seen
from support.mpi_cluster import FLAVORS, bin_of, environment
from support.netns import need_namespaces

pytestmark = pytest.mark.process


def test_local_nodes_are_frozen_thawed_and_killed(tmp_path: Path) -> None:
    judge(seen("local", tmp_path, sys.executable, here()))


def test_nodes_in_namespaces_are_frozen_thawed_and_killed(tmp_path: Path) -> None:
    need_namespaces()
    judge(seen("netns", tmp_path, sys.executable, here()))


@pytest.mark.parametrize("way", [*FLAVORS, "openmpi with ulfm"])
def test_ranks_are_frozen_thawed_and_killed(way: str, tmp_path: Path) -> None:
    flavor, survives = way.split()[0], "ulfm" in way
    launcher = f"{{kind: mpi, ulfm: {str(survives).lower()}}}"
    found = seen(launcher, tmp_path, str(bin_of(flavor) / "python"), environment(flavor))
    # without ULFM mpiexec kills all ranks when one dies
    judge(found, "1" if survives else "0123")
