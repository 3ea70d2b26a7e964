"""What an experiment may break: faults of links and of nodes, each applied and healed by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from typing import Protocol as Interface

from tidings.api.message import Message
from tidings.links.layers import Layer
from tidings.links.shape import Dice
from tidings.registry import Plugin, Registry
from tidings.wire.damage import flipped
from tidings.wire.frame import Frame

#: takes a fault away again; what it returns goes into the records
Heal = Callable[[], Mapping[str, Any]]

#: what a launcher may be able to do to nodes, or for them
Needed = Literal["kill", "pause", "restart", "outlive"]

Scope = Literal["link", "node", "run"]


@dataclass(frozen=True)
class Mail:
    """A message on its way to a link."""

    target: int
    #: None for the handshakes of exchanges
    kind: type[Message] | None
    round: int
    frame: Frame


@dataclass(frozen=True)
class Copy:
    """What is handed to the link in a message's place."""

    frame: Frame
    delay_s: float = 0.0
    #: whether it comes on top of what the node has sent
    extra: bool = False


class Striker(Interface):
    """A fault of the messages of one directed link, while it is there. Draws by ``dice`` only."""

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """What leaves in place of the link's message ``number`` since the fault began.

        None: it is left alone; an empty sequence: it is lost. ``dice.uniform(k)`` are draws in
        (0, 1), of which message ``number`` owns those from ``8 * number`` to ``8 * number + 7``.
        """
        ...


class Site(Interface):
    """A node as a fault finds it. Every method returns what takes its change away again."""

    def lay(self, targets: Sequence[int], layer: Layer) -> Heal:
        """Put a layer over the links to ``targets``."""
        ...

    def strike(self, targets: Sequence[int], fresh: Callable[[], Striker]) -> Heal:
        """Let a fresh striker at each of the links to ``targets`` have all that is sent there."""
        ...

    def cut(self, targets: Sequence[int], reject: bool) -> Heal:
        """Cut the links to ``targets``: what is sent there is lost, or refused to the sender."""
        ...

    def reset(self, targets: Sequence[int]) -> Heal:
        """Break the connections to ``targets``, once."""
        ...

    def slow(self, factor: float) -> Heal:
        """Let all computing take that many times as long."""
        ...

    def skew(self, offset_s: float, drift: float) -> Heal:
        """Let the node's own clock be wrong: ``offset_s`` ahead, gaining ``drift`` s per second."""
        ...

    def attack(self, config: Mapping[str, Any], attackers: Sequence[int]) -> Heal:
        """Let the node be Byzantine, with ``attackers`` as its accomplices."""
        ...

    def disturb(self, kind: str, strength: float) -> Heal:
        """Disturb the node's training data."""
        ...

    def stress(self, workers: int, memory_bytes: int) -> Heal:
        """Have processes beside the node use the machine's processors and memory."""
        ...

    def fail_store(self, reason: str) -> Heal:
        """Let writing checkpoints fail."""
        ...

    def leave(self) -> Heal:
        """Take no part any more; healed, take part again."""
        ...

    def rewire(self) -> Heal:
        """Take the node's place in the graph that its plan has for this event."""
        ...

    def later(self, delay_s: float, what: Callable[[], None]) -> Callable[[], None]:
        """Call ``what`` after so many emulated seconds; returns what calls that off."""
        ...


class Fault(Plugin):
    """Something that is broken on purpose, for a while.

    A subclass is a frozen dataclass of its parameters. Its targets, moment and duration are the
    experiment's (``on``, ``at``, ``for``).
    """

    registry: ClassVar[Registry[Fault]]
    #: what its targets are: directed links, nodes, or the run as a whole
    scope: ClassVar[Scope] = "node"
    #: what ``on`` names
    picks: ClassVar[Literal["links", "nodes", "nothing"]] = "nodes"
    #: what a launcher must be able to do to a node from outside; None: the node does it to itself
    needs: ClassVar[Needed | None] = None
    #: whether there is anything to heal
    lasting: ClassVar[bool] = True

    @classmethod
    def family_schema(cls) -> dict[str, Any]:
        """A name: an event writes a fault's parameters beside it."""
        names = sorted(cls.registry)
        return {"anyOf": [{"enum": names}, {"type": "string", "pattern": r"\.py:\w+$"}]}

    @abstractmethod
    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Apply it at a node.

        ``targets``: where links are hit, the nodes that this node's hit links lead to; where nodes
        are hit, all nodes that the event hits. NotImplementedError where it cannot be done here.
        """


faults: Registry[Fault] = Registry("faults", "tidings.faults")
Fault.registry = faults


class OutsideFault(Fault):
    """A fault that the coordinator and the launcher bring about; the node has no part in it."""

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Never called."""
        raise NotImplementedError(f"{self.kind} is brought about from outside")


class ReshapingFault(Fault):
    """A fault that gives links another rate and other delays."""

    scope = "link"
    picks = "links"

    @abstractmethod
    def layers(self) -> Sequence[Layer]:
        """What it may lay over a link, one at a time."""


class StrikingFault(Fault):
    """A fault of single messages; what must remember them makes a ``fresh`` striker for a link."""

    scope = "link"
    picks = "links"

    def fresh(self) -> Striker:
        """What strikes the messages of one link."""
        return self  # type: ignore[return-value]

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Strikes each message, on each link by draws of its own."""
        return site.strike(targets, self.fresh)


def nothing() -> Mapping[str, Any]:
    """What heals a fault that leaves nothing behind."""
    return {}


#: draws of a message beyond its first, see :class:`Striker`
_MORE_DRAWS = 7


def some_bits(bits: int) -> None:
    """ValueError for more bits than a message has draws for, or none."""
    if not 1 <= bits <= _MORE_DRAWS:
        raise ValueError(f"bits must be from 1 to {_MORE_DRAWS}, got {bits}")


def with_flipped(mail: Mail, dice: Dice, number: int, bits: int) -> Sequence[Copy]:
    """The message with some bits flipped, by its draws beyond the first."""
    return [Copy(flipped(mail.frame, [dice.uniform(8 * number + 1 + k) for k in range(bits)]))]


def probability(p: float) -> None:
    """ValueError for what is no probability, or never does anything."""
    if not 0 < p <= 1:
        raise ValueError(f"p must be above 0 and at most 1, got {p:g}")
