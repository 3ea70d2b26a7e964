"""Linear regression on a real table whose rows come in natural groups: wines of three cultivars."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import LocalProblem, Problem, problems
from tidings.errors import nearest
from tidings.problems.own_rows import OwnRows
from tidings.problems.packaged import hold_out, packaged_file
from tidings.problems.seeding import generator

#: the table's columns, in its order
MEASURED = (
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280_od315",
    "proline",
)
CULTIVARS = 3


@problems.register("wine_regression")
@dataclass(frozen=True)
class WineRegression(Problem):
    """One measured property of a wine by its twelve others (Aeberhard, Coomans & de Vel, 1992).

    The table has 178 wines of three cultivars, as scikit-learn carries it (extra "data"); how its
    properties hang together differs from cultivar to cultivar. Half of the wines of each cultivar
    are held out, always the same. Node i has wines of cultivar ``floor(3 i / nodes)`` only, dealt
    evenly to its nodes, and no label says which: that nodes are alike is to be found out.

    ``f_i(x) = |A_i x - y_i|^2 / (2 m_i)``; all columns have mean 0 and deviation 1 over the wines
    that are not held out, and a constant column of 1 is added, so that d = 13. Each node is
    measured on the held-out wines of its cultivar: ``loss`` is half the mean square error.
    """

    #: the property that is predicted
    target: str = "flavanoids"

    def __post_init__(self) -> None:
        """ValueError for a property that was not measured."""
        if self.target not in MEASURED:
            known = nearest(self.target, MEASURED)
            raise ValueError(f"unknown property of a wine '{self.target}'; {known}")

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s wines; ValueError for fewer nodes than cultivars, or too many nodes."""
        if nodes < CULTIVARS:
            raise ValueError(f"wines of {CULTIVARS} cultivars for {nodes} nodes")
        group = cultivar(node, nodes)
        features, targets, groups, trained = _table(self.target)
        wines = np.flatnonzero((groups == group) & trained)
        alike = [i for i in range(nodes) if cultivar(i, nodes) == group]
        dealt = generator(seed, "wines", group).permutation(wines)[alike.index(node) :: len(alike)]
        if not len(dealt):
            raise ValueError(f"{len(wines)} wines of a cultivar for {len(alike)} nodes")
        held_out = np.flatnonzero((groups == group) & ~trained)
        train, test = (
            (torch.from_numpy(features[rows]), torch.from_numpy(targets[rows]))
            for rows in (np.sort(dealt), held_out)
        )
        return OwnRows(train, test)


def cultivar(node: int, nodes: int) -> int:
    """Of which of the three a node has wines."""
    return node * CULTIVARS // nodes


@functools.lru_cache(maxsize=4)
def _table(target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N, 13) features, (N,) targets, (N,) cultivars, (N,) whether a wine is learned from."""
    file = packaged_file("sklearn", "datasets/data/wine_data.csv", "the wine table")
    table = np.loadtxt(file, delimiter=",", skiprows=1)
    groups = table[:, -1].astype(np.int64)
    learned, _ = hold_out(groups, 0.5)
    trained = np.zeros(len(table), bool)
    trained[learned] = True
    measured = table[:, :-1]
    measured = (measured - measured[trained].mean(axis=0)) / measured[trained].std(axis=0)
    place = MEASURED.index(target)
    features = np.column_stack([np.delete(measured, place, axis=1), np.ones(len(table))])
    return features, measured[:, place].copy(), groups, trained
