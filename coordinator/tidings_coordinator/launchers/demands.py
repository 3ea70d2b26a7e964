"""What an experiment asks of its launcher, key by key, and the refusal of what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidings.errors import ConfigError
from tidings.faults.base import Fault, ReshapingFault
from tidings.faults.byzantine import ByzantineFault
from tidings.faults.node_crash import NodeCrash
from tidings_coordinator.launchers.base import Launcher, launchers
from tidings_coordinator.launchers.capabilities import (
    ABILITIES,
    FAULTS,
    RESHAPED_BY_KERNEL,
    Ability,
    Capabilities,
    Feature,
)

if TYPE_CHECKING:
    from tidings_coordinator.experiment.model import Experiment


@dataclass(frozen=True)
class Demand:
    """A key of the file that not every launcher can satisfy."""

    path: tuple[str | int, ...]
    what: Ability | Feature
    #: what to write instead, to stay with the launcher
    instead: str

    @property
    def ability(self) -> Ability | None:
        """What the launcher must be able to do to nodes, or for them."""
        return self.what.needs if isinstance(self.what, Feature) else self.what

    @property
    def words(self) -> str:
        """What is asked of the launcher."""
        if isinstance(self.what, Feature):
            words = f"bring about '{self.what.key}'"
            return words if self.what.needs is None else ABILITIES[self.what.needs]
        return ABILITIES[self.what]

    def met(self, launcher: str, can: Capabilities) -> bool:
        """Whether a launcher that can do so much can do this, as far as any test shows."""
        if isinstance(self.what, Feature):
            return self.what.shown(launcher, can) is not None
        return self.what in can.abilities


def demands(experiment: Experiment) -> Iterator[Demand]:
    """All of them, in the order of the file."""
    if experiment.network.enforce == "kernel":
        yield Demand(("network", "enforce"), "kernel_links", "user")
    byzantine = experiment.byzantine
    if byzantine is not None and byzantine.attack.knowledge == "omniscient":
        yield Demand(("byzantine", "attack"), "omniscience", "knowledge: neighbors")
    if experiment.security.tls == "always" and not experiment.launcher.virtual:
        yield Demand(("security", "tls"), "tls", "auto")
    for index, event in enumerate(experiment.faults):
        for what in _needs(event.fault):
            yield Demand(("faults", index, "fault"), what, "a fault that nodes can do themselves")
        if isinstance(event.fault, ReshapingFault) and experiment.network.enforce == "kernel":
            yield Demand(("faults", index, "fault"), RESHAPED_BY_KERNEL, "network.enforce: user")


def _needs(fault: Fault) -> Iterator[Ability | Feature]:
    """What it takes to bring a fault about."""
    if fault.kind in FAULTS:
        yield FAULTS[fault.kind]
    elif fault.needs is not None:
        # somebody's own, of which no test is known here
        yield fault.needs
    if isinstance(fault, NodeCrash) and fault.restart_after is not None:
        yield "restart"
    if isinstance(fault, ByzantineFault) and fault.conduct.knowledge == "omniscient":
        yield "omniscience"


def check(experiment: Experiment) -> None:
    """ConfigError, with the key and the nearest choice, for what the launcher cannot do."""
    launcher = experiment.launcher
    for demand in demands(experiment):
        met = demand.met(launcher.kind, launcher.as_set)
        reason = launcher.lacks(demand.ability) if met and demand.ability is not None else ""
        if not met or reason:
            raise ConfigError(_refusal(launcher, demand, reason), demand.path)


def _refusal(launcher: Launcher, demand: Demand, reason: str) -> str:
    able = [name for name in launchers if demand.met(name, launchers.get(name).can)]
    text = f"the launcher '{launcher.kind}' cannot {demand.words}"
    text += f": {reason}" if reason else ""
    others = f"launchers that can: {', '.join(able)}" if able else "no launcher can"
    return f"{text}; write {demand.instead}, or choose another launcher ({others})"
