"""The network that is asked for: every link's shape and every node's card."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tidings.links.shape import JitterKind, LinkShape, NicShape
from tidings.units import Duration, Rate, Ratio, Size
from tidings_coordinator.experiment import selectors
from tidings_coordinator.experiment.section import Flag, Number, PositiveSize, Section
from tidings_coordinator.experiment.selectors import GroupName, Links, Nodes, Resolver

UNLIMITED = Rate(math.inf)


class Nic(Section):
    """A node's network card: all links of the node share each direction."""

    egress: Rate = UNLIMITED
    """What the node can send, over all its links together."""
    ingress: Rate = UNLIMITED
    """What the node can receive, over all its links together."""


class _Override(Section):
    """Changes what is asked of some; what is not given stays as it was."""

    def given(self) -> dict[str, Any]:
        """The values that this override sets."""
        return {name: value for name, value in self if name != "on" and value is not None}

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.given():
            names = [name for name in type(self).model_fields if name != "on"]
            raise ValueError(f"changes nothing: give at least one of {', '.join(names)}")
        return self

    @model_serializer(mode="wrap")
    def _without_gaps(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class NicOverride(_Override):
    """Another card for some nodes; of several that name a node, the later ones win."""

    on: Nodes
    """The nodes that have this card."""
    egress: Rate | None = None
    """What these nodes can send; as in `nic` if left out."""
    ingress: Rate | None = None
    """What these nodes can receive; as in `nic` if left out."""


class LinkOverride(_Override):
    """Another shape for some links; of several that select a link, the later ones win."""

    on: Links
    """The links: '0<->1' (both directions), '0->1', 'fast<->slow', or 'fast' (all inside)."""
    rate: Rate | None = None
    """The rate of these links, each direction."""
    delay: Duration | None = None
    """The one-way delay of these links."""
    jitter: Duration | None = None
    """The scale of the random part of these links' delay."""
    jitter_kind: JitterKind | None = None
    """How these links' jitter is distributed."""
    loss: Ratio | None = None
    """The fraction of messages that these links lose."""
    queue: PositiveSize | None = None
    """How much waits for each of these links before a send is held back."""


class Tolerance(Section):
    """How far the network may be from what was asked before the run is invalid."""

    rate: Ratio = Ratio(0.05)
    """Largest relative error of a link's rate."""
    delay: Duration = Duration(0.002)
    """Largest error of a link's delay."""


class Network(Section):
    """The network between the nodes. Every directed edge of the topology is a link."""

    rate: Rate = UNLIMITED
    """The rate of every link, each direction."""
    delay: Duration = Duration(0)
    """The one-way delay of every link."""
    jitter: Duration = Duration(0)
    """The random part of the delay: its half-width (uniform), standard deviation (normal) or mean
    (exponential, pareto)."""
    jitter_kind: JitterKind = "uniform"
    """How jitter is distributed."""
    loss: Ratio = Ratio(0)
    """The fraction of messages that every link loses."""
    queue: PositiveSize = Size(16 << 20)
    """How much waits for a link before a send is held back."""
    nic: Nic = Nic()
    """Every node's network card."""
    nics: tuple[NicOverride, ...] = ()
    """Nodes with another card."""
    groups: dict[GroupName, Nodes] = Field(default={})
    """Names for sets of nodes, for use wherever nodes or links are named."""
    links: tuple[LinkOverride, ...] = ()
    """Links that differ from the others."""
    enforce: Literal["user", "kernel"] = "user"
    """Who imposes rates and delays: 'user', the nodes themselves, or 'kernel', by tc in each node's
    own network namespace. Losses are always the nodes' own, of whole messages."""
    time_scale: Annotated[Number, Field(gt=0)] = 1.0
    """Real seconds per emulated second: above 1, many nodes on few cores still see this network."""
    probe: Flag = True
    """Whether links are measured before the run."""
    tolerance: Tolerance = Tolerance()
    """How far the measured network may be from this one."""

    def shape(self, source: int, target: int) -> LinkShape:
        """What is asked of the link from ``source`` to ``target``."""
        asked = {name: getattr(self, name) for name in LinkOverride.model_fields if name != "on"}
        for override in self.links:
            if selectors.selects(override.on, self.groups, source, target):
                asked |= override.given()
        return LinkShape(
            rate_bit_per_s=float(asked["rate"]),
            delay_ns=asked["delay"].ns,
            jitter_ns=asked["jitter"].ns,
            jitter_kind=asked["jitter_kind"],
            loss=float(asked["loss"]),
            queue_bytes=int(asked["queue"]),
        )

    def place(self, key: str, source: int, target: int) -> tuple[str | int, ...]:
        """Where, below ``network``, the file says ``key`` of the link ``source`` to ``target``."""
        for index, override in reversed(list(enumerate(self.links))):
            selected = selectors.selects(override.on, self.groups, source, target)
            if selected and key in override.given():
                return ("links", index, key)
        return (key,)

    def nic_of(self, node: int) -> NicShape:
        """What is asked of ``node``'s card."""
        asked = {"egress": self.nic.egress, "ingress": self.nic.ingress}
        for override in self.nics:
            if node in override.on:
                asked |= override.given()
        return NicShape(float(asked["egress"]), float(asked["ingress"]))

    def resolved(self, nodes: int) -> Network:
        """The same with nodes in place of ranges and groups, for nodes 0 .. ``nodes`` - 1.

        Raises ValidationError for nodes, groups and links that are not there.
        """
        written = Resolver(self.groups, nodes)
        groups = {name: written.nodes(on, "groups", name) for name, on in self.groups.items()}
        written.finish()
        resolver = Resolver(groups, nodes)
        nics = tuple(
            nic.model_copy(update={"on": resolver.nodes(nic.on, "nics", index, "on")})
            for index, nic in enumerate(self.nics)
        )
        for index, link in enumerate(self.links):
            resolver.check_links(link.on, "links", index, "on")
        resolver.finish()
        return self.model_copy(update={"groups": groups, "nics": nics})
