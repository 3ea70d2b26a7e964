"""The families of parts that protocols are built from, each with its registry and its contract."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from tidings.api.message import Compressed, Packed
from tidings.api.problems import LocalProblem
from tidings.registry import Plugin, Registry

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
