"""Weights from the experiment file or from a file beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidings.registry import LocalPath
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings
from tidings_coordinator.topology.spectra import Matrix, Stochastic, stochasticity


@mixings.register("custom")
@dataclass(frozen=True)
class Custom(Mixing):
    """The user's own weights: the rows themselves, or a .csv or .npy file that holds them.

    Row i is what node i gives to each node. Weights must lie on the graph (row i, column j only
    where j sends to i), and rows or columns must sum to 1.
    """

    matrix: tuple[tuple[float, ...], ...] = ()
    #: comma-separated rows (.csv), or a numpy array (.npy)
    file: LocalPath | None = None

    def __post_init__(self) -> None:
        if bool(self.matrix) == bool(self.file):
            raise ValueError("give either 'matrix' or 'file'")
        if len({len(row) for row in self.matrix} | {len(self.matrix)}) > 1:
            raise ValueError(
                "'matrix' needs as many numbers in every row as it has rows, "
                f"{len(self.matrix)}; got {', '.join(str(len(row)) for row in self.matrix)}"
            )

    def weights(self, graph: Graph) -> Matrix:
        """The matrix; ValueError where the file cannot be read."""
        return self._load()

    def guarantee(self) -> Stochastic:
        """What the given matrix is."""
        kind = stochasticity(self._load())
        if kind is None:
            raise ValueError("neither the rows nor the columns of the weights sum to 1")
        return kind

    def _load(self) -> Matrix:
        if self.file is None:
            return np.array(self.matrix, dtype=np.float64)
        path = Path(self.file)
        try:
            if path.suffix == ".npy":
                values = np.load(path, allow_pickle=False)
            else:
                values = np.loadtxt(path, delimiter=",", ndmin=2)
            return np.asarray(values, dtype=np.float64)
        except (OSError, ValueError) as error:
            raise ValueError(f"weights cannot be read from {path}: {error}") from error
