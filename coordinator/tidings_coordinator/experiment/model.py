"""The experiment file as data: what is learned, by which protocol, over which network."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    Strict,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tidings.api import Attack, Problem, Protocol
from tidings.errors import ConfigError, UserError, nearest
from tidings.units import Duration, Ratio
from tidings_coordinator.checks.base import Check
from tidings_coordinator.experiment import expectations
from tidings_coordinator.experiment.locator import Locator
from tidings_coordinator.experiment.network import (
    LinkOverride,
    Network,
    Nic,
    NicOverride,
    Tolerance,
)
from tidings_coordinator.experiment.section import (
    Count,
    Every,
    Flag,
    Number,
    PositiveDuration,
    PositiveSize,
    Section,
    refuse,
)
from tidings_coordinator.experiment.security import Security
from tidings_coordinator.experiment.selectors import Nodes, Resolver
from tidings_coordinator.faults.events import FaultEvent
from tidings_coordinator.launchers.base import Launcher
from tidings_coordinator.launchers.local import Local
from tidings_coordinator.topology.base import Topology
from tidings_coordinator.topology.ring import Ring

__all__ = [
    "Byzantine",
    "Checkpoint",
    "Compute",
    "Evaluate",
    "Experiment",
    "LinkOverride",
    "Metrics",
    "Monitor",
    "Network",
    "Nic",
    "NicOverride",
    "Records",
    "Security",
    "Slow",
    "Stop",
    "Target",
    "Tolerance",
    "Wait",
]


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError(
            f"'{text}' is no name for a run; use letters, digits, '.', '_' and '-', at most 100"
        )
    return text


def _native_or_duration(value: object) -> object:
    if value == "native":
        return value
    try:
        return Duration.parse(value)
    except ValueError as error:
        raise ValueError(f"{error}; or 'native'") from error


def _local_by_default(value: object) -> object:
    """``launcher: {port: 5000}`` is about the default launcher."""
    return {"kind": Local.kind} | value if isinstance(value, dict) else value


def _policy(value: object) -> object:
    if value in ("all", "live") or (type(value) is int and value >= 1):
        return value
    hint = f"; {nearest(value, ['all', 'live'])}" if isinstance(value, str) else ""
    raise ValueError(f"write 'all', 'live' or a number from 1 on, not {value!r}{hint}")


#: silence of that many heartbeats is suspicious, where nothing is said
_BEATS_MISSED = 5
#: weights are dense matrices: beyond this, planning takes gigabytes and hours
MAX_NODES = 10_000


class Byzantine(Section):
    """Nodes that attack: what they send is not what the protocol would send."""

    on: Nodes
    """The attackers; at least one node must stay honest."""
    attack: Attack
    """What they do to their outgoing messages."""


class Slow(Section):
    """Nodes whose computing takes longer."""

    on: Nodes
    """The slow nodes."""
    factor: Annotated[Number, Field(ge=1)]
    """How many times longer; factors multiply where a node is named more than once."""


class Compute(Section):
    """How long a gradient takes in emulated time."""

    time: Annotated[Literal["native"] | Duration, BeforeValidator(_native_or_duration)] = "native"
    """A time, or 'native': as long as it really takes."""
    simulated: Duration = Duration(0.002)
    """What a gradient costs in virtual time where `time` is native."""
    spread: Annotated[Number, Field(ge=0)] = 0.0
    """Standard deviation of the logarithm of a random factor (lognormal); 0 for none."""
    slow: tuple[Slow, ...] = ()
    """Nodes that are slower than the others."""


class Wait(Section):
    """What a node does about messages that do not come."""

    for_: Annotated[
        Literal["all", "live"] | StrictInt, BeforeValidator(_policy), Field(alias="for")
    ] = "all"
    """All that are expected, those that are live, or any that many (a quorum)."""
    timeout: PositiveDuration = Duration(30)
    """The longest that a node waits before it goes on without."""
    heartbeat: PositiveDuration | None = None
    """After so long without a message a link carries a sign of life; left out: none."""
    suspect_after: PositiveDuration | None = None
    """Who was not heard for so long is suspected; left out: five times `heartbeat`."""

    @property
    def silence_s(self) -> float | None:
        """Emulated seconds of silence after which a neighbour is suspected; None without."""
        if self.heartbeat is None:
            return None
        return float(self.suspect_after or _BEATS_MISSED * self.heartbeat)

    @model_validator(mode="after")
    def _heard_in_time(self) -> Wait:
        if self.suspect_after is not None and self.heartbeat is None:
            raise ValueError("suspect_after needs heartbeat: without, the living are silent too")
        if self.heartbeat is not None and (self.silence_s or 0) < 2 * self.heartbeat:
            raise ValueError("suspect_after must be at least twice heartbeat")
        return self


class Stop(Section, json_schema_extra={"minProperties": 1}):
    """When the run ends: at the first condition that is met; at least one is needed."""

    rounds: Count | None = None
    """After that many rounds, or local steps of every node."""
    time: PositiveDuration | None = None
    """After that much emulated time."""
    bytes: PositiveSize | None = None
    """After that much was sent, over all nodes."""
    accuracy: Ratio | None = None
    """When the honest nodes' mean accuracy has reached this."""

    @model_validator(mode="after")
    def _some(self) -> Stop:
        if all(value is None for _, value in self):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self


class Evaluate(Section):
    """How often the models are evaluated."""

    every: Every = 10
    """A number of rounds (or local steps), or a time."""


class Target(Section, json_schema_extra={"minProperties": 1}):
    """The goal whose cost is reported; exactly one of the two. Reaching it does not end the run."""

    accuracy: Ratio | None = None
    """Mean accuracy of the honest nodes, at least this."""
    loss: Number | None = None
    """Mean loss of the honest nodes, at most this."""

    @model_validator(mode="after")
    def _one(self) -> Target:
        if (self.accuracy is None) == (self.loss is None):
            raise ValueError("give exactly one of accuracy, loss")
        return self


class Metrics(Section):
    """Prometheus metrics of the nodes."""

    serve: Flag = True
    """Whether every node serves its metrics."""
    host: str | None = None
    """The address that they are served on; 0.0.0.0 for all of a node's. They are not protected. By
    default loopback's, or a node's own in a network that the launcher makes for the run."""
    linger: Duration = Duration(0)
    """How long nodes and coordinator stay after the run for a last scrape, in real time."""


class Monitor(Section):
    """The coordinator's web server: live page, its own metrics, service discovery."""

    serve: Flag = True
    """Whether there is one."""
    host: str = "127.0.0.1"
    """The address that it listens on; anyone who reaches it can watch the run."""
    port: Annotated[int, Strict(), Field(ge=0, le=65535)] = 0
    """Its port; 0 for any free one."""
    page: Flag = True
    """Whether it serves the live page."""


class Checkpoint(Section):
    """What nodes write down to go on from, after a crash or when a run is resumed."""

    every: Every | None = None
    """A number of rounds (or local steps), or a time; left out: no checkpoints. By time only for
    protocols whose nodes do not go through rounds together."""
    keep: Count = 4
    """How many of the last ones stay. Nodes are apart in rounds; a run goes on from the last round
    of which every node still has one."""


class Records(Section):
    """What is written down beyond the usual."""

    trace: Flag = False
    """Whether every message that arrives is written to the event log."""
    order: Flag = False
    """Whether it is written to the event log in which order each node went on, so that
    `tidings replay` can do it all again. Its clock then stands still while its code runs."""
    timeline: Flag = True
    """Whether it is written down when each node computed, was held up in sending, or waited."""


class Experiment(Section):
    """One experiment, read from a file."""

    name: Annotated[str, AfterValidator(_name)]
    """What the run is called; the file's name without its suffix if left out."""
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    """Where all randomness starts: data, models, batches, graphs, losses."""
    nodes: Annotated[StrictInt, Field(ge=2, le=MAX_NODES)]
    """The number of nodes; they are numbered from 0."""
    topology: Topology = Ring()
    """Who sends to whom, and the weights of averaging."""
    network: Network = Network()
    """What the links between the nodes are like."""
    problem: Problem
    """What is learned: model, data and how the data is split."""
    protocol: Protocol
    """The distributed algorithm."""
    byzantine: Byzantine | None = None
    """Attackers among the nodes."""
    faults: tuple[FaultEvent, ...] = ()
    """What is to break, where, when and for how long."""
    compute: Compute = Compute()
    """How long computing takes."""
    wait: Wait = Wait()
    """What nodes do about missing messages."""
    stop: Stop
    """When the run ends."""
    evaluate: Evaluate = Evaluate()
    """How often the models are evaluated."""
    target: Target | None = None
    """The goal whose cost is reported."""
    expect: tuple[Check, ...] = ()
    """What the run is expected to have done; judged from its records when it is over."""
    launcher: Annotated[Launcher, BeforeValidator(_local_by_default)] = Local()
    """Where the nodes run."""
    metrics: Metrics = Metrics()
    """Prometheus metrics of the nodes."""
    monitor: Monitor = Monitor()
    """The coordinator's web server: live page, its own metrics, service discovery."""
    security: Security = Security()
    """Who may take part, and who may read along."""
    checkpoint: Checkpoint = Checkpoint()
    """What nodes write down to go on from."""
    records: Records = Records()
    """What is written down beyond the usual."""

    #: where its keys are written, for mistakes that are found later
    _locator: Locator = PrivateAttr(default=Locator())

    def written_at(self, locator: Locator) -> Experiment:
        """The same experiment, its mistakes to be found there."""
        self._locator = locator
        return self

    def mistake(self, error: ConfigError) -> UserError:
        """An error in this experiment, with file, line and key."""
        return self._locator.locate(error)

    @field_validator("network")
    @classmethod
    def _resolve_network(cls, network: Network, info: ValidationInfo) -> Network:
        return network.resolved(info.data["nodes"]) if "nodes" in info.data else network

    @field_validator("byzantine")
    @classmethod
    def _resolve_byzantine(
        cls, byzantine: Byzantine | None, info: ValidationInfo
    ) -> Byzantine | None:
        resolver = _resolver(info)
        if byzantine is None or resolver is None:
            return byzantine
        on = resolver.nodes(byzantine.on, "on")
        resolver.finish()
        if len(on) == info.data["nodes"]:
            refuse([ConfigError("every node is an attacker; at least one must be honest", ("on",))])
        return byzantine.model_copy(update={"on": on})

    @field_validator("compute")
    @classmethod
    def _resolve_compute(cls, compute: Compute, info: ValidationInfo) -> Compute:
        resolver = _resolver(info)
        if resolver is None:
            return compute
        slow = tuple(
            item.model_copy(update={"on": resolver.nodes(item.on, "slow", index, "on")})
            for index, item in enumerate(compute.slow)
        )
        resolver.finish()
        return compute.model_copy(update={"slow": slow})

    @field_validator("expect")
    @classmethod
    def _resolve_expect(cls, expect: tuple[Check, ...], info: ValidationInfo) -> tuple[Check, ...]:
        resolver = _resolver(info)
        if resolver is None or "faults" not in info.data:
            return expect
        events = [event.id for event in info.data["faults"]]
        return expectations.resolved(expect, resolver, events)

    @field_validator("wait")
    @classmethod
    def _check_quorum(cls, wait: Wait, info: ValidationInfo) -> Wait:
        most = info.data.get("nodes", 0) - 1
        if "nodes" in info.data and isinstance(wait.for_, int) and wait.for_ > most:
            message = f"a node has at most {most} others to wait for, got {wait.for_}"
            refuse([ConfigError(message, ("for",))])
        return wait


def _resolver(info: ValidationInfo) -> Resolver | None:
    """For nodes named outside of the network; None where network or nodes were refused."""
    data: dict[str, Any] = info.data
    if "nodes" not in data or "network" not in data:
        return None
    return Resolver(data["network"].groups, data["nodes"])
