"""What a protocol author writes: one coroutine per node, or a thin base class over it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Literal

import torch

from tidings.api.graph import GraphFacts
from tidings.api.message import Inbox, Message, Weights
from tidings.api.node import Node, Outgoing
from tidings.api.problems import LocalProblem
from tidings.registry import Plugin, Registry


class Protocol(Plugin):
    """A distributed algorithm: what each node does, from start to end.

    A subclass is a frozen dataclass of hyper-parameters. It keeps no state of its own: one instance
    may serve many nodes in the simulator, so state lives in :meth:`run`.
    """

    registry: ClassVar[Registry[Protocol]]
    #: the message types that it sends, in a fixed order: their positions are their ids on the wire
    messages: ClassVar[tuple[type[Message], ...]] = (Weights,)
    #: what two nodes swap in an exchange, the first of ``messages`` where this is None
    exchanged: ClassVar[type[Message] | None] = None
    #: what a node shows when it asks for an exchange, None for nothing
    asks_with: ClassVar[type[Message] | None] = None
    #: who must have finished for the run to be over; the others are then given the wait time-out
    ends_with: ClassVar[Literal["all", "server"]] = "all"
    #: whether all nodes go through the same rounds together, so that a run is reproducible bit for
    #: bit over real networks too
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """ValueError for parameters that make no sense; override, and call this one too."""
        lr = getattr(self, "lr", 0.0)
        if lr < 0:
            raise ValueError(f"lr must not be negative, got {lr:g}")

    #: what two nodes give each other when one of them comes back, one of ``messages``
    resyncs: ClassVar[type[Message] | None] = None

    @abstractmethod
    async def run(self, node: Node) -> None:
        """Take part in the run as ``node``."""

    def resync_with(self, state: Any, peer: int, node: Node) -> Message | None:
        """What ``peer`` needs at the start of the round in which one of the two is back.

        ``state`` is this node's at the start of that round, or the one that it comes back with.
        None where it needs nothing.
        """
        return None

    def resync(self, state: Any, peer: int, message: Any, node: Node) -> Any:
        """The state after what ``peer`` has given at the start of that round, in both ends."""
        return state

    #: what it needs of the mixing matrices: rows that sum to 1, columns that do, or both
    stochastic: ClassVar[Literal["row", "column", "doubly"]] = "row"

    #: whether it needs one graph for the whole run
    static_graph: ClassVar[bool] = False
    #: whether it needs every link in both directions
    two_way_links: ClassVar[bool] = False

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """ValueError where the protocol cannot run on a graph with these in-degrees.

        Called before anything is started; override to ask for more.
        """

    def check_problem(self, problem: LocalProblem) -> None:
        """ValueError where the protocol cannot work on this problem.

        Called with node 0's share before anything is started.
        """

    def traffic(self, graph: GraphFacts) -> Mapping[type[Message], float]:
        """Messages of each type that all nodes together send per round, for predictions.

        A round of an asynchronous protocol is one local step of every node.
        """
        return {self.messages[0]: graph.arcs}


protocols: Registry[Protocol] = Registry("protocols", "tidings.protocols")
Protocol.registry = protocols


class Rounds(Protocol):
    """A synchronous protocol as two pure functions: what is sent, and what is done with the inbox.

    Every round: gradient at the model, ``send``, gather one message of every in-neighbour,
    ``receive``. The state is whatever ``start`` returns: a vector, or anything of which ``model``
    gives the vector.
    """

    synchronous: ClassVar[bool] = True

    def start(self, x: torch.Tensor, node: Node) -> Any:
        """The state before round 0; ``x`` is the common starting point."""
        return x

    @abstractmethod
    def send(self, state: Any, gradient: torch.Tensor, node: Node) -> tuple[Any, Outgoing]:
        """The new state, and the message for each neighbour."""

    @abstractmethod
    def receive(self, state: Any, inbox: Inbox[Any], node: Node) -> Any:
        """The state after the neighbours' messages of this round."""

    def model(self, state: Any) -> torch.Tensor:
        """The model in the state: the state itself, or its ``x``."""
        return state if isinstance(state, torch.Tensor) else state.x

    def metrics(self, state: Any) -> dict[str, float]:
        """Further numbers for the series after a round."""
        return {}

    async def run(self, node: Node) -> None:
        """The round loop."""
        kept = node.restore()
        state = self.start(node.initial(), node) if kept is None else kept["state"]
        node.model = self.model(state)
        state = await node.rejoin(state, self)
        for _ in node.rounds():
            state = await node.welcome(state, self)
            gradient = await node.gradient(self.model(state))
            state, outgoing = self.send(state, gradient, node)
            await node.send_all(outgoing)
            state = self.receive(state, await node.gather(self.messages[0]), node)
            node.model = self.model(state)
            await node.report(**self.metrics(state))
            await node.keep(state=state)


Handler = Callable[[Any, Node, Any, int, Any], Awaitable[None]]


def on(message: type[Message]) -> Callable[[Handler], Handler]:
    """Marks a method ``async def f(self, node, state, source, message)`` as a message's handler."""

    def mark(handler: Handler) -> Handler:
        handler.handles = message  # type: ignore[attr-defined]
        return handler

    return mark


class Reactive(Protocol):
    """A protocol of typed handlers beside one active part.

    ``start`` makes the node's state, methods marked ``@on(SomeMessage)`` answer arrivals one after
    the other, ``drive`` is what the node does of its own accord; the node is finished when
    ``drive`` returns (by default: when the run is ended).
    """

    handlers: ClassVar[dict[type[Message], Handler]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = {m.handles: m for m in vars(cls).values() if hasattr(m, "handles")}
        cls.handlers = {**cls.handlers, **own}

    async def start(self, node: Node) -> Any:
        """The node's state, made before any message is handled."""

    async def drive(self, node: Node, state: Any) -> None:
        """The node's own activity."""
        await node.ended()

    async def run(self, node: Node) -> None:
        """Start, then drive while arrivals are handed to their handlers."""
        state = await self.start(node)
        async with node.tasks() as tasks:
            tasks.start(self._serve(node, state))
            await self.drive(node, state)

    async def _serve(self, node: Node, state: Any) -> None:
        async for arrival in node.messages(Message):
            handle = self.handlers[type(arrival.message)]
            await handle(self, node, state, arrival.source, arrival.message)
