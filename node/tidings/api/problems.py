"""The contracts of problems: what is learned, how its data is dealt out, who takes part."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from tidings.registry import Plugin, Registry
from tidings.units import Ratio

# -- problems ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constants:
    """Constants of a smooth, strongly convex problem."""

    #: strong convexity of every local objective
    mu: float
    #: smoothness: the largest over the local objectives
    smoothness: float
    #: the minimiser of the average objective, (d,) float32, and its value
    optimum: torch.Tensor
    optimum_value: float


@dataclass(frozen=True)
class Smoothness:
    """Lipschitz constants of gradients, for step sizes by theory."""

    #: L_i of every node's local objective, in node order
    local: tuple[float, ...]
    #: L_f of the average objective
    average: float

    @property
    def arithmetic_mean(self) -> float:
        """(1/n) sum_i L_i."""
        return sum(self.local) / len(self.local)

    @property
    def quadratic_mean(self) -> float:
        """sqrt((1/n) sum_i L_i^2), at least the arithmetic mean and at most sqrt(n) times it."""
        return math.sqrt(sum(constant**2 for constant in self.local) / len(self.local))


#: (classes of samples as int64, number of classes) -> other classes, a new array
Relabel = Callable[[np.ndarray, int], np.ndarray]
#: (samples, ...) float32 features -> others of the same shape
Change = Callable[[np.ndarray], np.ndarray]


class LocalProblem:
    """One node's share of a problem."""

    #: number of parameters
    dim: int
    #: local training samples
    samples: int
    #: how many stochastic gradients a full one costs: samples / batch size
    batches: float = 1.0

    @property
    def label_shares(self) -> np.ndarray | None:
        """The part of each label in the local samples, (labels,) float64, where there are any."""
        return None

    @property
    def constants(self) -> Constants | None:
        """Its constants, where the problem is strongly convex and they are known."""
        return None

    @property
    def smoothness(self) -> Smoothness | None:
        """The smoothness constants of all nodes' objectives, where they are known."""
        return None

    @abstractmethod
    def initial(self) -> torch.Tensor:
        """The starting point, the same on every node: a new (d,) float32 tensor."""

    @abstractmethod
    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """A stochastic gradient at ``x`` on a batch drawn by ``rng``: a new (d,) float32 tensor."""

    def on_batch(self, rng: np.random.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
        """The stochastic gradient on the next batch, to be taken at as many points as one likes.

        For methods that take differences of them. Here ``rng`` is set back for every point; where a
        batch depends on more than ``rng``, this must be overridden.
        """
        state = rng.bit_generator.state

        def at(point: torch.Tensor) -> torch.Tensor:
            rng.bit_generator.state = state
            return self.gradient(point, rng)

        return at

    def keep(self) -> Any:
        """What a checkpoint must hold beside ``rng`` for the next batches to be the same.

        None for nothing; else arrays, tensors, numbers, and groups of them.
        """
        return None

    def put_back(self, kept: Any) -> None:
        """Go on where :meth:`keep` was called."""

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """The exact gradient of the local objective at ``x``: a new (d,) float32 tensor.

        Optional; :attr:`has_full_gradient` tells whether it is there.
        """
        raise NotImplementedError(f"{type(self).__name__} has no full gradient")

    def minimizer(self, linear: torch.Tensor, ridge: float) -> torch.Tensor:
        """The minimiser of ``f_i(x) + ridge/2 |x|^2 - <linear, x>``; (d,) float64 both.

        With ridge 0 it is the gradient of the conjugate of f_i at ``linear``, with linear = ridge v
        the proximal point of v. Optional; :attr:`has_minimizer` tells whether it is there.
        """
        raise NotImplementedError(f"{type(self).__name__} has no minimiser")

    @property
    def has_minimizer(self) -> bool:
        """Whether :meth:`minimizer` is defined."""
        return type(self).minimizer is not LocalProblem.minimizer

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...] | None:
        """The shapes of the parameters that x is made of, in order; None where x has no parts."""
        return None

    def channels(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the loss of the local samples at ``x`` looks at in the first convolution.

        Of each of its c channels the Grad-CAM weight (Selvaraju et al., ICCV 2017), the sum over
        the samples of the mean over the image of dL/dA_c, (c,) float64; and where in ``x`` the
        channel's q parameters lie, (c, q) int64. ValueError where there is no convolution.
        """
        raise ValueError(f"{type(self).__name__} has no convolution")

    def moved(self, change: Change) -> LocalProblem:
        """This share with other features of the training samples; ValueError where it has none."""
        raise ValueError(f"{type(self).__name__} has no features that could be changed")

    def relabelled(self, relabel: Relabel) -> LocalProblem:
        """This share with other classes on the training samples; ValueError where it has none."""
        raise ValueError(f"{type(self).__name__} has no classes that could be changed")

    @property
    def has_full_gradient(self) -> bool:
        """Whether :meth:`full_gradient` is defined."""
        return type(self).full_gradient is not LocalProblem.full_gradient

    @abstractmethod
    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` of the whole problem at ``x``, ``accuracy`` in [0, 1] where there is one.

        Called from another thread than :meth:`gradient`: the two share no mutable state.
        """


class Problem(Plugin):
    """What is learned: a model, data, and how the data is split over the nodes."""

    registry: ClassVar[Registry[Problem]]

    @abstractmethod
    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s share. Depends on nothing but its arguments, so all nodes agree."""

    def preload(self) -> None:
        """Load what all nodes share, once, before the node processes are forked."""


problems: Registry[Problem] = Registry("problems", "tidings.problems")
Problem.registry = problems

# -- participation -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Participation(Plugin):
    """When the clients of a federation are there: no server knows it in advance.

    Client n has a share p_n of rounds in which it takes part. ``by`` says how it differs::

        equal:     p_n = mean
        position:  from ``least`` for the first client, evenly up to 2 mean - least for the last
        labels:    p_n = max(least, mean L <share of each label at n, q>),    q ~ Dir(concentration)

    over L labels, q common to all (Wang & Ji, ICLR 2024, section 6): who is there more often has
    other data.
    """

    registry: ClassVar[Registry[Participation]]
    mean: Ratio = Ratio(0.1)
    least: Ratio = Ratio(0.02)
    by: Literal["equal", "position", "labels"] = "labels"
    concentration: float = 0.1

    def __post_init__(self) -> None:
        """ValueError for shares that are none."""
        if not 0 < self.least <= self.mean <= 1:
            raise ValueError(f"need 0 < least <= mean <= 100%, got {self.least} and {self.mean}")
        if self.by == "position" and 2 * self.mean - self.least > 1:
            raise ValueError("the last client would take part in more than all rounds")
        if self.concentration <= 0:
            raise ValueError(f"concentration must be above zero, got {self.concentration:g}")

    @abstractmethod
    def rounds(self, share: float, rng: np.random.Generator) -> Iterator[bool]:
        """Whether a client takes part in round 0, 1, ...; True in ``share`` of them."""

    def share(
        self, client: int, clients: int, problem: LocalProblem, common: np.random.Generator
    ) -> float:
        """``p_n`` of client n = 0 .. clients - 1; ``common`` is the same stream for all of them."""
        if self.by == "equal":
            return float(self.mean)
        if self.by == "position":
            step = 2 * (self.mean - self.least) / max(1, clients - 1)
            return float(self.least + step * client)
        labels = problem.label_shares
        if labels is None:
            raise ValueError("participation by labels needs a problem with labels")
        favor = common.dirichlet(np.full(len(labels), self.concentration))
        share = self.mean * len(labels) * float(labels @ favor)
        return min(1.0, max(self.least, share))


participations: Registry[Participation] = Registry("participations", "tidings.participations")
Participation.registry = participations

# -- partitions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A supervised data set in memory."""

    #: (N, ...) float32 features, or (N, length) int64 tokens
    features: np.ndarray
    #: (N,) int64 classes, (N,) float32 targets, or (N, length) int64 next tokens
    targets: np.ndarray
    #: (N,) int64 natural group of each sample (writer, book, topic), where there is one
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, indices: np.ndarray) -> Dataset:
        """The samples at ``indices``."""
        groups = None if self.groups is None else self.groups[indices]
        return Dataset(self.features[indices], self.targets[indices], groups)


class Partition(Plugin):
    """How the training samples are dealt out to the nodes."""

    registry: ClassVar[Registry[Partition]]
    #: whether every sample goes to exactly one node
    disjoint: ClassVar[bool] = True

    @abstractmethod
    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """``nodes`` arrays of sample indices; where :attr:`disjoint`, together
        they hold each index exactly once."""

    def transform(self, data: Dataset, node: int, nodes: int) -> Dataset:
        """What node ``node`` sees of its samples (feature shift); the identity by default."""
        return data


partitions: Registry[Partition] = Registry("partitions", "tidings.partitions")
Partition.registry = partitions
