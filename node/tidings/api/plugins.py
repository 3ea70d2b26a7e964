"""The families of parts that protocols are built from, each with its registry and its contract."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from tidings.api.message import Compressed, Packed
from tidings.registry import Plugin, Registry
from tidings.units import Ratio

# -- compressors -------------------------------------------------------------------------------


class Compressor(Plugin):
    """Turns a vector into few bytes and back. Pure: randomness comes from the generator given.

    Exactly one of :meth:`delta` (contractive: E|C(v)-v|^2 <= (1-delta)|v|^2) and :meth:`omega`
    (unbiased: E C(v) = v, E|C(v)-v|^2 <= omega |v|^2) must be given; both where both hold.
    """

    registry: ClassVar[Registry[Compressor]]

    @abstractmethod
    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """The bytes that stand for ``vector`` ((d,) float32); never changes it."""

    @abstractmethod
    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The (d,) float32 vector that ``packed`` stands for, as a new tensor.

        ``packed`` may come from anyone: MalformedFrame or one of its siblings for bytes that
        :meth:`pack` cannot have made, and no allocation beyond O(dim).
        """

    @abstractmethod
    def max_bytes(self, dim: int) -> int:
        """An upper bound of the bytes (values and metadata) for a vector of ``dim``."""

    @abstractmethod
    def expected_bits(self, dim: int) -> float:
        """The bits that are usual for a vector of ``dim``, metadata included; for planning."""

    def delta(self, dim: int) -> float | None:
        """Contraction constant in (0, 1], or None where it is not contractive."""
        return None

    def omega(self, dim: int) -> float | None:
        """Variance constant of an unbiased compressor, or None where it is biased."""
        return None

    def __call__(self, vector: torch.Tensor, rng: np.random.Generator) -> Compressed:
        """Compress: the bytes, and the vector that both ends will see."""
        packed = self.pack(vector, rng)
        return Compressed(packed, self.unpack(packed, vector.numel()))


compressors: Registry[Compressor] = Registry("compressors", "tidings.compressors")
Compressor.registry = compressors

# -- aggregators -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """What a rule may use beside the rows."""

    #: index of the caller's own row, for rules that trust it
    own: int = 0
    #: how many rows are expected to be bad
    f: int = 0
    #: for rules that draw; None where the caller gave none
    rng: np.random.Generator | None = None
    #: what is learned, for rules that look at the model's layers or at the caller's data
    problem: LocalProblem | None = None


class Aggregator(Plugin):
    """Combines the rows of a matrix into one vector, some of the rows being lies.

    Robust rules have a field ``f``, the number of bad rows that they are built to withstand; it is
    independent of how many attackers the experiment really has. A protocol calls a rule by
    ``node.aggregate(rule, rows)``.
    """

    registry: ClassVar[Registry[Aggregator]]
    #: whether rows with NaN or infinity are taken out first (each counts as one of the f)
    robust: ClassVar[bool] = True

    @abstractmethod
    def combine(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The rule itself on finite rows ((m, d) float32), at most ``context.f`` of them bad.

        Returns a new (d,) tensor; never changes or aliases ``rows``.
        """

    def min_rows(self, f: int) -> int:
        """The fewest rows on which the rule makes sense against ``f`` bad ones."""
        return 2 * f + 1

    @property
    def bad_rows(self) -> int:
        """The declared ``f``; 0 for rules without one."""
        return int(getattr(self, "f", 0))

    def check(self, rows: int) -> None:
        """ValueError where ``rows`` rows are too few for the declared f."""
        need = self.min_rows(self.bad_rows)
        if rows < need:
            raise ValueError(
                f"{self.kind} with f={self.bad_rows} needs at least {need} rows, there are {rows}"
            )

    def check_problem(self, problem: LocalProblem) -> None:
        """ValueError where the rule needs more of the problem than it has."""

    def __call__(
        self,
        rows: torch.Tensor,
        own: int = 0,
        *,
        rng: np.random.Generator | None = None,
        problem: LocalProblem | None = None,
    ) -> torch.Tensor:
        """Combine rows ((m, d) float32); the own row must be finite.

        A row that is not finite is surely bad: a robust rule drops it and expects one bad row
        fewer among the rest. Where messages are missing and the rest are too few for f, f is
        lowered to what they allow, for a rule must still answer.
        """
        if not self.robust:
            return self.combine(rows, Context(own, 0, rng, problem))
        # numpy's isfinite is 20 times faster than torch's
        finite = np.isfinite(rows.numpy()).all(axis=1)
        f = max(0, self.bad_rows - int((~finite).sum()))
        kept = rows if finite.all() else rows[torch.from_numpy(finite)]
        if kept.shape[0] == 0:
            raise ValueError(f"{self.kind}: no finite row to combine")
        while f > 0 and kept.shape[0] < self.min_rows(f):
            f -= 1
        own_kept = int(finite[:own].sum()) if bool(finite[own]) else 0
        return self.combine(kept, Context(own_kept, f, rng, problem))


aggregators: Registry[Aggregator] = Registry("aggregators", "tidings.aggregators")
Aggregator.registry = aggregators

# -- attacks -----------------------------------------------------------------------------------

Knowledge = Literal["own", "neighbors", "omniscient"]


@dataclass(frozen=True)
class View:
    """What an attacker knows when it writes a message."""

    #: the vectors of this round that it knows to be honest, own honest computation first: (m, d)
    honest: torch.Tensor
    #: nodes in the receiver's view of the world: those that send in this round where the attacker
    #: knows (``Node.cohort``, or all if it is omniscient), else its neighbourhood with itself
    nodes: int
    #: how many of those are attackers
    attackers: int
    #: who will get the message; an attacker may tell each receiver something else
    receiver: int
    #: whose the rows of ``honest`` are
    sources: tuple[int, ...] = ()
    round: int = 0
    #: the attacker's own model now and at the start, (d,); empty where it has none
    model: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    start: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    #: what the attacker has kept from earlier messages of this kind; its own, to be changed
    memory: dict[str, Any] = field(default_factory=dict)


class Attack(Plugin):
    """What a Byzantine node sends instead of the honest message. Wraps its outgoing messages.

    Or what it learns from instead of its data: :meth:`poison`.
    """

    registry: ClassVar[Registry[Attack]]
    #: "own": its own honest computation only; "neighbors": a rushing adversary that first waits for
    #: what its honest neighbours send in the same round; "omniscient": that waits for all honest
    #: nodes, which only the simulator can show it
    knowledge: Knowledge = "own"

    @abstractmethod
    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """The vector to send in place of ``honest`` ((d,) float32), as a new tensor."""

    def poison(self, problem: LocalProblem) -> LocalProblem:
        """What the attacker computes on in place of its share of the problem; the share itself.

        ValueError where the problem is none that it can poison.
        """
        return problem


attacks: Registry[Attack] = Registry("attacks", "tidings.attacks")
Attack.registry = attacks

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
