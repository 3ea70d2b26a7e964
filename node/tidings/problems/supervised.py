"""What all problems with a torch module and a data set have in common; a base for one's own."""

from __future__ import annotations

import copy
import functools
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from tidings.api import Dataset, LocalProblem, Partition, Problem
from tidings.api.problems import Change, Relabel
from tidings.problems.batches import Batches, Sampling, check_batch_size
from tidings.problems.convolutions import channel_places, first_convolution, watching
from tidings.problems.flat import FlatModule
from tidings.problems.seeding import build_module, generator

#: samples that are looked at together where all are gone through
_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class SupervisedProblem(Problem):
    """Minimise the mean loss of a torch module on data that is split over the nodes.

    Node i's objective is ``f_i(x) = 1/m_i sum_k loss(module_x(a_k), y_k) + l2/2 |x|^2`` over its
    m_i samples; the problem is their plain average. A problem of one's own gives data and module,
    and is named in an experiment as ``kind: path/to/rings.py:Rings``::

        from dataclasses import dataclass
        import numpy as np
        import torch
        from tidings.api import Dataset
        from tidings.problems.supervised import SupervisedProblem

        @dataclass(frozen=True)
        class Rings(SupervisedProblem):
            hidden: int = 16

            def data(self):
                rng = np.random.default_rng(0)
                ring = rng.integers(0, 2, 1000)
                radius = 1 + ring + 0.1 * rng.standard_normal(1000)
                angle = rng.uniform(0, 2 * np.pi, 1000)
                points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
                data = Dataset(points.astype(np.float32), ring)
                return data.take(np.arange(800)), data.take(np.arange(800, 1000))

            def module(self):
                return torch.nn.Sequential(
                    torch.nn.Linear(2, self.hidden),
                    torch.nn.Tanh(),
                    torch.nn.Linear(self.hidden, 2),
                )

    The module's own initialisation is used, drawn from the run's seed, the same on all nodes.
    """

    #: how the training samples are dealt out
    partition: Partition = field(default_factory=lambda: Partition.parse("iid"))
    #: samples per gradient; None (null) for all local samples
    batch_size: int | None = 32
    #: "epochs" or "independent", see :class:`tidings.problems.batches.Batches`
    sampling: Sampling = "epochs"
    #: coefficient of the regulariser l2/2 |x|^2 that every objective carries
    l2: float = 0.0

    def __post_init__(self) -> None:
        """ValueError for a batch size below 1 or a negative l2."""
        check_batch_size(self.batch_size)
        if not self.l2 >= 0:
            raise ValueError(f"l2 must not be negative, got {self.l2}")

    @abstractmethod
    def data(self) -> tuple[Dataset, Dataset]:
        """Training and test set. Must return the same in every process; called once in each."""

    @abstractmethod
    def module(self) -> torch.nn.Module:
        """A new module that maps a batch of features to outputs. No batch norm, no dropout."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch, a scalar.

        Cross-entropy where targets are classes or tokens ((..., C) outputs, (...) int64 targets),
        mean squared error where they are float32.
        """
        if targets.is_floating_point():
            return functional.mse_loss(outputs.reshape(targets.shape), targets)
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """The classes that ``outputs`` stand for, shaped as the targets."""
        return outputs.argmax(dim=-1)

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s share; ValueError where a node would get no sample."""
        return LocalSupervised(share_out(self, nodes, seed), node)

    def preload(self) -> None:
        """Load the data set into this process."""
        self.loaded()

    def loaded(self) -> tuple[Dataset, Dataset]:
        """What :meth:`data` returns, read once per process; not to be changed."""
        train, test = _load(_Key.of(self))
        return train.dataset, test.dataset


class LocalSupervised(LocalProblem):
    """One node's samples (rows of the data set that all nodes of the process share)."""

    def __init__(self, common: Common, node: int) -> None:
        self.common = common
        self.problem = common.problem
        #: the tensors that hold the node's samples, and which of their rows these are
        self.data, self.rows = common.share(node)
        self.dim = common.initial.numel()
        self.samples = len(self.rows)
        self._batches = Batches(self.samples, self.problem.batch_size, self.problem.sampling)
        self.batches = self.samples / self._batches.size

    @property
    def label_shares(self) -> np.ndarray | None:
        """Of the classes of the training set."""
        targets = self.common.train.dataset.targets
        if targets.dtype != np.int64:
            return None
        own = self.data.dataset.targets[self.rows]
        counts: np.ndarray = np.bincount(own.ravel(), minlength=int(targets.max()) + 1)
        shares: np.ndarray = counts / own.size
        return shares

    def initial(self) -> torch.Tensor:
        """The module's initial parameters."""
        return self.common.initial.clone()

    def keep(self) -> np.ndarray:
        """What is left of the epoch."""
        return self._batches.rest

    def put_back(self, kept: np.ndarray) -> None:
        """Go on with what is left of an epoch."""
        self._batches.rest = kept

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The gradient of the mean loss on the next batch, plus ``l2 x``."""
        return self._gradient(x, self.rows[self._batches.draw(rng)])

    def on_batch(self, rng: np.random.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
        """As :meth:`gradient`, on one batch."""
        rows = self.rows[self._batches.draw(rng)]
        return lambda x: self._gradient(x, rows)

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient of the mean loss on all local samples, plus ``l2 x``."""
        total = torch.zeros(self.dim, dtype=torch.float64)
        for start in range(0, self.samples, _ROWS):
            rows = self.rows[start : start + _ROWS]
            total += self._gradient(x, rows, l2=0.0).double() * (len(rows) / self.samples)
        return total.add_(x, alpha=self.problem.l2).float()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the module's parameters."""
        return tuple(tuple(p.shape) for p in self.common.worker().parameters)

    def channels(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Grad-CAM of the first convolution on all local samples."""
        worker = self.common.worker()
        worker.write(x)
        places = channel_places(worker)
        total = torch.zeros(len(places), dtype=torch.float64)
        for start in range(0, self.samples, _ROWS):
            rows = torch.from_numpy(self.rows[start : start + _ROWS])
            with watching(first_convolution(worker.module)) as seen:
                outputs = worker.module(self.data.features[rows])
            # the loss is a mean over samples
            loss = self.problem.loss(outputs, self.data.targets[rows]) * len(rows)
            (slopes,) = torch.autograd.grad(loss, seen)
            total += slopes.double().mean(dim=(2, 3)).sum(dim=0)
        return total, places

    def relabelled(self, relabel: Relabel) -> LocalProblem:
        """The same samples with other classes; the test set stays."""
        targets = self.data.targets[self.rows].numpy()
        if targets.dtype != np.int64:
            raise ValueError("targets are numbers, no classes that could be changed")
        changed = relabel(targets, int(self.common.train.targets.max()) + 1)
        return self._with(Dataset(self.data.features[self.rows].numpy(), changed), "relabelled")

    def moved(self, change: Change) -> LocalProblem:
        """The same samples with other features; the test set stays."""
        features = self.data.features[self.rows].numpy()
        if features.dtype != np.float32:
            raise ValueError("features are tokens, no numbers that could be moved")
        targets = self.data.targets[self.rows].numpy()
        return self._with(Dataset(change(features), targets), "moved")

    def _with(self, data: Dataset, name: str) -> LocalProblem:
        """This share on other samples, as many."""
        other = copy.copy(self)
        other.data = Tensors(data, name)
        other.rows = np.arange(self.samples)
        other._batches = Batches(self.samples, self.problem.batch_size, self.problem.sampling)
        return other

    def _gradient(self, x: torch.Tensor, rows: np.ndarray, l2: float | None = None) -> torch.Tensor:
        batch = torch.from_numpy(rows)
        worker = self.common.worker()
        worker.write(x)
        # Indexing copies, so the batch lies in memory of torch's own alignment in every process.
        outputs = worker.module(self.data.features[batch])
        gradient = worker.gradient(self.problem.loss(outputs, self.data.targets[batch]))
        return gradient.add_(x, alpha=self.problem.l2 if l2 is None else l2)

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """Mean ``loss`` (without the regulariser) and ``accuracy`` on the test set.

        Where the partition shifts features, the test samples are seen through the nodes' shifts in
        turn, so that the test set stands for all nodes.
        """
        worker = self.common.worker()
        worker.write(x)
        test = self.common.test
        loss, hits = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(test.targets), _ROWS):
                targets = test.targets[start : start + _ROWS]
                outputs = worker.module(test.features[start : start + _ROWS])
                loss += float(self.problem.loss(outputs, targets)) * len(targets)
                if not targets.is_floating_point():
                    hits += int((self.problem.predict(outputs) == targets).sum())
        measured = {"loss": loss / len(test.targets)}
        if not test.targets.is_floating_point():
            measured["accuracy"] = hits / test.targets.numel()
        return measured


class Tensors:
    """A data set as tensors, and as a :class:`Dataset` that looks at the same memory."""

    def __init__(self, data: Dataset, what: str) -> None:
        """ValueError where shapes or dtypes are not as :class:`Dataset` says."""
        for name, array in (("features", data.features), ("targets", data.targets)):
            if array.dtype not in (np.float32, np.int64):
                raise ValueError(f"{what} {name} must be float32 or int64, not {array.dtype}")
        if len(data) == 0 or len(data) != len(data.targets):
            raise ValueError(f"{what}: {len(data)} features, {len(data.targets)} targets")
        # Cloned, for torch aligns its memory in the same way in every process and numpy does not.
        self.features = torch.from_numpy(np.ascontiguousarray(data.features)).clone()
        self.targets = torch.from_numpy(np.ascontiguousarray(data.targets)).clone()
        self.dataset = Dataset(self.features.numpy(), self.targets.numpy(), data.groups)


class Common:
    """What the nodes of one run share in one process: data, split, starting point, modules."""

    def __init__(self, key: _Key, nodes: int, seed: int) -> None:
        self.problem = key.problem
        self.nodes = nodes
        self.seed = seed
        self.train, self.test = _load(key)
        partition = self.problem.partition
        self.shares = partition.split(self.train.dataset, nodes, generator(seed, "partition"))
        _check_shares(self.shares, nodes, len(self.train.dataset), partition)
        self.shifted = type(partition).transform is not Partition.transform
        if self.shifted:
            self.test = self._shift_test()
        self._threads = threading.local()
        self.initial = self.worker().read()

    def share(self, node: int) -> tuple[Tensors, np.ndarray]:
        """The tensors that hold a node's samples, and which rows of them are its own."""
        rows = self.shares[node]
        if not self.shifted:
            return self.train, rows
        seen = self.problem.partition.transform(self.train.dataset.take(rows), node, self.nodes)
        return Tensors(seen, "shifted"), np.arange(len(rows))

    def worker(self) -> FlatModule:
        """This thread's module. One a thread and not one a node: there may be 1,000 nodes."""
        if not hasattr(self._threads, "worker"):
            self._threads.worker = FlatModule(build_module(self.problem.module, self.seed))
        worker: FlatModule = self._threads.worker
        return worker

    def _shift_test(self) -> Tensors:
        pieces = []
        for node in range(min(self.nodes, len(self.test.dataset))):
            rows = np.arange(node, len(self.test.dataset), self.nodes)
            seen = self.test.dataset.take(rows)
            pieces.append(self.problem.partition.transform(seen, node, self.nodes))
        features = np.concatenate([piece.features for piece in pieces])
        targets = np.concatenate([piece.targets for piece in pieces])
        return Tensors(Dataset(features, targets), "test")


@dataclass(frozen=True)
class _Key:
    """Identifies a problem by its parameters' text, since a user's parameters may be lists."""

    type: type[SupervisedProblem]
    text: str
    problem: SupervisedProblem = field(compare=False)

    @classmethod
    def of(cls, problem: SupervisedProblem) -> _Key:
        return cls(type(problem), repr(problem.config()), problem)


def share_out(problem: SupervisedProblem, nodes: int, seed: int) -> Common:
    """What the ``nodes`` nodes share; made once per process."""
    return _share_out(_Key.of(problem), nodes, seed)


@functools.lru_cache(maxsize=4)
def _share_out(key: _Key, nodes: int, seed: int) -> Common:
    return Common(key, nodes, seed)


@functools.lru_cache(maxsize=4)
def _load(key: _Key) -> tuple[Tensors, Tensors]:
    train, test = key.problem.data()
    return Tensors(train, "training"), Tensors(test, "test")


def _check_shares(
    shares: Sequence[np.ndarray], nodes: int, samples: int, partition: Partition
) -> None:
    empty = [node for node, share in enumerate(shares) if len(share) == 0]
    if empty or len(shares) != nodes:
        node = empty[0] if empty else len(shares)
        raise ValueError(
            f"partition '{partition.kind}' of {samples} samples over {nodes} nodes "
            f"leaves node {node} none"
        )
    dealt = np.sort(np.concatenate(shares))
    if partition.disjoint and not np.array_equal(dealt, np.arange(samples)):
        raise ValueError(
            f"partition '{partition.kind}' does not deal out every sample exactly once"
        )
