"""The node as a protocol sees it: its only door to time, randomness, computing and the network.

Everything a protocol does to the world goes through a :class:`Node`, which is why the same code
runs over every transport and in virtual time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Set
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, Literal, TypeVar
from typing import Protocol as Interface

import numpy as np
import torch

from tidings.api.graph import GraphFacts
from tidings.api.message import Delivery, Inbox, Message
from tidings.api.plugins import Aggregator
from tidings.api.problems import LocalProblem

M = TypeVar("M", bound=Message)
R = TypeVar("R")
S = TypeVar("S")

#: the gradient as a function of the point
GradientAt = Callable[[torch.Tensor], torch.Tensor]
#: what to send to whom
Outgoing = Mapping[int, Message]
#: whom a gather waits for: all it expects, those not suspected dead, or any that many
WaitFor = Literal["all", "live"] | int


class Outcome(Enum):
    """What is known of a send or an exchange when it returns."""

    #: it took effect at the other end
    DELIVERED = "delivered"
    #: definite: it did not and will not take effect
    REFUSED = "refused"
    #: indefinite: accepted by the link; it may or may not arrive
    UNKNOWN = "unknown"


class Clock(Interface):
    """A node's clock: emulated time since the start of the run."""

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the start."""
        ...

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        ...


class Tasks(Interface):
    """A group of tasks that lives no longer than the block that made it."""

    def start(self, task: Coroutine[Any, Any, R]) -> Awaitable[R]:
        """Run ``task`` beside the block; it is cancelled when the block ends."""
        ...


#: ``offer(peer, seen) -> value`` and ``commit(peer, mine, theirs)``, see Node.on_exchange
Offer = Callable[[int, Any], Message | None]
Ask = Callable[[], Message]
Commit = Callable[[int, Any, Any], None]


class Resync(Interface):
    """What a protocol says of nodes that come back, see tidings.api.Protocol."""

    def resync_with(self, state: Any, peer: int, node: Node) -> Message | None:
        """What the other end needs."""
        ...

    def resync(self, state: Any, peer: int, message: Any, node: Node) -> Any:
        """The state that agrees with the other end's."""
        ...


class Node(ABC):
    """One participant of a run.

    Awaitable methods wait on emulated time. After a crash every method raises NodeCrashed.
    """

    #: 0 .. n-1; also the order in which inboxes iterate
    id: int
    #: number of nodes in the run
    n: int
    #: "peer", or on a star "server" (node 0) and "client"
    role: str
    #: the round (synchronous) or local step (asynchronous) that :meth:`rounds` is in
    round: int
    #: The step within the round: messages are kept apart by round and step. Protocols that gather a
    #: type more than once a round count it up; :meth:`rounds` sets it to 0.
    step: int
    clock: Clock
    #: the longest wait for what may not come, in emulated seconds (the experiment's wait.timeout)
    wait_s: float
    graph: GraphFacts
    problem: LocalProblem
    #: The current model, (d,) float32: what is evaluated and what the run ends with. Protocols set
    #: it, or set it once and change it in place.
    model: torch.Tensor
    #: who sends in this round, where the protocol draws some of the nodes and this one knows them.
    #: Protocols set it; attackers look at it.
    cohort: tuple[int, ...] | None = None

    # -- the graph ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def out_neighbors(self) -> tuple[int, ...]:
        """Whom this node sends to in this round, in node order."""

    @property
    @abstractmethod
    def in_neighbors(self) -> tuple[int, ...]:
        """Whom this node hears in this round, in node order."""

    @property
    @abstractmethod
    def suspected(self) -> Set[int]:
        """The nodes with a link to this one that are thought to be dead now."""

    @property
    def live_neighbors(self) -> tuple[int, ...]:
        """The out-neighbours that are not suspected dead."""
        suspected = self.suspected
        return tuple(j for j in self.out_neighbors if j not in suspected)

    @property
    def neighbors(self) -> tuple[int, ...]:
        """The neighbours on an undirected graph (out-neighbours on a directed one)."""
        return self.out_neighbors

    @abstractmethod
    def weight(self, source: int) -> float:
        """Mixing weight W[self, source] of this round; ``weight(self.id)`` is the own share."""

    @abstractmethod
    def share(self, target: int) -> float:
        """Mixing weight W[target, self] of this round, for protocols that hand out shares."""

    @property
    @abstractmethod
    def all_neighbors(self) -> tuple[int, ...]:
        """Whom this node has a link to, in this or in another round, in node order."""

    @abstractmethod
    def weights_in(self, round_: int) -> Mapping[int, float]:
        """Whom this node hears in a round, by the graph that holds now, with the mixing weights.

        For protocols without common rounds, in which the graph changes with the time.
        """

    def mix(self, x: torch.Tensor, inbox: Inbox[Any], field: str = "x") -> torch.Tensor:
        """``sum_j W_ij x_j`` over self and the inbox, as a new tensor ((d,) float32).

        Written as x + sum_j W_ij (x_j - x), so the weight of a missing neighbour goes to self and
        row sums stay 1. Terms are added in node order: the result is the same on every transport.
        """
        mixed = x.clone()
        for source, message in inbox.items():
            mixed.add_(getattr(message, field) - x, alpha=self.weight(source))
        return mixed

    def aggregate(self, rule: Aggregator, rows: torch.Tensor, own: int = 0) -> torch.Tensor:
        """``rule`` on rows ((m, d) float32), of which ``own`` is this node's: a new (d,) tensor.

        What the rule draws comes from the stream "aggregation".
        """
        return rule(rows, own, rng=self.rng("aggregation"), problem=self.problem)

    def to_neighbors(self, message: Message) -> Outgoing:
        """The same message for every out-neighbour of this round."""
        return dict.fromkeys(self.out_neighbors, message)

    # -- learning ----------------------------------------------------------------------------

    @abstractmethod
    def initial(self) -> torch.Tensor:
        """The starting point, the same on every node: a new (d,) float32 tensor."""

    async def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """A stochastic gradient of the local objective at ``x`` on the next batch, (d,) float32.

        ``x`` is copied first, so it may be changed in place meanwhile.
        """
        point, batches = x.clone(), self.rng("batch")
        return await self.compute(lambda: self.problem.gradient(point, batches))

    async def gradients(self, *points: torch.Tensor) -> list[torch.Tensor]:
        """As :meth:`gradient` at several points, all on the same batch; each costs a gradient."""
        copies = [x.clone() for x in points]
        return await self.on_batch(lambda at: [at(x) for x in copies], gradients=len(copies))

    async def on_batch(self, work: Callable[[GradientAt], R], gradients: float) -> R:
        """Run ``work`` with the gradient on the next batch as a function, (d,) to (d,) float32.

        For methods whose second point depends on the first gradient; costs ``gradients`` of them.
        """
        batches = self.rng("batch")
        return await self.compute(lambda: work(self.problem.on_batch(batches)), gradients)

    async def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """The exact gradient of the local objective at ``x``, (d,) float32.

        Costs as many gradients as there are batches in the local samples. A protocol that uses it
        asks for it in ``check_problem``.
        """
        point = x.clone()
        return await self.compute(
            lambda: self.problem.full_gradient(point), gradients=self.problem.batches
        )

    async def minimizer(self, linear: torch.Tensor, ridge: float = 0.0) -> torch.Tensor:
        """The minimiser of ``f_i(x) + ridge/2 |x|^2 - <linear, x>``, (d,) float64 both.

        Counts as much as a full gradient. A protocol that uses it asks for it in
        ``check_problem``.
        """
        point = linear.clone()
        return await self.compute(
            lambda: self.problem.minimizer(point, ridge), gradients=self.problem.batches
        )

    @abstractmethod
    async def compute(self, work: Callable[[], R], gradients: float = 1.0) -> R:
        """Run ``work`` off the loop; in virtual time it costs what ``gradients`` gradients cost."""

    @abstractmethod
    def rng(self, purpose: str) -> np.random.Generator:
        """The random stream for one purpose, derived from (run seed, node, purpose)."""

    @abstractmethod
    def shared_rng(self, purpose: str) -> np.random.Generator:
        """As :meth:`rng`, but the same stream on every node, derived from (run seed, purpose).

        It begins anew with every call: what is drawn every round has the round in its purpose.
        """

    @abstractmethod
    def rounds(self) -> Iterator[int]:
        """0, 1, ... until the run's stop condition; sets :attr:`round`."""

    @abstractmethod
    async def report(self, **metrics: float) -> None:
        """Say that a round or step is finished. Evaluates :attr:`model` where that is due.

        ``metrics`` are further numbers for the series, for example a staleness.
        """

    @abstractmethod
    async def catch_up(self, round_: int) -> None:
        """Go to ``round_``, having had no part in the rounds since the last one reported.

        For nodes that are told which round it is, as the clients of a server are. Evaluations
        that fell due meanwhile are made up for: call it before anything is changed.
        """

    # -- messages ----------------------------------------------------------------------------

    @abstractmethod
    async def send(self, target: int, message: Message) -> Outcome:
        """Hand ``message`` to the link to ``target``: at most once, FIFO per directed link.

        Waits while the link's queue is full. REFUSED for a node that is not an out-neighbour,
        else UNKNOWN: accepted is not delivered.
        """

    async def send_all(self, outgoing: Outgoing) -> None:
        """Send each message to its target, in node order."""
        for target in sorted(outgoing):
            await self.send(target, outgoing[target])

    @abstractmethod
    async def gather(
        self,
        kind: type[M],
        *,
        of: tuple[int, ...] | None = None,
        wait_for: WaitFor | None = None,
        within_s: float | None = None,
    ) -> Inbox[M]:
        """The messages of this round and step from ``of`` (default: this round's in-neighbours).

        Returns when all of them (``"all"``), all live ones (``"live"``) or that many (a number)
        have come, or at the deadline; what did not come is in ``Inbox.missing``. Defaults are the
        experiment's ``wait``. A message for a round or step that was gathered already is late:
        counted and dropped.
        """

    @abstractmethod
    async def recv(self, kind: type[M], within_s: float | None = None) -> Delivery[M] | None:
        """The next message of a kind from anyone, in order of arrival; None at the deadline."""

    @abstractmethod
    def messages(self, kind: type[M]) -> AsyncIterator[Delivery[M]]:
        """All messages of a kind in order of arrival, until the run ends."""

    # -- surviving ---------------------------------------------------------------------------

    @abstractmethod
    def restore(self) -> dict[str, Any] | None:
        """What this node kept before it was started again; None where it is to begin anew.

        Called first of all. The model, random streams, waiting messages and the round have been
        put back then: :meth:`rounds` goes on behind the checkpoint.
        """

    @abstractmethod
    async def keep(self, **parts: Any) -> None:
        """Write a checkpoint, if one is due; to be called after :meth:`report`.

        ``parts`` are what :meth:`restore` is to return: tensors, numbers, text, random generators,
        and tuples, lists, dicts and dataclasses of these. Whatever is not in them, in the model or
        in :meth:`rng` is lost with the process.
        """

    @abstractmethod
    async def rejoin(self, state: S, protocol: Resync) -> S:
        """Take one's place among the neighbours again, before the first round; returns the state.

        For protocols that go through rounds together. Nothing happens where the node was never
        away. :meth:`rounds` then begins with the round after the latest that a neighbour is in.
        """

    @abstractmethod
    async def welcome(self, state: S, protocol: Resync) -> S:
        """Take back neighbours that take part again from this round on; returns the state.

        Called at the start of every round, by protocols that call :meth:`rejoin`.
        """

    # -- atomic pairwise exchange ------------------------------------------------------------

    @abstractmethod
    def on_exchange(self, offer: Offer, commit: Commit) -> None:
        """How this node takes part in exchanges, both those it starts and those it is asked for.

        ``offer(peer, seen)`` returns the value to give away; ``seen`` is what the peer has shown so
        far (its ``ask`` on the answering side, its offer on the starting side).
        It returns None to refuse what makes no sense, which is counted (``exchange_nonsense``).
        ``commit(peer, mine, theirs)`` applies the exchange. It is called once on both sides or on
        neither, without awaiting in between; offers and commits must not send.
        """

    @abstractmethod
    async def exchange(
        self, peer: int, ask: Ask | None = None, within_s: float | None = None
    ) -> Outcome:
        """Swap values with ``peer`` atomically: DELIVERED (both committed) or REFUSED (neither).

        A node is in one exchange at a time: this waits until the own one is free, a peer that is
        engaged refuses at once, and one that comes to be suspected dead is waited for no more: that
        is REFUSED too. ``ask()``, called when the node is free, makes what the peer is
        shown before it offers.
        """

    @abstractmethod
    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """A block during which no exchange is open: for changes that must not fall inside one."""

    # -- time and tasks ----------------------------------------------------------------------

    @abstractmethod
    async def sleep(self, duration_s: float) -> None:
        """Wait for that much emulated time."""

    @abstractmethod
    async def ended(self) -> None:
        """Wait until the run is ended from outside."""

    @abstractmethod
    def tasks(self) -> AbstractAsyncContextManager[Tasks]:
        """A block that owns tasks: they die with the block, and the block with the node."""

    @abstractmethod
    def log(self, event: str, **fields: object) -> None:
        """Write an event into the run's event log."""
